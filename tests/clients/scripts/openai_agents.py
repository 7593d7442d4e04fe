import asyncio
import sys

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI


@function_tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return "It rains."


async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    model = {"chat": OpenAIChatCompletionsModel, "responses": OpenAIResponsesModel}[sys.argv[3]]
    settings = ModelSettings(tool_choice="get_weather", temperature=0, max_tokens=100)
    agent = Agent("weather", instructions="Be brief.", tools=[get_weather], model_settings=settings)
    agent.model = model("model", openai_client=client)
    if sys.argv[2] == "whole":
        return (await Runner.run(agent, "What is the weather in Oslo?")).final_output
    result = Runner.run_streamed(agent, "What is the weather in Oslo?")
    async for _ in result.stream_events():
        pass
    return result.final_output


set_tracing_disabled(True)
print(asyncio.run(main()))
