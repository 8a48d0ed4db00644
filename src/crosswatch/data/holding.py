"""One process of this machine at a time: a lock on a name in a folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from crosswatch.errors import UserError

TIMEOUT_S = 1800


@contextlib.contextmanager
def held(folder: Path, name: str, *, what: str) -> Iterator[None]:
    """Others wait, and give up in the end.

    Args:
        what: is being done, for errors: "batch-1: another run has been ingesting it".

    Raises:
        UserError: the folder cannot be written, or another process does not let go.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written: {error.strerror}. Name a folder that you own."
        ) from error
    lock = FileLock(folder / f".{name}.lock", timeout=TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{what} for {TIMEOUT_S} s. Wait for that run, or end it.") from error
    try:
        yield
    finally:
        lock.release()
