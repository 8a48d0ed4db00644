"""The errors that a user can cause, and therefore has to be able to mend."""


class UserError(ValueError):
    """One line that says what, where, how much, what was allowed and what to do (exit code 2)."""


class BadBatchError(UserError):
    """A batch that cannot be used as it arrived; it is quarantined with this reason."""


class ResourceError(Exception):
    """A disk, network or server failed: one line and exit code 1. Nothing is half-done; the same
    command, run again, goes on from there."""
