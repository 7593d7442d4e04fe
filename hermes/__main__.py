"""python -m hermes, see hermes.cli."""

from hermes.cli import run

run()
