import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "It rains."


def ask(history, choice):
    sent = {"tools": [TOOL], "chat_history": history, "tool_choice": choice}
    if sys.argv[2] == "whole":
        return MODEL.chat_with_tools(**sent)
    *_, last = MODEL.stream_chat_with_tools(**sent)
    return last


TOOL = FunctionTool.from_defaults(get_weather)
MODEL = OpenAILike(
    model="model",
    api_base=sys.argv[1],
    api_key="none",
    temperature=0,
    max_tokens=100,
    is_chat_model=True,
    is_function_calling_model=True,
    max_retries=0,
)
history = [
    ChatMessage(role="system", content="Be brief."),
    ChatMessage(role="user", content="What is the weather in Oslo?"),
]
called = ask(history, "get_weather")
results = [
    ChatMessage(role="tool", content=get_weather(**call.tool_kwargs), additional_kwargs={"tool_call_id": call.tool_id})
    for call in MODEL.get_tool_calls_from_response(called)
]
print(ask([*history, called.message, *results], "none").message.content)
