"""A request of OpenAI's responses that refers to nothing that the gateway keeps."""

from hermes.gateway.problems import Problem
from hermes.gateway.responses_requests import ResponsesRequest


class Kept:
    """What the gateway keeps, by id."""

    def __init__(self, conversations=None, items=None):
        self.conversations, self.items = conversations or {}, items or {}

    def conversation(self, response_id):
        return self._find(self.conversations, response_id)

    def item(self, item_id, place):
        return self._find(self.items, item_id)

    def _find(self, kept, wanted):
        if wanted not in kept:
            raise Problem(404, f"there is no {wanted!r}")
        return kept[wanted]


class ResponseAlone(ResponsesRequest):
    """Such a request, which needs no store."""

    def parsed(self, check):
        self.looked_up(Kept())
        return super().parsed(check)
