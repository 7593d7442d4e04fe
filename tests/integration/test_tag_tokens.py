"""A model in which <tool_call> is one special token: calls are written, read and kept in form, too."""

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from tests.support.asking import predict, stream, text_of
from tests.support.schemas import thing


def test_the_formats_own_tags_are_its_tokens_and_a_users_are_text(sibling):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sibling)
    tag = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert tag in tokenizer.all_special_ids or tokenizer.added_tokens_decoder[tag].special
    chatml = ChatML(tokenizer)
    assert tag in chatml.encode([Message("assistant", "<tool_call>")])
    assert tag not in chatml.encode([Message("user", "<tool_call>")])


def test_calls_are_read_where_their_tags_are_special_tokens(tiny_server):
    tools = [
        {"name": "turn_on", "parameters": thing("lamp", lamp={"enum": ["red", "blue"]})}
    ]  # a random model ends no text
    inputs = {"prompt": "Call it.", "tools": tools, "max_tokens": 60, "temperature": 1}
    for seed in range(6):
        called = stream(tiny_server, **inputs, tool_choice="required", seed=seed)
        metrics = called.completed["metrics"]
        assert called.text.startswith("<tool_call>\n{")
        assert "<|im_end|>" not in called.text
        assert metrics["tool_calls"][0]["name"] == "turn_on"
        assert metrics["finish_reason"] == "length" or not metrics["tool_call_errors"]
    (one,) = predict(tiny_server, **inputs, tool_choice="turn_on", seed=1)["metrics"]["tool_calls"]
    assert one["name"] == "turn_on"
    answered = predict(tiny_server, **inputs, tool_choice="none", seed=1)
    assert "<tool_call>" not in text_of(answered)
