"""Who sent a request."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Caller:
    """Who sent a request, and which one it was."""

    token: str = ""  # its name; "" where the gateway has no tokens. What belongs to it is shown to nobody else
    request_id: str = ""  # of the header x-request-id: letters, digits, - and _
    route: str = ""  # such as /predictions/{id}, for the log
