"""Errors as Anthropic's clients read them (https://docs.anthropic.com/en/api/errors)."""

from hermes.client.cog import Json
from hermes.gateway.problems import KINDS as OPENAI_KINDS
from hermes.gateway.problems import Problem

PATH = "/messages"  # and what is below it
OVERLOADED = 529  # their status of what is 503 elsewhere
KINDS = OPENAI_KINDS | {413: "request_too_large", 503: "overloaded_error"}
# A client that learns this sends all messages instead; its tool runner asks for threads by default.
DETAILS = {"thread": {"details": {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}}}


def is_anthropic(path: str) -> bool:
    """Whether the clients of this path are Anthropic's."""
    return path == PATH or path.startswith(f"{PATH}/")


def status_of(problem: Problem) -> int:
    """The status of the response."""
    return OVERLOADED if problem.status == 503 else problem.status


def body_of(problem: Problem, request_id: str) -> Json:
    """The body of the response, or of the event that ends a stream."""
    kind = KINDS.get(problem.status, "invalid_request_error" if problem.status < 500 else "api_error")
    error = {"type": kind, "message": problem.message, **DETAILS.get(problem.param or "", {})}
    return {"type": "error", "error": error, "request_id": request_id}
