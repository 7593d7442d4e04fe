"""Each field of the request classes of vLLM and of OpenAI's client is done, harmless or refused by its name.

Another dialect has a table like ROWS in its own test file, and parametrizes the same five checks.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import (
    ChatCompletionAssistantMessageParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionFunctionToolParam,
    ChatCompletionStreamOptionsParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
)
from openai.types.chat import completion_create_params as chat_params
from openai.types.shared_params import FunctionDefinition
from openai.types.shared_params.response_format_json_schema import JSONSchema

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.chat_messages import MESSAGE_HARMLESS, MESSAGE_REFUSED
from hermes.gateway.chat_requests import ChatRequest
from hermes.gateway.completed import GUIDED, Streaming, StructuredOutputs
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.fields import SAID_BY_ITS_PRESENCE, SAYING_NOTHING, without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_requests import Sampled
from hermes.gateway.problems import Problem
from tests.support.foreign_fields import UNKNOWN, fields_of, vllm_fields

CHECK = InputCheck(PredictorSource(PROJECT / "predict.py").openapi())
USER = {"role": "user", "content": "Hi"}
OWN = {"timeout", "truncate", "guided_json"}  # this package's, and an older name of vLLM's
BASE = "entrypoints/generate/base/protocol.py"


@dataclass
class Row:
    """An object of a request: what is decided on, and who has which fields."""

    name: str
    kind: type[Sampled]  # of the request
    done: set[str]
    harmless: dict[str, str]
    refused: dict[str, str]
    theirs: dict[str, object]  # fields of others, with vLLM's defaults
    older: set[str] = field(default_factory=set)  # decided on, and in no class any more
    at: str = ""  # before a field's name in a problem
    place: Callable = dict  # makes a request with this object

    def __str__(self):
        return self.name

    def send(self, **said):
        """The inputs of a request that says so."""
        minimal = {"messages": [USER]} if self.kind is ChatRequest else {"prompt": "Hi"}
        parsed = self.kind.model_validate(without_nulls(minimal | self.place(said))).parsed(CHECK)
        return parsed.inputs_of(0)


def row(name, kind, known, vllm, *others, **more):
    """The row of a class with tables of its own."""
    theirs = dict.fromkeys(set().union(*map(fields_of, others)), UNKNOWN) | vllm
    done = {each.alias or name for name, each in known.model_fields.items()}
    return Row(name, kind, done, known.harmless, known.refused, theirs, at=known.at, **more)


MESSAGES = [
    ChatCompletionAssistantMessageParam,
    ChatCompletionDeveloperMessageParam,
    ChatCompletionFunctionMessageParam,
    ChatCompletionSystemMessageParam,
    ChatCompletionToolMessageParam,
    ChatCompletionUserMessageParam,
]
ROWS = [
    row(
        "chat",
        ChatRequest,
        ChatRequest,
        vllm_fields("entrypoints/openai/chat_completion/protocol.py", "ChatCompletionRequest"),
        chat_params.CompletionCreateParamsNonStreaming,
        chat_params.CompletionCreateParamsStreaming,
        older=set(GUIDED),
    ),
    row(
        "completions",
        CompletionRequest,
        CompletionRequest,
        vllm_fields("entrypoints/openai/completion/protocol.py", "CompletionRequest"),
        completion_params.CompletionCreateParamsNonStreaming,
        completion_params.CompletionCreateParamsStreaming,
        older={*GUIDED, "top_logprobs"},  # which chats have
    ),
    row(
        "stream_options",
        ChatRequest,
        Streaming,
        vllm_fields(BASE, "StreamOptions"),
        ChatCompletionStreamOptionsParam,
        place=lambda said: {"stream_options": said},
    ),
    row(
        "structured_outputs",
        CompletionRequest,
        StructuredOutputs,
        vllm_fields("sampling_params.py", "StructuredOutputsParams"),
        place=lambda said: {"structured_outputs": said},
    ),
    Row(
        "json_schema",
        ChatRequest,
        {"schema"},
        {
            "description": "the schema has descriptions of its own",
            "name": "a schema is not referred to",
            "strict": "a schema is always enforced",
        },
        {},
        dict.fromkeys(fields_of(JSONSchema), UNKNOWN) | vllm_fields(BASE, "JsonSchemaResponseFormat"),
        place=lambda said: {"response_format": {"type": "json_schema", "json_schema": {"schema": {}} | said}},
    ),
    Row(
        "messages",
        ChatRequest,
        {"role", "content", "refusal", "tool_calls", "tool_call_id", "function_call", "name"},
        MESSAGE_HARMLESS,
        MESSAGE_REFUSED,
        dict.fromkeys(set().union(*map(fields_of, MESSAGES)), UNKNOWN)
        | vllm_fields("renderers/chat_utils.py", "CustomChatCompletionMessageParam"),
        older={"reasoning_content"},
        at="messages[0].",
        place=lambda said: {"messages": [USER | said]},
    ),
]
REFUSED = [pytest.param(row, name, id=f"{row}: {name}") for row in ROWS for name in row.refused]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_field_of_others_is_decided_on_once(row):
    undecided = row.theirs.keys() - row.done - row.harmless.keys() - row.refused.keys()
    assert not undecided, "decide on it: a field of the class, or in its tables"
    assert not row.done & (row.harmless.keys() | row.refused.keys())
    assert not row.harmless.keys() & row.refused.keys()


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_each_field_that_is_decided_on_is_somebodys(row):
    assert not row.harmless.keys() - row.theirs.keys() - row.older
    assert not row.refused.keys() - row.theirs.keys() - row.older
    assert not row.done - row.theirs.keys() - OWN - row.older


@pytest.mark.parametrize(("row", "name"), REFUSED)
def test_a_field_that_is_refused_is_named(row, name):
    with pytest.raises(Problem) as refused:
        row.send(**{name: {"said": 5}})
    assert (refused.value.status, refused.value.code) == (400, "unsupported_parameter")
    assert refused.value.param == row.at + name
    assert refused.value.message == f"{row.at}{name}: {row.refused[name]}"


@pytest.mark.parametrize(("row", "name"), REFUSED)
def test_a_refused_field_that_says_nothing_is_accepted(row, name):
    default = row.theirs.get(name, UNKNOWN)
    said = [None] if name in (*row.kind.defaults, *SAID_BY_ITS_PRESENCE) else list(SAYING_NOTHING)
    for value in said if default is UNKNOWN else [*said, default]:
        assert row.send(**{name: value}) == row.send(), value


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_harmless_field_changes_nothing(row):
    for name in row.harmless:
        assert row.send(**{name: "anything"}) == row.send(), name


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in (ChatRequest, CompletionRequest) for name in kind.misplaced]
)
def test_a_field_of_another_api_is_refused_with_what_to_send(kind, name):
    with pytest.raises(Problem, match=f"^{name}: ") as refused:
        kind.model_validate({name: "x"})
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


def test_the_fields_of_a_tool_are_those_that_the_model_reads_or_that_are_harmless():
    module = "entrypoints/openai/chat_completion/protocol.py"
    tools = vllm_fields(module, "ChatCompletionToolsParam").keys() | fields_of(ChatCompletionFunctionToolParam)
    assert tools == {"type", "function", "defer_loading"}, "the model knows each tool from the beginning"
    functions = vllm_fields(BASE, "FunctionDefinition").keys() | fields_of(FunctionDefinition)
    assert functions == {"name", "description", "parameters", "strict", "defer_loading"}, "a schema is always enforced"


def test_a_null_in_a_schema_is_a_value_under_each_name_of_a_schema():
    schema = {"properties": {"schema": {"const": None}, "text": {"enum": [None]}, "input": {"default": None}}}
    for name in ("parameters", "input_schema", "inputSchema", "schema", "json", "guided_json"):
        assert without_nulls({"at": [{name: schema, "gone": None}]}) == {"at": [{name: schema}]}


def test_a_field_that_nobody_has_is_accepted():
    for row in ROWS:
        assert row.send(unheard_of=[5]) == row.send()
