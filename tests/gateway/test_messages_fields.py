"""Every field of Anthropic's messages, as vLLM's server and Anthropic's client have them, is decided on."""

from typing import get_args, get_type_hints

import anthropic.types.beta as beta
import pytest
from anthropic import types
from anthropic.types.beta import message_create_params as beta_params

from hermes.gateway.messages_requests import (
    CountTokensRequest,
    MessagesRequest,
    OutputConfig,
    Tool,
    ToolChoice,
)
from hermes.gateway.openai_requests import Sampled
from hermes.gateway.problems import Problem
from tests.gateway.test_messages import SCHEMA, USER, WEATHER, inputs
from tests.support.foreign_fields import vllm_fields

DONE_OF_BLOCKS = {
    *("type", "text", "id", "name", "input", "tool_use_id", "content", "is_error", "source", "title", "context"),
    "citations",  # of a text they say where an earlier answer had it from
}
HARMLESS_OF_BLOCKS = {"cache_control", "caller", "toolset_name"}
OF_LEFT_OUT_BLOCKS = {"thinking", "signature", "data"}
OF_REFUSED_BLOCKS = {"tool_name", "tool"}


def of_vllm(name):
    return set(vllm_fields("entrypoints/anthropic/protocol.py", name))


def of_client(*classes):
    return {name for each in classes for name in get_type_hints(each)}


def decided(fields, *decisions):
    """Whether each of these fields is in exactly one of these decisions."""
    return [field for field in sorted(fields) if sum(field in each for each in decisions) != 1] == []


def decisions_of(known):
    return known.model_fields, known.harmless, known.refused


@pytest.mark.parametrize(
    "fields",
    [
        of_vllm("AnthropicMessagesRequest"),
        of_vllm("AnthropicCountTokensRequest"),
        of_client(types.message_create_params.MessageCreateParamsStreaming, types.MessageCountTokensParams),
        of_client(beta_params.MessageCreateParamsStreaming, beta_params.ParseMessageCreateParamsBase),
        of_client(beta.MessageCountTokensParams),
    ],
    ids=["vLLM", "vLLM, count_tokens", "anthropic", "anthropic, beta", "anthropic, beta, count_tokens"],
)
def test_every_field_of_a_body_is_done_harmless_or_refused(fields):
    assert decided(fields, *decisions_of(MessagesRequest))


def test_every_decision_is_about_a_field_that_somebody_has():
    known = (
        of_vllm("AnthropicMessagesRequest")
        | of_client(types.message_create_params.MessageCreateParamsBase)
        | of_client(beta_params.MessageCreateParamsBase)
    )
    own = (
        (MessagesRequest.harmless.keys() | MessagesRequest.refused.keys())
        - Sampled.harmless.keys()
        - Sampled.refused.keys()
    )
    assert own <= known


def test_every_field_within_a_body_is_decided_on():
    tools = of_vllm("AnthropicTool") | of_client(types.ToolParam, beta.BetaToolParam)
    assert decided(tools, *decisions_of(Tool))
    choices = [*get_args(types.ToolChoiceParam), *get_args(beta.BetaToolChoiceParam)]
    assert decided(of_vllm("AnthropicToolChoice") | of_client(*choices), *decisions_of(ToolChoice))
    output = of_vllm("AnthropicOutputConfig") | of_client(beta.BetaOutputConfigParam)
    assert decided(output, *decisions_of(OutputConfig))
    read = [
        types.TextBlockParam,
        types.ToolUseBlockParam,
        types.ToolResultBlockParam,
        types.DocumentBlockParam,
        types.SearchResultBlockParam,
        types.ThinkingBlockParam,
        types.RedactedThinkingBlockParam,
    ]
    blocks = of_vllm("AnthropicContentBlock") | of_client(*read)
    assert decided(blocks, DONE_OF_BLOCKS, HARMLESS_OF_BLOCKS, OF_LEFT_OUT_BLOCKS, OF_REFUSED_BLOCKS)


# Of the kinds of blocks, those that a turn of the assistant may have, and say nothing to the model.
LEFT_OUT = {"thinking", "redacted_thinking", "server_tool_use", "mcp_tool_use"}
READ = {"text", "tool_use", "tool_result", "document", "search_result"}


def test_every_kind_of_block_is_read_left_out_or_refused():
    unions = [types.ContentBlockParam, beta.BetaContentBlockParam]
    classes = {each for union in unions for each in get_args(union) if hasattr(each, "__total__")}
    kinds = {kind for each in classes for kind in get_args(get_type_hints(each)["type"])}
    assert kinds > READ | LEFT_OUT
    for kind in kinds - READ:
        said = {"role": "assistant", "content": [{"type": kind}, {"type": "text", "text": "Hi"}]}
        if kind in LEFT_OUT or kind.endswith("_tool_result"):
            assert inputs(messages=[USER, said, USER])["messages"][1] == {"role": "assistant", "content": "Hi"}
        else:
            with pytest.raises(Problem, match=f"content\\[0\\]: is '{kind}'"):
                inputs(messages=[USER, said, USER])


def test_every_kind_of_tool_but_the_clients_own_is_refused():
    unions = [types.ToolUnionParam, beta.BetaToolUnionParam]
    classes = {each for union in unions for each in get_args(union)} - {types.ToolParam, beta.BetaToolParam}
    assert len(classes) > 20
    for kind in (kind for each in classes for kind in get_args(get_type_hints(each)["type"])):
        with pytest.raises(Problem, match=r"tools\[0\].type: is"):
            inputs(tools=[{"type": kind, "name": "x"}])


@pytest.mark.parametrize("kind", [MessagesRequest, CountTokensRequest])
def test_what_is_harmless_changes_nothing_and_what_is_refused_is_named(kind):
    assert inputs(kind, **{field: {"type": "x"} for field in kind.harmless}) == inputs(kind)
    for field in kind.refused:
        with pytest.raises(Problem) as refused:
            inputs(kind, **{field: {"x": 1}})
        assert refused.value.param == field
        assert inputs(kind, **{field: None}) == inputs(kind)
    tools = [WEATHER | {field: {"type": "x"} for field in Tool.harmless} | {"input_schema": SCHEMA}]
    assert inputs(kind, tools=tools) == inputs(kind, tools=[WEATHER | {"input_schema": SCHEMA}])
