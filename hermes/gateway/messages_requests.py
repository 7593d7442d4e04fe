"""The bodies of Anthropic's messages as inputs of predict.py (https://docs.anthropic.com/en/api/messages)."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from hermes.client.cog import Json
from hermes.gateway import engine_fields
from hermes.gateway.answer_form import form_of
from hermes.gateway.chat_messages import Conversation
from hermes.gateway.fields import Known
from hermes.gateway.inputs import InputCheck
from hermes.gateway.messages_blocks import conversation_of
from hermes.gateway.openai_requests import ParsedRequest, Sampled
from hermes.gateway.problems import Problem, unsupported

CHOICES = {"auto": "auto", "any": "required", "none": "none"}
CLEARS_THINKING = "clear_thinking"  # how the kind of an edit begins that has nothing to do here


class OutputFormat(Known):
    """output_config.format."""

    type: Literal["json_schema"]
    json_schema: Json = Field(alias="schema")


class OutputConfig(Known):
    """output_config."""

    at: ClassVar[str] = "output_config."
    harmless: ClassVar[dict[str, str]] = {"effort": "the model does not think"}
    refused: ClassVar[dict[str, str]] = {"task_budget": "the model knows no budget; lower max_tokens"}

    format: OutputFormat | None = None


class Tool(Known):
    """One of the tools."""

    at: ClassVar[str] = "tools."
    harmless: ClassVar[dict[str, str]] = {
        "cache_control": "the engine's prefix cache changes no answer",
        "defer_loading": "the model knows each tool from the beginning",
        "eager_input_streaming": "arguments are streamed as soon as they can be",
        "strict": "arguments follow the schema in any case",
    }

    name: str
    input_schema: Json | list[Any] | None = None  # an empty list is what PHP makes of an empty object
    description: str = ""
    type: str = "custom"
    allowed_callers: list[str] = Field(["direct"])
    input_examples: list[Json] = Field([])

    def function(self, at: str) -> Json:
        """The tool as predict.py takes it."""
        if self.type != "custom":
            raise unsupported(
                f"{at}.type", f"is {self.type!r}; a tool is called by the client, and has an input_schema"
            )
        if "direct" not in self.allowed_callers:
            raise unsupported(f"{at}.allowed_callers", "the model itself calls tools, and nothing else")
        if self.input_examples:
            raise unsupported(f"{at}.input_examples", "write them into the description")
        if self.input_schema is None:
            raise Problem(400, f"{at}.input_schema: is missing", param=f"{at}.input_schema")
        described = {"description": self.description} if self.description else {}
        return {"type": "function", "function": {"name": self.name, **described, "parameters": self.input_schema}}


class ToolChoice(Known):
    """tool_choice."""

    type: str = "auto"
    name: str = ""
    disable_parallel_tool_use: bool = False

    @property
    def word(self) -> Json | str:
        """The choice as chat completions have it."""
        if self.type == "tool" and self.name:
            return {"type": "function", "function": {"name": self.name}}
        if self.type not in CHOICES:
            raise Problem(400, "tool_choice: has to be auto, any, none, or tool with a name", param="tool_choice")
        return CHOICES[self.type]


class ContextManagement(Known):
    """context_management."""

    edits: list[Json] = Field([])


class MessagesRequest(Sampled):
    """The body of POST /v1/messages."""

    harmless: ClassVar[dict[str, str]] = Sampled.harmless | {
        "betas": "names features, and each has its own field",
        "billing_policy": "nobody pays",
        "cache_control": "the engine's prefix cache changes no answer",
        "chat_template_kwargs": "the model's format has no variables",
        "diagnostics": "asks for notes about a cache",
        "fallback_credit_token": "nobody pays",
        "inference_geo": "there is one place",
        "metadata": "names a person, for statistics",
        "service_tier": "there is one",
        "speed": "there is one",
        "thinking": "the model does not think, as one that may think can choose, too",
        "user_profile_id": "names a person, for statistics",
        "workspace_id": "names a project, for statistics",
    }
    misplaced: ClassVar[dict[str, str]] = dict.fromkeys(
        (*engine_fields.GUIDED, "structured_outputs", "text"), "send output_config.format"
    ) | {
        "function_call": "send tool_choice",
        "functions": "send tools",
        "ignore_eos": engine_fields.ENDS_ITSELF,
        "instructions": "send system",
        "max_completion_tokens": "send max_tokens",
        "max_output_tokens": "send max_tokens",
        "n": "a request has one response",
        "parallel_tool_calls": "send tool_choice.disable_parallel_tool_use",
        "prompt": "send messages",
        "response_format": "send output_config.format",
        "stop": "send stop_sequences",
        **dict.fromkeys(("truncate", "truncation"), "the gateway leaves no messages out; send fewer"),
    }
    refused: ClassVar[dict[str, str]] = Sampled.refused | {
        "compaction": "the gateway summarises no conversation; send a shorter one",
        "container": "the gateway runs no code",
        "fallbacks": "there is one model; send the request without them",
        "mcp_servers": "the gateway calls no servers; call them in the client, and send their tools as tools",
        "thread": "the gateway keeps no conversation; send all messages",
    }
    defaults: ClassVar[dict[str, Any]] = Sampled.defaults | {"parallel_tool_calls": True, "truncation": "disabled"}
    params: ClassVar[dict[str, str]] = {**Sampled.params, "E1007": "output_config.format"}

    messages: list[Json] = Field(min_length=1)
    max_tokens: int = Field(ge=0)
    system: str | list[Json] = ""
    stop_sequences: list[str] = Field([])
    tools: list[Tool] = Field([])
    tool_choice: ToolChoice = ToolChoice()
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None  # an older name of output_config.format
    context_management: ContextManagement | None = None

    def inputs(self, conversation: Conversation) -> Json:
        """The inputs of predict.py."""
        edits = self.context_management.edits if self.context_management else []
        if not all(str(edit.get("type")).startswith(CLEARS_THINKING) for edit in edits):
            raise unsupported("context_management", "the gateway takes nothing out; send a shorter conversation")
        inputs = self.sampling(self.max_tokens, self.stop_sequences)
        inputs |= {"system_prompt": "", "messages": conversation.messages}
        if conversation.messages[-1]["role"] == "assistant":
            inputs["continue_final_message"] = True
        tools = [tool.function(f"tools[{index}]") for index, tool in enumerate(self.tools)]
        form = (self.output_config and self.output_config.format) or self.output_format
        schema = {"type": "json_schema", "schema": form.json_schema} if form else {}
        several = not self.tool_choice.disable_parallel_tool_use
        return inputs | form_of(tools, self.tool_choice.word, schema, parallel=several)

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        conversation = conversation_of(self.system, self.messages)
        places = conversation.places | {"continue_final_message": f"messages[{len(self.messages) - 1}]"}
        return ParsedRequest.of(self, self.inputs(conversation), check, places=[places])


class CountTokensRequest(MessagesRequest):
    """The body of POST /v1/messages/count_tokens."""

    max_tokens: int = 0

    def inputs(self, conversation: Conversation) -> Json:
        """The inputs of predict.py, which generates nothing."""
        return super().inputs(conversation) | {"max_tokens": 0}
