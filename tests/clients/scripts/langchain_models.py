import sys
from functools import reduce
from operator import add

from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI


def get_weather(city: str) -> str:
    """The weather of a city."""
    return "It rains."


def ask(messages, choice):
    bound = MODEL.bind_tools([get_weather], tool_choice=choice)
    return bound.invoke(messages) if sys.argv[2] == "whole" else reduce(add, bound.stream(messages))


RESPONSES = sys.argv[3] == "responses"
MODEL = ChatOpenAI(
    model="model", base_url=sys.argv[1], api_key="none", temperature=0, max_tokens=100, use_responses_api=RESPONSES
)
messages = [SystemMessage("Be brief."), HumanMessage("What is the weather in Oslo?")]
called = ask(messages, "get_weather")
results = [ToolMessage(get_weather(**call["args"]), tool_call_id=call["id"]) for call in called.tool_calls]
print(ask([*messages, called, *results], "none").text)
