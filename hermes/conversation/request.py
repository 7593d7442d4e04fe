"""A request: the inputs of one prediction, checked and frozen."""

import random
from dataclasses import dataclass, replace

from hermes.conversation.chatml import ChatML
from hermes.conversation.messages import single_turn
from hermes.conversation.template import check, fill
from hermes.errors import BadSampling, EmptyRequest, PromptTooLong

MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when generation stops. Names and meanings are vLLM's SamplingParams.

    Raises:
        BadSampling: a value is out of its range, or two contradict each other.
    """

    seed: int
    min_tokens: int = 0
    max_tokens: int = 512
    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 50  # 0 or -1: all tokens
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise BadSampling(f"max_tokens is {self.max_tokens}; ask for at least 1")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise BadSampling(f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}")
        if not 0 < self.top_p <= 1:
            raise BadSampling(f"top_p is {self.top_p}; it must be above 0 and at most 1 (for greedy: temperature 0)")

    def fitted(self, prompt_tokens: int, context_tokens: int) -> "Sampling":
        """These values with as many tokens to generate as the model's context still takes after the prompt.

        Raises:
            PromptTooLong: not even one token fits.
        """
        room = context_tokens - prompt_tokens
        if room < 1:
            raise PromptTooLong(prompt_tokens, context_tokens)
        return replace(self, max_tokens=min(self.max_tokens, room), min_tokens=min(self.min_tokens, room))


@dataclass(frozen=True)
class Request:
    """What to answer, and how: the inputs of the listing as one value."""

    prompt: str
    system_prompt: str
    prompt_template: str | None
    sampling: Sampling

    @classmethod
    def from_inputs(
        cls,
        *,
        prompt: str,
        system_prompt: str,
        prompt_template: str | None,
        stop_sequences: str | None,
        seed: int | None,
        min_tokens: int,
        max_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int,
        presence_penalty: float,
        frequency_penalty: float,
    ) -> "Request":
        """Check the inputs of a prediction. A seed of None draws one; 0 is a seed.

        Raises:
            CallerError: EmptyRequest, BadPromptTemplate, PromptTemplateError or BadSampling.
        """
        if not prompt and not prompt_template:
            raise EmptyRequest
        if prompt_template:
            check(prompt_template, prompt)
        sampling = Sampling(
            seed=random.randint(0, MAX_SEED) if seed is None else seed,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            presence_penalty=presence_penalty,
            frequency_penalty=frequency_penalty,
            stop=split_stop_sequences(stop_sequences),
        )
        return cls(prompt, system_prompt, prompt_template or None, sampling)

    def token_ids(self, chatml: ChatML) -> list[int]:
        """The prompt as token ids: the caller's raw template if there is one, else a ChatML conversation."""
        if self.prompt_template:
            return chatml.encode_raw(fill(self.prompt_template, self.prompt, self.system_prompt))
        return chatml.encode(single_turn(self.prompt, self.system_prompt))


def split_stop_sequences(comma_separated: str | None) -> tuple[str, ...]:
    """The stop strings, spaces kept and empty ones dropped."""
    return tuple(stop for stop in (comma_separated or "").split(",") if stop)
