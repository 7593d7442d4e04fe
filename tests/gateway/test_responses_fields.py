"""Each field of vLLM's and OpenAI's requests for responses is done, harmless or refused by its name."""

import pytest
from openai.types.responses import ResponseTextConfigParam
from openai.types.responses import response_create_params as params

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.fields import SAYING_NOTHING, without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import Problem
from hermes.gateway.responses_requests import ResponsesRequest, TextOptions
from tests.support.alone import ResponseAlone
from tests.support.foreign_fields import UNKNOWN, fields_of, vllm_fields

CHECK = InputCheck(PredictorSource(PROJECT / "predict.py").openapi())
OWN = {"timeout", "min_tokens"}  # this package's
THEIRS = {
    "responses": (
        ResponsesRequest,
        dict.fromkeys(
            fields_of(params.ResponseCreateParamsNonStreaming) | fields_of(params.ResponseCreateParamsStreaming),
            UNKNOWN,
        )
        | vllm_fields("entrypoints/openai/responses/protocol.py", "ResponsesRequest"),
    ),
    "text": (TextOptions, dict.fromkeys(fields_of(ResponseTextConfigParam), UNKNOWN)),
}
SHARED = set(ResponseAlone.__base__.__base__.refused) | set(ResponseAlone.__base__.__base__.harmless)
REFUSED = [(kind, name) for kind, _ in THEIRS.values() for name in kind.refused]


def send(kind, **said):
    body = said if kind is ResponsesRequest else {"text": said}
    return ResponseAlone.model_validate(without_nulls({"input": "Hi", **body})).parsed(CHECK).inputs_of(0)


@pytest.mark.parametrize(("kind", "theirs"), THEIRS.values(), ids=THEIRS)
def test_each_field_of_others_is_decided_on_once(kind, theirs):
    done = set(kind.model_fields)
    assert not theirs.keys() - done - kind.harmless.keys() - kind.refused.keys(), "decide on it"
    assert not done & (kind.harmless.keys() | kind.refused.keys())
    assert not kind.harmless.keys() & kind.refused.keys()


@pytest.mark.parametrize(("kind", "theirs"), THEIRS.values(), ids=THEIRS)
def test_each_field_that_is_decided_on_is_somebodys(kind, theirs):
    decided = set(kind.model_fields) | kind.harmless.keys() | kind.refused.keys()
    assert not decided - theirs.keys() - OWN - SHARED


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_a_field_that_is_refused_is_named(kind, name):
    with pytest.raises(Problem) as refused:
        send(kind, **{name: {"said": 5}})
    assert (refused.value.status, refused.value.code) == (400, "unsupported_parameter")
    assert refused.value.param == kind.at + name


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_a_refused_field_that_says_nothing_is_accepted(kind, name):
    said = [None] if name in kind.defaults else list(SAYING_NOTHING)
    for value in said:
        assert send(kind, **{name: value}) == send(kind), value


@pytest.mark.parametrize(("kind", "theirs"), THEIRS.values(), ids=THEIRS)
def test_a_harmless_field_changes_nothing(kind, theirs):
    for name in kind.harmless:
        assert send(kind, **{name: "anything"}) == send(kind), name


@pytest.mark.parametrize(
    "said",
    [
        {"max_tool_calls": 3},
        {"prompt_cache_key": "k"},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"safety_identifier": "me"},
        {"service_tier": "flex"},
        {"user": "me"},
        {"store": False},
        {"metadata": {"k": "v"}},
        {"include": ["reasoning.encrypted_content"]},
    ],
    ids=str,
)
def test_fields_of_the_response_change_no_input(said):
    assert send(ResponsesRequest, **said) == send(ResponsesRequest)
