"""Where this package's log goes."""

import logging
import sys


def log_to_stderr(line: str = "hermes: %(message)s") -> None:
    """Show this package's log from level INFO on. coglet puts it into the server's log or the prediction's."""
    logger = logging.getLogger("hermes")
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(line))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
