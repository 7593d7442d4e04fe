"""A folder that can't be written: the error, and what helps against its reason."""

import errno
import os
import re
from pathlib import Path

from hermes.errors import WeightsError

FULL, DENIED = "free space there", f"give user {os.geteuid()} write access to it"
REMEDIES = {
    errno.EROFS: "mount a writable folder or volume there",
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f)",
}
WEIGHTS_DIR = "set HERMES_WEIGHTS_DIR to a writable folder"


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


def write_error(error: BaseException, source: Path) -> OSError | None:
    """The error, if it is one of writing to a disk and not of reading a source.

    safetensors gives only its number, as text. The system gives no name when a file that is open can't be written.
    """
    number = re.search(r"\(os error (\d+)\)", str(error))
    if number:
        return OSError(int(number[1]), os.strerror(int(number[1]))) if int(number[1]) in REMEDIES else None
    if not isinstance(error, OSError):
        return None
    if error.filename is None:
        return error if error.errno in REMEDIES else None
    of_source = Path(error.filename).is_relative_to(source)
    return error if not of_source and error.errno in (*REMEDIES, errno.ENOTDIR, errno.EEXIST, errno.EIO) else None
