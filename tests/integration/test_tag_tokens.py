"""A sibling of the model in which <tool_call> is one special token: calls are written, read and kept in form, too."""

import shutil

import pytest

from hermes.chat.chatml import ChatML
from hermes.chat.messages import Message
from hermes.devserver.server import LocalServer
from tests.support.asking import predict, stream
from tests.support.schemas import TOOLS
from tests.support.servers import LOCAL

TOKENS = {"<repo_name>": "<tool_call>", "<reponame>": "</tool_call>"}  # names of special tokens that nobody needs here


@pytest.fixture(scope="module")
def sibling(small_model, tmp_path_factory):
    """SmolLM2 with two of its special tokens renamed."""
    folder = tmp_path_factory.mktemp("sibling")
    for path in small_model.iterdir():
        if path.suffix == ".safetensors":
            (folder / path.name).symlink_to(path)
            continue
        shutil.copy(path, folder)
        if path.name.startswith(("tokenizer", "special_tokens")):
            text = path.read_text()
            for old, new in TOKENS.items():
                text = text.replace(old, new)
            (folder / path.name).write_text(text)
    return folder


def test_the_formats_own_tags_are_its_tokens_and_a_users_are_text(sibling):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(sibling)
    tag = tokenizer.convert_tokens_to_ids("<tool_call>")
    assert tag in tokenizer.all_special_ids or tokenizer.added_tokens_decoder[tag].special
    chatml = ChatML(tokenizer)
    assert tag in chatml.encode([Message("assistant", "<tool_call>")])
    assert tag not in chatml.encode([Message("user", "<tool_call>")])


@pytest.mark.timeout(400)
def test_calls_are_read_where_their_tags_are_special_tokens(sibling):
    with LocalServer(environment={**LOCAL, "COG_WEIGHTS": str(sibling)}) as server:
        server.wait_until_ready(timeout=300)
        inputs = {"prompt": "Call it.", "tools": TOOLS[:1], "max_tokens": 100, "temperature": 1}
        for seed in range(6):
            called = stream(server, **inputs, tool_choice="required", seed=seed)
            metrics = called.completed["metrics"]
            assert called.text.startswith("<tool_call>\n{")
            assert "<|im_end|>" not in called.text
            assert metrics["finish_reason"] == "length" or metrics["tool_calls"][0]["name"] == "tool_0"
            assert metrics["finish_reason"] == "length" or not metrics["tool_call_errors"]
        answered = predict(server, **inputs, tool_choice="none", seed=1)
        assert "<tool_call>" not in "".join(answered["output"])
