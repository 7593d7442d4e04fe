import pytest
from fakes import byte_tokenizer

from hermes.conversation import ChatML, Request, Sampling
from hermes.conversation.request import split_stop_sequences
from hermes.errors import BadPromptTemplate, BadSampling, EmptyRequest, PromptTooLong

INPUTS = {
    "prompt": "Hi",
    "system_prompt": "Be kind.",
    "prompt_template": None,
    "stop_sequences": None,
    "seed": 1,
    "min_tokens": 0,
    "max_tokens": 512,
    "temperature": 0.6,
    "top_p": 0.9,
    "top_k": 50,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def request(**inputs):
    return Request.from_inputs(**{**INPUTS, **inputs})


def test_the_inputs_become_one_value():
    assert request(stop_sequences="END, stop") == Request(
        "Hi", "Be kind.", None, Sampling(seed=1, stop=("END", " stop"))
    )


def test_zero_is_a_seed_and_none_draws_one():
    assert request(seed=0).sampling.seed == 0
    assert len({request(seed=None).sampling.seed for _ in range(20)}) > 1


@pytest.mark.parametrize("template", [None, ""])
def test_nothing_to_answer_is_refused(template):
    with pytest.raises(EmptyRequest, match="E1001"):
        request(prompt="", prompt_template=template)


def test_a_template_may_be_the_whole_prompt():
    assert request(prompt="", prompt_template="Once").prompt_template == "Once"


def test_an_empty_template_is_none():
    assert request(prompt_template="").prompt_template is None


def test_a_bad_template_is_refused():
    with pytest.raises(BadPromptTemplate):
        request(prompt_template="no place")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_tokens": 0}, "max_tokens is 0; ask for at least 1"),
        ({"min_tokens": 20, "max_tokens": 10}, "min_tokens is 20; it must be from 0 to max_tokens, 10"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"top_p": 0.0}, "top_p is 0.0; it must be above 0"),
        ({"top_p": float("nan")}, "top_p is nan"),
    ],
)
def test_sampling_values_that_cannot_be_meant_are_refused(values, message):
    with pytest.raises(BadSampling, match=message) as refused:
        request(**values)
    assert refused.value.code == "E1008"


@pytest.mark.parametrize(
    ("text", "sequences"),
    [
        (None, ()),
        ("", ()),
        (",,", ()),
        ("END", ("END",)),
        ("END,\n\n", ("END", "\n\n")),
        ("<end>, <stop>,", ("<end>", " <stop>")),
    ],
)
def test_stop_sequences_keep_their_spaces_and_are_never_empty(text, sequences):
    assert split_stop_sequences(text) == sequences


def test_max_tokens_is_lowered_to_what_the_context_still_takes():
    fitted = Sampling(seed=1, max_tokens=512, min_tokens=300).fitted(prompt_tokens=8000, context_tokens=8192)
    assert (fitted.max_tokens, fitted.min_tokens) == (192, 192)
    assert Sampling(seed=1, max_tokens=5).fitted(10, 8192).max_tokens == 5


@pytest.mark.parametrize("prompt_tokens", [8192, 9012])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(prompt_tokens):
    with pytest.raises(PromptTooLong) as refused:
        Sampling(seed=1).fitted(prompt_tokens, 8192)
    assert str(refused.value) == (
        f"E1002 PromptTooLong: the prompt is {prompt_tokens} tokens; the model takes 8192 with at least 1 to generate; "
        f"shorten the prompt by at least {prompt_tokens - 8191} tokens"
    )


def test_one_token_of_room_is_enough():
    assert Sampling(seed=1).fitted(8191, 8192).max_tokens == 1


def test_token_ids_are_a_conversation_or_the_callers_raw_prompt():
    tokenizer = byte_tokenizer()
    chatml, decode = ChatML(tokenizer), tokenizer.backend_tokenizer.decode
    assert decode(request().token_ids(chatml), skip_special_tokens=False) == (
        "<|begin_of_text|><|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    raw = request(prompt_template="{system_prompt}<|im_end|>{prompt}").token_ids(chatml)
    assert decode(raw, skip_special_tokens=False) == "<|begin_of_text|>Be kind.<|im_end|>Hi"
    assert chatml.end_id in raw
