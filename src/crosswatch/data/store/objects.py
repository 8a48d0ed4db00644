"""Named byte strings in one place, behind one small door: a folder or a prefix in a bucket.

Small objects (claims, manifests, pointers) are read and written whole, with two conditional
writes that exactly one of many writers wins. Large ones move in `transfer`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import BinaryIO, Protocol


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One object as a listing shows it; `tag` changes whenever its bytes do.

    It pins a download. `replace` takes the tag that `get` returned.
    """

    key: str
    bytes: int
    tag: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Versioned:
    """An object's bytes, and the tag that `replace` has to name to overwrite exactly these."""

    data: bytes
    tag: str


class MissingError(Exception):
    """There is no such object."""


class RefusedError(Exception):
    """What stands there is not what the request was conditional on."""


class ChangedError(Exception):
    """A local file is no longer what its hash says: `args` hold the hash it has now."""


class Body(Protocol):
    """An object's bytes as they come in."""

    def read(self, count: int) -> bytes:
        """As many bytes or fewer, none at the end; TransientError where the stream breaks."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """A part of an upload as the store knows it."""

    number: int  # from 1
    bytes: int
    tag: str


class Multipart(Protocol):
    """A large object in parts that survive whoever sends them. One attempt each: see `Objects`."""

    def pending(self, key: str) -> list[str]:
        """Uploads of this object that were begun and neither completed nor aborted."""
        ...

    def begin(self, key: str) -> str: ...

    def parts(self, key: str, upload: str) -> list[Part]: ...

    def send_part(self, key: str, upload: str, number: int, data: bytes) -> Part: ...

    def complete(self, key: str, upload: str, parts: list[Part]) -> None: ...

    def abort(self, key: str, upload: str) -> None: ...


class Objects(Protocol):
    """Keys are relative to the place, with '/' between their parts.

    Every method raises UserError for what the user can mend (no such bucket, no credentials, no
    right) and ResourceError for what may be gone the next time (network, server, disk full).
    """

    @property
    def url(self) -> str:
        """The place as the user names it."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key begins with `prefix`, in order of their keys."""
        ...

    def get(self, key: str) -> Versioned | None: ...

    def put(self, key: str, data: bytes) -> None: ...

    def create(self, key: str, data: bytes) -> bool:
        """Write an object that must not exist; of many that try, exactly one succeeds."""
        ...

    def replace(self, key: str, data: bytes, *, tag: str) -> bool:
        """Overwrite exactly the version `tag`; of many that try, exactly one succeeds."""
        ...

    def delete(self, key: str) -> None: ...

    def now(self) -> float:
        """Seconds since 1970 on the clock that all users of this place share."""
        ...

    def find(self, key: str) -> ObjectInfo | None:
        """The object as a listing shows it."""
        ...

    # What follows moves many bytes. One attempt each, which may end in TransientError: `transfer`
    # tries again, and knows how far it came.

    def read(
        self, key: str, *, start: int, stop: int, size: int, tag: str | None
    ) -> contextlib.AbstractContextManager[Body]:
        """A range of an object that has `size` bytes and this tag; RefusedError if it has not."""
        ...

    def send(self, key: str, source: BinaryIO, *, size: int, sha256: str) -> None:
        """Write a whole object; ChangedError if the source is not what its hash says."""
        ...

    @property
    def multipart(self) -> Multipart | None:
        """The way for large objects, where they cannot be sent whole."""
        ...


def object_key(sha256: str) -> str:
    """Where a store keeps the bytes of a hash."""
    return f"objects/{sha256[:2]}/{sha256}"
