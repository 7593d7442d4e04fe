"""What vLLM's processes log when they can't start, brought to the message of the error."""

import copy
import importlib.util
import io
import json
import logging
import logging.config
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import pytest

from hermes.engine.start_log import MAX_LINE, SAYING_TOO_MUCH, one_line, start_log

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


def configure(config):
    """As each process of vLLM does."""
    logging.config.dictConfig(json.loads(Path(config.pylogging_config_file).read_text()))
    return logging.getLogger("scripted_vllm")


def in_a_process(name, work, *arguments):
    """Run it in a process of that name, and return its id."""
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments, name=name)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    return process.pid


def fail(config, *errors):
    logger = configure(config)
    logger.warning("a warning")
    logger.error("an error without an exception")
    for error in errors:
        try:
            raise error
        except type(error):
            logger.exception("It failed.")


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ValueError("no room\n  for  it"), "no room for it"),
        (MemoryError(), "MemoryError"),
        (OSError("caf\udce9"), "caf\\udce9"),
    ],
)
def test_the_first_exception_that_a_process_logs_is_the_cause(error, cause):
    config = Config()
    with start_log(config, PLAIN) as log:
        in_a_process("EngineCore", fail, config)
        assert log.cause == ""
        in_a_process("Worker", fail, config, error, RuntimeError("see above"))
        in_a_process("EngineCore", fail, config, RuntimeError("a worker failed"))
        assert log.cause == cause


def test_what_the_process_says_that_waits_for_them_is_no_cause():
    config = Config()
    with start_log(config, PLAIN) as log:
        fail(config, RuntimeError("see above"))
        assert log.cause == ""


def warn(config):
    try:
        int("no number")
    except ValueError:
        configure(config).warning("Skipping it.", exc_info=True)


def test_an_exception_that_is_only_a_warning_is_no_cause():
    config = Config()
    with start_log(config, PLAIN) as log:
        in_a_process("EngineCore", warn, config)
        assert log.cause == ""


def say_it_wrong(config):
    configure(config).info("%d tokens", "many")
    configure(config).info("right")


def test_a_message_that_cannot_be_written_ends_no_process():
    config = Config()
    with start_log(config, PLAIN) as log:
        assert log.last_line(in_a_process("EngineCore", say_it_wrong, config)) == "EngineCore: right"


def test_who_makes_the_folder_again_after_the_start_gets_nothing():
    config = Config()
    with start_log(config, PLAIN):
        configuration = json.loads(Path(config.pylogging_config_file).read_text())
    folder = Path(config.pylogging_config_file).parent

    def later():
        logging.config.dictConfig(configuration)
        logging.getLogger("scripted_vllm").error("the start is over")
        folder.mkdir()
        logging.getLogger("scripted_vllm").error("later")

    try:
        in_a_process("EngineCore", later)
        assert list(folder.iterdir()) == []
    finally:
        folder.rmdir()


def speak(config, *messages):
    logger = configure(config)
    for message in messages:
        logger.info(message)


def speak_and_show(config):
    shown = io.StringIO()
    logger = configure(config)
    next(each for each in logger.handlers if isinstance(each, logging.StreamHandler)).setStream(shown)
    logger.info("loading")
    logger.error("it failed")
    assert shown.getvalue() == "it failed\n"


def test_what_a_quiet_log_leaves_out_is_known_all_the_same():
    """As with VLLM_LOGGING_LEVEL=ERROR."""
    config, plain = Config(), copy.deepcopy(PLAIN)
    plain["handlers"]["vllm"] = {"class": "logging.StreamHandler", "level": "ERROR"}
    plain["loggers"]["scripted_vllm"]["level"] = "ERROR"
    with start_log(config, plain) as log:
        quiet = in_a_process("EngineCore", speak, config, "loading")
        assert log.last_line(quiet) == "EngineCore: loading"
        in_a_process("EngineCore", speak_and_show, config)


def test_the_last_line_of_each_process_is_known():
    config = Config()
    with start_log(config, PLAIN) as log:
        core = in_a_process("EngineCore", speak, config, "one", "two\nlines", "")
        worker = in_a_process("VllmWorker-0", speak, config, "half a char\udce9", "x" * 300)
        assert log.last_line(core) == "EngineCore: "
        assert log.last_line(worker) == f"VllmWorker-0: {'x' * (MAX_LINE - 3)}..."
        assert log.last_line(1) == ""


def test_what_is_logged_after_the_start_goes_nowhere():
    config = Config()
    with start_log(config, PLAIN):
        configuration = json.loads(Path(config.pylogging_config_file).read_text())
    folder = Path(config.pylogging_config_file).parent
    config.pylogging_config_file = None

    def later():
        logging.config.dictConfig(configuration)
        logging.getLogger("scripted_vllm").error("later")

    in_a_process("EngineCore", later)
    assert list(folder.parent.glob(f"{folder.name}*")) == []


def test_a_logging_configuration_of_somebody_elses_is_left_alone():
    config = Config("theirs.json")
    with start_log(config, PLAIN) as log:
        assert (config.pylogging_config_file, log.cause) == ("theirs.json", "")


def test_an_error_is_one_line():
    assert [one_line(error) for error in (ValueError("a\nb"), KeyError(), MemoryError())] == [
        "a b",
        "KeyError",
        "MemoryError",
    ]


def test_what_was_written_is_not_in_the_log_of_a_grammar_that_fails():
    config = Config()
    with start_log(config, PLAIN):
        configure(config)
    vllm = Path(importlib.util.find_spec("vllm").origin).parent
    for name in SAYING_TOO_MUCH:
        assert vllm.joinpath(*name.split(".")[1:]).with_suffix(".py").is_file(), "there is such a logger"
        assert logging.getLogger(name).getEffectiveLevel() == logging.ERROR
