"""Which processes are vLLM's, and the end of all that they have started."""

from collections.abc import Iterable
from contextlib import suppress

import psutil


def workers(core: psutil.Process) -> list[psutil.Process]:
    """The workers of an engine core, by the titles that vLLM gives them. The core may have other children."""
    with suppress(psutil.NoSuchProcess):
        return [child for child in core.children() if "::Worker" in title(child)]
    return []


def title(process: psutil.Process) -> str:
    """Its command line, which vLLM replaces with a title; "" if it has ended."""
    with suppress(psutil.NoSuchProcess):
        return " ".join(process.cmdline())
    return ""


def kill_trees(roots: Iterable[psutil.Process]) -> None:
    """Kill processes and all that they have started."""
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            root.suspend()  # it starts no more
            for each in [*root.children(recursive=True), root]:
                with suppress(psutil.NoSuchProcess):
                    each.kill()
