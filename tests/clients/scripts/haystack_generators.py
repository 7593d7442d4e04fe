import sys

from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.dataclasses import ChatMessage
from haystack.tools import Tool
from haystack.utils import Secret

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOL = Tool("get_weather", "The weather of a city.", CITY, function=lambda city: "It rains.")
KINDS = {
    "chat": (OpenAIChatGenerator, "max_tokens", {"type": "function", "function": {"name": "get_weather"}}),
    "responses": (OpenAIResponsesChatGenerator, "max_output_tokens", {"type": "function", "name": "get_weather"}),
}


def ask(messages, choice):
    settings = {"tool_choice": choice, "temperature": 0, limit: 60}
    callback = None if sys.argv[2] == "whole" else (lambda chunk: None)
    generator = kind(api_key=Secret.from_token("none"), model="model", api_base_url=sys.argv[1], max_retries=0)
    [answer] = generator.run(messages, streaming_callback=callback, generation_kwargs=settings, tools=[TOOL])["replies"]
    return answer


kind, limit, named = KINDS[sys.argv[3]]
messages = [ChatMessage.from_system("Be brief."), ChatMessage.from_user("What is the weather in Oslo?")]
called = ask(messages, named)
results = [ChatMessage.from_tool(TOOL.invoke(**call.arguments), origin=call) for call in called.tool_calls]
print(ask([*messages, called, *results], "none").text)
