"""What vLLM's processes log when they can't start, brought to the message of the error."""

import importlib.util
import json
import logging
import logging.config
from dataclasses import dataclass
from pathlib import Path

import pytest

from hermes.engine.root_cause import SAYING_TOO_MUCH, one_line, root_cause

PLAIN = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {"vllm": {"class": "logging.NullHandler"}},
    "loggers": {"scripted_vllm": {"handlers": ["vllm"], "level": "INFO", "propagate": False}},
}


@dataclass
class Config:
    """As vLLM's LoggingConfig."""

    pylogging_config_file: str | None = None


@pytest.fixture
def logger():
    """The logger that the configuration speaks of, as it is in a process of the engine."""
    logger = logging.getLogger("scripted_vllm")
    yield logger
    logger.handlers.clear()


def log(logger, error, text="It failed."):
    try:
        raise error
    except type(error):
        logger.exception(text)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("no room\n  for  it"), "no room for it"),
        (MemoryError(), "MemoryError"),
        (OSError("caf\udce9"), "caf\\udce9"),
    ],
)
def test_the_first_exception_that_is_logged_is_the_cause(logger, error, cause):
    config = Config()
    with root_cause(config, PLAIN) as told:
        logging.config.dictConfig(json.loads(Path(config.pylogging_config_file).read_text()))
        logger.warning("a warning")
        logger.error("an error without an exception")
        assert told() == ""
        log(logger, error)
        log(logger, RuntimeError("see above"))
        assert told() == cause


def test_what_is_logged_after_the_start_goes_nowhere(logger):
    config = Config()
    with root_cause(config, PLAIN):
        file = Path(config.pylogging_config_file)
        logging.config.dictConfig(json.loads(file.read_text()))
    log(logger, ValueError("later"))
    assert not file.parent.exists()


def test_a_logging_configuration_of_somebody_elses_is_left_alone():
    config = Config("theirs.json")
    with root_cause(config, PLAIN) as told:
        assert (config.pylogging_config_file, told()) == ("theirs.json", "")


def test_an_error_is_one_line():
    assert [one_line(error) for error in (ValueError("a\nb"), KeyError(), MemoryError())] == [
        "a b",
        "KeyError",
        "MemoryError",
    ]


def test_what_was_written_is_not_in_the_log_of_a_grammar_that_fails():
    config = Config()
    with root_cause(config, PLAIN):
        logging.config.dictConfig(json.loads(Path(config.pylogging_config_file).read_text()))
    vllm = Path(importlib.util.find_spec("vllm").origin).parent
    for name in SAYING_TOO_MUCH:
        assert vllm.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file(), "there is such a logger"
        assert logging.getLogger(name).getEffectiveLevel() == logging.ERROR
