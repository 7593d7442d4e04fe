import asyncio
import sys

from openai import AsyncOpenAI
from semantic_kernel import Kernel
from semantic_kernel.connectors.ai import FunctionChoiceBehavior
from semantic_kernel.connectors.ai.open_ai import OpenAIChatCompletion, OpenAIChatPromptExecutionSettings
from semantic_kernel.contents import ChatHistory
from semantic_kernel.functions import kernel_function


class Weather:
    @kernel_function(name="get", description="The weather of a city.")
    def get(self, city: str) -> str:
        return "It rains."


async def main():
    client = AsyncOpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    service, kernel = OpenAIChatCompletion(ai_model_id="model", async_client=client), Kernel()
    kernel.add_plugin(Weather(), "weather")
    history = ChatHistory(system_message="Be brief.")
    history.add_user_message("What is the weather in Oslo?")
    settings = OpenAIChatPromptExecutionSettings(temperature=0, max_tokens=100)
    settings.function_choice_behavior = FunctionChoiceBehavior.Required(auto_invoke=True)
    streamed = sys.argv[2] == "stream"
    settings.function_choice_behavior.maximum_auto_invoke_attempts += streamed  # a stream ends with the last of them
    if not streamed:
        return str(await service.get_chat_message_content(history, settings, kernel=kernel))
    stream = service.get_streaming_chat_message_content(history, settings, kernel=kernel)
    return "".join([str(piece) async for piece in stream])


print(asyncio.run(main()))
