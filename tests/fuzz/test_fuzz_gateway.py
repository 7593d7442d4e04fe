"""Whatever body a client sends, it becomes inputs of predict.py or a problem that names what is wrong."""

import json

from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hermes.devserver import PROJECT, PredictorSource
from hermes.gateway.bodies import json_of
from hermes.gateway.chat_requests import ChatRequest
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.fields import without_nulls
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import Problem, of_invalid
from tests.support.alone import ResponseAlone
from tests.support.hostile import anything, as_json, examples, json_texts, mixed, quiet, sometimes

pytestmark = quiet

parts = st.lists(
    sometimes(st.fixed_dictionaries({"type": sometimes(st.just("text")), "text": sometimes(mixed)})), max_size=2
)
roles = sometimes(st.sampled_from(["system", "developer", "user", "assistant", "tool"]))
message = st.fixed_dictionaries({"role": roles}, optional={"content": sometimes(mixed) | parts, "tool_calls": anything})
item = st.fixed_dictionaries(
    {"type": sometimes(st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]))},
    optional={
        "role": roles,
        "content": sometimes(mixed) | parts,
        "call_id": anything,
        "output": anything,
        "name": anything,
    },
)
choice = sometimes(
    st.fixed_dictionaries({"type": sometimes(st.just("function"))}, optional={"function": anything, "name": anything})
)
allowed = st.fixed_dictionaries(
    {"type": st.just("allowed_tools")}, optional={"allowed_tools": anything, "mode": anything, "tools": anything}
)
form = sometimes(
    st.fixed_dictionaries(
        {"type": sometimes(st.sampled_from(["json_schema", "json_object", "text"]))},
        optional={"json_schema": anything, "schema": anything},
    )
)
tools = sometimes(st.lists(anything, max_size=2))
names = ["temperature", "top_p", "seed", "stop", "n", "timeout", "guided_json", "logit_bias", "stream_options"]
common = dict.fromkeys(names, anything) | {
    "structured_outputs": sometimes(st.dictionaries(st.sampled_from(["json", "json_object", "regex"]), anything)),
}
ids = st.lists(sometimes(st.integers(-1, 2**64)), max_size=3)
chats = st.fixed_dictionaries(
    {"model": sometimes(st.just("m")), "messages": sometimes(st.lists(sometimes(message), max_size=3))},
    optional={
        **common,
        "tools": tools,
        "tool_choice": choice | allowed,
        "response_format": form,
        "continue_final_message": anything,
    },
)
completions = st.fixed_dictionaries(
    {"prompt": sometimes(mixed | ids | st.lists(sometimes(mixed | ids), max_size=3))},
    optional=common | {"response_format": form, "n": st.integers(-1, 200), "model": anything},
)
responses = st.fixed_dictionaries(
    {"model": st.just("m"), "input": sometimes(mixed | st.lists(sometimes(item), max_size=3))},
    optional={
        **common,
        "tools": tools,
        "tool_choice": choice,
        "text": sometimes(st.fixed_dictionaries({"format": form})),
    },
)


CHECK = InputCheck(PredictorSource(PROJECT / "predict.py").openapi())


def inputs_of(model, body):
    """Make inputs of a body; both they and a problem can be sent."""
    try:
        parsed = model.model_validate(without_nulls(json_of(body))).parsed(CHECK)
        for number in range(parsed.predictions):
            json.loads(parsed.inputs_of(number))
    except ValidationError as error:
        problem = of_invalid(error)
    except Problem as refused:
        problem = refused
    else:
        return
    assert problem.status < 500, "it is the client's to mend"
    json.dumps(problem.body(), ensure_ascii=False, allow_nan=False).encode()


def written(value):
    return as_json(value).encode(errors="surrogatepass")


@examples(100)
@given(chats)
def test_any_chat_is_inputs_or_a_problem(body):
    inputs_of(ChatRequest, written(body))


@examples(50)
@given(completions)
def test_any_completion_is_inputs_or_a_problem(body):
    inputs_of(CompletionRequest, written(body))


@examples(100)
@given(responses)
def test_any_response_is_inputs_or_a_problem(body):
    inputs_of(ResponseAlone, written(body))


@examples(100)
@given(json_texts | st.binary(max_size=20).map(lambda data: data.decode("latin-1")))
def test_any_bytes_are_a_request_or_a_problem(text):
    for model in (ChatRequest, CompletionRequest, ResponseAlone):
        inputs_of(model, text.encode(errors="surrogatepass"))
