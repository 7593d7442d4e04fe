"""Asks a Cog server many questions at once. Each reply is a line of a file, so a run that was killed goes on."""

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from tqdm import tqdm

T = TypeVar("T")

BUSY, BUSY_SECONDS = 409, 0.2  # all slots taken: ask again after so many seconds
TIMEOUT = 900  # seconds for one reply


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


def ask_all(url: str, questions: Sequence[Question], out: Path, at_once: int = 16) -> dict[str, Reply]:
    """The reply to each question, by its id. Those that `out` has are not asked again.

    Args:
        url: of a Cog server.
        questions: with ids of their own.
        out: a file of JSON lines, one for each reply.
        at_once: the questions under way.

    Raises httpx.HTTPError if the server cannot be reached or breaks off.
    """
    known = {line["id"]: Reply(**line) for line in read_lines(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(asdict(reply)) + "\n" for reply in known.values()), encoding="utf-8")
    missing = [question for question in questions if question.id not in known]
    if missing:
        known |= asyncio.run(_ask(url, missing, out, at_once))
    return {question.id: known[question.id] for question in questions}


async def _ask(url: str, questions: Sequence[Question], out: Path, at_once: int) -> dict[str, Reply]:
    waiting, replies = list(reversed(questions)), {}
    with out.open("a", encoding="utf-8") as file, tqdm(total=len(questions), desc=out.stem, unit="question") as bar:

        async def work(client: httpx.AsyncClient) -> None:
            while waiting:
                reply = await _one(client, waiting.pop())
                replies[reply.id] = reply
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
