"""Names and contents of deliveries that do not name themselves."""

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from crosswatch.data.adapters.arrival import RESERVED, Arrival, Found
from crosswatch.data.sums import ID_PATTERN
from crosswatch.errors import BadBatchError, UserError

Delivery = tuple[str, Path, Callable[[], str]]  # id, what to read, the digest of its contents


def batch_id(text: str) -> str:
    """A safe name for a batch; one that had to be changed ends in a hash, so that two stay two."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).lstrip("-._")[:80]
    if plain == text and ID_PATTERN.fullmatch(text) and text.lower() not in RESERVED:
        return text
    return f"{plain.rstrip('-') or 'batch'}-{short_hash(text)}"


def short_hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def found_of(deliveries: Iterable[Delivery]) -> Found:
    """Deliveries that can be read, and those that cannot with the reason.

    Raises:
        UserError: two of them would get one id.
    """
    arrivals: list[Arrival] = []
    unreadable: dict[str, str] = {}
    taken: dict[str, Path] = {}
    for name, path, digest in deliveries:
        if name.casefold() in taken:
            other = taken[name.casefold()]
            raise UserError(
                f"{str(path)[-120:]!r} and {str(other)[-120:]!r} both give a batch {name!r}. "
                "Rename one of them."
            )
        taken[name.casefold()] = path
        try:
            arrivals.append(Arrival(id=name, digest=digest(), path=path))
        except BadBatchError as error:
            unreadable[name] = str(error)
        except PermissionError as error:
            unreadable[name] = (
                f"{error.filename}: cannot be read: {error.strerror}. "
                "Give the user that runs Crosswatch the right to read it."
            )
    return Found(arrivals=tuple(arrivals), not_arrived=(), unreadable=unreadable)
