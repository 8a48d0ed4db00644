"""The errors that are answered with one line: what a user can mend, and what may pass."""

import errno
from typing import Any

ADVICE = "Deliver the batch again."
FULL = (errno.ENOSPC, errno.EDQUOT)  # a disk without room


class UserError(ValueError):
    """One line that says what, where, how much, what was allowed and what to do (exit code 2)."""


class BadBatchError(UserError):
    """A batch that cannot be used as it arrived; it is quarantined with this reason.

    Where its clocks are at fault, `report` is what sync.json would have said, and `figure` the PNG
    that would have stood beside it.
    """

    def __init__(
        self, reason: str, *, report: dict[str, Any] | None = None, figure: bytes | None = None
    ) -> None:
        super().__init__(reason)
        self.report = report
        self.figure = figure


class ResourceError(Exception):
    """A disk, network or server failed: one line and exit code 1. Nothing is half-done; the same
    command, run again, goes on from there."""


def explained(error: BaseException) -> str | None:
    """One line for what is no fault of the program or of its user; None for everything else."""
    if isinstance(error, ResourceError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in FULL:
        where = f"{error.filename}: " if error.filename else ""
        return (
            f"{where}{error.strerror}. Make room and run the same command again: what is "
            "finished is kept."
        )
    return None
