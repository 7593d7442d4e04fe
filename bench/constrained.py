"""Requests for JSON and with a tool: to this package, and to vLLM's own server with the same prompt and grammar."""

import asyncio
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from hermes.chat.constraint import json_constraint, tools_constraint
from hermes.chat.request import DEFAULT_SYSTEM_PROMPT
from hermes.engine.engine import end_tokens
from hermes.engine.grammar import Grammars
from hermes.tool_calls.definitions import parse_functions, tools_prompt

SCHEMA = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
TOOL = {
    "name": "get_weather",
    "description": "Get the weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}

# A long list of numbers, never complete within the new tokens, after the very prompt that others get: the cost of the
# grammar alone. min_tokens can't go with a schema.
JSON = {
    "json_schema": SCHEMA,
    "prompt_template": f"<|im_start|>system\n{DEFAULT_SYSTEM_PROMPT}<|im_end|>\n"
    "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n",
    "min_tokens": 0,
}
# Free text in which a call may begin, after a prompt that is 240 tokens longer for the description of the tool.
WITH_A_TOOL = {"tools": [TOOL]}


def same_for_vllm(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What vLLM's server has to be sent for both. Its own tools have no grammar where a call may or may not begin."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = end_tokens(folder, tokenizer, len(tokenizer))
    grammars = Grammars(tokenizer, ends)
    functions = parse_functions([TOOL])
    json, tool = (
        {
            "structured_outputs": {"grammar": asyncio.run(grammars.lark(each))},
            "skip_special_tokens": False,
            "stop_token_ids": ends,  # min_tokens keeps the model from all of these
        }
        for each in (json_constraint(SCHEMA), tools_constraint(functions, "auto"))
    )
    return {**json, "min_tokens": 0}, {**tool, "system_prompt": tools_prompt(functions)}
