"""Judges calls with BFCL's own checker: python bfcl_check.py FOLDER, where bfcl-eval is installed with --no-deps.

Each line of its input has the functions of a question, the calls and the right ones; each line of its output says
whether they are right. The checker looks one thing up in a table that imports the library of every vendor: whether
names have underscores for dots. That table is replaced, and the checker runs unchanged.
"""

import json
import sys
from types import ModuleType, SimpleNamespace

MODEL = "hermes"


def main() -> None:
    """Judge each line."""
    sys.path.insert(0, sys.argv[1])
    table = ModuleType("bfcl_eval.constants.model_config")
    vars(table)["MODEL_CONFIG_MAPPING"] = {MODEL: SimpleNamespace(underscore_to_dot=False)}
    sys.modules[table.__name__] = table
    from bfcl_eval.constants.enums import Language
    from bfcl_eval.eval_checker.ast_eval.ast_checker import ast_checker

    for line in sys.stdin:
        case = json.loads(line)
        verdict = ast_checker(case["functions"], case["calls"], case["right"], Language.PYTHON, case["category"], MODEL)
        print(json.dumps({"id": case["id"], "valid": verdict["valid"], "problem": str(verdict.get("error", ""))}))


if __name__ == "__main__":
    main()
