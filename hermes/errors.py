"""Every error that a client can meet, each with a stable code.

    HermesError
    ├── RequestError              yours to fix: change the request or the settings of the model
    │   ├── E1000 WeightsError
    │   ├── E1001 EmptyRequest
    │   ├── E1002 PromptTooLong
    │   ├── E1003 BadPromptTemplate
    │   ├── E1004 PromptTemplateError
    │   ├── E1005 BadMessages
    │   ├── E1006 BadTools
    │   ├── E1007 BadJsonSchema
    │   └── E1008 BadSampling
    └── ServerError              ours to fix: the server or its configuration
        ├── E1200 EngineStartFailed
        ├── E1201 UnknownEngineArgument
        ├── E1202 InvalidConfiguration
        ├── E1203 EngineFailed
        ├── E1204 NoAccelerator
        ├── E1205 ServerStopping
        └── E1206 Interrupted

A message says what was wrong, the value seen and the next step. The prompt is never part of one.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import ClassVar

AGAIN = "the request can be sent again"
MAY_FAIL_AGAIN = "the engine lives on, and the request may fail again"


class HermesError(Exception):
    """Something this package could not do; `code` is stable across releases."""

    code: ClassVar[str]

    def __init__(self, *parts: str):
        """Join the parts of the message: what is wrong, or the place of it and what is wrong there."""
        super().__init__(" ".join(parts))

    def __str__(self) -> str:
        return f"{self.code} {type(self).__name__}: {super().__str__()}"


class RequestError(HermesError):
    """The request, or what it asks for, has to change."""


class ServerError(HermesError):
    """The server, or its configuration, has to change."""


class WeightsError(RequestError):
    """The weights are not where they should be, or could not be fetched."""

    code = "E1000"

    def __init__(self, source: object, problem: str, next_step: str):
        super().__init__(f"weights {str(source)!r}: {problem}; {next_step}")


class EmptyRequest(RequestError):
    """The request has no prompt, no messages, no prompt_template and no prompt_token_ids."""

    code = "E1001"

    def __init__(self) -> None:
        super().__init__(
            "there is no prompt, no messages, no prompt_template and no prompt_token_ids; send one of them, "
            'in the body of a POST within {"input": {...}}'
        )


class PromptTooLong(RequestError):
    """The prompt leaves no room for a response in the model's context, or is too long to be counted."""

    code = "E1002"

    def __init__(
        self,
        prompt_tokens: int,
        max_tokens: int,
        context_tokens: int,
        *,
        at_least: bool = False,
        truncate: bool | None = None,
    ):
        """Args:
        prompt_tokens: of the prompt, without turns that may be left out.
        max_tokens: of the request.
        context_tokens: of the model; with a max_tokens of 0 the most that are counted.
        at_least: whether prompt_tokens is a lower bound.
        truncate: whether the oldest turns were left out; None if the prompt has no messages.
        """
        what = "the prompt without the turns that may be left out" if truncate else "the prompt"
        advice = {
            True: "; the system turns, the last user turn and what follows it stay",
            False: ", or set truncate to 'oldest_turns'",
            None: "",
        }
        room = f"the model takes {context_tokens} with at least 1 to generate"
        if not max_tokens:
            room = f"with that, fewer than {context_tokens} are counted"
        super().__init__(
            f"{what} is {'at least ' if at_least else ''}{prompt_tokens} tokens and max_tokens is {max_tokens}; "
            f"{room}; "
            f"shorten it by at least {prompt_tokens - context_tokens + 1} tokens{advice[truncate]}"
        )


class BadPromptTemplate(RequestError):
    """The prompt template has no place for the prompt."""

    code = "E1003"

    def __init__(self) -> None:
        super().__init__(
            "prompt_template has no {prompt}, so your prompt would not be used; "
            "put {prompt} where it belongs, or leave prompt empty"
        )


class PromptTemplateError(RequestError):
    """The prompt template is written in a template language, which is never evaluated here."""

    code = "E1004"

    def __init__(self, statement: str):
        super().__init__(
            f"prompt_template holds the Jinja statement {statement!r}; templates are not evaluated here, "
            "only {prompt} and {system_prompt} are replaced; write the prompt out"
        )


class BadMessages(RequestError):
    """A turn of the conversation cannot be read, or cannot stand where it stands."""

    code = "E1005"


class BadTools(RequestError):
    """The tools cannot be read, or are too many."""

    code = "E1006"


class BadJsonSchema(RequestError):
    """The schema is no JSON Schema, is too large, contradicts itself, or makes no grammar."""

    code = "E1007"

    def __init__(self, problem: str):
        super().__init__(f"json_schema: {problem}")


class BadSampling(RequestError):
    """The sampling values cannot be used, alone or together."""

    code = "E1008"


class EngineStartFailed(ServerError):
    """The engine could not be started."""

    code = "E1200"

    def __init__(self, cause: str, next_step: str = "the server's log has more"):
        super().__init__(f"vLLM did not start: {cause}; {next_step}")


class UnknownEngineArgument(ServerError):
    """The engine has no argument of that name."""

    code = "E1201"

    def __init__(self, name: str, known: Iterable[str]):
        close = get_close_matches(name, list(known), n=1)
        hint = f"did you mean {close[0]!r}?" if close else "see vLLM's AsyncEngineArgs for the names"
        super().__init__(f"engine_args has {name!r}, which this vLLM does not know; {hint}")


class InvalidConfiguration(ServerError):
    """A setting is unknown or has a value that cannot be used."""

    code = "E1202"

    def __init__(self, key: str, problem: str):
        super().__init__(f"{key}: {problem}")


class EngineFailed(ServerError):
    """The engine died, or gave up on this request; the message says whether the request can be sent again."""

    code = "E1203"

    def __init__(self, cause: str, next_step: str = AGAIN):
        super().__init__(f"{cause}; {next_step}")
        self.cause = cause


class NoAccelerator(ServerError):
    """The profile needs GPUs that are not there."""

    code = "E1204"

    def __init__(self, profile: str, needed: int, found: int, *, cpu_build: bool = False):
        """Args:
        profile: that was asked for.
        needed: CUDA devices.
        found: CUDA devices.
        cpu_build: whether the installed vLLM is the build for CPUs.
        """
        advice = (
            "run it on a machine that has them (in a container: `docker run --gpus all`), set tensor_parallel_size in "
            "HERMES_ENGINE_ARGS if the model fits on fewer, or serve the small model on a CPU, with the image of "
            "cog.local.yaml"
        )
        if cpu_build:
            advice = (
                "the installed vLLM is the build for CPUs: set HERMES_PROFILE=local for the small model, or run the "
                "image of cog.yaml on a machine that has them"
            )
        super().__init__(f"the {profile} profile needs {needed} CUDA devices and {found} were found; {advice}")


class ServerStopping(ServerError):
    """The server was told to stop, and the time that it gives running predictions is over."""

    code = "E1205"

    def __init__(self, seconds: float):
        super().__init__(f"the server is stopping and this was not finished within {seconds:g} s; {AGAIN}")


class Interrupted(ServerError):
    """The gateway ended before the prediction did, and was started again."""

    code = "E1206"

    def __init__(self) -> None:
        super().__init__(f"the gateway was ended while this was queued or running; {AGAIN}")


def find_error(text: str) -> str | None:
    """The last error of this package in another text, such as Cog's error or log."""
    found = re.findall(r"E1[02]\d\d [A-Z]\w+: .*", text)
    return found[-1] if found else None
