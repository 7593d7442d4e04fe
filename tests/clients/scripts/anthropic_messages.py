import sys

from anthropic import Anthropic

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = {"name": "get_weather", "description": "The weather of a city.", "input_schema": CITY}


def ask(messages, choice):
    sent = {"model": "model", "system": "Be brief.", "messages": messages, "tools": [TOOL], "tool_choice": choice}
    if sys.argv[2] == "whole":
        return CLIENT.messages.create(**sent, max_tokens=100, extra_body={"temperature": 0})
    with CLIENT.messages.stream(**sent, max_tokens=100, extra_body={"temperature": 0}) as stream:
        return stream.get_final_message()


CLIENT = Anthropic(base_url=sys.argv[1].removesuffix("/v1"), api_key="none", max_retries=0)
messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
called = ask(messages, {"type": "tool", "name": "get_weather"})
calls = [block for block in called.content if block.type == "tool_use"]
results = [{"type": "tool_result", "tool_use_id": call.id, "content": "It rains."} for call in calls]
told = [{"role": "assistant", "content": called.content}, {"role": "user", "content": results}]
print("".join(block.text for block in ask([*messages, *told], {"type": "none"}).content))
