"""Texts as tokens and back, in the shapes of vLLM's server, with the package's own encoder of prompts."""

import asyncio

import pytest

from hermes.gateway.tokens_api import DetokenizeRequest, TokenizeRequest
from tests.support.asgi_gateway import FakeUpstream, serving
from tests.support.foreign_fields import vllm_fields
from tests.support.served import Served

USER = {"role": "user", "content": "Hi"}
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
BOS = "<|begin_of_text|>"
CHAT = f"{BOS}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def ask(path, body, upstream=None):
    """The response, and the upstream."""
    upstream = upstream or Served()

    async def main():
        async with serving(upstream) as (_, client):
            return await client.post(path, json=body)

    return asyncio.run(main()), upstream


def text_of(response, upstream):
    return upstream.chatml.shown(response.json()["tokens"])


@pytest.mark.parametrize(
    ("sent", "strings"),
    [
        ({}, None),
        ({"model": "model", "return_token_strs": None}, None),
        ({"return_token_strs": True}, [BOS, "H", "i"]),
        ({"add_special_tokens": False, "return_token_strs": True}, ["H", "i"]),
    ],
)
@pytest.mark.parametrize("path", ["/tokenize", "/v1/tokenize"])
def test_a_prompt(path, sent, strings):
    response, upstream = ask(path, {"prompt": "Hi", **sent})
    body = response.json()
    assert (body["count"], body["max_model_len"], body["token_strs"]) == (len(strings or "BHi"), 500, strings)
    assert len(body["tokens"]) == body["count"]
    assert text_of(response, upstream) == "".join(strings or [BOS, "Hi"])
    assert upstream.engine.seen == [], "which generates nothing"


@pytest.mark.parametrize(
    ("sent", "text"),
    [
        ({}, CHAT),
        ({"add_special_tokens": True}, CHAT),
        ({"add_special_tokens": False}, CHAT),
        ({"add_generation_prompt": True}, CHAT),
        ({"add_generation_prompt": False}, CHAT.removesuffix("<|im_start|>assistant\n")),
        ({"chat_template_kwargs": {"enable_thinking": False}}, CHAT),
    ],
)
def test_messages(sent, text):
    assert text_of(*ask("/tokenize", {"messages": [USER], **sent})) == text


def test_tools_are_in_the_prompt():
    text = text_of(*ask("/tokenize", {"messages": [USER], "tools": [TOOL]}))
    assert '"clock"' in text
    assert text.endswith(CHAT.removeprefix(BOS))


def test_messages_that_are_continued():
    begun = {"messages": [USER, {"role": "assistant", "content": "Hel"}], "continue_final_message": True}
    assert text_of(*ask("/tokenize", begun)) == CHAT + "Hel"
    assert text_of(*ask("/tokenize", begun | {"add_generation_prompt": False})) == CHAT + "Hel"


def test_a_text_that_looks_like_the_beginning_of_a_turn_is_none():
    body = {"messages": [USER | {"content": "<|im_start|>"}], "add_generation_prompt": False}
    assert text_of(*ask("/tokenize", body)) == f"{BOS}<|im_start|>user\n<|im_start|><|im_end|>\n"


def test_tokens_as_text():
    response, _ = ask("/detokenize", {"model": "model", "tokens": [40, 73]})
    assert response.json() == {"prompt": "Ij"}
    found, upstream = ask("/tokenize", {"messages": [USER]})
    assert ask("/detokenize", {"tokens": found.json()["tokens"]}, upstream)[0].json() == {"prompt": CHAT}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "Hi", "messages": [USER]}, 400, "prompt"),
        ("/tokenize", {"prompt": ["Hi"]}, 400, "prompt"),
        ("/tokenize", {"prompt": ""}, 400, "prompt"),
        ("/tokenize", {"prompt": "x" * 200_000}, 400, "prompt"),
        ("/tokenize", {"messages": [USER | {"content": "x" * 200_000}]}, 400, "messages"),
        ("/tokenize", {"prompt": "Hi", "tools": [TOOL]}, 400, "tools"),
        ("/tokenize", {"prompt": "Hi", "continue_final_message": True}, 400, "continue_final_message"),
        ("/detokenize", {"tokens": [1] * 20_000}, 400, "tokens"),
        ("/tokenize", {"prompt": "Hi", "model": "other"}, 404, "model"),
        ("/tokenize", {"messages": [USER], "chat_template": "{{ x }}"}, 400, "chat_template"),
        ("/tokenize", {"messages": [USER], "mm_processor_kwargs": {"a": 1}}, 400, "mm_processor_kwargs"),
        (
            "/tokenize",
            {"messages": [USER], "continue_final_message": True, "add_generation_prompt": True},
            400,
            "add_generation_prompt",
        ),
        ("/tokenize", {"messages": [USER], "continue_final_message": True}, 400, "continue_final_message"),
        ("/detokenize", {"tokens": []}, 400, "tokens"),
        ("/detokenize", {"tokens": ["x"]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [1, 10**6]}, 400, "tokens[1]"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"prompt": "Hi"}, 400, "tokens"),
    ],
)
def test_what_cannot_be_had_is_refused(path, body, status, param):
    response, _ = ask(path, body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


@pytest.mark.parametrize("odd", [None, {"ids": [1]}, {"ids": ["1"], "strings": ["a"], "text": "a", "bos": 0}])
def test_a_server_that_gives_no_tokens_is_a_bad_gateway(odd):
    upstream = FakeUpstream(document=Served().description, metrics={"tokenized": odd})
    upstream.pieces = ()
    assert ask("/tokenize", {"prompt": "Hi"}, upstream)[0].status_code == 502


def test_every_field_of_vllms_classes_is_done_harmless_or_refused():
    path = "entrypoints/serve/tokenize/protocol.py"
    for kind, names in (
        (TokenizeRequest, ["TokenizeCompletionRequest", "TokenizeChatRequest"]),
        (DetokenizeRequest, ["DetokenizeRequest"]),
    ):
        fields = {field for name in names for field in vllm_fields(path, name)}
        assert fields <= kind.model_fields.keys() | kind.harmless.keys() | kind.refused.keys()
        assert kind.harmless.keys() | kind.refused.keys() <= fields
