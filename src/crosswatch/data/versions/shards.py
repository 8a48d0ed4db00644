"""Many small files as few large objects, which a store moves at the speed of its network.

A shard is an uncompressed tar file that depends on its members' names and bytes alone, so the same
delivery packs to the same shards everywhere; a member is cut out again by its offset.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from crosswatch.data.store.place import safe_relative
from crosswatch.errors import BadBatchError, UserError

FILES, SHARDS = "files", "shards"  # single files keep their names below the first
CHUNK_BYTES = 1 << 20
END_OF_TAR = bytes(2 * tarfile.BLOCKSIZE)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """`pack_below_bytes` is the size from which a file stays an object of its own."""

    pack_below_bytes: int = 1_000_000
    shard_bytes: int = 256_000_000
    threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Packed:
    """One object; its MD5 is the name that DVC gives it, its SHA-256 what we hold it against."""

    path: str
    bytes: int
    md5: str
    sha256: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A delivered file, and where its bytes begin in the object that holds it."""

    path: str
    bytes: int
    sha256: str
    object: str
    offset: int


def pack(
    folder: Path, listed: Mapping[str, str], into: Path, *, config: PackConfig
) -> tuple[tuple[Packed, ...], tuple[Piece, ...]]:
    """Copy the listed files below `into`, the small ones into shards, each held against its hash.

    Raises:
        BadBatchError: a file is missing, changed, or has a name that leads out of its folder.
    """
    plans = list(_plan(folder, listed, config))
    with concurrent.futures.ThreadPoolExecutor(config.threads) as pool:
        written = list(pool.map(lambda plan: _write(folder, listed, into, *plan), plans))
    objects = tuple(packed for packed, _ in written)
    pieces = [piece for _, inside in written for piece in inside]
    return objects, tuple(sorted(pieces, key=lambda piece: piece.path))


def verify(folder: Path, listed: Mapping[str, str], *, threads: int) -> None:
    """Hold every listed file against its hash.

    Raises:
        BadBatchError: one is missing, changed, or has a name that leads out of its folder.
    """

    def check(name: str) -> None:
        bytes_ = _size(folder, name)
        with (folder / name).open("rb") as source:
            found = _copy(source, None, bytes_)
            _check(name, found, listed[name], is_whole=not source.read(1))

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(check, sorted(listed)):
            pass


def cut(source: Path, pieces: Sequence[Piece], into: Path) -> None:
    """Write the pieces that one object holds below `into`, each held against its hash.

    Raises:
        BadBatchError: the object does not hold what the index says.
    """
    with source.open("rb") as stream:
        for piece in pieces:
            target = _below(into, piece.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            stream.seek(piece.offset)
            with target.open("wb") as out:
                found = _copy(stream, out, piece.bytes)
            if found != piece.sha256:
                raise BadBatchError(
                    f"{piece.path[:200]!r}: SHA-256 of {piece.bytes} bytes at {piece.offset} of "
                    f"{piece.object!r} is {found[:12]}...; the index says {piece.sha256[:12]}.... "
                    "Commit the delivery again."
                )


def sha256_at(source: Path, piece: Piece) -> str:
    """The hash of what stands where a piece should be."""
    with source.open("rb") as stream:
        stream.seek(piece.offset)
        return _copy(stream, None, piece.bytes)


def hashes_of(path: Path) -> tuple[str, str]:
    """MD5 and SHA-256 of a file, which is read once."""
    sums = _Sums()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            sums.update(chunk)
    return sums.md5, sums.sha256


def _plan(
    folder: Path, listed: Mapping[str, str], config: PackConfig
) -> Iterator[tuple[str, list[tuple[str, int]]]]:
    """Objects with the names and sizes that go into each, in order of the names."""
    shard: list[tuple[str, int]] = []
    number = held = 0
    for name in sorted(listed):
        bytes_ = _size(folder, name)
        if bytes_ >= config.pack_below_bytes:
            yield f"{FILES}/{name}", [(name, bytes_)]
            continue
        if shard and held + bytes_ > config.shard_bytes:
            yield f"{SHARDS}/{number:05d}.tar", shard
            shard, number, held = [], number + 1, 0
        shard.append((name, bytes_))
        held += bytes_
    if shard:
        yield f"{SHARDS}/{number:05d}.tar", shard


def _size(folder: Path, name: str) -> int:
    """The size of a file that lies in the folder itself, not behind a link that leads out."""
    path = _below(folder, name)
    if not path.is_file() or not path.resolve().is_relative_to(folder.resolve()):
        raise BadBatchError(f"{name[:200]!r}: is listed, but no file of the batch's folder.")
    return path.stat().st_size


def _below(folder: Path, name: str) -> Path:
    try:
        path = safe_relative(name)
        name.encode()
    except (UserError, UnicodeEncodeError) as error:
        raise _leads_out(name) from error
    if not path.parts:
        raise _leads_out(name)
    return folder / path


def _leads_out(name: str) -> BadBatchError:
    return BadBatchError(
        f"{name[:200]!r}: is no file name inside the batch's folder. Use plain relative names."
    )


def _write(
    folder: Path,
    listed: Mapping[str, str],
    into: Path,
    name: str,
    members: Sequence[tuple[str, int]],
) -> tuple[Packed, list[Piece]]:
    target = into / name
    target.parent.mkdir(parents=True, exist_ok=True)
    is_shard = name.startswith(f"{SHARDS}/")
    pieces: list[Piece] = []
    with target.open("wb") as stream:
        out = _Out(stream)
        for member, bytes_ in members:
            if is_shard:
                out.write(_header(member, bytes_))
            offset = out.written
            with (folder / member).open("rb") as source:
                found = _copy(source, out, bytes_)
                has_more = bool(source.read(1))
            _check(member, found, listed[member], is_whole=not has_more)
            pieces.append(
                Piece(path=member, bytes=bytes_, sha256=found, object=name, offset=offset)
            )
            if is_shard:
                out.write(bytes(-bytes_ % tarfile.BLOCKSIZE))
        if is_shard:
            out.write(END_OF_TAR)
    sums = out.sums
    return Packed(path=name, bytes=out.written, md5=sums.md5, sha256=sums.sha256), pieces


def _check(name: str, found: str, wanted: str, *, is_whole: bool) -> None:
    if not is_whole:
        raise BadBatchError(f"{name[:200]!r}: grew while it was read. Commit it when it is still.")
    if found != wanted:
        raise BadBatchError(
            f"{name[:200]!r}: checksum mismatch: SHA-256 is {found[:12]}..., SHA256SUMS says "
            f"{wanted[:12]}.... Deliver the batch again."
        )


def _header(name: str, bytes_: int) -> bytes:
    """The same for every owner, mode and time."""
    info = tarfile.TarInfo(name)
    info.size = bytes_
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")


def _copy(source: BinaryIO, out: "BinaryIO | _Out | None", bytes_: int) -> str:
    """Copy at most so many bytes; the SHA-256 of those that there were."""
    digest = hashlib.sha256()
    left = bytes_
    while left and (chunk := source.read(min(left, CHUNK_BYTES))):
        digest.update(chunk)
        if out is not None:
            out.write(chunk)
        left -= len(chunk)
    return digest.hexdigest()


class _Sums:
    def __init__(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def update(self, chunk: bytes) -> None:
        self._md5.update(chunk)
        self._sha256.update(chunk)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()


class _Out:
    """A file that knows its length and its hashes while it is written."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.written = 0
        self.sums = _Sums()

    def write(self, chunk: bytes) -> None:
        self._stream.write(chunk)
        self.sums.update(chunk)
        self.written += len(chunk)
