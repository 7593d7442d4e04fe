"""vLLM's AsyncLLM behind a small interface. No other file imports vllm, and this one only when the engine starts.

vLLM runs the model in child processes and turns tokens into text in this process. The text has whole characters, no
special tokens, and no part of a stop string.
"""

import asyncio
import atexit
import json
import logging
import os
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import psutil

from hermes.chat.constraint import Constraint
from hermes.chat.sampling import Sampling
from hermes.engine import core_process
from hermes.engine.chunk import GrammarRefused, Take
from hermes.engine.counts import EngineCounts
from hermes.engine.grammar import Grammars
from hermes.engine.outputs import TakeFailed, take_all
from hermes.engine.processes import workers
from hermes.engine.start_log import StartLog, one_line, start_log
from hermes.engine.starting import UNEXPLAINED, EngineStart
from hermes.engine.watch import EngineWatch
from hermes.errors import (
    MAY_FAIL_AGAIN,
    BadSampling,
    EngineFailed,
    EngineStartFailed,
    HermesError,
    InvalidConfiguration,
    UnknownEngineArgument,
)
from hermes.settings import Profile

logger = logging.getLogger(__name__)

ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",  # vLLM reports to its makers otherwise
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # Cog's worker has threads and sockets that a fork must not copy
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": "86400",  # EngineWatch ends a step that hangs, and not one that was paused
}

# What ends a text in the families of Llama 3, Llama 2 and Mistral, and GPT-2, whatever a chat model adds to it.
ENDS_OF_TEXT = ("<|end_of_text|>", "<|eot_id|>", "</s>", "<|endoftext|>")

GRAMMARS = {"structured_outputs_config": {"backend": "guidance"}}  # whose grammars Constraint holds


class EnginePlan:
    """A checked configuration of the engine, and the model's tokenizer. The model itself is not loaded yet."""

    def __init__(self, folder: Path, engine_args: Mapping[str, Any]):
        """Check the configuration.

        Args:
            folder: a model in the Hugging Face layout.
            engine_args: vLLM's AsyncEngineArgs, all but `model`.

        Raises:
            UnknownEngineArgument, InvalidConfiguration: `engine_args` cannot be used.
            EngineStartFailed: vLLM cannot use the model.
        """
        logger.info("engine: starting vLLM, which takes seconds for a small model and minutes for a large one")
        with _vllm_errors():
            from vllm.tokenizers import cached_tokenizer_from_config

            self._config = _vllm_config(folder, engine_args)
            self.tokenizer: Any = cached_tokenizer_from_config(self._config.model_config)  # a transformers tokenizer
        self.vocab_size: int = self._config.model_config.get_vocab_size()
        self._end_tokens = end_tokens(folder, self.tokenizer, self.vocab_size)

    @contextmanager
    def starting(self, *, stall_timeout: float, start_timeout: float) -> Iterator["Engine"]:
        """A context for the start of the engine, which has loaded the model and is to be tried inside.

        To load blocks: seconds for a small model, minutes for a large one. The engine ends if anything raises inside.

        Args:
            stall_timeout: seconds. An engine that has work and shows no sign for that long counts as dead.
            start_timeout: seconds until the end of the context.

        Raises EngineStartFailed: vLLM did not start, took too long, or died inside.
        """
        from vllm.logger import DEFAULT_LOGGING_CONFIG

        counts = EngineCounts()
        several = self._config.parallel_config.distributed_executor_backend == "ray"  # machines, which share no folder
        logging_config = None if several else self._config.logging_config
        with ExitStack() as undo:
            with start_log(logging_config, DEFAULT_LOGGING_CONFIG) as log, EngineStart(start_timeout, log):
                with ThreadPoolExecutor() as beside, _vllm_errors():
                    grammars = beside.submit(Grammars, self.tokenizer, self._end_tokens)
                    llm = _start(self._config, counts, log)
                    undo.callback(shut_down, llm)
                    engine = Engine(llm, grammars.result(), self._end_tokens, counts, stall_timeout)
                    undo.callback(engine.stop)
                yield engine
            undo.pop_all()  # only now, for a start may be late at its very end


def shut_down(llm: Any) -> None:
    """End vLLM's processes at once. vLLM fails if one ends by itself between two of its looks at it."""
    with suppress(psutil.NoSuchProcess):
        llm.shutdown(timeout=0)


class Engine:
    """A running vLLM engine. `EnginePlan.starting` makes it, in the event loop that uses it; `stop` ends it."""

    def __init__(
        self, llm: Any, grammars: Grammars, end_tokens: Sequence[int], counts: EngineCounts, stall_timeout: float
    ):
        self.counts = counts
        self._llm = llm
        self._grammars = grammars
        self._end_tokens = list(end_tokens)
        self._watch = EngineWatch(
            engine_processes(llm),
            stall_timeout=stall_timeout,
            unfinished=lambda: self.unfinished,
            steps=lambda: counts.steps,
        )
        self._watch.start()
        atexit.register(self.stop)  # before vLLM's own, which gives its processes 5 s

    @property
    def context_tokens(self) -> int:
        """See TextEngine."""
        return int(self._llm.model_config.max_model_len)

    @property
    def alive(self) -> bool:
        """See TextEngine."""
        return not (self._llm.errored or self._watch.breaker.tripped)

    @property
    def died(self) -> asyncio.Event:
        """See TextEngine."""
        return self._watch.died

    @property
    def unfinished(self) -> int:
        """See TextEngine."""
        return int(self._llm.get_num_unfinished_requests())

    async def usable(self, constraint: Constraint) -> Constraint:
        """See TextEngine."""
        return await self._grammars.usable(constraint)

    async def generate(
        self,
        token_ids: Sequence[int],
        sampling: Sampling,
        take: Take,
        constraint: Constraint | None = None,
        stream_interval: int = 1,
    ) -> None:
        """See TextEngine."""
        from vllm.exceptions import VLLMClientError
        from vllm.inputs.engine import tokens_input
        from vllm.v1.engine.exceptions import EngineDeadError

        self._watch.breaker.check()
        grammar = await self._grammars.lark(constraint) if constraint else None
        params = self._sampling_params(sampling, grammar, stream_interval)
        request_id = uuid4().hex
        try:
            async with self._watch.breaker.waiting():
                collector = await self._llm.add_request(request_id, tokens_input(list(token_ids)), params)
                await take_all(collector, take, constraint)
        except VLLMClientError as error:
            raise (GrammarRefused if constraint else BadSampling)(one_line(error)) from error
        except (HermesError, GrammarRefused):
            raise
        except TakeFailed as failed:
            raise cast(Exception, failed.__cause__) from None
        except Exception as error:  # the engine lives on, unless it is known not to
            if isinstance(error, EngineDeadError):
                self._watch.fail("the engine has died")
            self._watch.breaker.check()
            logger.exception("engine: it gave up on a request")
            reason = f"the engine gave up on this request ({type(error).__name__})"
            raise EngineFailed(reason, MAY_FAIL_AGAIN) from error
        finally:
            if self.alive:
                await self._llm.abort(request_id)

    def stop(self) -> None:
        """End the engine and its processes at once. They have nothing to save."""
        atexit.unregister(self.stop)
        self._watch.stop()
        shut_down(self._llm)
        self._watch.kill()

    def _sampling_params(self, sampling: Sampling, grammar: str | None, stream_interval: int) -> Any:
        from vllm.exceptions import VLLMClientError
        from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
        from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

        if sampling.min_p and self._llm.vllm_config.speculative_config:
            raise BadSampling(
                f"min_p is {sampling.min_p:g}; this server guesses tokens ahead (HERMES_SPECULATION), and vLLM then "
                "does not take min_p; leave it at 0"
            )
        values = {**asdict(sampling), "stop": list(sampling.stop), "stop_token_ids": self._end_tokens}
        if grammar:  # a tag of the format may be a special token; no other can be written
            values |= {"structured_outputs": StructuredOutputsParams(grammar=grammar), "skip_special_tokens": False}
        try:
            delta = RequestOutputKind.DELTA
            params = SamplingParams(**values, output_kind=delta, stream_interval=stream_interval)
            # The engine core never recovers from a message that it can't read, such as one with a seed of 1.0.
            return MsgpackDecoder(SamplingParams).decode(MsgpackEncoder().encode(params))
        except (VLLMClientError, ValueError, OverflowError) as error:
            raise BadSampling(one_line(error)) from error


def import_vllm(profile: Profile, environment: Mapping[str, str] | None = None) -> None:
    """Import vLLM, which takes seconds and needs no weights. This must come before an engine starts.

    Variables that the process has already set win over those of the profile and of `environment`.

    Raises EngineStartFailed if vLLM cannot be imported, mostly for want of a driver or a library.
    """
    spawned = profile.on_gpus or "VLLM_WORKER_MULTIPROC_METHOD" in os.environ
    for name, value in {**ENVIRONMENT, **profile.environment, **(environment or {})}.items():
        os.environ.setdefault(name, value)
    os.environ["PATH"] = with_scripts(os.environ.get("PATH", os.defpath))
    if not spawned:
        core_process.prepare()
    with _vllm_errors():
        core_process.import_quickly("vllm.v1.engine.async_llm")


def with_scripts(path: str) -> str:
    """PATH with the folder of the programs that pip installs, such as ninja. Cog's image lacks that folder."""
    scripts = sysconfig.get_path("scripts")
    return path if scripts in path.split(os.pathsep) else os.pathsep.join([path, scripts])


def end_tokens(folder: Path, tokenizer: Any, vocab_size: int) -> list[int]:
    """The ids of all tokens that end a response: those that the model names, and those that end any text.

    A model names them in generation_config.json or else in config.json, as one id or a list. Hermes-2-Theta leaves out
    <|end_of_text|>, which its base model may still write.

    Args:
        folder: of the model.
        tokenizer: of the model, one of transformers' fast ones.
        vocab_size: of the model. A tokenizer may have more tokens.
    """
    ends: list[int] = []
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        eos = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id") if path.is_file() else None
        if eos is not None:
            ends = eos if isinstance(eos, list) else [eos]
            break
    added = tokenizer.added_tokens_decoder.items()
    others = [token_id for token_id, each in added if each.content in ENDS_OF_TEXT and token_id < vocab_size]
    return list(dict.fromkeys([*ends, *others]))


@contextmanager
def _vllm_errors() -> Iterator[None]:
    """A context that raises whatever vLLM, torch or a driver raise as EngineStartFailed, to be reported."""
    try:
        yield
    except HermesError:
        raise
    except Exception as error:
        raise EngineStartFailed(one_line(error)) from error


def _vllm_config(folder: Path, engine_args: Mapping[str, Any]) -> Any:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.model_executor.models import registry
    from vllm.platforms import current_platform

    known = {field.name for field in fields(AsyncEngineArgs)}
    for name in engine_args:
        if name not in known:
            raise UnknownEngineArgument(name, known)
    if "model" in engine_args:
        raise InvalidConfiguration("engine_args.model", "the weights decide the model; set COG_WEIGHTS or HERMES_MODEL")
    try:
        with core_process.inspecting_here(registry) if current_platform.is_cpu() else nullcontext():
            return AsyncEngineArgs(model=str(folder), **{**GRAMMARS, **engine_args}).create_engine_config()
    except (TypeError, ValueError) as error:
        raise InvalidConfiguration("engine_args", one_line(error)) from error


def _start(config: Any, counts: EngineCounts, log: StartLog) -> Any:
    """vLLM's AsyncLLM, with its processes started and the model loaded."""
    from vllm.v1.engine import utils
    from vllm.v1.engine.async_llm import AsyncLLM

    loggers = [cast(Any, _stat_logger(counts))]
    try:
        with core_process.forked(utils) if core_process.prepared else nullcontext():
            return AsyncLLM.from_vllm_config(config, disable_log_stats=True, stat_loggers=loggers)
    except Exception as error:
        raise EngineStartFailed(log.cause or f"{one_line(error)} ({UNEXPLAINED})") from error


def engine_processes(llm: Any) -> list[psutil.Process]:
    """vLLM's engine core and its workers. The engine needs each of them."""
    manager = llm.engine_core.resources.engine_manager
    cores = [psutil.Process(process.pid) for process in getattr(manager, "processes", [])]  # none of Ray's
    return [*cores, *(worker for core in cores for worker in workers(core))]


def _stat_logger(counts: EngineCounts) -> type:
    """A stat logger for vLLM that keeps these counts instead of Prometheus metrics."""
    from vllm.v1.metrics.loggers import PrometheusStatLogger

    class Counting(PrometheusStatLogger):  # type: ignore[misc]
        def __init__(self, **_: Any):
            pass

        def record(self, _scheduler: Any, iteration: Any, *_: Any, **__: Any) -> None:
            counts.add(iteration)

        def log_engine_initialized(self) -> None:
            pass

        def log(self) -> None:
            pass

    return Counting
