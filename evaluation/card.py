"""The tables of the model card beside what EleutherAI's lm-eval measures on the weights that the server would use.

card.csv has the card's values with their standard errors, and the name that each task has in lm-eval 0.4.13. The
difference of two values is counted in standard errors: (ours - theirs) / sqrt(their stderr^2 + our stderr^2).
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from evaluation.asking import key_of
from hermes.engine import require_devices
from hermes.engine.engine import ENVIRONMENT
from hermes.engine.installation import installed_build
from hermes.settings import Settings
from hermes.weights import resolve

CARD = Path(__file__).with_name("card.csv")
OFF = 3.0  # standard errors


@dataclass(frozen=True)
class Told:
    """One value of the card."""

    suite: str
    task: str
    metric: str
    value: float
    stderr: float
    harness_task: str  # "" if the harness has no such task now
    harness_metric: str
    changed: str  # what the harness has changed since; "" if nothing is known


@dataclass(frozen=True)
class Compared:
    """A value of the card beside ours; None where nothing was measured."""

    told: Told
    value: float | None
    stderr: float | None

    @property
    def errors(self) -> float | None:
        """The difference in standard errors."""
        if self.value is None or self.stderr is None:
            return None
        both = hypot(self.told.stderr, self.stderr)
        return (self.value - self.told.value) / both if both else 0.0

    @property
    def off(self) -> bool:
        """Whether the values differ by more than chance explains."""
        return self.errors is not None and abs(self.errors) > OFF


def read_card(path: Path = CARD) -> list[Told]:
    """The values in a card, as card.csv has them."""
    with path.open(encoding="utf-8", newline="") as file:
        return TypeAdapter(list[Told]).validate_python(list(csv.DictReader(file)))


def compared(card: Iterable[Told], measured: Mapping[str, Mapping[str, Any]]) -> list[Compared]:
    """Each value of the card beside what the harness measured.

    Args:
        card: see `read_card`.
        measured: `results` of lm-eval: by task, `metric,none` and `metric_stderr,none`.
    """
    found = []
    for told in card:
        ours = measured.get(told.harness_task, {})
        value, stderr = (ours.get(f"{told.harness_metric}{part},none") for part in ("", "_stderr"))
        number = isinstance(value, float | int) and isinstance(stderr, float | int)
        found.append(Compared(told, value if number else None, stderr if number else None))
    return found


def tasks_of(card: Iterable[Told]) -> list[str]:
    """The tasks of the harness that measure a card, each once."""
    return list(dict.fromkeys(told.harness_task for told in card if told.harness_task))


def state_of(folder: Path, *patterns: str) -> list[tuple[str, int, int]]:
    """The name, the size and the time of change of some files in a folder, which tell whether they are the same."""
    found = sorted(path for pattern in patterns for path in folder.rglob(pattern))
    return [(str(path.relative_to(folder)), path.stat().st_size, path.stat().st_mtime_ns) for path in found]


def measure(
    settings: Settings,
    tasks: Sequence[str],
    out: Path,
    packages: Path,
    include: Path | None,
    limit: int | None,
    seed: int,
) -> dict[str, Any]:
    """Run the harness in a process of its own, with the folder and the engine arguments that the server would use.

    Args:
        settings: of the server.
        tasks: of the harness.
        out: a folder; what one task gave is kept there, and is not measured again with the same model and arguments.
        packages: where lm-eval is installed.
        include: a folder of tasks of one's own.
        limit: questions of each task; None for all.
        seed: of the harness.

    Returns `results` of lm-eval by task. Raises CalledProcessError if the harness fails.
    """
    require_devices(settings)
    folder = resolve(settings).folder
    engine_args = settings.with_predictor_config(folder).engine_args
    model = {"pretrained": str(folder), **engine_args}
    weights, own_tasks = state_of(folder, "*.safetensors"), include and state_of(include, "*.yaml", "*.py")
    out /= key_of(model, weights, installed_build(), limit, seed, own_tasks)
    out.mkdir(parents=True, exist_ok=True)
    kept = {task: out / f"{task}.json" for task in tasks}
    order = {
        "model": model,
        "tasks": [task for task in tasks if not kept[task].is_file()],
        "include": include and str(include),
        "limit": limit,
        "seed": seed,
        "out": str(out),
    }
    if order["tasks"]:
        environment = {**ENVIRONMENT, **settings.defaults.environment, **os.environ}
        path = os.pathsep.join(filter(None, (str(packages), environment.get("PYTHONPATH", ""))))
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("harness.py"))],
            input=json.dumps(order),
            env={**environment, "PYTHONPATH": path},
            text=True,
            check=True,
        )
    return {task: json.loads(path.read_text(encoding="utf-8")) for task, path in kept.items()}
