import pytest

from hermes.chat.inputs import SMALL, is_small
from tests.support.fakes import INPUTS

LONG = "x" * SMALL


@pytest.mark.parametrize(
    ("inputs", "small"),
    [
        ({}, True),
        ({"prompt": "x" * 8000}, True),
        ({"prompt": LONG}, False),
        ({"prompt": "x" * 4100, "system_prompt": "x" * 4100}, False),
        ({"messages": [{"role": "user", "content": "Hello"}]}, True),
        ({"messages": [{"role": "user", "content": LONG}]}, False),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": LONG}]}]}, False),
        ({"messages": [{"role": "user", LONG: ""}]}, True),  # a name is refused unread
        ({"messages": [{}] * SMALL}, False),
        ({"stop": ["x"] * SMALL}, False),
        ({"tools": [{"name": "f"}]}, False),
        ({"prompt_token_ids": [1] * 8000}, False),
        ({"json_schema": {"type": "object"}}, False),
    ],
)
def test_small_inputs_are_short_texts_without_a_schema(inputs, small):
    assert is_small({**INPUTS, **inputs}) is small
