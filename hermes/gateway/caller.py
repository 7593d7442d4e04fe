"""Who sent a request."""

from dataclasses import dataclass, replace

from starlette.requests import Request


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and which one it was."""

    token: str = ""  # its name; "" where the gateway has no tokens. What belongs to it is shown to nobody else
    request_id: str = ""  # of the header x-request-id: letters, digits, - and _
    route: str = ""  # such as /predictions/{id}, for the log


def caller_of(request: Request) -> Caller:
    """Returns the caller that the gate found, with the route that was chosen since."""
    caller: Caller = request.state.caller
    route = request.scope.get("route")
    return replace(caller, route=route.path) if route else caller
