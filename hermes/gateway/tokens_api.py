"""Texts as tokens and back, in the shapes of vLLM's server, over predictions that generate nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response

from hermes.client.cog import Json
from hermes.gateway.chat_messages import Conversation, messages_of
from hermes.gateway.chat_requests import NO_TEMPLATE
from hermes.gateway.completion_requests import CompletionRequest
from hermes.gateway.events import compact
from hermes.gateway.fields import refuse
from hermes.gateway.inputs import InputCheck
from hermes.gateway.openai_requests import ParsedRequest, Sampled
from hermes.gateway.problems import Problem
from hermes.gateway.replies import Replies
from hermes.gateway.reply import Reply
from hermes.gateway.run import Run

PIECE = 10_000  # values that are written at once: nothing else in the process goes on meanwhile
OF_MESSAGES = dict.fromkeys(("tools", "continue_final_message"), "goes with messages; a prompt is taken as it is")
TURN = "<|im_start|>"  # begins each turn; a client's text cannot have this token


class TokenizeRequest(Sampled):
    """The body of POST /tokenize: a prompt, or messages."""

    harmless: ClassVar[dict[str, str]] = {"chat_template_kwargs": "the model's format has no variables"}
    refused: ClassVar[dict[str, str]] = {
        "chat_template": NO_TEMPLATE,
        "media_io_kwargs": "the model reads only text",
        "mm_processor_kwargs": "the model reads only text",
    }

    prompt: str | None = None
    messages: list[Json] = Field([])
    tools: list[Json] = Field([])
    add_special_tokens: bool = True  # of a prompt; those of a conversation are in its format
    add_generation_prompt: bool | None = None  # a bool that is left out is true
    continue_final_message: bool = False
    return_token_strs: bool = False

    def inputs(self, conversation: Conversation | None) -> Json:
        """The inputs of predict.py."""
        if conversation is None:
            return {"prompt": self.prompt, "prompt_template": "{prompt}", "max_tokens": 0}
        inputs = {"system_prompt": "", "messages": conversation.messages, "max_tokens": 0}
        goes_on = {"continue_final_message": True} if self.continue_final_message else {}
        return inputs | goes_on | ({"tools": self.tools} if self.tools else {})

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        if (self.prompt is None) == (not self.messages):
            raise Problem(400, "prompt: send a prompt or messages, and not both", param="prompt")
        if self.prompt is not None:
            refuse(self.model_dump(include=set(OF_MESSAGES)), OF_MESSAGES)
        if self.add_generation_prompt and self.continue_final_message:
            said = "is true, and so is continue_final_message; send one of them"
            raise Problem(400, f"add_generation_prompt: {said}", param="add_generation_prompt")
        conversation = messages_of(self.messages) if self.messages else None
        whole = self.add_generation_prompt is not False or self.continue_final_message or not conversation
        wanted = {
            "bos": bool(conversation) or self.add_special_tokens,
            "whole": whole,
            "strings": self.return_token_strs,
        }
        echo = compact(wanted).encode()
        places = [conversation.places if conversation else {}]
        parsed = ParsedRequest.of(self, self.inputs(conversation), check, places=places, echo=echo)
        return parsed if conversation else replace(parsed, params=CompletionRequest.params)


class DetokenizeRequest(Sampled):
    """The body of POST /detokenize."""

    harmless: ClassVar[dict[str, str]] = {}
    refused: ClassVar[dict[str, str]] = {}
    params: ClassVar[dict[str, str]] = Sampled.params | dict.fromkeys(
        ("E1001", "E1002", "E1005", "prompt_token_ids"), "tokens"
    )

    tokens: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)

    def parsed(self, check: InputCheck) -> ParsedRequest:
        """See Sampled."""
        inputs: Json = {"prompt_token_ids": self.tokens, "max_tokens": 0}
        return ParsedRequest.of(self, inputs, check, places=[{"prompt_token_ids": "tokens"}])


class Tokenized(BaseModel):
    """The metric of that name: the prompt of a prediction."""

    model_config = ConfigDict(strict=True)

    ids: list[int]
    strings: list[str]
    text: str
    bos: int  # of the ids, so many at the beginning that a prompt gets

    @classmethod
    def of(cls, run: Run) -> "Tokenized":
        """Raises Problem if the server did not give it."""
        try:
            return cls.model_validate(run.metrics.get("tokenized"))
        except ValidationError as error:
            raise Problem(502, "the server gave no tokens; it may be of another version") from error


class TokensApi:
    """The endpoints."""

    def __init__(self, replies: Replies):
        self._replies = replies

    async def tokenize(self, request: Request) -> Response:
        """POST /tokenize."""
        parsed, reply = await self._replies.begin(request, TokenizeRequest)
        return await self._answer(request, reply, lambda run: _tokens(run, from_json(parsed.echo)))

    async def detokenize(self, request: Request) -> Response:
        """POST /detokenize."""
        _, reply = await self._replies.begin(request, DetokenizeRequest)
        return await self._answer(request, reply, lambda run: to_json({"prompt": Tokenized.of(run).text}))

    async def _answer(self, request: Request, reply: Reply, write: Callable[[Run], bytes]) -> Response:
        async def whole() -> bytes:
            await reply.whole()
            run = reply.runs[0]
            return await self._replies.bodies.in_thread(run.size, lambda: write(run), run.owner)

        return await self._replies.answer(request, reply, whole)


def _tokens(run: Run, wanted: Json) -> bytes:
    """The response of /tokenize."""
    found = Tokenized.of(run)
    start = 0 if wanted["bos"] else found.bos
    end = len(found.ids)
    if not wanted["whole"] and TURN in found.strings:
        end -= found.strings[::-1].index(TURN) + 1
    head = {"count": end - start, "max_model_len": run.metrics.get("context_tokens")}
    strings = _written(found.strings[start:end]) if wanted["strings"] else b"null"
    return b'%b,"tokens":%b,"token_strs":%b}' % (to_json(head)[:-1], _written(found.ids[start:end]), strings)


def _written(values: Sequence[int | str]) -> bytes:
    """Returns a list as JSON."""
    return b"[%b]" % b",".join(to_json(values[at : at + PIECE])[1:-1] for at in range(0, len(values), PIECE))
