"""What Replicate's and OpenAI's clients are told when a request is not answered as asked, in one body for both.

Replicate's clients read RFC 9457's title, detail and status. OpenAI's read error.message, type, param and code.
"""

import logging
import re
from collections.abc import Iterable, Mapping
from traceback import format_tb

from pydantic import ValidationError

from hermes.client.cog import Json
from hermes.gateway.run import Run
from hermes.text import shortened

log = logging.getLogger(__name__)
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
TITLES = {
    400: "Bad request",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "Not found",
    405: "Method not allowed",
    408: "Request timeout",
    413: "Payload too large",
    415: "Unsupported media type",
    422: "Input validation failed",
    429: "Too many requests",
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
}
# The field of a request that an error of the package is about. Each dialect has its own.
PARAMS = {"E1001": "messages", "E1002": "messages", "E1005": "messages", "E1006": "tools", "E1007": "response_format"}
PLACE = re.compile(  # in an error: an input, and a part of it
    r"\b(messages\[\d+\]|prompt_token_ids|continue_final_message)([\w.\[\]]*)"
)
TOO_LONG = re.compile(r"is (?P<prompt>(?:at least )?\d+) tokens and .*; the model takes (?P<context>\d+) with")
OF_UNION = re.compile(r"str|(?:list|dict)\[.*\]")  # what pydantic adds to a place: the type that it tried
MAX_SAID, MAX_PARAM = 2000, 200  # characters
BUSY = ("E1203", "E1205", "E1206")  # the request can be sent again


class Problem(Exception):
    """A request that is not answered as asked."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        message = shortened(message, MAX_SAID)  # it may name what the client sent
        super().__init__(message)
        self.status, self.message, self.code = status, message, code
        self.param = None if param is None else shortened(param, MAX_PARAM)
        self.retry_after = retry_after  # s

    def body(self) -> Json:
        """The body of the response, for the clients of Replicate and of OpenAI."""
        kind = KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {
            "type": "about:blank",
            "title": TITLES.get(self.status, "Error"),
            "detail": self.message,
            "status": self.status,
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code},
        }

    def headers(self) -> dict[str, str]:
        """The headers of the response."""
        headers = {"Retry-After": str(self.retry_after)} if self.retry_after else {}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def of_full(message: str, retry_after: int) -> Problem:
    """The problem of a request for which there is no room in the queue, or no slot in time."""
    return Problem(429, message, code="rate_limit_exceeded", retry_after=retry_after)


def of_bug(what: str, bug: Exception) -> Problem:
    """The problem of a fault of the gateway itself. It is logged by its kind and place: its text may quote a prompt."""
    log.error("gateway: %s: %s\n%s", what, type(bug).__name__, "".join(format_tb(bug.__traceback__)))
    return Problem(500, f"the gateway failed: {type(bug).__name__}")


def of_error(what: str, error: Exception) -> Problem:
    """The problem that an error is, or that of a bug; `what` failed."""
    return error if isinstance(error, Problem) else of_bug(what, error)


def of_failed(run: Run, params: Mapping[str, str] = PARAMS, places: Mapping[str, str] | None = None) -> Problem:
    """The problem of a run that failed. `params`, `places`: see of_refused."""
    if run.status == "canceled":
        return Problem(503, "the server canceled the prediction; send the request again", retry_after=1)
    message = run.error or "the prediction failed"
    code = message[:5]
    if run.retry_after:
        return of_full(message, run.retry_after)
    if found := TOO_LONG.search(message) if code == "E1002" else None:
        param = params[code]
        message = message.partition(", or set truncate")[0]  # an input that not all APIs have
        said = (
            f"This model's maximum context length is {found['context']} tokens. However, your {param} resulted in "
            f"{found['prompt']} tokens. Please reduce the length of the {param}. ({message})"
        )
        return Problem(400, said, param=param, code="context_length_exceeded")
    if run.refused:
        return of_refused(message, params, places)
    return Problem(503 if code in BUSY else 500, message, code=code if code.startswith("E1") else None)


def of_refused(message: str, params: Mapping[str, str] = PARAMS, places: Mapping[str, str] | None = None) -> Problem:
    """The problem of inputs that the model does not take; the message may begin with a code.

    Args:
        message: of the package, which names its inputs.
        params: the field that an error is about, by its code.
        places: where the client sent an input, such as `input[5]` for `messages[3]`. The problem names these.
    """
    places, code = places or {}, message[:5]
    param = params.get(code)
    if code == "E1001" and param not in (None, "messages"):  # in an API that has no `input` around it
        param = places.get("prompt_token_ids", param)
        return Problem(400, f"E1001 EmptyRequest: {param} is empty; send some text", param=param, code=code)
    if places and code == "E1005" and (found := PLACE.search(message)):
        param = places.get(found[1], found[1]) + found[2]
    message = PLACE.sub(lambda found: places.get(found[1], found[1]) + found[2], message)
    return Problem(400, message, param=param, code=code if code.startswith("E1") else None)


def of_invalid(error: ValidationError) -> Problem:
    """The problem of a request that has not the shape that it should have."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = place_of([part for part in first["loc"] if not (isinstance(part, str) and OF_UNION.fullmatch(part))])
    if first["type"] == "model_type":
        return Problem(400, f"{place or 'the body'}: has to be a JSON object", param=place)
    return Problem(400, f"{place or 'the body'}: {first['msg']}", param=place)


def place_of(path: Iterable[str | int]) -> str | None:
    """Returns a place in a body, such as `messages[0].content`, or None for the body itself."""
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return place.removeprefix(".") or None


def unsupported(name: str, why: str) -> Problem:
    """The problem of a parameter that has no meaning for this model."""
    return Problem(400, f"{name}: {why}", param=name, code="unsupported_parameter")
