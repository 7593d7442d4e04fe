"""Callers: many at once, each streaming one response, with the second at which each piece came."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any

import aiohttp

from hermes.chat.request import DEFAULT_SYSTEM_PROMPT

NEW_TOKENS = 96
NO_MORE: Mapping[str, Any] = MappingProxyType({})

Timeline = list[float]  # seconds from sending a request to each piece of its response
Ask = Callable[..., AsyncIterator[None]]  # of a session, a URL and a prompt; gives something for each piece


async def stream_all(ask: Ask, url: str, prompts: list[str]) -> list[Timeline]:
    """Send every prompt at the same moment and read all replies to their ends."""

    async def one(session: aiohttp.ClientSession, prompt: str) -> Timeline:
        started = time.perf_counter()
        return [time.perf_counter() - started async for _ in ask(session, url, prompt)]

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, raise_for_status=True) as session:
        return await asyncio.gather(*(one(session, prompt) for prompt in prompts))


async def ask_cog(
    session: aiohttp.ClientSession, url: str, prompt: str, more: Mapping[str, Any] = NO_MORE
) -> AsyncIterator[None]:
    """`more` are inputs beside the prompt and the sampling values, or in their place."""
    inputs = {
        "prompt": prompt,
        "system_prompt": DEFAULT_SYSTEM_PROMPT,
        "temperature": 0,
        "min_tokens": NEW_TOKENS,
        "max_tokens": NEW_TOKENS,
        **more,
    }
    headers = {"Accept": "text/event-stream"}
    async with session.post(f"{url}/predictions", json={"input": inputs}, headers=headers) as response:
        async for line in response.content:
            if line.startswith(b"event: output"):
                yield


async def ask_openai(
    session: aiohttp.ClientSession, url: str, prompt: str, more: Mapping[str, Any] = NO_MORE
) -> AsyncIterator[None]:
    body: dict[str, Any] = {
        "model": "model",
        "messages": [
            {"role": "system", "content": DEFAULT_SYSTEM_PROMPT},
            {"role": "user", "content": prompt},
        ],
        "temperature": 0,
        "top_p": 0.9,
        "top_k": 50,
        "min_tokens": NEW_TOKENS,
        "max_tokens": NEW_TOKENS,
        "stream": True,
        **more,
    }
    async with session.post(f"{url}/v1/chat/completions", json=body) as response:
        async for line in response.content:
            if b'"content":"' in line and b'"content":""' not in line:
                yield
