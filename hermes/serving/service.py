"""One request from its inputs to its metrics: Request -> token ids -> engine -> pieces of text."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from math import inf
from typing import Any, TypeVar, Unpack

from hermes.chat.chatml import ChatML
from hermes.chat.constraint import json_constraint
from hermes.chat.inputs import Inputs, is_small
from hermes.chat.messages import Message
from hermes.chat.request import Request
from hermes.chat.sampling import Sampling
from hermes.chat.template import check
from hermes.chat.truncation import Prompt
from hermes.engine import (
    Breaker,
    Chunk,
    GrammarRefused,
    Take,
    TextEngine,
    engine_arguments,
    require_devices,
    require_fit,
    require_installation,
)
from hermes.errors import HermesError, InvalidConfiguration, RequestError
from hermes.serving.boot import Beside, log_boot
from hermes.serving.metrics import Meter
from hermes.serving.response import Put, Response
from hermes.serving.stopping import until_stop
from hermes.settings import Settings
from hermes.weights import compiled, is_converted, resolve

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

MANY = 16  # responses at once; from then on, a new one comes `stream_interval` tokens a piece


class ChatService:
    """A warm engine, with the encoder for its model."""

    def __init__(self, engine: TextEngine, chatml: ChatML, settings: Settings):
        self.engine = engine
        self.chatml = chatml
        self.settings = settings
        self.running = 0  # responses
        self._stopping = Breaker()

    @classmethod
    async def start(cls, settings: Settings, source: str | None = None) -> "ChatService":
        """Get the weights, start the engine on them, and warm it up.

        Args:
            settings: those of the environment.
            source: of the weights, if the settings do not name it.

        Raises:
            WeightsError: the weights cannot be fetched or used.
            ServerError: see hermes.errors, E1200 to E1204.
        """
        from hermes.engine.engine import EnginePlan, import_vllm

        began = time.monotonic()
        require_devices(settings)
        require_installation(settings.defaults)
        importing = Beside(partial(import_vllm, settings.defaults, compiled.environment(settings.weights_dir)))
        if is_converted(settings, source) or (settings.draft and is_converted(settings, settings.draft)):
            importing.join()  # it imports transformers, too, and two threads would get half of it
        draft = resolve(settings, settings.draft, role="guesses with").folder if settings.draft else None
        weights = resolve(settings, source, partial(require_fit, settings, draft=draft))
        compiled.take_out(weights.folder, settings.weights_dir, trusted=settings.packed_cache)
        importing.join()

        settings = settings.with_predictor_config(weights.folder)
        check_default_template(settings.prompt_template)
        configuring = time.monotonic()
        plan = EnginePlan(weights.folder, engine_arguments(settings, draft))
        loading = time.monotonic()
        chatml = Beside(partial(ChatML, plan.tokenizer, plan.vocab_size))
        stall_timeout = settings.stall_timeout or settings.defaults.stall_timeout
        with plan.starting(stall_timeout=stall_timeout, start_timeout=settings.start_timeout) as engine:
            service = cls(engine, chatml.join(), settings)
            warming = time.monotonic()
            await service.warm_up()
            now = time.monotonic()
            phases = {
                "imports": importing.seconds - importing.saved,
                "configuration": loading - configuring,
                "load": warming - loading,
                "warm_up": now - warming,
            }
            saved, context = importing.saved, engine.context_tokens
            log_boot(weights, phases, total=now - began, saved=saved, context_tokens=context)
        return service

    async def warm_up(self) -> None:
        """Generate twice: the first generation and the first grammar take up to 16 s with two workers."""
        prompt = self.chatml.encode([Message("user", "Hello")])
        for constraint in (None, json_constraint({"type": "boolean"})):
            await self.engine.generate(prompt, Sampling(seed=0, max_tokens=8), lambda _: None, constraint)

    def respond(self, record: Callable[[str, Any], object], **inputs: Unpack[Inputs]) -> Response:
        """The response to these inputs. It begins when it is written or read.

        After `timeout` seconds, or the server's own request_timeout if that is less, the response ends with what it
        has and with finish_reason "timeout".

        Args:
            record: is called at the end with the name and the value of each metric, after an error or a cancel, too.
            inputs: all that predict.py has.
        """
        return Response(lambda put: self._write(put, record, inputs))

    async def _write(self, put: Put, record: Callable[[str, Any], object], inputs: Inputs) -> None:
        """Write the response to `put`. Raises HermesError."""
        meter = Meter(context_tokens=self.engine.context_tokens, keeps_text=self.settings.log_prompts)
        self.running += 1
        deadline = asyncio.get_running_loop().time() + min(inputs["timeout"] or inf, self.settings.request_timeout)
        try:
            # Large schemas take long to check, and a megabyte takes a second to encode; others go on meanwhile.
            run = _at_once if is_small(inputs) else asyncio.to_thread
            request = meter.request = self._completed(await run(lambda: Request.from_inputs(**inputs)))
            prompt = await run(request.encode, self.chatml, self.engine.context_tokens)
            meter.input_token_count, meter.dropped_turns = len(prompt.token_ids), prompt.dropped_turns
            sampling = request.fitted(len(prompt.token_ids), self.engine.context_tokens)
            meter.max_tokens = sampling.max_tokens
            if self.settings.log_prompts:
                logger.info("prompt: %s", json.dumps(self.chatml.shown(prompt.token_ids)))
            if not sampling.max_tokens:
                meter.tokenized, meter.finish_reason = await asyncio.to_thread(tokenized, prompt, self.chatml), "length"
                await meter.read_text()
                return
            stops = request.stop_outside_calls
            one_by_one = self.running < MANY or (stops and sampling.min_tokens)  # which no chunk may straddle
            interval = 1 if one_by_one else self.settings.stream_interval
            try:  # one timer for the whole response: to make timers for each token cost more than all else
                if request.constraint:
                    async with asyncio.timeout_at(deadline):
                        usable = await self.engine.usable(request.constraint)
                    request = meter.request = replace(request, constraint=usable)

                def take(chunk: Chunk) -> None:
                    meter.add(chunk)
                    if chunk.text:
                        put(chunk.text)

                taking: Take = until_stop(take, stops, sampling.min_tokens) if stops else take
                async with asyncio.timeout_at(deadline), self._stopping.waiting():
                    await self.engine.generate(prompt.token_ids, sampling, taking, request.constraint, interval)
            except TimeoutError:
                meter.finish_reason = meter.finish_reason or "timeout"  # it may have ended at that moment
            except GrammarRefused as error:
                raise request.refused(str(error)) from error
            await meter.read_text()
        except HermesError as error:
            meter.code = error.code
            await meter.read_text()
            raise
        finally:
            self.running -= 1
            meter.record(record)
            logger.info("prediction: %s", json.dumps(meter.line() | {"engine": self._engine_line()}))
            if self.settings.log_prompts:
                logger.info("response: %s", json.dumps("".join(meter.text)))

    def stop(self, error: Callable[[], Exception]) -> None:
        """End every response now, and refuse new ones, with that error."""
        self._stopping.trip(error)

    def _completed(self, request: Request) -> Request:
        """The request, with the server's template if the request has none and is plain."""
        if self.settings.prompt_template and not request.prompt_template and request.is_plain:
            return replace(request, prompt_template=self.settings.prompt_template)
        return request

    def _engine_line(self) -> dict[str, int]:
        return {"unfinished": self.engine.unfinished, "output_tokens": self.engine.counts.output_tokens}


def tokenized(prompt: Prompt, chatml: ChatML) -> dict[str, Any]:
    """The prompt for a client who only wants its tokens."""
    ids = prompt.token_ids
    return {"ids": ids, "strings": list(map(chatml.token, ids)), "text": chatml.shown(ids), "bos": prompt.bos}


async def _at_once(work: Callable[..., Result], *arguments: Any) -> Result:
    return work(*arguments)


def check_default_template(template: str | None) -> None:
    """Raises InvalidConfiguration if the server's template cannot be used."""
    if template:
        try:
            check(template, prompt="any")
        except RequestError as error:
            raise InvalidConfiguration("prompt_template", str(error)) from error
