"""Grammars tried out before the engine gets them, in processes that may only use so much time.

The engine compiles a grammar among its other work and can't give up on one: an enum of 50,000 strings held it for 90 s.
So a server beside it, which has the tokenizer loaded, forks for each new grammar; the child compiles it as the engine
will, under a limit on CPU time. What comes through is cheap for the engine, too. Verdicts are remembered.
"""

import asyncio
import hashlib
import json
import logging
import multiprocessing
import os
import resource
import signal
import socket
import socketserver
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from hermes.conversation import Constraint
from hermes.errors import EngineFailed

logger = logging.getLogger(__name__)

COMPILE_SECONDS = 2  # of CPU time; most schemas take a hundredth of it
PARSE_SECONDS = 0.25  # of CPU time: vLLM parses on the event loop that all streams share
WAIT_SECONDS = 60  # for a verdict, on a machine however busy
REMEMBERED = 1024  # verdicts
PASSED = "passed"


class GrammarTrial:
    """The server's side that callers see: `check` a constraint before the engine gets it."""

    def __init__(self, folder: Path, stop_token_ids: list[int]):
        """Start the server for the tokenizer of the model in `folder`. Does not wait for it."""
        self._arguments = (str(folder), stop_token_ids)
        self._verdicts: OrderedDict[str, asyncio.Task[str]] = OrderedDict()
        self._start()

    def _start(self) -> None:
        self._address = f"\0hermes-grammar-{uuid4().hex}"  # an abstract socket leaves no file behind
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._address)
            listener.listen(128)
            self._server = multiprocessing.get_context("spawn").Process(
                target=_serve, args=(os.getpid(), listener, *self._arguments), name="grammar trial", daemon=True
            )
            self._server.start()

    async def check(self, constraint: Constraint) -> None:
        """Find out whether the engine can compile the grammar in time.

        Raises:
            BadTools, BadJsonSchema: it can't.
            EngineFailed: the server died meanwhile; the next call starts it again.
        """
        if not self._server.is_alive():
            logger.warning("grammar: its server had ended; it is started again")
            self._start()
        key = hashlib.sha256(constraint.structural_tag.encode()).hexdigest()
        if key not in self._verdicts:
            self._verdicts[key] = asyncio.create_task(self._verdict(constraint.structural_tag))
            if len(self._verdicts) > REMEMBERED:
                self._verdicts.popitem(last=False)
        try:
            verdict = await asyncio.shield(self._verdicts[key])  # others may wait for the same one
        except OSError as error:
            self._verdicts.pop(key, None)
            raise EngineFailed(f"the grammar could not be tried out ({error or type(error).__name__})") from error
        if verdict != PASSED:
            raise constraint.refused(verdict)

    def stop(self) -> None:
        """End the server and what it forked."""
        self._server.terminate()
        self._server.join()

    async def _verdict(self, structural_tag: str) -> str:
        reader, writer = await asyncio.open_unix_connection(self._address)
        try:
            writer.write(structural_tag.encode())
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), WAIT_SECONDS)
        finally:
            writer.close()
        if answer:
            return answer.decode()
        if not self._server.is_alive():
            raise ConnectionResetError("its server died")
        return f"takes more than {COMPILE_SECONDS} s to make a grammar of; make it smaller"


class _Handler(socketserver.StreamRequestHandler):
    """One grammar, in a child of its own. It answers with the verdict, or is killed at its limit and says nothing."""

    def handle(self) -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (COMPILE_SECONDS, COMPILE_SECONDS))
        structural_tag = self.rfile.read().decode()
        self.wfile.write(cast(_Server, self.server).verdict(structural_tag).encode())


class _Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    max_children = 4  # the others wait in the queue of the socket

    def __init__(self, parent: int, listener: socket.socket, folder: str, stop_token_ids: list[int]):
        super().__init__("", _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self._parent = parent
        self._compiler = _compiler(folder, stop_token_ids)

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self._parent:  # killed, so that it could not end this process
            raise SystemExit

    def verdict(self, structural_tag: str) -> str:
        from xgrammar import Grammar

        try:
            began = time.thread_time()
            Grammar.from_structural_tag(structural_tag)
            if time.thread_time() - began > PARSE_SECONDS:
                return "takes too long to parse; make it smaller, patterns with large repeats above all"
            self._compiler.compile_structural_tag(structural_tag)
        except (RuntimeError, ValueError) as error:
            return f"makes no grammar: {_reason(error)}"
        return PASSED


def _serve(parent: int, listener: socket.socket, folder: str, stop_token_ids: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the parent decides
    os.nice(10)
    with _Server(parent, listener, folder, stop_token_ids) as server:
        server.serve_forever()


def _compiler(folder: str, stop_token_ids: list[int]) -> Any:
    """xgrammar's compiler as vLLM makes it, but with one thread and no cache."""
    from transformers import AutoTokenizer
    from xgrammar import GrammarCompiler, TokenizerInfo

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    info = TokenizerInfo.from_huggingface(tokenizer, vocab_size=config["vocab_size"], stop_token_ids=stop_token_ids)
    return GrammarCompiler(info, max_threads=1, cache_enabled=False)


def _reason(error: Exception) -> str:
    """xgrammar's message without the time and the place in its source that go before it."""
    line = " ".join(str(error).split())
    return line.split(": ", 1)[-1][:300]
