"""The inputs of a prediction, checked before it takes a place in the queue, and as the bytes that are sent."""

from collections.abc import Mapping
from typing import Any, cast

from jsonschema import Draft202012Validator
from pydantic_core import to_json

from hermes.chat.constraint import parse_json_schema
from hermes.chat.conversation import parse_conversation
from hermes.chat.inputs import Inputs
from hermes.chat.sampling import Sampling
from hermes.client.cog import Json
from hermes.errors import BadJsonSchema, RequestError
from hermes.gateway.problems import PARAMS, Problem, of_refused, place_of
from hermes.json_schema.limits import SchemaProblem, check_schema
from hermes.text import shortened

MAX_SAID = 300  # characters


class InputCheck:
    """What is known of the inputs that a model takes."""

    def __init__(self, document: Json):
        """Args:
        document: the OpenAPI document of a Cog server.
        """
        properties = document["components"]["schemas"]["Input"]["properties"]
        self._defaults = {name: schema.get("default") for name, schema in properties.items()}
        self._is_ours = set(properties) == set(Inputs.__annotations__)
        self._schema = Draft202012Validator({**document, "$ref": "#/components/schemas/Input"})

    def written(self, inputs: Mapping[str, Any], *, status: int = 400, at: str = "") -> bytes:
        """Returns the inputs as compact JSON. Raises what `check` raises."""
        self.check(inputs, status=status, at=at)
        return to_json(inputs)

    def check(self, inputs: Mapping[str, Any], *, status: int = 400, at: str = "") -> None:
        """Raises Problem, with `status`, at the first input that is not as the document has it.

        `at` begins its place in the message, such as `input.`.
        """
        for name in inputs:
            if name not in self._defaults:  # Cog would drop it without a word
                what = f"{at}{name}: is not an input of this model"
                raise Problem(status, what, param=name, code="unsupported_parameter")
        checked, ids = dict(inputs), inputs.get("prompt_token_ids")
        if isinstance(ids, list) and all(type(each) is int for each in ids):
            checked["prompt_token_ids"] = ids[:1]  # to check 90,000 takes a second
        if problem := next(self._schema.iter_errors(checked), None):
            place = at + (place_of(problem.absolute_path) or "")
            raise Problem(status, f"{place}: {shortened(problem.message, MAX_SAID)}", param=place)

    def conversation(
        self,
        inputs: Mapping[str, Any],
        params: Mapping[str, str] = PARAMS,
        places: Mapping[str, str] | None = None,
    ) -> None:
        """Raises Problem if the server would refuse the inputs, with E1001 or one of E1003 to E1008.

        It is what the server does before it knows tokens, so a stream is refused before it begins. A prompt that is
        too long and a schema that makes no grammar are left to the server. `params`, `places`: see of_refused.
        """
        if not self._is_ours:
            return
        whole = cast(Inputs, {**self._defaults, **inputs})
        try:
            parse_conversation(whole)
            if whole["json_schema"] is not None:
                check_schema(parse_json_schema(whole["json_schema"]))
            Sampling.from_inputs(whole)
        except RequestError as error:
            raise of_refused(str(error), params, places) from error
        except SchemaProblem as problem:
            raise of_refused(str(BadJsonSchema(str(problem))), params) from problem
