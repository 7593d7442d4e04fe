"""The relay driven the way coglet drives it: run_coroutine_threadsafe, then a thread that iterates the result."""

import asyncio
import gc
import inspect
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest
from cog import Input, concurrent, streaming

from hermes.serving.relay import End, coglet_future, drain, input_defaults, relayed
from tests.support.fakes import running_loop
from tests.support.garbage import assert_goes_at_once
from tests.support.written import written


class Predictor:
    """Yields a piece for each turn that a test gives it, and notes how it ended."""

    def __init__(self):
        self.turns = threading.Semaphore(0)
        self.ended = threading.Event()
        self.cancelled = False

    @streaming
    @concurrent(max=32)
    @relayed
    @written
    async def predict(self, prompt: str = Input(description="", default="piece"), count: int = Input(default=2)):
        try:
            for number in range(count):
                while not self.turns.acquire(blocking=False):
                    await asyncio.sleep(0.001)
                yield f"{prompt} {number};"
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.ended.set()


@pytest.fixture
def loop():
    with running_loop() as loop:
        yield loop


def begin(loop, coroutine):
    """What coglet does first: the future that it keeps for cancelling, and the generator that it iterates."""
    future = asyncio.run_coroutine_threadsafe(coroutine, loop)
    return future, future.result(timeout=5)


def test_coglet_takes_it_for_a_coroutine_function():
    assert inspect.iscoroutinefunction(Predictor().predict)
    assert not inspect.isasyncgenfunction(Predictor().predict)


def test_coglet_gets_a_plain_generator_of_the_pieces(loop):
    predictor = Predictor()
    predictor.turns.release(3)
    _, stream = begin(loop, predictor.predict(prompt="p", count=3))
    assert inspect.isgenerator(stream)
    assert "".join(stream) == "p 0;p 1;p 2;"


def test_a_piece_comes_while_the_next_is_not_made_yet(loop):
    predictor = Predictor()
    _, stream = begin(loop, predictor.predict())
    predictor.turns.release()
    assert next(stream) == "piece 0;"
    assert not predictor.ended.is_set()
    predictor.turns.release()
    assert list(stream) == ["piece 1;"]
    assert predictor.ended.is_set()


def test_defaults_are_the_values_and_not_cogs_field_objects(loop):
    async def predict(self, a: int, b: str = Input(default="x"), c: float = 0.5, d: str | None = Input(default=None)):
        yield repr((a, b, c, d))

    assert input_defaults(predict) == {"b": "x", "c": 0.5, "d": None}
    _, stream = begin(loop, relayed(written(predict))(None, a=1))
    assert list(stream) == ["(1, 'x', 0.5, None)"]


def test_thirty_two_at_once_each_get_their_own(loop):
    predictor = Predictor()

    def run(number):
        _, stream = begin(loop, predictor.predict(prompt=str(number), count=5))
        return "".join(stream)

    with ThreadPoolExecutor(32) as slots:
        answers = slots.map(run, range(32))
        predictor.turns.release(32 * 5)
        assert list(answers) == ["".join(f"{n} {i};" for i in range(5)) for n in range(32)]


def test_an_error_comes_after_the_pieces_before_it(loop):
    async def predict(self):
        yield "half"
        raise ValueError("broken")

    _, stream = begin(loop, relayed(written(predict))(None))
    assert next(stream) == "half"
    with pytest.raises(ValueError, match="broken"):
        next(stream)


def test_an_error_before_any_piece_is_raised_too(loop):
    async def predict(self):
        raise ValueError("no")
        yield

    _, stream = begin(loop, relayed(written(predict))(None))
    with pytest.raises(ValueError, match="no"):
        next(stream)


def test_coglets_cancel_reaches_the_running_predict(loop):
    predictor = Predictor()
    predictor.turns.release()
    future, stream = begin(loop, predictor.predict())
    assert next(stream) == "piece 0;"
    assert future.cancel()
    with pytest.raises(asyncio.CancelledError):
        next(stream)
    assert predictor.cancelled


def test_closing_the_generator_cancels(loop):
    predictor = Predictor()
    predictor.turns.release()
    _, stream = begin(loop, predictor.predict())
    next(stream)
    stream.close()
    del stream
    gc.collect()
    assert predictor.ended.wait(5)
    assert predictor.cancelled


def test_a_generator_that_nobody_ever_iterated_is_cancelled_too(loop):
    predictor = Predictor()
    future, stream = begin(loop, predictor.predict())
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.01), loop).result()
    del future, stream
    gc.collect()
    assert predictor.ended.wait(5)
    assert predictor.cancelled


def test_a_task_that_dies_before_its_first_step_leaves_nobody_waiting(loop):
    predictor = Predictor()
    loop.call_soon_threadsafe(time.sleep, 0.05)
    future, stream = begin(loop, predictor.predict())
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        next(stream)


def test_what_is_recorded_in_the_callers_context_reaches_the_callers_scope(loop):
    from contextvars import ContextVar

    scope = ContextVar("scope")

    async def predict(self):
        yield scope.get()

    async def with_scope():
        scope.set("mine")
        return await relayed(written(predict))(None)

    _, stream = begin(loop, with_scope())
    assert list(stream) == ["mine"]


def test_pieces_that_queued_up_are_joined():
    pieces = SimpleQueue()
    for piece in ("a", "b", "c", End(None)):
        pieces.put(piece)
    assert list(drain(pieces, cancel=lambda: None)) == ["abc"]


def test_a_piece_and_the_end_may_come_apart():
    pieces = SimpleQueue()
    stream = drain(pieces, cancel=lambda: None)
    pieces.put("a")
    assert next(stream) == "a"
    pieces.put(End(None))
    assert list(stream) == []


def test_outside_coglet_it_says_that_the_future_is_missing():
    async def alone():
        return coglet_future()

    with pytest.raises(RuntimeError, match="future of this prediction was not found"):
        asyncio.run(alone())


def raised_with(inputs):
    try:
        [inputs].index(None)
    except ValueError as error:
        return error


def test_the_inputs_of_a_prediction_that_failed_do_not_wait_for_the_garbage_collector():
    def fail(inputs):
        pieces = SimpleQueue()
        task = [raised_with(inputs)]  # which `cancel` knows, as that of `relayed` does
        pieces.put(End(task[0]))
        stream = drain(pieces, task.copy)
        del task
        with pytest.raises(ValueError):
            next(stream)

    assert_goes_at_once(fail)
