"""Fields of a known API: each is done, harmless, or refused by its name, since it would change an answer.

`tests/gateway/test_fields.py` reads the request classes of vLLM and of the clients, and fails for a field that nobody
decided on. A field that no API has is accepted: clients send some.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, model_validator

from hermes.gateway.problems import unsupported

SAYING_NOTHING: tuple[Any, ...] = (None, False, "", [], {})
# {} turns the first on; an empty constraint allows nothing, and vLLM refuses it.
SAID_BY_ITS_PRESENCE = ("web_search_options", "choice", "grammar", "regex", "structural_tag")
# What a client may hold that is not to be read as a request: a null in it is a value.
SCHEMAS = ("schema", "parameters", "input_schema", "inputSchema", "json", "guided_json")
DATA = (*SCHEMAS, "arguments", "output", "logit_bias", "metadata")


class Known(BaseModel):
    """An object of a request. Its fields are those that are done; null is absent."""

    model_config = ConfigDict(strict=True, extra="ignore")

    harmless: ClassVar[dict[str, str]] = {}  # why no answer changes
    refused: ClassVar[dict[str, str]] = {}  # why it cannot be had, or what to send instead
    misplaced: ClassVar[dict[str, str]] = {}  # fields of other APIs that clients mix up, and what to send instead
    defaults: ClassVar[dict[str, Any]] = {}  # of refused fields: values that change nothing
    at: ClassVar[str] = ""  # what stands before a field's name, such as `stream_options.`

    @model_validator(mode="before")
    @classmethod
    def _refuse(cls, body: Any) -> Any:
        if isinstance(body, dict):
            refuse(body, cls.refused | cls.misplaced, cls.at, cls.defaults)
        return body


def refuse(
    body: Mapping[str, Any], refused: Mapping[str, str], at: str = "", defaults: Mapping[str, Any] | None = None
) -> None:
    """Raises Problem for the first field of a body that says something and is refused.

    Args:
        body: an object of a request.
        refused: why each of these fields cannot be had.
        at: what stands before the field in the message, such as `stream_options.`.
        defaults: values with which these fields change nothing.
    """
    for name, why in refused.items():
        if name in body and _says_something(name, body[name], (defaults or {}).get(name)):
            raise unsupported(at + name, why)


def _says_something(name: str, value: Any, default: Any) -> bool:
    if value is None or name in SAID_BY_ITS_PRESENCE:
        return value is not None
    if default is not None:
        return bool(value != default)
    return not any(value == each and type(value) is type(each) for each in SAYING_NOTHING)


def without_nulls(value: Any) -> Any:
    """Returns a body without the nulls that clients send for what they leave out, at any depth.

    Nulls within data stay: those of JSON schemas, of the arguments and the results of calls.
    """
    if isinstance(value, list):
        return [without_nulls(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {
        name: each if name in DATA or (name == "input" and isinstance(each, dict)) else without_nulls(each)
        for name, each in value.items()
        if each is not None
    }
