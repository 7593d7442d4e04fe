"""Schemathesis (https://schemathesis.readthedocs.io) reads our OpenAPI document and asks the running server.

Each input at its limits and past them, in wrong types, left out, and drawn at random, the same draws each time. Where
coglet 0.23.1 does otherwise than the document says, which is Cog's, this says what, and why it is let pass.
"""

import re

import httpx
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from hermes.devserver.predictor import PredictorSource
from hermes.devserver.server import PROJECT
from tests.support.asking import assert_goes_on
from tests.support.hostile import TIMES

DRAWS = 35 * TIMES  # for each operation
OUR_ID = "conformance"


def document():
    """Ours, with PUT /predictions/{prediction_id}: coglet serves it like POST and Cog's document leaves it out."""
    whole = PredictorSource(PROJECT / "predict.py").openapi()
    paths = whole["paths"]
    put = {**paths["/predictions"]["post"], "operationId": "put"}
    put["parameters"] = paths["/predictions/{prediction_id}/cancel"]["post"]["parameters"]
    paths["/predictions/{prediction_id}"] = {"put": put}
    return whole


INPUTS = document()["components"]["schemas"]["Input"]["properties"]
NULLABLE = {name for name, schema in INPUTS.items() if schema.get("nullable")}
SCHEMA = schemathesis.openapi.from_dict(document())

# Without status_code_conformance: Cog's document knows 200 and 422, and coglet also answers 400 (no JSON), 404 (no such
# prediction), 405, 409 (busy), 413 and 415.
ALWAYS = [
    not_a_server_error,
    checks.negative_data_rejection,
    checks.positive_data_acceptance,
    checks.unsupported_method,
    checks.allow_header_conformance,
]
# Only of an answer: a refusal is plain text where the document has HTTPValidationError, unless an input is to blame.
OF_AN_ANSWER = [
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
REFUSALS = {400, 404, 405, 409, 413, 415, 422}


def tame(case):
    """Make a case harmless and quick, no less valid or invalid than it was."""
    if case.method == "PUT":
        case.path_parameters["prediction_id"] = OUR_ID  # coglet makes a folder of this name, wherever ../ leads to
    body = case.body
    if not isinstance(body, dict):
        return
    if isinstance(body.get("id"), str):
        body["id"] = OUR_ID  # the one in the path, or coglet refuses it
    inputs = body.get("input")
    if not isinstance(inputs, dict):
        return
    for name in NULLABLE & inputs.keys():
        if inputs[name] is None:
            del inputs[name]  # coglet refuses a null, though the document says nullable, as Cog writes it for Optional
    if inputs.get("prompt") == "":
        inputs["prompt"] = "Hi"  # to get as far as the engine
    for name, value in {"max_tokens": 2, "min_tokens": 0, "timeout": 60}.items():
        was = inputs.get(name, value)
        if is_valid(was, INPUTS[name]):
            inputs[name] = type(was)(value)  # 2.0 stays a float, which is an integer to JSON


def is_valid(number, schema):
    if isinstance(number, bool) or not isinstance(number, int | float):
        return False
    within = schema["minimum"] <= number <= schema["maximum"]
    return within and (schema["type"] == "number" or float(number).is_integer())


def is_let_pass(case):
    """Invalid to the document and taken by coglet: a null for the id or for the whole input, which it reads as none."""
    return isinstance(case.body, dict) and None in (case.body.get("id", ""), case.body.get("input", ""))


def test_the_servers_document_is_the_one_that_is_tried(quick_server):
    served = httpx.get(f"{quick_server.url}/openapi.json").json()
    assert {**served["paths"], "/predictions/{prediction_id}": None}.keys() == document()["paths"].keys()
    assert served["components"] == document()["components"]


@SCHEMA.include(path_regex="^/(predictions|health-check)").parametrize()
@settings(
    max_examples=DRAWS,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_server_does_as_its_document_says(case, quick_server):
    tame(case)
    if is_let_pass(case):
        return
    response = case.call(base_url=quick_server.url, timeout=60)
    is_answer = response.status_code == httpx.codes.OK
    case.validate_response(response, checks=ALWAYS + (OF_AN_ANSWER if is_answer else []))
    if not is_answer:
        assert response.status_code in REFUSALS
    elif "predictions" in case.path:
        prediction = response.json()
        assert prediction["status"] == "succeeded" or re.search(r"E10\d\d [A-Z]\w+: ", prediction["error"])


def test_the_server_goes_on_after_all_this(quick_server):
    assert_goes_on(quick_server)
