"""One commit at a time in a registry clone, and what a killed one leaves behind cleared away."""

import contextlib
import dataclasses
import fcntl
from collections.abc import Iterator
from pathlib import Path

from crosswatch.data.versions.clone import Registry
from crosswatch.errors import ResourceError, UserError

GIT_LOCKS = ("index.lock", "HEAD.lock", "packed-refs.lock", "refs/**/*.lock")


@contextlib.contextmanager
def alone(registry: Registry) -> Iterator[Registry]:
    """The registry for this process alone, and for the git and DVC that it starts: they hold the
    lock too, so that it is not free while one of them outlives a killed parent.

    Raises:
        UserError: another commit is at work.
        ResourceError: the disk refused something in the meantime.
    """
    try:
        registry.scratch.mkdir(parents=True, exist_ok=True)
        with (registry.scratch / "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = dataclasses.replace(registry, held=(lock.fileno(),))
            _clear_git_locks(ours)
            yield ours
    except BlockingIOError as error:
        raise UserError(
            f"--registry {registry.folder}: another data commit is at work there. Wait for it."
        ) from error
    except OSError as error:
        raise ResourceError(
            f"{error.filename or registry.folder}: {error.strerror or error}. Nothing was tagged; "
            "the same command, run again, goes on from there."
        ) from error


@contextlib.contextmanager
def writing_git(registry: Registry) -> Iterator[None]:
    """Leave a mark while git writes for us: if we are killed, its locks are ours to remove."""
    mark = _mark(registry)
    mark.touch()
    try:
        yield
    except Exception:
        mark.unlink()
        raise
    mark.unlink()


def _clear_git_locks(registry: Registry) -> None:
    """git takes a killed git's lock for a live one's, for ever."""
    mark = _mark(registry)
    if not mark.exists():
        return
    for kind in ("--git-dir", "--git-common-dir"):
        folder = registry.folder / (registry.git_says("rev-parse", kind) or ".git")
        for pattern in GIT_LOCKS:
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)
    mark.unlink()


def _mark(registry: Registry) -> Path:
    return registry.scratch / "git-is-writing"
