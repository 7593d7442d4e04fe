"""Small honest stand-ins for the parts that a fast test does without."""

import asyncio
import json
import random
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from hermes.chat.request import Request
from hermes.devserver import PROJECT, PredictorSource
from hermes.engine import Chunk
from hermes.engine.counts import EngineCounts

LLAMA_70B = {  # what the config.json of Hermes-2-Theta-Llama-3-70B says of its shape
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "intermediate_size": 28672,
    "max_position_embeddings": 8192,
}

# and what that of Hermes-2-Theta-Llama-3-8B says of its own
LLAMA_8B = {
    **LLAMA_70B,
    "num_hidden_layers": 32,
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "intermediate_size": 14336,
}


def safetensors(size, seed=0, *, tensor="a"):
    """A file of safetensors of so many bytes, with one tensor of random bytes."""
    data = size
    while 8 + len(header := tensors_header({tensor: data})) + data > size:
        data -= 1
    header = header.ljust(size - 8 - data)
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(data)


def tensors_header(sizes):
    """The header of a file of safetensors with these tensors: name -> bytes."""
    ends = list(accumulate(sizes.values()))
    places = zip(sizes.items(), ends, strict=True)
    return json.dumps(
        {name: {"dtype": "U8", "shape": [size], "data_offsets": [end - size, end]} for (name, size), end in places}
    ).encode()


@dataclass
class FakeTokenizer:
    """What transformers' fast tokenizers offer and ChatML uses."""

    backend_tokenizer: Tokenizer
    bos_token: str | None

    def shown(self, token_ids):
        """Token ids as text, control tokens included."""
        return self.backend_tokenizer.decode(token_ids, skip_special_tokens=False)


def byte_tokenizer(
    *, bos="<|begin_of_text|>", control=("<|im_start|>", "<|im_end|>"), special=True, added=()
) -> FakeTokenizer:
    """A byte-level tokenizer in the shape of Llama 3's: a token a byte, then BOS, then the control tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [AddedToken(text, special=special, normalized=False) for text in dict.fromkeys([bos, *control]) if text]
    )
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return FakeTokenizer(tokenizer, bos)


INPUTS = {name: schema["default"] for name, schema in PredictorSource(PROJECT / "predict.py").inputs().items()}
INPUTS |= {"prompt": "Hi", "system_prompt": "Be kind.", "seed": 1}


def request(**inputs):
    """A request of these inputs and, for the rest, of plain ones."""
    return Request.from_inputs(**{**INPUTS, **inputs})


@dataclass
class FakeEngine:
    """An engine that gives out the chunks it was told to; it lives by the TextEngine protocol."""

    chunks: list[Chunk] = field(default_factory=lambda: [Chunk("Hello", 1), Chunk(" there.", 2, "stop")])
    error: Exception | None = None  # raised after the chunks
    context_tokens: int = 100
    alive: bool = True
    unfinished: int = 0
    counts: EngineCounts = field(default_factory=EngineCounts)
    seen: list = field(default_factory=list)  # (token ids, sampling, constraint) of each call
    intervals: list = field(default_factory=list)  # stream_interval of each call

    async def usable(self, constraint):
        return constraint

    async def generate(self, token_ids, sampling, take, constraint=None, stream_interval=1):
        self.seen.append((list(token_ids), sampling, constraint))
        self.intervals.append(stream_interval)
        self.unfinished += 1
        try:
            for chunk in self.chunks:
                await asyncio.sleep(0)
                if take(chunk):
                    return
            if self.error:
                raise self.error
        finally:
            self.unfinished -= 1


@contextmanager
def running_loop():
    """An event loop in a thread of its own, as coglet's worker has one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
