"""What setup() spent its time on: one line for people and one for machines."""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

from hermes.weights import Weights

logger = logging.getLogger(__name__)


class Beside:
    """Work in a thread beside something else."""

    def __init__(self, work: Callable[[], None]):
        self._work = work
        self._error: BaseException | None = None
        self.seconds = 0.0
        self._waited = 0.0
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)
        self._thread.start()

    def join(self) -> float:
        """Wait for its end. Returns how many of its seconds nobody waited for. Raises what the work raised."""
        began = time.monotonic()
        self._thread.join()
        self._waited += time.monotonic() - began
        if self._error:
            raise self._error
        return max(0.0, self.seconds - self._waited)

    def _run(self) -> None:
        began = time.monotonic()
        try:
            self._work()
        except BaseException as error:
            self._error = error
        self.seconds = time.monotonic() - began


@dataclass(frozen=True)
class BootReport:
    """Seconds of each step of setup(), in order, and bytes fetched."""

    plan: float  # asking the host what there is
    download: float
    verify: float  # after the last byte had come
    imports: float  # vLLM, as far as it was waited for
    load: float  # the weights, and everything else that vLLM does to start
    warm_up: float
    total: float
    saved: float  # by importing vLLM beside the download
    fetched_bytes: int

    @classmethod
    def of(cls, weights: Weights, **seconds: float) -> "BootReport":
        """The report of a start with these weights."""
        return cls(
            plan=weights.plan_seconds,
            download=weights.download_seconds,
            verify=weights.verify_seconds,
            fetched_bytes=weights.fetched_bytes,
            **seconds,
        )

    def log(self) -> None:
        """Log both lines."""
        logger.info("boot: %s", self)
        logger.info("boot report: %s", json.dumps({name: round(value, 2) for name, value in asdict(self).items()}))

    def __str__(self) -> str:
        start = f"import of vLLM {self.imports:.1f}, load {self.load:.1f}, warm-up {self.warm_up:.1f}"
        if not self.fetched_bytes:
            return f"{self.total:.0f} s: {start}"
        rate = self.fetched_bytes / max(self.download, 1e-3) / 1e6
        return (
            f"{self.total:.0f} s: plan {self.plan:.1f}, download {self.download:.1f} "
            f"({self.fetched_bytes / 1e9:.1f} GB at {rate:.0f} MB/s), verify {self.verify:.1f}, {start}; "
            f"importing vLLM beside the download saved {self.saved:.1f}"
        )
