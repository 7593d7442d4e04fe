"""Reads data out of documents, as an instance of a pydantic model."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from hermes.chat.finish_reason import UNFINISHED
from hermes.client.errors import CUT_OFF_BY, ExtractionFailed
from hermes.client.response import Model, OnText
from hermes.client.schema import PlainSchema, problems

T = TypeVar("T", bound=BaseModel)

INSTRUCTIONS = "Answer with the data from the documents above."


def extract(
    model: Model,
    kind: type[T],
    documents: str | Sequence[str],
    *,
    instructions: str = "",
    on_text: OnText | None = None,
    **inputs: Any,
) -> T:
    """Read a `kind` out of one or more documents. The model may correct a response that is not a `kind` once.

    Args:
        model: who to ask.
        kind: the pydantic model of the data; its schema constrains the response.
        documents: the texts to read.
        instructions: what to look for, in words.
        on_text: gets the text of the responses as it comes.
        **inputs: the other inputs of the model, such as max_tokens and temperature.

    Raises:
        ValueError: there are no documents.
        PredictionFailed: there is no complete response.
        ExtractionFailed: the response and its correction are not a `kind`.
    """
    inputs |= {"json_schema": kind.model_json_schema(schema_generator=PlainSchema)}
    messages = [{"role": "user", "content": prompt(documents, instructions)}]
    for _ in range(2):
        response = model.ask({**inputs, "messages": messages}, on_text)
        try:
            return kind.model_validate_json(response.text)
        except ValidationError as error:
            problem = problems(error)
        if response.finish_reason in UNFINISHED:  # a correction would be cut off as well
            raise ExtractionFailed(kind.__name__, f"it was cut off {CUT_OFF_BY[response.finish_reason]}", response.text)
        messages = [
            *messages,
            {"role": "assistant", "content": response.text},
            {"role": "user", "content": objection(problem)},
        ]
    raise ExtractionFailed(kind.__name__, problem, response.text)


def prompt(documents: str | Sequence[str], instructions: str = "") -> str:
    """The prompt: each document in its own tags, then the instructions."""
    texts = [documents] if isinstance(documents, str) else documents
    if not texts:
        raise ValueError("there are no documents to read")
    numbered = (f'<document index="{i}">\n{text}\n</document>' for i, text in enumerate(texts, start=1))
    return "\n".join(numbered) + "\n\n" + (instructions or INSTRUCTIONS)


def objection(problem: str) -> str:
    """The turn that asks for a correction."""
    return f"That does not fit the schema: {problem}. Answer again with the whole, corrected JSON object."
