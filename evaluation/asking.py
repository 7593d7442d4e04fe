"""Asks a Cog server many questions at once. Each reply is a line of a file, so a run that was killed goes on.

A reply is kept under its inputs and what gave it: the server, its model and its settings. So nobody else's counts.
"""

import asyncio
import hashlib
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tqdm import tqdm

T = TypeVar("T")

BUSY, BUSY_SECONDS = 409, 0.2  # all slots taken: ask again after so many seconds
TIMEOUT = 900  # seconds for one reply
WEIGHTS = "weights: profile "  # in the log of hermes/weights/resolve.py


@dataclass(frozen=True)
class Question:
    """The inputs of one prediction, under a name that is unique in its file."""

    id: str
    inputs: dict[str, Any]


@dataclass(frozen=True)
class Reply:
    """What came of a question."""

    id: str
    status: str  # as Cog says: succeeded, failed
    text: str
    error: str | None
    metrics: dict[str, Any]
    seconds: float
    key: str = ""  # of the inputs and what answered them


def key_of(*values: Any) -> str:
    """A short name for some values: another one if any of them differs."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:16]


def model_at(url: str) -> str:
    """What a Cog server says of itself: its versions, and the lines of its start that name the weights.

    Raises httpx.HTTPError if the server cannot be reached.
    """
    health = httpx.get(f"{url}/health-check", timeout=30, trust_env=False).raise_for_status().json()
    said = (health.get("setup") or {}).get("logs") or ""
    weights = [line.partition(WEIGHTS)[2] for line in said.splitlines() if WEIGHTS in line]
    return "; ".join([*weights, *(f"{name} {value}" for name, value in sorted((health.get("version") or {}).items()))])


def sampled(items: Sequence[T], most: int | None, seed: int) -> list[T]:
    """`most` of the items, drawn by the seed, in their order; all of them if `most` is None."""
    if most is None or most >= len(items):
        return list(items)
    return [items[index] for index in sorted(random.Random(seed).sample(range(len(items)), most))]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of JSON lines; a last line that was cut off is left out. A missing file has none."""
    if not path.is_file():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n") if line]


def ask_all(
    url: str, questions: Sequence[Question], out: Path, answered_by: str = "", at_once: int = 16
) -> dict[str, Reply]:
    """The reply to each question, by its id. Those that `out` has are not asked again.

    Args:
        url: of a Cog server.
        questions: with ids of their own.
        out: a file of JSON lines, one for each reply.
        answered_by: the server, its model and its settings, whose replies `out` may have; the URL if not given.
        at_once: the questions under way.

    Raises httpx.HTTPError if the server cannot be reached or breaks off.
    """
    kept = {(line["id"], line.get("key", "")): Reply(**line) for line in read_lines(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(asdict(reply)) + "\n" for reply in kept.values()), encoding="utf-8")
    keys = {question.id: key_of(question.inputs, answered_by or url) for question in questions}
    missing = [question for question in questions if (question.id, keys[question.id]) not in kept]
    if missing:
        kept |= asyncio.run(_ask(url, missing, keys, out, at_once))
    return {question.id: kept[question.id, keys[question.id]] for question in questions}


async def _ask(
    url: str, questions: Sequence[Question], keys: Mapping[str, str], out: Path, at_once: int
) -> dict[tuple[str, str], Reply]:
    waiting, replies = list(reversed(questions)), {}
    with out.open("a", encoding="utf-8") as file, tqdm(total=len(questions), desc=out.stem, unit="question") as bar:

        async def work(client: httpx.AsyncClient) -> None:
            while waiting:
                question = waiting.pop()
                reply = replace(await _one(client, question), key=keys[question.id])
                replies[reply.id, reply.key] = reply
                file.write(json.dumps(asdict(reply)) + "\n")
                file.flush()
                bar.update()

        session = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False)
        async with session as client, asyncio.TaskGroup() as tasks:
            for _ in range(at_once):
                tasks.create_task(work(client))
    return replies


async def _one(client: httpx.AsyncClient, question: Question) -> Reply:
    began = time.monotonic()
    body = {"input": question.inputs}
    while (response := await client.post("/predictions", json=body)).status_code == BUSY:  # noqa: ASYNC110
        await asyncio.sleep(BUSY_SECONDS)
    if response.status_code >= 500:
        response.raise_for_status()
    prediction = response.json()
    return Reply(
        id=question.id,
        status=prediction.get("status", "failed"),
        text="".join(prediction.get("output") or ()),
        error=prediction.get("error") or (json.dumps(prediction.get("detail")) if response.is_error else None),
        metrics=prediction.get("metrics") or {},
        seconds=round(time.monotonic() - began, 3),
    )
