"""More callers than slots, a full KV cache, time that is over: nothing hangs, nothing fails that need not."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tests.support.asking import (
    LONG,
    kv_cache_tokens,
    lines_in_log,
    once_a_slot_is_free,
    post,
    predict,
    stream,
    streaming,
    three_chances,
    until,
)
from tests.support.servers import BLOCK, TINY_BLOCKS, TINY_SLOTS, prediction_lines, serving


def long_answer(server, number, tokens=400):
    return stream(server, prompt=f"Tell {number} things.", temperature=0, min_tokens=tokens, max_tokens=tokens)


def test_a_full_kv_cache_costs_time_and_no_answer(tiny_server):
    assert kv_cache_tokens(tiny_server) == TINY_BLOCKS * BLOCK
    before = len(lines_in_log(tiny_server))
    alone = [long_answer(tiny_server, number).text for number in range(TINY_SLOTS)]

    def ask(number):
        return once_a_slot_is_free(lambda: long_answer(tiny_server, number))

    with ThreadPoolExecutor(TINY_SLOTS) as callers:
        together = list(callers.map(ask, range(TINY_SLOTS)))
    assert [each.completed["metrics"]["output_token_count"] for each in together] == [400] * TINY_SLOTS
    assert [each.text for each in together] == alone
    preemptions = sum(each.completed["metrics"].get("preemptions", 0) for each in together)
    assert preemptions > 0
    until(lambda: len(lines_in_log(tiny_server)) == before + 2 * TINY_SLOTS, 5, "the log has a line of each")
    assert preemptions == sum(line["preemptions"] for line in lines_in_log(tiny_server)[before:])


def test_those_without_a_slot_are_refused_at_once(tiny_server):
    with ExitStack() as stack:
        slots = [stack.enter_context(streaming(tiny_server, **LONG)) for _ in range(TINY_SLOTS)]
        assert tiny_server.health()["status"] == "BUSY"
        tiny_server.wait_until_ready(timeout=5)  # which it is
        with ThreadPoolExecutor(TINY_SLOTS) as callers:
            answers = callers.map(lambda _: post(tiny_server, prompt="Hi", max_tokens=1).status_code, range(20))
            assert set(answers) == {409}
        assert [next(events)[0] for events in slots] == ["output"] * TINY_SLOTS
    until(lambda: post(tiny_server, prompt="Hi", max_tokens=1).status_code == 200, 5, "a slot is free again")


@pytest.mark.long
@three_chances
def test_those_with_a_slot_keep_their_speed_while_others_are_refused(small_model):
    def in_a_slot(number):
        try:
            return long_answer(server, number, 80).seconds
        finally:
            first_is_done.set()

    def knock(_):
        statuses = set()
        while not first_is_done.wait(0.1):  # it is the server's speed that counts, and this process takes the CPU
            statuses.add(post(server, prompt="Hi", max_tokens=1).status_code)
        return statuses

    first_is_done = threading.Event()
    with serving(small_model, COG_MAX_CONCURRENCY=str(TINY_SLOTS)) as server:
        server.wait_until_ready(timeout=300)
        with ThreadPoolExecutor(2 * TINY_SLOTS) as callers:
            undisturbed = max(callers.map(in_a_slot, range(TINY_SLOTS)))
            first_is_done.clear()
            slots = [callers.submit(in_a_slot, number) for number in range(TINY_SLOTS)]
            until(lambda: server.health()["status"] == "BUSY", 30, "all slots are taken")
            assert 409 in set.union(*callers.map(knock, range(TINY_SLOTS)))
            disturbed = max(slot.result() for slot in slots)
    assert disturbed < 1.5 * undisturbed


@pytest.mark.parametrize(("limit", "tokens"), [(0.01, 0), (3, 1)])
def test_an_answer_ends_in_time_and_what_is_there_stands(quick_server, limit, tokens):
    asked = {"prompt": "Count to a million.", "min_tokens": 1900, "max_tokens": 1900, "timeout": limit}
    answer = stream(quick_server, **asked)
    metrics = answer.completed["metrics"]
    assert (answer.completed["status"], metrics["finish_reason"]) == ("succeeded", "timeout")
    assert tokens <= metrics["output_token_count"] < 1900
    assert limit <= metrics["predict_time"] < limit + 2
    (line,) = prediction_lines(answer.completed["logs"].splitlines())
    assert (line["finish_reason"], line["engine"]["unfinished"]) == ("timeout", 0)


def test_a_json_answer_that_had_no_time_is_not_called_valid(quick_server):
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 500}
    metrics = predict(quick_server, prompt="Count.", json_schema=schema, max_tokens=1900, timeout=1)["metrics"]
    assert (metrics["finish_reason"], metrics["json_valid"]) == ("timeout", False)


SECRET = "my canary is called Xanthippe"


def test_nothing_that_was_said_is_in_the_log(quick_server):
    asked = [
        {"prompt": SECRET},
        {"prompt": SECRET, "temperature": 0, "prompt_template": f"{{prompt}} {SECRET}"},
        {"system_prompt": SECRET, "messages": [{"role": "user", "content": SECRET}]},
        {"prompt": SECRET * 2000},
        {"prompt": SECRET, "messages": [{"role": SECRET}]},
        {"prompt": SECRET, "tools": [{"name": SECRET}]},
        {"prompt": SECRET, "json_schema": {"pattern": f"({SECRET}"}},
        {"prompt": SECRET, "stop_sequences": SECRET, "timeout": 0.05},
    ]
    for inputs in asked:
        post(quick_server, max_tokens=8, **inputs)
    assert not [line for line in list(quick_server.log) if "Xanthippe" in line]


def test_what_was_said_is_in_the_log_where_it_is_asked_for(tiny_server):
    def logged(begins, said=""):
        return [line for line in list(tiny_server.log) if line.startswith(begins) and said in line]

    predict(tiny_server, prompt=SECRET, max_tokens=8)
    until(lambda: logged("hermes: prompt: ", SECRET) and logged("hermes: response: "), 5, "both are in the log")
