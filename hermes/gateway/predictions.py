"""How a run is written as a prediction of Replicate's API (https://replicate.com/docs/reference/http)."""

import copy
import json
import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from hermes.gateway.bodies import SMALL, Bodies
from hermes.gateway.run import Run

log = logging.getLogger(__name__)
PIECE = 16  # bytes, about: of a piece in JSON


class Predictions:
    """What writes predictions, as text: inputs and outputs may be megabytes, and go out as they are."""

    def __init__(self, model: str, bodies: Bodies):
        """Args:
        model: owner/name.
        bodies: has the threads where large ones are written.
        """
        self._model, self._bodies = model, bodies

    async def one(self, run: Run, base: str, *, starting: bool = False) -> bytes:
        """Returns a prediction as JSON.

        Args:
            run: what to write, as it is now.
            base: URL of the gateway.
            starting: writes one that has not ended as `starting`, without output: clients that waited for the end take
                any other for the end.
        """
        [written] = await self._written([run], base, starting=starting)
        return written

    async def page(self, runs: Sequence[Run], base: str, following: str | None) -> bytes:
        """Returns a page of predictions as JSON. `following`, an absolute URL: npm's client doubles a relative one."""
        results = await self._written(runs, base)
        return b'{"previous":null,"next":%b,"results":[%b]}' % (_json(following), b",".join(results))

    async def _written(self, runs: Sequence[Run], base: str, *, starting: bool = False) -> list[bytes]:
        runs = [_snapshot(run) for run in runs]
        size = sum(len(run.inputs) + PIECE * len(run.output) + len(run.logs) for run in runs)

        def work() -> list[bytes]:
            return [self._text(run, base, starting and not run.ended) for run in runs]

        if size <= SMALL / 4:
            return work()
        return await self._bodies.in_thread(size, work, runs[0].owner)

    def _text(self, run: Run, base: str, starting: bool) -> bytes:
        at = f"{base}/v1/predictions/{run.id}"
        output = run.output or (None if run.status != "succeeded" else [])
        urls = {
            "get": at,
            "cancel": f"{at}/cancel",
            "web": f"{base}/",
            "stream": f"{base}/stream/{run.id}/{run.secret}",
        }
        fields = {
            "id": _json(run.id),
            "model": _json(self._model),
            "version": _json(run.version),
            "input": run.inputs,
            "output": _json(None if starting else output),
            "logs": _json(run.logs),
            "error": _json(run.error),
            "status": _json("starting" if starting else run.status),
            "created_at": _json(time(run.created)),
            "started_at": _json(time(run.started)),
            "completed_at": _json(time(run.ended)),
            "data_removed": b"false",
            "source": b'"api"',
            "metrics": _metrics(run),
            "urls": _json(urls),
        }
        return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), value) for name, value in fields.items())


def time(moment: datetime | None) -> str | None:
    """Returns a time as Replicate writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _snapshot(run: Run) -> Run:
    """A run that does not change while a thread writes it."""
    if run.ended:
        return run
    copied = copy.copy(run)
    copied.output = run.output[:]
    return copied


def _metrics(run: Run) -> bytes:
    """An upstream chose them: whatever they are, the prediction is shown."""
    total = {"total_time": (run.ended - run.created).total_seconds()} if run.ended else {}
    try:
        return json.dumps(run.metrics | total, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        log.warning("gateway: run %s: its metrics are left out: %s", run.id, error)
        return _json(total)


def _json(value: Any) -> bytes:
    """Compact JSON, in ASCII: a model may have written half characters."""
    return json.dumps(value, separators=(",", ":")).encode()
