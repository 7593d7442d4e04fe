import sys

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel


class GetWeather(BaseModel):
    """The weather of a city."""

    city: str


def ask(messages, choice):
    sent = {"model": "model", "messages": messages, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
    if sys.argv[2] == "whole":
        return CLIENT.chat.completions.create(**sent, max_tokens=100).choices[0].message
    with CLIENT.chat.completions.stream(**sent, max_tokens=100) as stream:
        return stream.get_final_completion().choices[0].message


CLIENT = OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
TOOLS = [pydantic_function_tool(GetWeather, name="get_weather")]
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is the weather in Oslo?"}]
called = ask(MESSAGES, {"type": "function", "function": {"name": "get_weather"}})
results = [{"role": "tool", "tool_call_id": call.id, "content": "It rains."} for call in called.tool_calls]
print(ask([*MESSAGES, called.to_dict(), *results], "none").content)
