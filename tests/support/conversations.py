"""Tests of conversations send these messages, tools and schemas, in the shape of OpenAI's API."""

USER = {"role": "user", "content": "Hi"}
CALL = '<tool_call>\n{"arguments": {"city": "Oslo"}, "name": "weather"}\n</tool_call>'
RESULT = {"role": "tool", "content": "4"}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {}}}
WEATHER = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}}}}
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


def calling(*calls, **message):
    return {"role": "assistant", "tool_calls": list(calls), **message}


def call(name="weather", arguments='{"city": "Oslo"}', **others):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **others}
