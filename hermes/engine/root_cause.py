"""Finds out why vLLM's own processes did not start. They log the cause and tell their parent only that they failed.

While an engine starts, vLLM's logging configuration has one more handler, from this module. It writes the first
exception that a process logs into a file.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SAYING_TOO_MUCH = ("vllm.v1.structured_output.backend_guidance",)  # its warnings hold the response and its grammar


class RootCause(logging.Handler):
    """A logging handler that writes the first exception into a file, while that file exists and is empty."""

    def __init__(self, path: str):
        super().__init__(logging.ERROR)
        self._path = Path(path)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's exception, if it has one and is the first."""
        error = record.exc_info and record.exc_info[1]
        if error and self._path.is_file() and not self._path.stat().st_size:
            self._path.write_text(one_line(error), encoding="utf-8", errors="backslashreplace")


@contextmanager
def root_cause(logging_config: Any, plain: Mapping[str, Any]) -> Iterator[Callable[[], str]]:
    """A context for the start of an engine. It gives a function that returns the logged cause, or "" if there is none.

    Args:
        logging_config: vLLM's LoggingConfig for its processes. It stays as it is if it names a file.
        plain: vLLM's dictConfig, to which the handler is added.
    """
    with tempfile.TemporaryDirectory(prefix="hermes-") as folder:
        cause, file = Path(folder, "cause"), Path(folder, "logging.json")
        cause.touch()
        if logging_config.pylogging_config_file is None:
            file.write_text(json.dumps(_with_handler(plain, cause)), encoding="utf-8")
            logging_config.pylogging_config_file = str(file)
        yield lambda: cause.read_text(encoding="utf-8")


def _with_handler(plain: Mapping[str, Any], path: Path) -> dict[str, Any]:
    ours = {"class": f"{RootCause.__module__}.{RootCause.__name__}", "path": str(path)}
    loggers = {name: {**each, "handlers": [*each["handlers"], "cause"]} for name, each in plain["loggers"].items()}
    quiet = {name: {"level": "ERROR"} for name in SAYING_TOO_MUCH}
    return {**plain, "handlers": {**plain["handlers"], "cause": ours}, "loggers": {**loggers, **quiet}}


def one_line(error: BaseException) -> str:
    """The error on one line, or its name if it has no text."""
    return " ".join(str(error).split()) or type(error).__name__
