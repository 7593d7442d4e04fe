"""The body of OpenAI's chat completions as inputs of predict.py.

See https://platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from hermes.client.cog import Json
from hermes.gateway import engine_fields
from hermes.gateway.answer_form import form_of
from hermes.gateway.chat_messages import messages_of
from hermes.gateway.completed import Completed
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_requests import ParsedRequest
from hermes.gateway.problems import Problem, unsupported

NO_TEMPLATE = "the server writes prompts in the model's own format"


class ChatRequest(Completed):
    """The body of POST /v1/chat/completions. Where both limits are given, max_completion_tokens is the one."""

    harmless: ClassVar[dict[str, str]] = (
        Completed.harmless
        | engine_fields.HARMLESS_IN_CHATS
        | {
            "metadata": "is for the lists of stored completions",
            "prediction": "makes a response faster, not another one",
            "prompt_cache_key": "the engine's prefix cache changes no answer",
            "reasoning_effort": "the model does not reason",
            "safety_identifier": "names a person, for statistics",
            "service_tier": "there is one",
            "store": "is for the lists of stored completions",
            "verbosity": "is a wish, which the model has no word for",
        }
    )
    misplaced: ClassVar[dict[str, str]] = {
        "best_of": "the server does not choose among responses",
        "max_output_tokens": "send max_completion_tokens",
        "prompt": "is for completions; send messages",
        "stop_sequences": "send stop",
        "suffix": "the model writes what follows, not what is between two texts",
        "truncation": "send truncate: oldest_turns",
        **dict.fromkeys(("instructions", "system"), "send a system message"),
        **dict.fromkeys(("output_config", "output_format", "text"), "send response_format"),
        **dict.fromkeys(("conversation", "previous_response_id"), "send all messages"),
    }
    refused: ClassVar[dict[str, str]] = Completed.refused | {
        "add_special_tokens": NO_TEMPLATE,
        "audio": "the model reads and writes only text",
        "chat_template": NO_TEMPLATE,
        "documents": "the model's format has no place for documents; send them in a message",
        "echo": "the response has what is new; the message that it goes on with is not repeated",
        "function_call": "send tool_choice, which took its place",
        "functions": "send tools, which took their place",
        "moderation": "the server moderates nothing",
        "return_prompt_text": "the response does not have the prompt; /tokenize has its tokens",
        "web_search_options": "the server searches nothing",
    }

    defaults: ClassVar[dict[str, Any]] = Completed.defaults | {"truncation": "disabled"}

    messages: list[Json] = Field(min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    tools: list[Json] = Field([])
    tool_choice: str | Json = "auto"
    parallel_tool_calls: bool = True
    modalities: list[str] = Field(["text"])
    truncate: str | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool | None = None

    def inputs(self, messages: Sequence[Json]) -> Json:
        """The inputs of predict.py."""
        if self.modalities != ["text"]:
            raise unsupported("modalities", "the model reads and writes only text")
        if self.add_generation_prompt is not None and self.add_generation_prompt == self.continue_final_message:
            said = "add_generation_prompt: a response begins a new turn, or goes on with the last message, where "
            raise Problem(400, said + "continue_final_message is true", param="add_generation_prompt")
        for index, tool in enumerate(self.tools):
            if (kind := tool.get("type", "function")) != "function":
                raise unsupported(f"tools[{index}]", f"is {kind!r}; in chats, only functions can be called")
        limit = self.max_completion_tokens or self.max_tokens
        inputs = self.completing(limit) | {"system_prompt": "", "messages": messages}
        if self.truncate:
            inputs["truncate"] = self.truncate
        if self.continue_final_message:
            inputs["continue_final_message"] = True
        return inputs | form_of(self.tools, self.tool_choice, self.format(), parallel=self.parallel_tool_calls)

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        messages, places = messages_of(self.messages)
        usage = self.stream_options.include_usage
        return ParsedRequest.of(self, self.inputs(messages), check, n=self.n, usage=usage, places=[places])
