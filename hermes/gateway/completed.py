"""What chat completions and completions have in common."""

from typing import Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from hermes.client.cog import Json
from hermes.gateway import engine_fields
from hermes.gateway.bodies import json_of
from hermes.gateway.fields import Known
from hermes.gateway.openai_requests import MAX_CHOICES, Sampled
from hermes.gateway.problems import Problem, unsupported

Texts = Annotated[list[str], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
ONLY_SCHEMAS = "the server constrains a response by a JSON schema only"
GUIDED = dict.fromkeys(engine_fields.GUIDED[1:], ONLY_SCHEMAS) | {
    "guided_json_object": 'send response_format: {"type": "json_object"}'
}


class Streaming(Known):
    """stream_options."""

    at = "stream_options."
    harmless: ClassVar[dict[str, str]] = {
        "continuous_usage_stats": "tokens are counted at the end; guidellm asks so, and reads them there",
        "include_obfuscation": "padding of events",
    }

    include_usage: bool = False


class StructuredOutputs(Known):
    """vLLM's structured_outputs."""

    at = "structured_outputs."
    refused: ClassVar[dict[str, str]] = {
        "choice": ONLY_SCHEMAS,
        "disable_additional_properties": "say additionalProperties in the schema",
        "disable_any_whitespace": ONLY_SCHEMAS,
        "grammar": ONLY_SCHEMAS,
        "regex": ONLY_SCHEMAS,
        "structural_tag": ONLY_SCHEMAS,
        "whitespace_pattern": ONLY_SCHEMAS,
    }

    json_: str | Json | None = Field(None, alias="json")
    json_object: bool = False


class Completed(Sampled):
    """What chat completions and completions have in common."""

    refused: ClassVar[dict[str, str]] = Sampled.refused | GUIDED

    ignore_eos: bool = False
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(None, ge=1)
    stop: Texts = Field([])
    stream_options: Streaming = Streaming()
    response_format: Json = Field({})
    structured_outputs: StructuredOutputs = StructuredOutputs.model_validate({})
    guided_json: str | Json | None = None

    def completing(self, max_tokens: int | None) -> Json:
        """The inputs of predict.py for all but the prompt. `max_tokens`: None for as many as the context takes."""
        inputs = self.sampling(max_tokens, self.stop)
        if self.stream_options.include_usage and not self.stream:
            raise unsupported("stream_options", "is for streams; a whole response has its usage anyway")
        if self.ignore_eos and self.stop:
            raise unsupported("ignore_eos", "cannot go with stop: the server looks for no text before the last token")
        if self.ignore_eos:  # the model may not end its turn, which is the same number of tokens
            inputs["min_tokens"] = inputs["max_tokens"]
        return inputs

    def format(self) -> Json:
        """The response_format, by whichever of its names it came. Raises Problem if it came by two."""
        outputs = self.structured_outputs
        formats = [
            {} if self.response_format.get("type") == "text" else self.response_format,
            {} if outputs.json_ is None else _format("structured_outputs.json", outputs.json_),
            {"type": "json_object"} if outputs.json_object else {},
            {} if self.guided_json is None else _format("guided_json", self.guided_json),
        ]
        found = [each for each in formats if each]
        if len(found) > 1:
            raise unsupported("response_format", "came twice: send one of response_format and structured_outputs")
        return found[0] if found else {}


def _format(name: str, schema: str | Json) -> Json:
    """A response_format with a schema, which may be JSON in a text."""
    try:
        read: Any = json_of(schema.encode(errors="surrogatepass")) if isinstance(schema, str) else schema
    except Problem as problem:
        raise Problem(400, f"{name}: {problem.message}", param=name) from problem
    if not isinstance(read, dict):
        raise Problem(400, f"{name}: has to be a JSON schema, which is an object", param=name)
    return {"type": "json_schema", "json_schema": {"schema": read}}
