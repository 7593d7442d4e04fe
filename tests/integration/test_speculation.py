"""Speculative decoding on the CPU: guessed tokens change how a response is made, and not what it is."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from hermes.devserver import LocalServer
from tests.support.asking import failure, predict, text_of
from tests.support.servers import LOCAL

REPEATING = "Count: one, two, three, one, two, three, one, two, three. Repeat that."
PROMPTS = [REPEATING, "What is the capital of France?", "Write a line of Python that prints hello, twice."]
SAMPLED = {"prompt": REPEATING, "temperature": 0.8, "top_k": 20, "top_p": 0.9, "seed": 7, "max_tokens": 16}


# A draft that is the model itself guesses each token, and costs as much. It shows the whole way.
@pytest.fixture(scope="module", params=["ngram", pytest.param("demo", marks=pytest.mark.long)])
def guessing(request):
    """A server that guesses tokens ahead."""
    with LocalServer(environment={**LOCAL, "HERMES_SPECULATION": request.param}) as server:
        server.wait_until_ready(timeout=300)
        yield server


def greedy(server):
    answers = [predict(server, prompt=prompt, temperature=0, max_tokens=48) for prompt in PROMPTS]
    return [
        (text_of(each), each["metrics"]["output_token_count"], each["metrics"]["finish_reason"]) for each in answers
    ]


@pytest.mark.long
def test_the_greedy_text_is_the_same(guessing):
    guessed = greedy(guessing)
    with LocalServer(environment=LOCAL) as plain:
        plain.wait_until_ready(timeout=300)
        assert greedy(plain) == guessed
    assert len({text for text, _, _ in guessed}) == len(PROMPTS)


def test_the_greedy_text_is_that_without_guesses_and_a_step_gives_several_tokens(guessing):
    answer = predict(guessing, prompt=REPEATING, temperature=0, max_tokens=48)
    assert text_of(answer) == "One, two, three, " + ", ".join(["one, two, three"] * 7) + ","
    assert answer["metrics"]["output_token_count"] == 48
    assert len(answer["output"]) < 0.6 * 48, answer["output"]


def test_a_seed_repeats_a_sampled_response(guessing):
    one, two = (predict(guessing, **SAMPLED) for _ in range(2))
    assert text_of(one) == text_of(two) != ""


@pytest.mark.parametrize("most", [1, 2, 7])
def test_no_guess_goes_over_max_tokens(guessing, most):
    answer = predict(guessing, prompt=REPEATING, temperature=0, max_tokens=most)
    assert (answer["metrics"]["output_token_count"], answer["metrics"]["finish_reason"]) == (most, "length")


def test_no_guess_goes_over_a_stop_string(guessing):
    answer = predict(guessing, prompt=REPEATING, temperature=0, max_tokens=48, stop=["three"])
    assert text_of(answer) == "One, two, "


def test_a_grammar_holds_for_guessed_tokens(guessing):
    schema = {
        "type": "object",
        "properties": {"words": {"type": "array", "items": {"enum": ["one", "two"]}, "maxItems": 4}},
    }
    answer = predict(guessing, prompt=REPEATING, json_schema=schema, temperature=0, max_tokens=200)
    assert answer["metrics"]["json_valid"] is True
    assert set(json.loads(text_of(answer))["words"]) <= {"one", "two"}


@pytest.mark.parametrize("more", [{}, {"json_schema": {"type": "boolean"}}], ids=["text", "json"])
def test_min_p_is_refused_with_the_reason(guessing, more):
    assert failure(guessing, prompt="Hello", min_p=0.1, **more).endswith(
        "E1008 BadSampling: min_p is 0.1; this server guesses tokens ahead (HERMES_SPECULATION), and vLLM then does "
        "not take min_p; leave it at 0"
    )


def test_greedy_and_sampled_responses_share_a_batch(guessing):
    """Their top_k and top_p are repeated for each guess; on a CPU, vLLM's own way to do so kills the engine."""
    inputs = [{**SAMPLED, "seed": seed, "top_k": 5 + seed} for seed in range(4)]
    inputs += [{**SAMPLED, "temperature": 0}, {**SAMPLED, "top_k": 0, "top_p": 1}]
    with ThreadPoolExecutor(len(inputs)) as threads:
        answers = list(threads.map(lambda each: predict(guessing, **each), inputs))
    assert {answer["metrics"]["finish_reason"] for answer in answers} <= {"stop", "length"}
    assert guessing.health()["status"] == "READY"
