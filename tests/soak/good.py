"""The good requests of the soak, of the kinds that clients send. Each draws its inputs and knows its possible ends.

A kind takes a session, sends one request and returns how it ended.
"""

import json
import random
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import httpx
from jsonschema import Draft202012Validator

from hermes.client.cog import Json
from tests.soak.clients import Kind, Response, Session, Unexpected

CONTEXT = 2048  # tokens, of the server that is asked
SUBJECTS = ["a lighthouse", "the sea", "an old clock", "a lost dog", "the moon", "a red kite", "bread", "日本", "🦊"]
COUNTING = "one two three four five six seven eight nine ten "
SHORT = {"type": "string", "minLength": 1, "maxLength": 16}
ENDLESS = {"min_tokens": 400, "max_tokens": 400}  # long enough to be left before its end


def question(c: Session) -> str:
    return f"({c.nonce}) Tell me a story about {c.draw.choice(SUBJECTS)}."


def sampling(draw: random.Random) -> Json:
    """Draw some of the sampling inputs."""
    drawn = {
        "temperature": draw.choice([0, 0.3, 0.6, 1.0, 1.5]),
        "top_p": draw.choice([0.5, 0.9, 1]),
        "top_k": draw.choice([-1, 0, 1, 50]),
        "min_p": draw.choice([0, 0.05]),
        "presence_penalty": draw.uniform(-1, 1),
        "frequency_penalty": draw.uniform(-1, 1),
        "repetition_penalty": draw.uniform(0.9, 1.3),
        "seed": draw.choice([0, draw.randrange(2**53)]),
        "system_prompt": draw.choice(["", "Answer as a pirate."]),
    }
    return {name: drawn[name] for name in draw.sample(sorted(drawn), draw.randint(0, len(drawn)))}


def copied(c: Session) -> str:
    """Expect the nonce in the response: even a small model completes this raw prompt by copying."""
    said = f"The code of agent {c.draw.randrange(100)} is {c.nonce}. "
    prompt = said * 3 + said.partition(c.nonce)[0].rstrip()
    response = c.succeeds(prompt=prompt, prompt_template="{prompt}", temperature=0, max_tokens=24)
    c.expect(c.nonce in response.text, "it does not hold its own nonce", response)
    return response.outcome


def chat(c: Session) -> str:
    return c.succeeds(prompt=question(c), max_tokens=c.draw.randint(1, 100), **sampling(c.draw)).outcome


def at_least(c: Session) -> str:
    least = c.draw.randint(1, 60)
    response = c.succeeds(prompt=question(c), min_tokens=least, max_tokens=least + c.draw.randint(0, 20))
    c.expect(response.metrics["output_token_count"] >= least, f"it has fewer than {least} tokens", response)
    return response.outcome


def stopped(c: Session) -> str:
    """Stop at a sequence that the model writes a few words later."""
    stop = c.draw.choice(["four", "seven", "five s", "ten one"])
    prompt = f"{c.nonce} " + (COUNTING * 8).rstrip()
    inputs = {"prompt_template": "{prompt}", "temperature": 0, "max_tokens": 40, "stop_sequences": f"zzz,{stop}"}
    response = c.succeeds(prompt=prompt, **inputs)
    c.expect(stop not in response.text and response.outcome == "stop", f"it did not stop at {stop!r}", response)
    return response.outcome


def cancelled_stream(c: Session) -> str:
    """Cancel after some pieces. coglet loses a cancel that overtakes its request on the way to the worker."""
    name, after = f"soak-{uuid4().hex}", c.draw.randint(0, 6)

    def on_piece(count: int) -> None:
        if count == after:
            c.cancel(name)

    inputs = {"min_tokens": 30, "max_tokens": 30} if after == 0 else ENDLESS
    response = c.streamed({"prompt": question(c), **inputs}, name, on_piece)
    if after == 0 and response.outcome == "length":
        return "cancel lost"
    return cancelled(c, response)


def cancelled_plain(c: Session) -> str:
    """Cancel from another thread at any moment, again and again until the server takes it."""
    name = f"soak-{uuid4().hex}"
    with ThreadPoolExecutor(1) as other:
        running = other.submit(c.plain, {"prompt": question(c), **ENDLESS}, name)
        time.sleep(c.draw.choice([0, c.draw.uniform(0, 1.5)]))
        while not running.done():
            c.cancel(name)
            time.sleep(0.2)
    return cancelled(c, running.result())


def cancelled(c: Session, response: Response) -> str:
    """Expect a cancelled prediction. coglet 0.23 fails one that it is just handing to Python."""
    if "CancelationException" in (response.prediction.get("error") or ""):
        return "failed by the cancel"
    c.expect(response.outcome == "canceled", "it was not cancelled", response)
    return response.outcome


def dropped_stream(c: Session) -> str:
    """Leave after some pieces, or before the first."""
    pieces = c.draw.randint(0, 8)
    with closing(c.events({"prompt": question(c), **ENDLESS})) as events:  # type: ignore[type-var]
        for name, data in events:
            if name == "refused":
                raise Unexpected(f"refused: {data}")
            pieces -= name == "output"
            if pieces < 0:
                break
    return left(c)


def dropped_plain(c: Session) -> str:
    """Leave before the response is complete."""
    body = {"input": {"prompt": question(c), **ENDLESS}}
    try:
        response = c.http.post(f"{c.url}/predictions", json=body, timeout=c.draw.uniform(0.05, 2))
    except httpx.TimeoutException:
        return left(c)
    raise Unexpected(f"a response before its time: HTTP {response.status_code} {response.text[:300]}")


def left(c: Session) -> str:
    """Wait: the slot of a client that left is free only a moment later."""
    time.sleep(c.draw.uniform(0.3, 1))
    return "left"


def timed_out(c: Session) -> str:
    response = c.succeeds(prompt=question(c), min_tokens=1500, max_tokens=1500, timeout=c.draw.uniform(0.01, 3))
    c.expect(response.outcome == "timeout", "it did not end at its timeout", response)
    return response.outcome


def too_long(c: Session) -> str:
    return c.fails("E1002", prompt=question(c) + " word" * c.draw.randint(CONTEXT, 9000)).outcome


def conversation(c: Session) -> str:
    """Send many turns, sometimes more than fit into the context."""
    turns: list[Json] = []
    for _ in range(c.draw.randint(1, 12)):
        said = f"Something about {c.draw.choice(SUBJECTS)}, " + "and so on " * c.draw.randint(0, 120)
        turns += [{"role": "user", "content": said}, {"role": "assistant", "content": f"I see: {said}"}]
    last = [{"role": "user", "content": question(c)}]
    response = c.succeeds(messages=turns + last, truncate="oldest_turns", max_tokens=c.draw.randint(1, 60))
    metrics = response.metrics
    fits = metrics["input_token_count"] + metrics["max_tokens"] <= CONTEXT
    c.expect(fits and metrics["dropped_turns"] <= len(turns), "it was not truncated to fit", response)
    return "truncated" if metrics["dropped_turns"] else response.outcome


def json_response(c: Session) -> str:
    schema = random_object(c.draw)
    response = c.succeeds(prompt=question(c), json_schema=schema, max_tokens=100, **warm(c.draw))
    whole = response.outcome == "stop"
    c.expect(response.metrics["json_valid"] or not whole, "a response that ended by itself is not valid", response)
    if whole:
        c.expect(satisfies(json.loads(response.text), schema), f"it is not of the schema {schema}", response)
    return response.outcome


def tools(c: Session) -> str:
    offered = {name: random_object(c.draw) for name in c.draw.sample(["find", "book", "send", "count"], 2)}
    choice = c.draw.choice(["auto", "none", "required", *offered])
    functions = [{"name": name, "description": f"Can {name}.", "parameters": each} for name, each in offered.items()]
    inputs = {"tools": functions, "tool_choice": choice, "max_tokens": 100, **warm(c.draw)}
    response = c.succeeds(prompt=question(c), **inputs)
    calls, finish = response.metrics["tool_calls"], response.outcome
    for call in calls:
        c.expect(
            satisfies(call["arguments"], offered[call["name"]]), f"a call is not of its schema: {offered}", response
        )
        c.expect(choice in ("auto", "required", call["name"]), f"tool_choice is {choice}", response)
    if choice in ("required", *offered):
        called = finish == "length" or (finish == "tool_calls" and not response.metrics["tool_call_errors"])
        c.expect(called, f"tool_choice is {choice}", response)
    return f"{finish}, {len(calls)} call{'s' * (len(calls) != 1)}" if finish != "tool_calls" else finish


def warm(draw: random.Random) -> Json:
    """Draw sampling inputs with which only the grammar limits what the model writes."""
    return {"temperature": 1.0, "top_p": 1, "top_k": 0, "seed": draw.randrange(2**32)}


def random_object(draw: random.Random) -> Json:
    """Draw a JSON schema of an object. Most are new to the server."""
    low = draw.randrange(1000)
    kinds: list[Json] = [
        {"type": "integer", "minimum": low, "maximum": low + draw.randrange(1, 1000)},
        {"type": "boolean"},
        {"enum": draw.sample(["rot", "grün", "青", "blue", 3, None], 3)},
        SHORT,
        {"type": "array", "items": SHORT, "minItems": 1, "maxItems": 3},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,5}$"},
        {"type": "string", "format": "date"},
        {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]},
    ]
    properties = {f"{draw.choice('abcdefgh')}{number}": draw.choice(kinds) for number in range(draw.randint(1, 3))}
    required = draw.sample(sorted(properties), draw.randint(1, len(properties)))
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    return bool(Draft202012Validator(schema).is_valid(value))


GOOD: Mapping[Kind, int] = MappingProxyType(
    {
        copied: 20,
        chat: 12,
        at_least: 5,
        stopped: 6,
        cancelled_stream: 5,
        cancelled_plain: 4,
        dropped_stream: 6,
        dropped_plain: 4,
        timed_out: 5,
        too_long: 4,
        conversation: 8,
        json_response: 10,
        tools: 10,
    }
)
