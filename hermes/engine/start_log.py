"""What vLLM's own processes log while they start: they tell their parent only that they failed.

While an engine starts, vLLM's logging configuration has one more handler, from this module. It writes into a folder the
first exception of any process, and the messages of each from level INFO on, whatever VLLM_LOGGING_LEVEL lets through to
the server's log.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hermes.text import shortened

SAYING_TOO_MUCH = ("vllm.v1.structured_output.backend_guidance",)  # its warnings hold the response and its grammar

CAUSE = "cause"
MAX_LINE = 200  # characters


class StartHandler(logging.Handler):
    """A logging handler that writes into a folder, while that folder exists."""

    def __init__(self, folder: str, parent: int):
        super().__init__()
        self._folder: Path | None = Path(folder)
        self._parent = parent  # the process that waits for the others: what it logs is no cause

    def emit(self, record: logging.LogRecord) -> None:
        """Write the message, and the exception if it is the first that was logged as an error."""
        if record.process == self._parent or not self._folder:
            return
        try:
            self._write(record, self._folder)
        except FileNotFoundError:  # the start is over; whoever makes a folder of this name later gets nothing
            self._folder = None
        except Exception:  # as logging's own handlers: what is logged must not end a process
            self.handleError(record)

    def _write(self, record: logging.LogRecord, folder: Path) -> None:
        with (folder / str(record.process)).open("a", encoding="utf-8", errors="backslashreplace") as lines:
            lines.write(f"{record.processName}: {shortened(record.getMessage(), MAX_LINE)}\n")
        error = record.exc_info and record.exc_info[1]
        if error and record.levelno >= logging.ERROR and not (folder / CAUSE).exists():
            (folder / CAUSE).write_text(one_line(error), encoding="utf-8", errors="backslashreplace")


class StartLog:
    """What was logged since the start."""

    def __init__(self, folder: Path):
        self._folder = folder

    @property
    def cause(self) -> str:
        """The first exception; "" if there is none."""
        return self._read(CAUSE)

    def last_line(self, pid: int) -> str:
        """The name of a process and its last message; "" if it has logged nothing."""
        return (self._read(str(pid)).splitlines() or [""])[-1]

    def _read(self, name: str) -> str:
        with suppress(FileNotFoundError):
            return (self._folder / name).read_text(encoding="utf-8")
        return ""


@contextmanager
def start_log(logging_config: Any | None, plain: Mapping[str, Any]) -> Iterator[StartLog]:
    """A context for the start of an engine, with the log of the start.

    Args:
        logging_config: vLLM's LoggingConfig for its processes. It stays as it is if it names a file. None if the
            processes are on other machines.
        plain: vLLM's dictConfig, to which the handler is added.
    """
    folder = Path(tempfile.mkdtemp(prefix="hermes-"))
    try:
        if logging_config and logging_config.pylogging_config_file is None:
            file = folder / "logging.json"
            file.write_text(json.dumps(_with_handler(plain, folder)), encoding="utf-8")
            logging_config.pylogging_config_file = str(file)
        yield StartLog(folder)
    finally:
        shutil.rmtree(folder.rename(f"{folder}-over"))  # under this name no process writes into it any more


def _with_handler(plain: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    kind = f"{StartHandler.__module__}.{StartHandler.__name__}"
    ours = {"class": kind, "folder": str(folder), "parent": os.getpid()}
    level = logging.getLevelNamesMapping()
    loggers = {
        name: {
            **each,
            "handlers": [*each["handlers"], "start"],
            "level": min(each["level"], "INFO", key=level.__getitem__),  # vLLM's own handler has its level, too
        }
        for name, each in plain["loggers"].items()
    }
    quiet = {name: {"level": "ERROR"} for name in SAYING_TOO_MUCH}
    return {**plain, "handlers": {**plain["handlers"], "start": ours}, "loggers": {**loggers, **quiet}}


def one_line(error: BaseException) -> str:
    """The error on one line, or its name if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
