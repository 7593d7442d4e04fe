import sys

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def get_weather(city: str) -> str:
    """The weather of a city.

    Args:
        city: its name
    """
    return "It rains."


model = OpenAIServerModel("model", api_base=sys.argv[1], api_key="none", temperature=0, max_tokens=100)
streamed = sys.argv[2] == "stream"
agent = ToolCallingAgent([get_weather], model, stream_outputs=streamed, max_steps=2, verbosity_level=0)
agent.run("What is the weather in Oslo?")
