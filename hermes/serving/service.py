"""The way of one request: Request -> token ids -> engine -> text pieces, with metrics at the end."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from hermes.conversation import ChatML, Message, Request, Sampling
from hermes.conversation.constraint import json_constraint
from hermes.conversation.template import check
from hermes.engine import TextEngine, require_devices, require_fit
from hermes.errors import CallerError, InvalidConfiguration
from hermes.serving.boot import Beside, BootReport
from hermes.serving.metrics import Meter
from hermes.settings import Settings
from hermes.weights import resolve

logger = logging.getLogger(__name__)


class ChatService:
    """A warm engine with the encoder for its model."""

    def __init__(self, engine: TextEngine, chatml: ChatML, prompt_template: str | None = None):
        self.engine = engine
        self.chatml = chatml
        self.prompt_template = prompt_template  # for requests that bring none

    @classmethod
    async def start(cls, settings: Settings, source: str | None = None) -> "ChatService":
        """Get the weights, start the engine on them, and generate once, so that the first caller waits for nothing.

        Args:
            settings: as the environment has them.
            source: of the weights, where it is not that of the settings.

        Raises:
            WeightsError: the weights could not be had.
            ServerError: see hermes.errors, E1200 to E1204.
        """
        from hermes.engine.engine import Engine, import_vllm

        began = time.monotonic()
        require_devices(settings.defaults)
        importing = Beside(partial(import_vllm, settings.defaults.environment))
        weights = resolve(settings, source, partial(require_fit, settings))
        saved = importing.join()

        settings = settings.with_predictor_config(weights.folder)
        check_default_template(settings.prompt_template)
        loading = time.monotonic()
        engine = Engine.start(weights.folder, settings.engine_args)
        try:
            service = cls(engine, ChatML(engine.tokenizer), settings.prompt_template or None)
            warming = time.monotonic()
            await service.warm_up()
        except BaseException:
            engine.stop()
            raise
        now = time.monotonic()
        BootReport.of(
            weights,
            imports=importing.seconds - saved,
            load=warming - loading,
            warm_up=now - warming,
            total=now - began,
            saved=saved,
        ).log()
        return service

    async def warm_up(self) -> None:
        """The first generation, and the first grammar, do work that is put off until then (16 s with two workers)."""
        prompt = self.chatml.encode([Message("user", "Hello")])
        for constraint in (None, json_constraint({"type": "boolean"})):
            async for _ in self.engine.generate(prompt, Sampling(seed=0, max_tokens=8), constraint):
                pass
        logger.info("engine: warm, %d tokens of context", self.engine.context_tokens)

    async def reply(self, request: Request) -> AsyncGenerator[str, None]:
        """The answer, piece by piece; joined, the pieces are exactly the answer.

        Raises:
            HermesError: see hermes.errors. The metrics are recorded also then, and when cancelled.
        """
        if self.prompt_template and not request.prompt_template and request.is_plain:
            request = replace(request, prompt_template=self.prompt_template)
        meter = Meter(request)
        try:
            # Encoding 8,000 tokens takes milliseconds and a megabyte takes a second; others go on meanwhile.
            prompt = await asyncio.to_thread(request.encode, self.chatml, self.engine.context_tokens)
            meter.input_token_count, meter.dropped_turns = len(prompt.token_ids), prompt.dropped_turns
            sampling = request.sampling.fitted(len(prompt.token_ids), self.engine.context_tokens)
            meter.max_tokens = sampling.max_tokens
            async with aclosing(self.engine.generate(prompt.token_ids, sampling, request.constraint)) as chunks:
                async for chunk in chunks:
                    meter.add(chunk)
                    if chunk.text:
                        yield chunk.text
        finally:
            meter.record()
            logger.info(
                "prediction: %s tokens in, %d out, %s, %.2f s; %d unfinished in the engine",
                meter.input_token_count,
                meter.output_token_count,
                meter.finish_reason or "not finished",
                meter.seconds,
                self.engine.unfinished,
            )


def check_default_template(template: str | None) -> None:
    """Raises InvalidConfiguration if requests without a template could not use this one."""
    if template:
        try:
            check(template, prompt="any")
        except CallerError as error:
            raise InvalidConfiguration("prompt_template", str(error)) from error
