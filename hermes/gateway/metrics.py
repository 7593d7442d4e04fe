"""What is counted, for Prometheus and for the log."""

import asyncio
import json
import logging
import re
from dataclasses import asdict
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from hermes.gateway.memory import Memory
from hermes.gateway.pool import Pool
from hermes.gateway.run import Run

log = logging.getLogger(__name__)
CODE = re.compile(r"E1\d{3}")
SECONDS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300)


class Metrics:
    """What /metrics shows, and the line that each run leaves in the log. Prompts and answers are in neither."""

    def __init__(self, pool: Pool, memory: Memory):
        self._registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=self._registry), partial(Gauge, registry=self._registry)
        histogram = partial(Histogram, registry=self._registry, buckets=SECONDS)
        # `token` is the name of one
        self._responses = counter("hermes_gateway_responses", "by route", ["token", "route", "status"])
        self._runs = counter("hermes_gateway_runs", "ended predictions", ["outcome", "token"])
        self._tokens = counter("hermes_gateway_tokens", "tokens of ended predictions", ["kind", "token"])
        self._first = histogram("hermes_gateway_first_piece_seconds", "from the request")
        self._whole = histogram("hermes_gateway_run_seconds", "from the request")
        gauge("hermes_gateway_waiting", "predictions in the queue").set_function(lambda: pool.waiting)
        gauge("hermes_gateway_held_bytes", "of requests in flight").set_function(lambda: memory.held)
        gauge("hermes_gateway_tasks", "of the event loop").set_function(lambda: len(asyncio.all_tasks()))
        ready = gauge("hermes_gateway_upstream_ready", "1 if it takes predictions", ["upstream"])
        slots = gauge("hermes_gateway_upstream_slots", "predictions that it takes", ["upstream"])
        running = gauge("hermes_gateway_upstream_running", "predictions", ["upstream"])
        ejected = gauge("hermes_gateway_upstream_ejected", "1 while it is left out for its failures", ["upstream"])
        ejections = gauge("hermes_gateway_upstream_ejections", "so far", ["upstream"])
        for backend in pool.backends:
            name = backend.upstream.name
            slots.labels(name).set_function(partial(getattr, backend.upstream, "slots"))
            for metric, attribute in (
                (ready, "ready"),
                (running, "running"),
                (ejected, "ejected"),
                (ejections, "ejections"),
            ):
                metric.labels(name).set_function(partial(getattr, backend, attribute))

    def text(self) -> bytes:
        """Returns the metrics in Prometheus's format."""
        return generate_latest(self._registry)

    def count_response(self, token: str, route: str, status: int) -> None:
        """Count a response to a request with the token of that name."""
        self._responses.labels(token, route, status).inc()

    def count_run(self, run: Run) -> None:
        """Count an ended run, and log it."""
        first = (run.first - run.created).total_seconds() if run.first else None
        seconds = (run.ended - run.created).total_seconds() if run.ended else 0.0
        self._runs.labels(run.status, run.caller.token).inc()
        for kind in ("input", "output"):
            self._tokens.labels(kind, run.caller.token).inc(run.metrics.get(f"{kind}_token_count", 0))
        if first is not None:
            self._first.observe(first)
        self._whole.observe(seconds)
        line = {
            "run": run.id,
            **asdict(run.caller),
            "status": run.status,
            "waited": (run.started - run.created).total_seconds() if run.started else None,
            "first_piece": first,
            "seconds": seconds,
            **{name: run.metrics.get(name) for name in ("input_token_count", "output_token_count", "finish_reason")},
            "error": code[0] if (code := CODE.match(run.error or "")) else run.error and "other",
        }
        log.info("gateway: run: %s", json.dumps(line))
