"""What has to be set up in Cog's worker process before anything else: logging, and an end with its server."""

import logging
import os
import sys
import threading
import time

import psutil

GRACE_SECONDS = 5.0


def prepare_worker() -> None:
    """Call first in setup()."""
    log_to_stderr()
    threading.Thread(target=_end_with, args=(os.getppid(),), name="end-with-server", daemon=True).start()


def log_to_stderr(line: str = "hermes: %(message)s") -> None:
    """Show this package's log, of level INFO and up. coglet brings it to the server's log or the prediction's."""
    logger = logging.getLogger("hermes")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(line))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False


def _end_with(server_pid: int) -> None:
    """End this process and the engine's soon after the server is gone.

    coglet tells its worker to end but does not wait for it, and a worker in the middle of setup() does not listen: an
    engine that is starting would go on, with its GPUs, when its server has long been stopped.
    """
    psutil.Process(server_pid).wait()
    time.sleep(GRACE_SECONDS)  # after an ordinary stop this process ends by itself meanwhile, and its engine with it
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)
