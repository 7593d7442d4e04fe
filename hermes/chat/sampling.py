"""How the tokens of a response are drawn, and which texts end it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from hermes.chat.inputs import Inputs
from hermes.errors import BadSampling
from hermes.text import shown, surrogate_problem

MAX_DRAWN_SEED = 2**31 - 1  # the most that `cog run -i` takes, so that a client can send each reported seed again
MAX_NUMBER = 2**53  # of any sampling value, either way
MAX_STOPS = 256  # in each of the two inputs; each stop string is looked for after each token, while others stream
MAX_STOP = 1_000  # characters of one: the engine holds back as much text


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn and when generation stops. Names and meanings are those of vLLM's SamplingParams.

    Raises BadSampling if a value is out of its range, or two values contradict each other.
    """

    seed: int
    min_tokens: int = 0
    max_tokens: int = 512
    temperature: float = 0.6
    top_p: float = 0.9
    top_k: int = 50  # 0 or -1: all tokens
    min_p: float = 0.0  # 0: all tokens
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0  # 1: none
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("seed", "min_tokens", "max_tokens", "top_k"):
            value = getattr(self, name)
            if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 1.0 is an integer
                object.__setattr__(self, name, int(value))
        for name, value in vars(self).items():
            if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:  # NaN is not, either
                raise BadSampling(f"{name} is {shown(value)}; it must be a number of at most {MAX_NUMBER} either way")
        if self.max_tokens < 0:
            raise BadSampling(f"max_tokens is {self.max_tokens}; ask for at least 0")
        if not 0 <= self.min_tokens <= self.max_tokens:
            raise BadSampling(f"min_tokens is {self.min_tokens}; it must be from 0 to max_tokens, {self.max_tokens}")
        if not 0 < self.top_p <= 1:
            raise BadSampling(f"top_p is {self.top_p}; it must be above 0 and at most 1 (for greedy: temperature 0)")

    @classmethod
    def from_inputs(cls, inputs: Inputs) -> "Sampling":
        """The sampling values of a prediction. A seed of None draws one; 0 is a seed."""
        seed = inputs["seed"]
        return cls(
            seed=random.randint(0, MAX_DRAWN_SEED) if seed is None else seed,
            min_tokens=inputs["min_tokens"],
            max_tokens=inputs["max_tokens"],
            temperature=inputs["temperature"],
            top_p=inputs["top_p"],
            top_k=inputs["top_k"],
            min_p=inputs["min_p"],
            presence_penalty=inputs["presence_penalty"],
            frequency_penalty=inputs["frequency_penalty"],
            repetition_penalty=inputs["repetition_penalty"],
            stop=stop_strings(inputs["stop_sequences"], inputs["stop"]),
        )

    def fitted(self, prompt_tokens: int, context_tokens: int) -> "Sampling":
        """These values, with max_tokens and min_tokens lowered to the room that the prompt leaves in the context."""
        room = context_tokens - prompt_tokens
        return replace(self, max_tokens=min(self.max_tokens, room), min_tokens=min(self.min_tokens, room))


def stop_strings(comma_separated: str | None, listed: Sequence[str] | None) -> tuple[str, ...]:
    """The stop strings of both inputs, each once. Spaces are kept and empty texts are dropped.

    Args:
        comma_separated: the input stop_sequences.
        listed: the input stop, whose texts may hold commas.

    Raises:
        BadSampling: there are too many, or one is too long, is not text or holds a lone surrogate.
    """
    stops: dict[str, None] = {}
    for name, texts in (("stop_sequences", (comma_separated or "").split(",")), ("stop", listed or ())):
        given = [text for text in texts if text != ""]
        if len(given) > MAX_STOPS:
            raise BadSampling(f"{name} has {len(given)} texts; at most {MAX_STOPS}")
        for text in given:
            _check_stop(name, text)
        stops |= dict.fromkeys(given)
    return tuple(stops)


def _check_stop(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise BadSampling(f"{name} holds {shown(text)}; each of its items must be text")
    if problem := surrogate_problem(text):
        raise BadSampling(f"{name} {problem}")
    if len(text) > MAX_STOP:
        raise BadSampling(f"{name} has a text of {len(text)} characters; at most {MAX_STOP}")
