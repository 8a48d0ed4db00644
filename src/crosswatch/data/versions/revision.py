"""A data revision where there is neither git nor DVC: its manifest is read, its deliveries fetched.

`crosswatch data resolve` writes the manifest; what stands in it is believed only as far as its
hashes go.
"""

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from crosswatch.data.store.landing import Wanted
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket, Place, parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.transfer import Meter, download
from crosswatch.data.versions import shards
from crosswatch.data.versions.records import (
    Blob,
    Revision,
    by_delivery,
    parse_revision,
    revision_text,
)
from crosswatch.data.versions.shards import Piece
from crosswatch.errors import BadBatchError, ResourceError, UserError

__all__ = [
    "Revision", "deliveries", "fetch", "put_revision", "read_revision", "revision_text",
    "write_revision",
]  # fmt: skip


def read_revision(where: Place | str, *, config: TransferConfig | None = None) -> Revision:
    """The manifest in a file or at s3://bucket/prefix/revisions/DIGEST.json.

    Raises:
        UserError: there is none, or it is not what `data resolve` writes.
    """
    place = parse_place(where) if isinstance(where, str) else where
    if isinstance(place, Bucket):
        folder, _, name = place.prefix.rpartition("/")
        found = open_objects(Bucket(place.name, folder), config or TransferConfig()).get(name)
        text = None if found is None else found.data
    else:
        try:
            text = place.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            text = None
        except OSError as error:
            raise UserError(f"{place}: cannot be read: {error.strerror}") from error
    if text is None:
        raise UserError(
            f"{place}: there is no such manifest. crosswatch data resolve REV writes it."
        )
    return parse_revision(text, where=str(place))


def write_revision(revision: Revision, path: Path) -> None:
    """Readers see the file whole or not at all.

    Raises:
        UserError: it cannot be written there.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(revision_text(revision), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written: {error.strerror}. Name another file."
        ) from error


def stored_key(revision: Revision) -> str:
    return f"revisions/{revision.digest}.json"


def put_revision(revision: Revision, store: str, *, config: TransferConfig | None = None) -> str:
    """Lay the manifest down in a store; the name that `read_revision` takes."""
    place = parse_place(store)
    data = revision_text(revision).encode()
    open_objects(place, config or TransferConfig()).put(stored_key(revision), data)
    return str(place / stored_key(revision))


def deliveries(revision: Revision) -> dict[str, tuple[Piece, ...]]:
    """The files of each delivery, named as they were delivered."""
    return by_delivery(revision.files)


def fetch(
    revision: Revision, batch_id: str, into: Path, *, config: TransferConfig, meter: Meter
) -> None:
    """Bring one delivery to the folder `into`, which takes its name when every byte is verified.

    A fetch that was cut off is taken up again by the next one with the same target.

    Raises:
        UserError: there is no such delivery, or `into` holds something else.
        BadBatchError: what is stored is not what the manifest says.
        ResourceError: the network, the remote or the disk failed.
    """
    digest = revision.sha256sums_digest(batch_id)
    pieces = deliveries(revision)[batch_id]
    if into.exists():
        _check_fetched(into, pieces, config)
        return
    work = into.parent / f".{into.name}.{digest[:12]}.fetching"
    with _alone(work):
        if not into.exists():
            held = {piece.object for piece in pieces}
            blobs = [blob for blob in revision.objects if blob.key in held]
            wanted = [
                Wanted(key=b.key, path=b.key, bytes=b.bytes, tag=None, sha256=b.sha256)
                for b in blobs
            ]
            remote = open_objects(parse_place(revision.remote), config)
            download(remote, wanted, work / "objects", config=config, meter=meter)
            _unpack(pieces, blobs, work)
            (work / "delivery").rename(into)
        shutil.rmtree(work)


def _unpack(pieces: Sequence[Piece], blobs: Sequence[Blob], work: Path) -> None:
    """Lay out the delivery as it arrived: files cut out of shards, whole objects moved."""
    target = work / "delivery"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for blob in blobs:
        source = work / "objects" / blob.key
        inside = [piece for piece in pieces if piece.object == blob.key]
        first = inside[0]
        if len(inside) == 1 and (first.bytes, first.sha256) == (blob.bytes, blob.sha256):
            (target / first.path).parent.mkdir(parents=True, exist_ok=True)
            source.rename(target / first.path)
        else:
            shards.cut(source, inside, target)
            source.unlink()


def _check_fetched(into: Path, pieces: Sequence[Piece], config: TransferConfig) -> None:
    """What is there already may be an earlier fetch of the same delivery, and nothing else."""
    found = {path.relative_to(into).as_posix() for path in into.rglob("*") if path.is_file()}
    wanted = {piece.path: piece.sha256 for piece in pieces}
    try:
        if found != set(wanted):
            raise BadBatchError(f"{len(found)} files are there, {len(wanted)} were delivered.")
        shards.verify(into, wanted, threads=config.concurrency)
    except BadBatchError as error:
        raise UserError(
            f"{into}: exists and is not this delivery: {error} Name another folder or remove it."
        ) from error


@contextlib.contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One fetch of a delivery to one place at a time, and the disk's refusals as one line."""
    from filelock import FileLock

    try:
        work.mkdir(parents=True, exist_ok=True)
        with FileLock(work / "lock"):
            work.mkdir(exist_ok=True)
            yield
    except OSError as error:
        raise ResourceError(
            f"{error.filename or work}: {error.strerror or error}. What has arrived is kept; "
            "run it again."
        ) from error
