"""Bodies: what is received, what is read, and who has to wait for it."""

import asyncio
import gc
import gzip
import json
import threading
import weakref
import zlib

import pytest
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from hermes.gateway import bodies as module
from hermes.gateway import encodings
from hermes.gateway.bodies import MAX_DEPTH, MAX_VALUES, Bodies, json_of
from hermes.gateway.caller import Caller
from hermes.gateway.memory import Memory
from hermes.gateway.problems import Problem
from hermes.gateway.turns import Turns
from tests.support.work import at_most


class ParsedRequest(BaseModel):
    name: str


def request_of(*messages, token="", encoding=None):
    """A request whose messages come as the test has them; after the last, nothing comes."""
    left = list(messages)

    async def receive():
        if not left:
            await asyncio.Event().wait()
        return left.pop(0)

    headers = [(b"content-encoding", encoding)] if encoding else []
    return Request({"type": "http", "headers": headers, "state": {"caller": Caller(token)}}, receive)


def chunk(body, more=False):
    return {"type": "http.request", "body": body, "more_body": more}


def read(*messages, take=lambda value: value, max_body=1000, memory=None, encoding=None):
    async def main():
        reader = Bodies(max_body, memory)
        try:
            return await reader.read(request_of(*messages, encoding=encoding), take)
        finally:
            reader.close()

    memory = memory or Memory(10_000)
    try:
        return asyncio.run(main())
    finally:
        assert memory.held == 0


def test_a_body_is_read_whatever_its_chunks_and_with_a_byte_order_mark():
    assert read(chunk(b'{"a":', more=True), chunk(b"[1, 2.5]}")) == {"a": [1, 2.5]}
    assert read(chunk(b"\xef\xbb\xbf{}")) == {}


@pytest.mark.parametrize(
    ("messages", "status", "problem"),
    [
        ([chunk(b"x" * 1001)], 413, "more than 1,000 bytes"),
        ([chunk(b"x" * 600, more=True), chunk(b"x" * 600)], 413, "more than 1,000 bytes"),
        ([chunk(b"")], 400, "cannot be read as JSON"),
        ([chunk(b"{")], 400, "cannot be read as JSON"),
        ([chunk(b"\xff")], 400, "cannot be read as JSON"),
        ([chunk(b"NaN")], 400, "cannot be read as JSON"),
        ([chunk(b"[1e999]")], 400, "a number that is too large"),
        ([chunk(b"1" * 900)], 400, "name"),
        ([chunk(b'"\\ud8"')], 400, "cannot be read as JSON"),
        ([chunk(b'"\\ud800')], 400, "cannot be read as JSON"),
        ([chunk(b'"\xed\xa0\x80"')], 400, "cannot be read as JSON"),
        ([chunk(b"{}")], 400, "name: Field required"),
    ],
)
def test_what_cannot_be_read_is_the_clients_to_mend(messages, status, problem):
    with pytest.raises(Problem) as refused:
        read(*messages, take=lambda value: ParsedRequest.model_validate(value))
    assert refused.value.status == status
    assert problem in refused.value.message or problem == "name"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (r"\ud83d\ude00", "😀"),
        (r"\uD83D\uDE00 \ud83d", "😀 \ufffd"),
        (r"a\ud83d\n\ude00b", "a\ufffd\n\ufffdb"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd😀"),
        (r"\ud83d\\ude00", r"�\ude00"),
        (r"\\ud83d\ude00", "\\ud83d\ufffd"),
        (r"\\ud83d\\\ud83d\"", '\\ud83d\\\ufffd"'),
    ],
)
def test_half_a_character_is_read_as_the_sign_for_what_is_none(written, text):
    assert json_of(f'["{written}", {{"{written}": 1}}]'.encode()) == [text, {text: 1}]


def test_a_megabyte_of_halves_takes_no_longer_than_any_other():
    for unit, read_as in ((rb"\ud83d", "\ufffd"), (rb"\ud83d\ude00", "😀"), (rb"\\", "\\")):
        with at_most(3):
            count = 2**20 // len(unit)
            assert json_of(b'["' + unit * count + rb'", "\udc00"]') == [read_as * count, "\ufffd"]


def test_a_character_that_no_json_may_have_is_refused_beside_a_half_as_well():
    with pytest.raises(Problem, match="cannot be read as JSON"):
        json_of(b'["a\0\0b", "\\ud800"]')


BODY = b'{"a": "' + b"x" * 900 + b'"}'


@pytest.mark.parametrize("encoding", [b"gzip", b"GZIP", b"x-gzip", b"deflate"])
def test_a_compressed_body_is_decompressed(encoding):
    compressed = zlib.compress(BODY) if encoding == b"deflate" else gzip.compress(BODY)
    parts = [chunk(bytes([byte]), more=True) for byte in compressed]
    assert read(*parts, chunk(b""), encoding=encoding) == {"a": "x" * 900}
    assert read(chunk(BODY), encoding=b"identity") == {"a": "x" * 900}


@pytest.mark.parametrize(
    ("sent", "status", "problem"),
    [
        (BODY, 400, "cannot be read as gzip"),
        (b"", 400, "cannot be read as gzip"),
        (gzip.compress(BODY)[:-1], 400, "cannot be read as gzip: it ends too early"),
        (gzip.compress(BODY) + b"x", 400, "cannot be read as gzip: something comes after its end"),
        (gzip.compress(BODY, mtime=0)[:-8] + b"00000000", 400, "cannot be read as gzip"),
        (gzip.compress(b"{" + BODY), 400, "cannot be read as JSON"),
        (gzip.compress(b" " * 1001), 413, "more than 1,000 bytes"),
        (gzip.compress(b" " * 10**6), 413, "more than 1,000 bytes"),
    ],
    ids=["plain", "nothing", "cut", "and more", "a wrong sum", "no JSON", "large", "a bomb"],
)
def test_a_compressed_body_that_is_none_or_too_large_is_refused(sent, status, problem):
    with pytest.raises(Problem) as refused:
        read(chunk(sent), encoding=b"gzip")
    assert refused.value.status == status
    assert problem in refused.value.message


def test_what_a_bomb_becomes_is_counted_as_it_grows_and_ends_at_a_limit(monkeypatch):
    monkeypatch.setattr(encodings, "PIECE_BYTES", 1000)
    counted = []

    class Counting(Memory):
        def take(self, size, owner=""):
            super().take(size, owner)
            counted.append(size)

    bomb = gzip.compress(b" " * 10**6)
    for limits in ({"max_body": 5_000}, {"max_body": 10**7, "memory": Counting(20_000)}):
        with pytest.raises(Problem) as refused:
            read(chunk(bomb), encoding=b"gzip", **limits)
        assert refused.value.status == (413 if "memory" not in limits else 429)
    assert max(counted[1:]) <= 1000
    assert sum(counted) <= 20_000


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_a_body_may_be_so_deep_and_no_deeper(opening):
    def nested(levels):
        return (opening * levels + "1" + ("]" if opening == "[" else "}") * levels).encode()

    json_of(nested(MAX_DEPTH - 1))
    for levels in (MAX_DEPTH, 954, 100_000):
        with pytest.raises(Problem):
            json_of(nested(levels))


def test_a_body_may_have_so_many_values_and_no_more():
    assert len(json_of(json.dumps([{}] * (MAX_VALUES - 1)).encode())) == MAX_VALUES - 1
    with pytest.raises(Problem, match=f"more than {MAX_VALUES:,} values"):
        json_of(json.dumps([{}] * MAX_VALUES).encode())


def test_what_is_received_is_counted_from_the_first_chunk_on():
    memory = Memory(1000)
    memory.take(400)
    with pytest.raises(Problem) as full:
        read(chunk(b"x" * 601), memory=(other := Memory(600)))
    assert (full.value.status, full.value.code, other.held) == (429, "memory_full", 0)


def test_a_client_that_hangs_up_is_no_problem_of_the_gateways():
    with pytest.raises(ClientDisconnect):
        read(chunk(b"{", more=True), {"type": "http.disconnect"})


def test_a_body_that_does_not_end_is_a_408(monkeypatch):
    monkeypatch.setattr(module, "PART_SECONDS", 0.01)
    with pytest.raises(Problem) as slow:
        read(chunk(b"{", more=True))
    assert slow.value.status == 408


@pytest.mark.parametrize(("sizes", "extensions"), [([10] * 5, 5), ([4, 4, 4, 4], 1), ([9], 0), ([], 0)])
def test_a_body_has_more_time_for_each_part_that_came(monkeypatch, sizes, extensions):
    deadlines = []
    reschedule = asyncio.Timeout.reschedule

    def noted(limit, when):
        deadlines.append(when)
        reschedule(limit, when)

    monkeypatch.setattr(asyncio.Timeout, "reschedule", noted)
    monkeypatch.setattr(module, "PART_SECONDS", 0.01)
    monkeypatch.setattr(module, "PART_BYTES", 10)
    with pytest.raises(Problem) as slow:
        read(*(chunk(b" " * size, more=True) for size in sizes))
    assert slow.value.status == 408
    assert len(deadlines) == 1 + extensions


def test_a_body_that_comes_steadily_has_an_end_too(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 1)
    monkeypatch.setattr(module, "BODY_SECONDS", 0)
    with pytest.raises(Problem) as slow:
        read(*[chunk(b" ", more=True)] * 5)
    assert slow.value.status == 408


def test_bodies_that_arrive_when_the_gateway_stops_are_refused_at_once():
    async def main():
        reader = Bodies(1000, memory := Memory(1000))
        arriving = [asyncio.create_task(reader.read(request_of(chunk(b"{", more=True)), list)) for _ in range(3)]
        while memory.held < 3:
            await asyncio.sleep(0)
        reader.stop(5)
        later = asyncio.create_task(reader.read(request_of(chunk(b"[]")), list))
        for problem in await asyncio.gather(*arriving, later, return_exceptions=True):
            assert (problem.status, problem.code) == (503, "E1205")
        reader.close()
        return memory.held

    assert asyncio.run(main()) == 0


def test_a_part_that_arrives_while_the_gateway_stops_gains_no_time(monkeypatch):
    monkeypatch.setattr(module, "PART_BYTES", 1)

    async def main():
        reader = Bodies(1000, Memory(1000))

        async def receive():
            if stopped:
                await asyncio.Event().wait()
            reader.stop(5)
            stopped.append(True)
            return chunk(b" ", more=True)

        stopped = []
        request = Request({"type": "http", "headers": [], "state": {"caller": Caller()}}, receive)
        async with asyncio.timeout(2):
            await reader.read(request, list)

    with pytest.raises(Problem) as stopping:
        asyncio.run(main())
    assert (stopping.value.status, stopping.value.code) == (503, "E1205")


def test_what_was_wrong_with_a_body_keeps_nothing_of_it_in_memory():
    class Value(dict):
        pass

    values = []

    def refuse(_):
        values.append(weakref.ref(value := Value()))
        try:
            raise ValueError(value)  # noqa: TRY301
        except ValueError as error:
            raise Problem(400, "no") from error

    gc.disable()
    try:
        with pytest.raises(Problem, match="no") as refused:
            read(chunk(b"{}"), take=refuse)
        assert values[0]() is None
        assert refused.value.__cause__ is None
        frames = [each.frame.f_locals for each in refused.traceback]
        assert not any(local.get("found") or local.get("held") for local in frames)
    finally:
        gc.enable()


def test_a_token_with_many_bodies_leaves_a_thread_to_others():
    running, most, release = [], [], threading.Event()

    def slowly(value):
        running.append(value)
        most.append(len(running))
        assert release.wait(10)
        running.remove(value)
        return value

    async def main():
        reader = Bodies(10**6, Memory(10**6))
        greedy = [asyncio.create_task(reader.read(request_of(chunk(b"[1]"), token="a"), slowly)) for _ in range(20)]
        while not running:
            await asyncio.sleep(0)
        assert await reader.read(request_of(chunk(b"[2]"), token="b"), list) == [2]
        assert not any(each.done() for each in greedy)
        release.set()
        await asyncio.gather(*greedy)
        assert max(most) == 1
        reader.close()

    asyncio.run(main())


def test_a_read_that_is_canceled_keeps_its_turn_and_its_memory_until_its_thread_ends():
    reading, release, second = threading.Event(), threading.Event(), threading.Event()

    def slowly(value):
        reading.set()
        assert release.wait(10)
        return value

    async def main():
        reader = Bodies(10**6, memory := Memory(10**6))
        canceled = asyncio.create_task(reader.read(request_of(chunk(b"[1]"), token="a"), slowly))
        while not reading.is_set():
            await asyncio.sleep(0)
        canceled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await canceled
        assert memory.held == 3
        later = asyncio.create_task(reader.in_thread(1, second.set, "a"))
        assert await reader.in_thread(1, lambda: "b", "b") == "b"
        assert not second.is_set()
        release.set()
        await later
        reader.close()
        return memory.held

    assert asyncio.run(main()) == 0


def test_work_that_is_canceled_before_its_thread_begins_is_not_done():
    release, done = threading.Event(), []

    async def main():
        reader = Bodies(10**6, memory := Memory(10**6))
        busy = [asyncio.create_task(reader.in_thread(1, lambda: release.wait(10), owner)) for owner in "ab"]
        canceled = [
            asyncio.create_task(reader.read(request_of(chunk(b"[1]"), token=token), done.append)) for token in "cca"
        ]
        while memory.held < 9:
            await asyncio.sleep(0)
        for each in canceled:
            each.cancel()
        await asyncio.gather(*canceled, return_exceptions=True)
        while memory.held:
            await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*busy)
        assert await reader.in_thread(1, lambda: "c", "c") == "c"
        reader.close()

    asyncio.run(main())
    assert done == []


def test_an_owner_has_a_lock_while_somebody_holds_it():
    turns = Turns()
    held = turns.of("a")
    assert turns.of("a") is held
    gone = weakref.ref(held)
    del held
    assert gone() is None


def test_tokens_take_turns():
    order = []

    def take(value):
        order.append(value[0])

    async def main():
        reader = Bodies(10**6, Memory(10**7))
        large = b'"' + b"x" * 100_000 + b'"]'
        await asyncio.gather(
            *(reader.read(request_of(chunk(b'["a",' + large), token="a"), take) for _ in range(5)),
            reader.read(request_of(chunk(b'["b",' + large), token="b"), take),
        )
        reader.close()

    asyncio.run(main())
    assert order.index("b") <= 2


def test_the_loop_goes_on_while_a_body_is_read_and_small_ones_do_not_queue_behind_it():
    reading, release = threading.Event(), threading.Event()

    def slowly(value):
        reading.set()
        assert release.wait(10)
        return value

    async def main():
        reader = Bodies(10**6, Memory(10**7))
        large = asyncio.create_task(reader.read(request_of(chunk(b'"' + b"x" * 100_000 + b'"')), slowly))
        while not reading.is_set():
            await asyncio.sleep(0)
        assert await reader.read(request_of(chunk(b"[1]")), list) == [1]
        assert not large.done()
        release.set()
        await large
        reader.close()

    asyncio.run(main())


def test_bodies_that_one_token_does_not_finish_leave_room_for_others():
    async def main():
        reader = Bodies(100, memory := Memory(400))
        slow = [
            asyncio.create_task(reader.read(request_of(chunk(b" " * 99, more=True), token="a"), list)) for _ in range(4)
        ]
        while sum(each.done() for each in slow) < 2:
            await asyncio.sleep(0)
        assert await reader.read(request_of(chunk(b"[1]"), token="b"), list) == [1]
        assert memory.held == 198
        for each in slow:
            each.cancel()
        refused = [each for each in await asyncio.gather(*slow, return_exceptions=True) if isinstance(each, Problem)]
        assert [each.code for each in refused] == ["memory_full"] * 2
        reader.close()
        return memory.held

    assert asyncio.run(main()) == 0
