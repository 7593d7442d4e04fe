"""What Engine makes of the outputs of a request, as vLLM's own OutputProcessor hands them over."""

import asyncio
from contextlib import suppress

import pytest

from hermes.chat.constraint import json_constraint
from hermes.chat.sampling import Sampling
from hermes.engine import Chunk, GrammarRefused
from hermes.engine.counts import EngineCounts
from hermes.engine.engine import Engine
from hermes.engine.outputs import TakeFailed, take_all
from hermes.errors import EngineFailed
from tests.support.garbage import assert_goes_at_once
from tests.support.scripted_llm import ScriptedLLM, given

vllm_engine = pytest.importorskip("vllm.v1.engine")


class Outputs:
    """One request in vLLM's OutputProcessor, without an engine core."""

    def __init__(self):
        from vllm.sampling_params import RequestOutputKind, SamplingParams
        from vllm.v1.engine.output_processor import OutputProcessor, RequestOutputCollector

        params = SamplingParams(output_kind=RequestOutputKind.DELTA, max_tokens=100, detokenize=False)
        named = dict.fromkeys(("mm_features", "pooling_params", "lora_request", "cache_salt", "data_parallel_rank"))
        request = vllm_engine.EngineCoreRequest("1", [5], sampling_params=params, arrival_time=0.0, **named)
        request.external_req_id = "1"
        self.collector = RequestOutputCollector(params.output_kind, "1")
        self.processor = OutputProcessor(None, log_stats=True)
        self.processor.add_request(request, None, queue=self.collector)

    def come(self, *token_ids, end=None):
        """What one step of the engine gave comes to vLLM's frontend."""
        from vllm.v1.metrics.stats import IterationStats

        finish_reason = end and vllm_engine.FinishReason[end]
        output = vllm_engine.EngineCoreOutput("1", list(token_ids), finish_reason=finish_reason)
        self.processor.process_outputs([output], 0.0, IterationStats())


async def taken_from(outputs, *steps, take=None, constraint=None):
    """The chunks that are taken while these steps come, each of which must be taken before the next comes."""
    taken = []
    reading = asyncio.create_task(take_all(outputs.collector, take or taken.append, constraint))
    await asyncio.sleep(0)
    for number, step in enumerate(steps, len(taken) + 1):
        step()
        assert take or len(taken) == number
    await reading
    return taken


def test_an_output_is_taken_at_once_and_the_last_one_ends_the_request():
    outputs = Outputs()
    steps = [lambda: outputs.come(7), lambda: outputs.come(8, 9), lambda: outputs.come(10, end="LENGTH")]
    chunks = [Chunk("", 1), Chunk("", 2), Chunk("", 1, "length")]
    assert asyncio.run(taken_from(outputs, *steps)) == chunks


@pytest.mark.parametrize("end", [None, "STOP"])
def test_what_came_before_anybody_could_take_it_is_taken_first(end):
    outputs = Outputs()
    outputs.come(7)
    outputs.come(8, end=end)
    steps = [] if end else [lambda: outputs.come(9, end="STOP")]
    taken = asyncio.run(taken_from(outputs, *steps))
    assert [chunk.token_count for chunk in taken] == [2] + [1] * len(steps)
    assert taken[-1].finish_reason == "stop"


def test_enough_is_enough_and_what_comes_later_is_left():
    outputs, taken = Outputs(), []

    def take(chunk):
        taken.append(chunk)
        return len(taken) == 2

    asyncio.run(taken_from(outputs, *[lambda: outputs.come(7)] * 4, take=take))
    assert taken == [Chunk("", 1)] * 2


@pytest.mark.parametrize(
    ("constraint", "error"), [(None, EngineFailed), (json_constraint({"type": "boolean"}), GrammarRefused)]
)
def test_an_engine_that_gives_up_is_an_error_after_what_it_gave(constraint, error):
    outputs, taken = Outputs(), []
    steps = [lambda: outputs.come(7), lambda: outputs.come(end="ERROR")]
    with pytest.raises(error):
        asyncio.run(taken_from(outputs, *steps, take=taken.append, constraint=constraint))
    assert taken == [Chunk("", 1)]


@pytest.mark.parametrize("error", [ValueError("broken"), EngineFailed("the engine has died")])
def test_an_error_of_the_engine_ends_the_request(error):
    outputs = Outputs()
    with pytest.raises(type(error)) as raised:
        asyncio.run(taken_from(outputs, lambda: outputs.processor.propagate_error(error), take=print))
    assert raised.value is error


@pytest.mark.parametrize("take", [lambda _: 1 / 0, lambda _: next(iter([]))])
def test_an_error_of_the_one_that_takes_ends_its_request_and_not_vllms_loop(take):
    outputs = Outputs()
    with pytest.raises(TakeFailed) as raised:
        asyncio.run(taken_from(outputs, *[lambda: outputs.come(7)] * 2, take=take))
    assert isinstance(raised.value.__cause__, ZeroDivisionError | StopIteration)


def test_after_a_cancel_nothing_is_taken_any_more():
    async def cancelled():
        outputs, taken = Outputs(), []
        reading = asyncio.create_task(take_all(outputs.collector, taken.append, None))
        await asyncio.sleep(0)
        outputs.come(7)
        reading.cancel()
        outputs.come(8)
        outputs.processor.abort_requests(["1"], internal=True)
        with pytest.raises(asyncio.CancelledError):
            await reading
        outputs.come(9, end="STOP")
        return taken

    assert asyncio.run(cancelled()) == [Chunk("", 1)]


@pytest.mark.parametrize("end", ["ERROR", "STOP"])
def test_a_request_that_has_ended_does_not_wait_for_the_garbage_collector(end):
    async def request(inputs):
        outputs = Outputs()
        outputs.come(7, end=end)
        with suppress(EngineFailed):
            await take_all(outputs.collector, lambda _: bool(inputs) and False, None)

    assert_goes_at_once(lambda inputs: asyncio.run(request(inputs)))


def generated(take, *events, llm=None):
    """What comes of a request to Engine while these things happen: its error, the ids that were aborted, all ids."""
    llm = llm or ScriptedLLM()

    async def run():
        engine = Engine(llm, None, [2], EngineCounts(), 60.0)
        request = asyncio.create_task(engine.generate([5], Sampling(seed=0, max_tokens=9), take))
        await asyncio.sleep(0.01)
        for event in events:
            event(request, next(iter(llm.collectors.values())))
            await asyncio.sleep(0)
        await asyncio.wait([request])
        engine.stop()
        return asyncio.CancelledError() if request.cancelled() else request.exception()

    return asyncio.run(run()), llm.aborted, list(llm.collectors)


def comes(output):
    return lambda _, collector: collector.put(output)


def test_a_response_that_had_enough_is_aborted():
    taken = []
    error, aborted, ids = generated(
        lambda chunk: taken.append(chunk.text) or True, comes(given("a")), comes(given("b"))
    )
    assert (error, taken, aborted) == (None, ["a"], ids)


def test_a_cancel_aborts_also_while_vllm_takes_the_request():
    class SlowLLM(ScriptedLLM):
        async def add_request(self, request_id, prompt, params):
            await super().add_request(request_id, prompt, params)
            await asyncio.Event().wait()

    for llm in (ScriptedLLM(), SlowLLM()):
        error, aborted, ids = generated(print, lambda request, _: request.cancel(), llm=llm)
        assert isinstance(error, asyncio.CancelledError)
        assert aborted == ids


def test_an_engine_that_has_died_is_said_to_and_not_asked_to_abort():
    from vllm.v1.engine.exceptions import EngineDeadError

    error, aborted, _ = generated(print, comes(given("a")), comes(EngineDeadError()))
    assert str(error).startswith("E1203 EngineFailed: the engine has died")
    assert aborted == []


def test_what_vllm_did_not_expect_is_no_text_for_clients():
    error, aborted, ids = generated(print, comes(RuntimeError("/a/path and a secret")))
    assert isinstance(error, EngineFailed)
    assert "(RuntimeError)" in str(error)
    assert "secret" not in str(error)
    assert aborted == ids


def test_a_mistake_of_ours_is_not_said_to_be_the_engines():
    error, aborted, ids = generated(lambda _: [][0], comes(given("a")))
    assert isinstance(error, IndexError)
    assert aborted == ids
