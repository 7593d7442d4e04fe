"""The real server takes each prompt as text, refuses what a request gets wrong, and logs no prompt."""

import pytest

from tests.support.asking import QUESTION, failure, post, predict, stream, text_of


@pytest.mark.parametrize(
    "template",
    ["{prompt.__class__} {prompt}", "{prompt:>99999999} {prompt}", '{"question": "{prompt}", "deep": {"a": [{}]}}'],
)
def test_a_template_is_text(server, template):
    filled = template.replace("{prompt}", "Hello")
    inputs = {"temperature": 0, "max_tokens": 12}
    from_template = predict(server, prompt="Hello", prompt_template=template, **inputs)
    written_out = predict(server, prompt="", prompt_template=filled, **inputs)
    assert text_of(from_template) == text_of(written_out)
    assert from_template["metrics"]["input_token_count"] == written_out["metrics"]["input_token_count"] < 40
    assert "class 'str'" not in text_of(from_template)


def test_the_default_prompt_is_chatml(server):
    raw = "<|im_start|>system\n{system_prompt}<|im_end|>\n<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    inputs = {"prompt": QUESTION, "system_prompt": "Answer briefly.", "temperature": 0}
    chat, template = predict(server, **inputs), predict(server, **inputs, prompt_template=raw)
    assert text_of(chat) == text_of(template)
    assert chat["metrics"]["input_token_count"] == template["metrics"]["input_token_count"]


def test_a_typed_control_token_is_many_tokens_of_text(server):
    def prompt_tokens(prompt):
        return predict(server, prompt=prompt, max_tokens=1)["metrics"]["input_token_count"]

    assert prompt_tokens("<|im_end|>") > prompt_tokens("word") + 3


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        ({"max_tokens": "many"}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"parallel_tool_calls": "yes"}, "parallel_tool_calls"),
        ({"prompt_token_ids": "1"}, "prompt_token_ids"),
        ({"prompt_token_ids": ["1"]}, "prompt_token_ids"),
        ({"prompt_token_ids": [1.5]}, "prompt_token_ids"),
        ({"temperature": -1}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"seed": -1}, "seed"),
        ({"prompt": 3}, "prompt"),
        ({"presence_penalty": 3}, "presence_penalty"),
    ],
)
def test_cog_refuses_wrong_types_and_ranges_by_field(server, inputs, field):
    response = post(server, **{"prompt": "Hi", **inputs})
    assert response.status_code == 422
    assert [problem["loc"][-1].split("/")[0] for problem in response.json()["detail"]] == [field]


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ({"prompt": ""}, "E1001 EmptyRequest"),
        ({"prompt": "word " * 9000}, "the model takes 2048 with at least 1 to generate; shorten it by"),
        ({"prompt": "Hi", "prompt_template": "{prompt:>99999999}"}, "E1003 BadPromptTemplate"),
        ({"prompt": "Hi", "prompt_template": "{% for m in messages %}{prompt}"}, "E1004 PromptTemplateError"),
        ({"prompt": "Hi", "min_tokens": 10, "max_tokens": 5}, "E1008 BadSampling: min_tokens is 10"),
        ({"prompt": "Hi", "top_p": 0}, "E1008 BadSampling: top_p is 0"),
    ],
)
def test_what_a_request_gets_wrong_has_a_code_and_the_server_goes_on(server, inputs, code):
    assert code in failure(server, **inputs)
    streamed = stream(server, **inputs)
    assert (streamed.completed["status"], streamed.pieces) == ("failed", [])
    assert code in streamed.completed["error"]
    assert text_of(predict(server, prompt=QUESTION, temperature=0))


@pytest.mark.parametrize("wrong", [-1, 10**6, 2**40])
def test_token_ids_that_the_model_does_not_have_are_refused_and_the_server_goes_on(server, wrong):
    error = failure(server, prompt="", prompt_token_ids=[1, wrong], max_tokens=3)
    assert f"E1005 BadMessages: prompt_token_ids[1] is {wrong}; it has to be the id of a token" in error
    assert text_of(predict(server, prompt=QUESTION, temperature=0))


def test_the_tokens_of_a_prompt_are_a_prompt(server):
    counted = predict(server, prompt=QUESTION, max_tokens=0)
    assert text_of(counted) == ""
    tokenized = counted["metrics"]["tokenized"]
    assert tokenized["text"].endswith(f"{QUESTION}<|im_end|>\n<|im_start|>assistant\n")
    assert (tokenized["strings"][0], tokenized["bos"]) == ("<|im_start|>", 0)
    assert len(tokenized["ids"]) == len(tokenized["strings"]) == counted["metrics"]["input_token_count"]
    again = predict(server, prompt="", prompt_token_ids=tokenized["ids"], temperature=0, max_tokens=20)
    assert text_of(again) == text_of(predict(server, prompt=QUESTION, temperature=0, max_tokens=20))


def test_many_tokens_are_counted_past_the_context_and_reported_whole(server):
    metrics = stream(server, prompt="word " * 16_000, max_tokens=0).completed["metrics"]
    assert (metrics["context_tokens"], metrics["finish_reason"]) == (2048, "length")
    assert len(metrics["tokenized"]["ids"]) == metrics["input_token_count"] > 16_000
    ids = metrics["tokenized"]["ids"][:16_000]
    again = predict(server, prompt="", prompt_token_ids=ids, max_tokens=0)
    assert again["metrics"]["tokenized"]["ids"] == ids
    assert "with that, fewer than 16384 are counted" in failure(server, prompt="word " * 17_000, max_tokens=0)


def test_a_response_goes_on_with_the_assistants_last_message(server):
    begun = {"role": "assistant", "content": "The capital of France is"}
    inputs = {"prompt": "", "messages": [{"role": "user", "content": QUESTION}, begun], "temperature": 0}
    went_on = text_of(predict(server, **inputs, continue_final_message=True, max_tokens=12))
    assert went_on.startswith(" Paris")
    assert text_of(predict(server, **inputs, max_tokens=12)) != went_on


def test_a_prompt_that_is_too_long_still_reports_its_tokens(server):
    prediction = post(server, prompt="word " * 9000).json()
    assert prediction["metrics"]["input_token_count"] > 9000
    assert "finish_reason" not in prediction["metrics"]


def test_the_prompt_is_never_logged(server):
    predict(server, prompt="my secret is xyzzy", system_prompt="plugh", max_tokens=3)
    failure(server, prompt="xyzzy " * 9000)
    assert not [line for line in server.log if "xyzzy" in line or "plugh" in line]
