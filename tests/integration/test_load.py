"""More callers than slots, a full KV cache, time that is over: nothing hangs, nothing fails that need not."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest

from tests.support.asking import kv_cache_tokens, lines_in_log, post, predict, stream, three_chances, until
from tests.support.servers import prediction_lines, serving

SLOTS = 4
BLOCKS = 4  # of 128 tokens: what two of the long answers below need


@pytest.fixture(scope="module")
def small_server(small_model):
    """Four slots, a small KV cache, and the debugging log."""
    engine_args = {"max_model_len": 384, "num_gpu_blocks_override": BLOCKS}
    environment = {"COG_MAX_CONCURRENCY": str(SLOTS), "HERMES_LOG_PROMPTS": "true"}
    with serving(small_model, engine_args=engine_args, **environment) as server:
        server.wait_until_ready(timeout=300)
        yield server
    assert server.processes() == []


def long_answer(server, number, tokens=200):
    return stream(server, prompt=f"Tell {number} things.", temperature=0, min_tokens=tokens, max_tokens=tokens)


def test_a_full_kv_cache_costs_time_and_no_answer(small_server):
    assert kv_cache_tokens(small_server) == BLOCKS * 128
    alone = [long_answer(small_server, number).text for number in range(SLOTS)]
    with ThreadPoolExecutor(SLOTS) as callers:
        together = list(callers.map(lambda number: long_answer(small_server, number), range(SLOTS)))
    assert [each.completed["metrics"]["output_token_count"] for each in together] == [200] * SLOTS
    assert [each.text for each in together] == alone
    preemptions = sum(each.completed["metrics"].get("preemptions", 0) for each in together)
    assert preemptions > 0
    until(lambda: len(lines_in_log(small_server)) == 2 * SLOTS, 5, "the log has a line of each")
    assert preemptions == sum(line["preemptions"] for line in lines_in_log(small_server))


@three_chances
def test_those_without_a_slot_are_refused_at_once_and_those_with_one_keep_their_speed(small_server):
    def in_a_slot(number):
        try:
            return long_answer(small_server, number, 80).seconds
        finally:
            first_is_done.set()

    def knock(_):
        """Status and seconds of each request that was answered while all slots were taken."""
        answers = []
        while not first_is_done.is_set():
            began = time.monotonic()
            answers.append((post(small_server, prompt="Hi", max_tokens=1).status_code, time.monotonic() - began))
            time.sleep(0.1)  # it is the server's speed that counts, and this process takes the CPU from it
        return answers[:-1]

    first_is_done = threading.Event()
    with ThreadPoolExecutor(2 * SLOTS) as callers:
        undisturbed = max(callers.map(in_a_slot, range(SLOTS)))
        first_is_done.clear()
        slots = [callers.submit(in_a_slot, number) for number in range(SLOTS)]
        until(lambda: in_slots(small_server) == SLOTS, 30, "all slots are taken")
        assert small_server.health()["status"] == "BUSY"
        small_server.wait_until_ready(timeout=5)  # which it is
        answers = [answer for answers in callers.map(knock, range(SLOTS)) for answer in answers]
        disturbed = max(slot.result() for slot in slots)
    assert len(answers) > 2 * SLOTS
    assert {status for status, _ in answers} == {409}
    assert max(seconds for _, seconds in answers) < 0.5 * undisturbed
    assert disturbed < 1.5 * undisturbed


def in_slots(server):
    """How many predictions have begun and not ended, by the log."""
    begun = sum(line == "Starting prediction" for line in list(server.log))
    return begun - len(lines_in_log(server))


@pytest.mark.parametrize(("limit", "tokens"), [(0.01, 0), (3, 1)])
def test_an_answer_ends_in_time_and_what_is_there_stands(server, limit, tokens):
    asked = {"prompt": "Count to a million.", "min_tokens": 1900, "max_tokens": 1900, "timeout": limit}
    answer = stream(server, **asked)
    metrics = answer.completed["metrics"]
    assert (answer.completed["status"], metrics["finish_reason"]) == ("succeeded", "timeout")
    assert tokens <= metrics["output_token_count"] < 1900
    assert limit <= metrics["predict_time"] < limit + 2
    (line,) = prediction_lines(answer.completed["logs"].splitlines())
    assert (line["finish_reason"], line["engine"]["unfinished"]) == ("timeout", 0)


def test_a_json_answer_that_had_no_time_is_not_called_valid(server):
    schema = {"type": "array", "items": {"type": "integer"}, "minItems": 500}
    metrics = predict(server, prompt="Count.", json_schema=schema, max_tokens=1900, timeout=1)["metrics"]
    assert (metrics["finish_reason"], metrics["json_valid"]) == ("timeout", False)


def test_nothing_that_was_said_is_in_the_log_unless_it_is_asked_for(server, small_server):
    secret = "my canary is called Xanthippe"
    asked = [
        {"prompt": secret},
        {"prompt": secret, "temperature": 0, "prompt_template": f"{{prompt}} {secret}"},
        {"system_prompt": secret, "messages": [{"role": "user", "content": secret}]},
        {"prompt": secret * 2000},
        {"prompt": secret, "messages": [{"role": secret}]},
        {"prompt": secret, "tools": [{"name": secret}]},
        {"prompt": secret, "json_schema": {"pattern": f"({secret}"}},
        {"prompt": secret, "stop_sequences": secret, "timeout": 0.05},
    ]
    for inputs in asked:
        post(server, max_tokens=8, **inputs)
    assert not [line for line in list(server.log) if "Xanthippe" in line]
    post(small_server, prompt=secret, max_tokens=8)
    assert [line for line in list(small_server.log) if line.startswith("hermes: prompt: ") and secret in line]
    assert [line for line in list(small_server.log) if line.startswith("hermes: response: ")]


def test_an_id_that_makes_no_file_name_still_takes_its_slot_for_good(small_server):
    """coglet 0.23.1 does not free the slot. Nobody who is not trusted may choose ids, see SECURITY.md."""
    for prediction_id in ("x" * 256, "x" * 60_000, "a\0b", "y" * 256)[:SLOTS]:
        prediction = post(small_server, quote(prediction_id, safe=""), prompt="Hi", max_tokens=1).json()
        assert prediction["status"] == "failed"
        assert prediction["error"].startswith("Failed to create output dir: ")
    refused = post(small_server, prompt="Hi", max_tokens=1)
    assert refused.status_code == 409, "Cog frees the slot now: what the documentation says of it can go"
