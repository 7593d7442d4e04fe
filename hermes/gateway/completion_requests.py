"""The body of OpenAI's completions as inputs of predict.py.

See https://platform.openai.com/docs/api-reference/completions.
"""

from typing import Any, ClassVar

from hermes.client.cog import Json
from hermes.gateway.answer_form import schema_of
from hermes.gateway.completed import Completed
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_requests import MAX_CHOICES, ParsedRequest, prompt_place
from hermes.gateway.problems import PARAMS, Problem, unsupported

DEFAULT_TOKENS = 16  # as OpenAI and vLLM have it
KINDS = "has to be a text, a list of texts, token ids, or a list of lists of token ids"


class CompletionRequest(Completed):
    """The body of POST /v1/completions."""

    params: ClassVar[dict[str, str]] = PARAMS | {"E1001": "prompt", "E1002": "prompt", "E1005": "prompt"}
    misplaced: ClassVar[dict[str, str]] = {
        "messages": "are for chat completions; send prompt",
        "stop_sequences": "send stop",
        **dict.fromkeys(("max_completion_tokens", "max_output_tokens"), "send max_tokens"),
        **dict.fromkeys(("functions", "tools"), "are for chat completions"),
        **dict.fromkeys(("instructions", "system"), "put it into the prompt"),
        **dict.fromkeys(("truncate", "truncation"), "is for conversations; send a shorter prompt"),
    }
    refused: ClassVar[dict[str, str]] = Completed.refused | {
        "add_special_tokens": "to have the tokens as they are, send token ids",
        "echo": "the response has what is new; the prompt is not repeated",
        "prompt_embeds": "the model reads only text",
        "suffix": "the model writes what follows a prompt, not what is between two texts",
    }
    defaults: ClassVar[dict[str, Any]] = Completed.defaults | {"add_special_tokens": True, "truncation": "disabled"}

    prompt: Any
    best_of: int | None = None

    def inputs(self) -> Json:
        """The inputs of predict.py that all prompts share."""
        if self.best_of not in (None, self.n):
            raise unsupported("best_of", "has to be n: the server does not choose among responses")
        return self.completing(self.max_tokens or DEFAULT_TOKENS) | schema_of(self.format())

    def prompts(self) -> list[Json]:
        """The inputs of predict.py of each prompt. Raises Problem if one is neither a text nor token ids."""
        several = isinstance(self.prompt, list) and not _is_ids(self.prompt)
        prompts = self.prompt if several else [self.prompt]
        if not prompts or len(prompts) > MAX_CHOICES:
            raise Problem(400, f"prompt: has {len(prompts)} prompts; at least 1, at most {MAX_CHOICES}", param="prompt")
        return [
            _inputs_of(prompt, f"prompt[{number}]" if several else "prompt") for number, prompt in enumerate(prompts)
        ]

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        each, usage = self.prompts(), self.stream_options.include_usage
        places = [prompt_place(number, len(each)) for number in range(len(each))]
        return ParsedRequest.of(self, self.inputs(), check, each=each, n=self.n, usage=usage, places=places)


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def _inputs_of(prompt: Any, at: str) -> Json:
    if isinstance(prompt, str):
        return {"prompt": prompt, "prompt_template": "{prompt}"}
    if not _is_ids(prompt):
        raise Problem(400, f"{at}: {KINDS}", param=at)
    return {"prompt_token_ids": prompt}
