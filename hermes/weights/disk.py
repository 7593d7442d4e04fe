"""A folder that can't be written: the error, and what helps against its reason."""

import errno
import os
import re

from hermes.errors import WeightsError

FULL, DENIED = "make room there", f"give the user {os.geteuid()} permission there"
REMEDIES = {
    errno.EROFS: "mount a folder or a volume there that can be written",
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: FULL,
}
WEIGHTS_DIR = "set HERMES_WEIGHTS_DIR to a folder that can be"


def unwritable(source: object, error: OSError, otherwise: str = WEIGHTS_DIR, *, folder: object = "it") -> WeightsError:
    """The error for a folder or a file that can't be written.

    Args:
        source: of the weights, or the file itself.
        error: of the system.
        otherwise: what the caller can do instead.
        folder: that can't be written, if it is not the source.
    """
    remedy = REMEDIES.get(error.errno or 0)
    next_step = f"{remedy}, or {otherwise}" if remedy else otherwise
    return WeightsError(source, f"{folder} can't be written ({error.strerror or error})", next_step)


def refusal_of_the_disk(error: BaseException) -> OSError | None:
    """The error, if it is one of writing to a disk. safetensors has only its number, as text."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        error = OSError(int(number[1]), os.strerror(int(number[1])))
    return error if isinstance(error, OSError) and error.errno in REMEDIES else None
