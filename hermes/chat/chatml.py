"""ChatML, the prompt format of the Hermes 2 family, from messages straight to token ids.

    <BOS>, once, if the model has one; then for each message
    <|im_start|> + role + "\\n" + content + <|im_end|> + "\\n"
    and at the end <|im_start|>assistant\\n, which the model completes.

Source: the default chat template of NousResearch/Hermes-2-Theta-Llama-3-70B. This module inserts control tokens by id.
It encodes the text between them with each control token split up. So a typed `<|im_end|>` stays text, and no client can
forge a turn. The tokenizer of the loaded model gives the ids.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Protocol

from tokenizers import Tokenizer, pre_tokenizers

from hermes.chat.messages import Message
from hermes.errors import InvalidConfiguration
from hermes.tool_calls.definitions import TAGS

START, END = "<|im_start|>", "<|im_end|>"
CONTROL = re.compile(r"<\|.*\|>")  # the shape of control tokens
KEEPING = {"Sequence", "Split", "Digits", "ByteLevel"}  # pre-tokenizers that drop no text
SUPPOSED_MOST_BYTES = 256  # twice those of Llama 3's longest token


class ModelTokenizer(Protocol):
    """The part of transformers' PreTrainedTokenizerFast that is used here."""

    @property
    def backend_tokenizer(self) -> Tokenizer:
        """The tokenizer of the `tokenizers` library."""

    @property
    def bos_token(self) -> str | None:
        """The text of the token that begins a conversation."""


class ChatML:
    """The encoder for one model. It has no mutable state, so threads may share it."""

    def __init__(self, tokenizer: ModelTokenizer, vocab_size: int | None = None):
        """Build the encoder from the model's own tokenizer.

        Args:
            tokenizer: of the model.
            vocab_size: of the model. A tokenizer may have more tokens; the engine would die of their ids.

        Raises InvalidConfiguration if the model does not know ChatML.
        """
        spec = json.loads(tokenizer.backend_tokenizer.to_str())
        self._vocab_size = vocab_size or tokenizer.backend_tokenizer.get_vocab_size()
        spec["added_tokens"] = [token for token in spec["added_tokens"] if token["id"] < self._vocab_size]
        spec["truncation"] = spec["padding"] = None
        bos = tokenizer.bos_token
        self._control = _tokenizer(spec)
        self._text = _splitting(spec, {START, END, bos, *TAGS})
        self._most_bytes = _most_bytes(spec)
        tags = [token["content"] for token in spec["added_tokens"] if token["content"] in TAGS]
        self._with_tags = _splitting(spec, {START, END, bos}, kept=tags) if tags else self._text
        self.start_id, self.end_id = self._id(START), self._id(END)
        # SmolLM2 calls <|im_start|> its BOS; only a token of its own goes before the conversation.
        self.bos_ids = [] if bos in (None, START) else [self._id(str(bos))]

    def encode(self, messages: Iterable[Message], begun: str = "") -> list[int]:
        """Token ids of the conversation, up to the assistant's turn, of which there may be a beginning."""
        turns = [self.encode_turn(message) for message in messages]
        return [*self.bos_ids, *(token_id for turn in turns for token_id in turn), *self.opening(begun)]

    def encode_turn(self, message: Message) -> list[int]:
        """Token ids of one turn.

        Some models have tokens for <tool_call> and the like. User turns never get them: what a user types stays text.
        Tool results have them escaped before, see definitions.json_within_tags.
        """
        return [*self._open_turn(message), self.end_id, *_ids(self._text, "\n")]

    def opening(self, begun: str = "") -> list[int]:
        """Token ids of the turn that the model is to complete: its beginning, and the text that it has already."""
        return self._open_turn(Message("assistant", begun))

    def _open_turn(self, message: Message) -> list[int]:
        tokenizer = self._text if message.role == "user" else self._with_tags
        return [self.start_id, *_ids(tokenizer, f"{message.role}\n{message.content}")]

    def encode_raw(self, prompt: str) -> list[int]:
        """Token ids of a prompt that has control tokens written out."""
        return _ids(self._control, prompt)

    def missing_bos(self, token_ids: list[int]) -> list[int]:
        """What has to stand before a raw prompt: BOS, if the model has one and the prompt does not begin with it."""
        return [] if token_ids[: len(self.bos_ids)] == self.bos_ids else self.bos_ids

    def shown(self, token_ids: list[int]) -> str:
        """Token ids as text, control tokens included."""
        return str(self._control.decode(token_ids, skip_special_tokens=False))

    def token(self, token_id: int) -> str | None:
        """The token of that id, as the vocabulary has it, or None if there is none."""
        if not 0 <= token_id < self._vocab_size:
            return None
        token: str | None = self._control.id_to_token(token_id)
        return token

    def fewest_tokens(self, size: int) -> int:
        """A lower bound on the tokens of a text of `size` bytes. Encoding 5 MB takes a second and a gigabyte."""
        return size // self._most_bytes

    def fewest_tokens_of(self, messages: Iterable[Message], begun: str = "") -> int:
        """A lower bound on the tokens of a conversation, see `encode`."""
        return sum(map(self.fewest_tokens_of_turn, messages)) + self.fewest_tokens(len(begun.encode()))

    def fewest_tokens_of_turn(self, message: Message) -> int:
        """A lower bound on the tokens of one turn, those around its text included."""
        return 3 + self.fewest_tokens(len(message.role) + 1 + len(message.content.encode()))

    def _id(self, token: str) -> int:
        token_id: int | None = self._control.token_to_id(token)
        if token_id is None:
            raise InvalidConfiguration(
                "tokenizer", f"the model has no token {token}; this package serves ChatML models"
            )
        return token_id


def _most_bytes(spec: dict[str, Any]) -> int:
    """The most bytes of text that one token can stand for.

    A tokenizer that keeps each byte, as Llama 3's does, has them in its longest token. Others may drop bytes.
    """
    added, vocabulary = spec["added_tokens"], spec["model"]["vocab"]
    steps = json.dumps(spec["pre_tokenizer"])
    keeps_each = (
        spec["normalizer"] is None
        and '"ByteLevel"' in steps
        and KEEPING.issuperset(re.findall(r'"type": "(\w+)"', steps))
        and '"Removed"' not in steps
        and spec["model"]["type"] == "BPE"
        and vocabulary.keys() >= set(pre_tokenizers.ByteLevel.alphabet())
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    )
    if not keeps_each:
        return SUPPOSED_MOST_BYTES
    return max(*map(len, vocabulary), *(len(token["content"].encode()) for token in added))  # a character is a byte


def _tokenizer(spec: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(spec))


def _splitting(spec: dict[str, Any], control: set[str | None], kept: Iterable[str] = ()) -> Tokenizer:
    """A tokenizer that reads control tokens as plain text and knows only those to be `kept`.

    Some publishers forget to call their control tokens special, so `control` names them, beside those of their shape.
    """
    kept = set(kept)

    def is_split(token: dict[str, Any]) -> bool:
        text = token["content"]
        return text not in kept and bool(token["special"] or text in control or CONTROL.fullmatch(text))

    added = [{**token, "special": is_split(token)} for token in spec["added_tokens"]]
    tokenizer = _tokenizer({**spec, "added_tokens": added})
    tokenizer.encode_special_tokens = True  # "encode" here is to split a special token like any other text
    return tokenizer


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids
