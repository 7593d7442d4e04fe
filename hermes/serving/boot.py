"""What setup() spent its time on: one line, for people and, in JSON, for machines."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from hermes.weights import Weights

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

REPORT = "; report: "


class Beside(Generic[Result]):
    """Work in a thread beside something else."""

    def __init__(self, work: Callable[[], Result]):
        self._work = work
        self._error: BaseException | None = None
        self.seconds = 0.0
        self._waited = 0.0
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._thread.start()

    def join(self) -> Result:
        """Wait for its end. Returns what the work returned, raises what it raised."""
        began = time.monotonic()
        self._thread.join()
        self._waited += time.monotonic() - began
        if self._error:
            raise self._error
        return self._result

    @property
    def saved(self) -> float:
        """How many of its seconds nobody waited for."""
        return max(0.0, self.seconds - self._waited)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._result = self._work()
        except BaseException as error:
            self._error = error
        self.seconds = time.monotonic() - began


def log_boot(weights: Weights, phases: Mapping[str, float], *, total: float, saved: float, context_tokens: int) -> None:
    """Log the seconds of each phase of setup(): "boot: " in words, then REPORT with JSON.

    Args:
        weights: what its plan, download and verification took, and the bytes fetched.
        phases: what setup() waited for after that, by name.
        total: of setup().
        saved: by importing vLLM beside the download.
        context_tokens: of the model.
    """
    said = ", ".join(f"{name.replace('_', '-')} {seconds:.1f}" for name, seconds in phases.items())
    fetch = {"plan": weights.plan_seconds, "download": weights.download_seconds, "verify": weights.verify_seconds}
    if weights.fetched_bytes:
        rate = weights.fetched_bytes / max(weights.download_seconds, 1e-3) / 1e6
        said = (
            f"plan {weights.plan_seconds:.1f}, download {weights.download_seconds:.1f} "
            f"({weights.fetched_bytes / 1e9:.1f} GB at {rate:.0f} MB/s), verify {weights.verify_seconds:.1f}, "
            f"{said}; importing vLLM beside the download saved {saved:.1f}"
        )
    rounded = {name: round(seconds, 2) for name, seconds in {**fetch, **phases, "total": total, "saved": saved}.items()}
    report = json.dumps({**rounded, "fetched_bytes": weights.fetched_bytes})
    logger.info("boot: %.1f s, %d tokens of context: %s%s%s", total, context_tokens, said, REPORT, report)
