"""What the requests of all dialects have in common, and what is kept of one while it is answered."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from pydantic import Field
from pydantic_core import to_json

from hermes.client.cog import Json
from hermes.gateway import engine_fields
from hermes.gateway.fields import Known
from hermes.gateway.inputs import InputCheck
from hermes.gateway.problems import PARAMS, Problem, of_failed
from hermes.gateway.run import Run

MAX_TOKENS = 131_072  # what predict.py takes at most; the server lowers it to the room in the context
MAX_CHOICES = 128
MAX_SEED = 2**53


class Sampled(Known, ABC):
    """What the requests of all dialects have in common. Unknown fields are accepted.

    The last six are no fields of OpenAI's: five are vLLM's, and `timeout` is this package's.
    """

    harmless: ClassVar[dict[str, str]] = engine_fields.HARMLESS
    refused: ClassVar[dict[str, str]] = engine_fields.REFUSED
    defaults: ClassVar[dict[str, Any]] = engine_fields.DEFAULTS
    params: ClassVar[dict[str, str]] = PARAMS  # see problems.of_refused

    model: str = ""  # the gateway has one
    stream: bool = False
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    min_tokens: int | None = None
    repetition_penalty: float | None = None
    timeout: float | None = None

    def sampling(self, max_tokens: int | None, stop: Sequence[str]) -> Json:
        """The inputs of predict.py that say how tokens are drawn, and where that ends.

        OpenAI's defaults stand for what is left out.

        Args:
            max_tokens: None for as many as the context takes.
            stop: texts at which the response ends.
        """
        greedy = {"temperature": 0.0, "top_p": 1.0} if self.top_p == 0 else {}
        given = self.model_dump(include=set(Sampled.model_fields) - {"model", "stream"}, exclude_none=True)
        if self.seed is not None:
            given["seed"] = self.seed % MAX_SEED
        given["max_tokens"] = MAX_TOKENS if max_tokens is None else min(max_tokens, MAX_TOKENS)
        if stop:
            given["stop"] = stop
        return {"temperature": 1.0, "top_p": 1.0, "top_k": 0, **given, **greedy}

    @abstractmethod
    def parsed(self, check: InputCheck) -> "ParsedRequest":
        """What is asked for. Raises Problem if it cannot be had."""


@dataclass(frozen=True)
class ParsedRequest:
    """What is kept of a request while it is answered: little, however large its body was."""

    model: str
    stream: bool
    include_usage: bool
    common: bytes  # the inputs that all predictions have, as a JSON object
    each: tuple[bytes, ...]  # of each prompt: the inputs that only its predictions have
    per_prompt: int = 1  # predictions
    seed: int | None = None  # of the first prediction of a prompt; the others have those that follow
    may_call: bool = False
    named: bool = False  # the tool that it has to call
    echo: bytes = b""  # what the response repeats of the request, as JSON
    params: Mapping[str, str] = field(default_factory=lambda: PARAMS)

    @classmethod
    def of(
        cls,
        request: Sampled,
        common: Json,
        check: InputCheck,
        *,
        each: Sequence[Json] = ({},),
        n: int = 1,
        usage: bool = False,
        places: Sequence[Mapping[str, str]] = ({},),
        echo: bytes = b"",
    ) -> Self:
        """Returns what is kept of a request. Raises Problem if a prediction cannot have these inputs.

        Args:
            request: in any dialect.
            common: the inputs that all predictions have.
            check: of the inputs.
            each: of each prompt, the inputs that only its predictions have.
            n: predictions of a prompt.
            usage: whether a stream ends with the tokens.
            places: of each prompt, where the client sent it; see problems.of_refused.
            echo: what the response repeats of the request, as JSON.
        """
        if len(each) * n > MAX_CHOICES:
            raise Problem(400, f"{len(each) * n} responses at once; at most {MAX_CHOICES}", param="n")
        first = common | each[0]
        for inputs, place in zip([first, *each[1:]], places, strict=True):  # what they share is checked once
            check.check(inputs)
            check.conversation(inputs, request.params, place)
        if len(each) == 1:
            common, each = first, ({},)
        several = n > 1 and "seed" in common
        return cls(
            model=request.model,
            stream=request.stream,
            include_usage=usage,
            common=to_json({name: value for name, value in common.items() if not (several and name == "seed")}),
            each=tuple(map(to_json, each)),
            per_prompt=n,
            seed=common["seed"] if several else None,
            may_call=bool(first.get("tools")) and first.get("tool_choice") != "none",
            named=first.get("tool_choice", "auto") not in ("auto", "none", "required"),
            echo=echo,
            params=request.params,
        )

    @property
    def predictions(self) -> int:
        """How many the request asks for."""
        return len(self.each) * self.per_prompt

    @property
    def size(self) -> int:
        """How many bytes it takes beside the inputs of its predictions: a single one has them from here."""
        inputs = len(self.common) + sum(map(len, self.each))
        return len(self.echo) + (inputs if self.predictions > 1 else 0)

    def inputs_of(self, number: int) -> bytes:
        """The inputs of a prediction, as compact JSON. They are put together late, for each repeats what is common."""
        prompt, number = divmod(number, self.per_prompt)
        parts = [self.common, self.each[prompt]]
        if self.seed is not None:
            parts.append(b'{"seed":%d}' % ((self.seed + number) % MAX_SEED))
        said = [part for part in parts if part != b"{}"]
        return said[0] if len(said) == 1 else b"{%b}" % b",".join(part[1:-1] for part in said)

    def problem_of(self, number: int, run: Run) -> Problem:
        """The problem of a prediction that failed."""
        name = self.params.get("prompt_token_ids", "prompt")
        return of_failed(run, self.params, prompt_place(number // self.per_prompt, len(self.each), name))


def prompt_place(number: int, prompts: int, name: str = "prompt") -> dict[str, str]:
    """Where a client sent the token ids of one of its prompts; see problems.of_refused."""
    return {"prompt_token_ids": name if prompts == 1 else f"{name}[{number}]"}
