"""What this machine's disk refuses, as errors of ours: one line each."""

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from crosswatch.errors import ResourceError, UserError

MENDABLE = (
    errno.EACCES,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)
FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def disk_faults(path: Path) -> Iterator[None]:
    """
    Raises:
        UserError: the folder's owner, rights or names stand in the way.
        ResourceError: the disk is full or fails.
    """
    try:
        yield
    except OSError as error:
        text = f"{str(path)[:300]!r}: {error.strerror or error}"
        if error.errno in MENDABLE:
            raise UserError(f"{text}. Name a folder that you may read and write.") from error
        if error.errno in FULL:
            text = f"{text}. Free some space; what has arrived is kept."
            raise ResourceError(f"{text} Run it again.") from error
        raise ResourceError(f"{text}. Nothing is half-written; run it again.") from error
