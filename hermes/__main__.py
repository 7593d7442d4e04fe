"""python -m hermes, see hermes.cli."""

import sys

try:
    from hermes.cli import run
except ModuleNotFoundError as error:  # `pip install .` is for clients
    if (error.name or "hermes").startswith("hermes"):
        raise
    sys.exit(f"{error}; `pip install '.[gateway]'` brings the gateway, and `make install` all commands")

run()
