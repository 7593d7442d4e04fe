"""The real engine responds through the real server: token by token, as transformers would, to many at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from timeit import timeit

import pytest

from hermes.client.errors import PredictionRefused
from tests.support.asking import (
    LONG,
    QUESTION,
    lines_in_log,
    once_a_slot_is_free,
    post,
    predict,
    stream,
    streaming,
    text_of,
    until,
)

PROMPTS = [
    QUESTION,
    "Write a short story about a lighthouse keeper.",
    "Explain why the sky is blue to a child.",
    "List five animals that live in the sea.",
    "Write a Python function that reverses a string.",
]


COUNTING = "one two three four five six seven eight nine ten "


def copy(what):
    """A raw prompt that even a small model completes by copying."""
    return {"prompt": (what * 8).rstrip(" "), "prompt_template": "{prompt}", "temperature": 0}


def test_tokens_stream_as_they_are_generated(server):
    inputs = {"prompt": PROMPTS[1], "temperature": 0, "max_tokens": 97, "min_tokens": 97}  # few others have 97

    def ended():
        return [line for line in lines_in_log(server) if line["output_tokens"] == 97]

    before, ended_at_first = ended(), []
    streamed = stream(server, lambda: ended_at_first.append(ended()), **inputs)
    assert ended_at_first == [before], "the first piece came when the prediction had ended"
    until(lambda: len(ended()) > len(before), 5, "the log says that it has ended")
    assert len(streamed.pieces) > 30  # a busy machine joins some
    assert all(streamed.pieces), "an empty piece"
    assert streamed.text == text_of(predict(server, **inputs))
    assert streamed.completed["output"] == streamed.pieces


def test_a_busy_engine_keeps_no_caller_waiting(server):
    """The engine works on one core here, in a session of its own, and the server and this process get their turn."""

    def seconds():
        return timeit(lambda: predict(server, prompt="Hi", max_tokens=1), number=8)

    alone = seconds()
    with streaming(server, **LONG):
        assert seconds() < 10 * alone


@pytest.fixture(scope="module")
def reference(small_model):
    """transformers' own greedy generation on the same weights, in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from hermes.chat.chatml import ChatML
    from hermes.chat.messages import Message

    torch.set_num_threads(1)  # two would wait for each other in spins, beside the engines of other tests
    tokenizer = AutoTokenizer.from_pretrained(small_model)
    model = AutoModelForCausalLM.from_pretrained(small_model, dtype=torch.float32)
    chatml = ChatML(tokenizer)

    def generate(prompt, system_prompt, max_tokens):
        ids = torch.tensor([chatml.encode([Message("system", system_prompt), Message("user", prompt)])])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=max_tokens)
        return out[0, ids.shape[1] :].tolist()

    return tokenizer, generate


@pytest.mark.parametrize(
    "prompt", [*PROMPTS[:2], *(pytest.param(prompt, marks=pytest.mark.long) for prompt in PROMPTS[2:])]
)
def test_greedy_tokens_are_those_of_transformers(server, reference, prompt):
    tokenizer, generate = reference
    tokens = generate(prompt, "You are a helpful assistant.", 96)
    streamed = stream(server, prompt=prompt, temperature=0, max_tokens=96)
    assert streamed.text == tokenizer.decode(tokens, skip_special_tokens=True)
    assert streamed.completed["metrics"]["output_token_count"] == len(tokens)
    after_each_token = {tokenizer.decode(tokens[:n], skip_special_tokens=True) for n in range(1, len(tokens) + 1)}
    so_far = ["".join(streamed.pieces[:n]) for n in range(1, len(streamed.pieces) + 1)]
    assert set(so_far) <= after_each_token


def test_thirty_two_at_once_each_get_their_own_answer(server):
    def ask(number):
        code = f"{number * 7919 % 9000 + 1000}"
        prompt = f"The code of agent {number} is {code}. " * 3 + "padding " * number + f"The code of agent {number} is"
        inputs = {"prompt_template": "{prompt}", "temperature": 0, "seed": number, "min_tokens": 64, "max_tokens": 64}
        return code, once_a_slot_is_free(lambda: stream(server, everyone_streams.wait, prompt=prompt, **inputs))

    everyone_streams = threading.Barrier(32, timeout=120)
    with ThreadPoolExecutor(32) as callers:
        answers = list(callers.map(ask, range(32)))
    for number, (code, answer) in enumerate(answers):
        assert answer.text.startswith(f" {code}."), f"caller {number} got another's answer"
        metrics = answer.completed["metrics"]
        assert (metrics["seed"], metrics["output_token_count"], metrics["finish_reason"]) == (number, 64, "length")
    padding = [answer.completed["metrics"]["input_token_count"] for _, answer in answers]
    assert padding[31] - padding[11] == 20, "each prompt is as long as its own padding makes it"


def test_while_all_slots_stream_the_next_is_refused(server):
    with ExitStack() as slots, ThreadPoolExecutor(32) as callers:

        def take_a_slot(_):
            once_a_slot_is_free(lambda: slots.enter_context(streaming(server, **LONG)))

        list(callers.map(take_a_slot, range(32)))
        assert post(server, prompt="Hi").status_code == 409
        with pytest.raises(PredictionRefused, match="409: At capacity"):
            stream(server, prompt="Hi")
    until(lambda: post(server, prompt="Hi", max_tokens=1).status_code == 200, 5, "a slot is free again")


def test_metrics_say_how_it_went(server):
    metrics = predict(server, prompt=QUESTION, temperature=0, seed=7)["metrics"]
    assert (metrics["finish_reason"], metrics["seed"], metrics["output_token_count"]) == ("stop", 7, 8)
    assert 0 < metrics["time_to_first_token"] < metrics["predict_time"]
    assert metrics["tokens_per_second"] == pytest.approx(8 / metrics["predict_time"], rel=0.5)
    assert set(metrics) == {
        "seed",
        "input_token_count",
        "output_token_count",
        "max_tokens",
        "context_tokens",
        "time_to_first_token",
        "tokens_per_second",
        "finish_reason",
        "predict_time",
    }


def test_reaching_max_tokens_is_a_success(quick_server):
    prediction = predict(quick_server, prompt=PROMPTS[1], max_tokens=5)
    assert prediction["metrics"]["finish_reason"] == "length"
    assert prediction["metrics"]["output_token_count"] == 5


def test_the_turn_does_not_end_before_min_tokens(server):
    assert predict(server, prompt=QUESTION, temperature=0, max_tokens=40)["metrics"]["output_token_count"] == 8
    prediction = predict(server, prompt=QUESTION, temperature=0, min_tokens=40, max_tokens=40)
    assert prediction["metrics"]["output_token_count"] == 40
    assert "<|im_end|>" not in text_of(prediction)


def test_max_tokens_is_lowered_to_what_the_context_takes(quick_server):
    prediction = predict(quick_server, prompt="word " * 2000, min_tokens=100, max_tokens=131072, temperature=0)
    metrics = prediction["metrics"]
    assert metrics["input_token_count"] + metrics["output_token_count"] == 2048
    assert metrics["finish_reason"] == "length"


@pytest.mark.parametrize("seed", [0, 1, 9007199254740991])
def test_the_same_seed_gives_the_same_text(quick_server, seed):
    inputs = {"prompt": PROMPTS[1], "temperature": 1.0, "max_tokens": 32, "seed": seed}
    first = predict(quick_server, **inputs)
    assert text_of(first) == text_of(predict(quick_server, **inputs))
    assert first["metrics"]["seed"] == seed


def test_without_a_seed_answers_differ_and_the_reported_seed_gives_the_text_again(quick_server):
    inputs = {"prompt": PROMPTS[1], "temperature": 1.0, "max_tokens": 32}
    first, second = predict(quick_server, **inputs), predict(quick_server, **inputs)
    assert text_of(first) != text_of(second)
    assert text_of(predict(quick_server, **inputs, seed=first["metrics"]["seed"])) == text_of(first)


@pytest.mark.parametrize(
    ("text", "copied"),
    [
        ("😀😂🥰", "😂😂"),
        ("日本語", "日本語日"),
        ("こんにちは、", "こんにちは"),
        ("𝔘𝔫𝔦", "𝔘"),
        ("été naïve ", "été naïve été"),
    ],
)
def test_characters_that_are_several_tokens_stay_whole(server, text, copied):
    whole = stream(server, **copy(text), max_tokens=30)
    assert copied in whole.text
    assert "\ufffd" not in whole.text
    assert text_of(predict(server, **copy(text), max_tokens=30)) == whole.text
    with ThreadPoolExecutor(11) as callers:
        cut_short = callers.map(lambda cut: predict(server, **copy(text), max_tokens=cut), range(1, 12))
    for cut, short in enumerate(cut_short, start=1):  # a limit in the middle of a character leaves out its half only
        assert whole.text.startswith(text_of(short))
        assert "\ufffd" not in text_of(short)
        assert short["metrics"]["output_token_count"] == cut


@pytest.mark.parametrize("stop", ["seven", " four five six", "our five s", "t", "no,such,seven"])
def test_a_stop_sequence_ends_the_answer_and_no_part_of_it_leaks(server, stop):
    inputs = copy(COUNTING) | {"max_tokens": 25}
    whole = text_of(predict(server, **inputs))
    streamed = stream(server, **inputs, stop_sequences=stop)
    first = min(whole.find(each) for each in stop.split(",") if each in whole)
    assert streamed.text == whole[:first]
    assert streamed.completed["metrics"]["finish_reason"] == "stop"


def test_a_stop_string_may_hold_a_comma_and_goes_together_with_stop_sequences(server):
    inputs = copy("red, green, blue, white, black. ") | {"max_tokens": 25}
    whole = text_of(predict(server, **inputs))
    streamed = stream(server, **inputs, stop_sequences="never,written", stop=["green, blue"])
    assert streamed.text == whole[: whole.index("green, blue")]
    assert streamed.completed["metrics"]["finish_reason"] == "stop"


def test_empty_stop_sequences_stop_nothing(quick_server):
    inputs = {"prompt": PROMPTS[1], "temperature": 0, "max_tokens": 20}
    assert text_of(predict(quick_server, **inputs, stop_sequences=",,")) == text_of(predict(quick_server, **inputs))
