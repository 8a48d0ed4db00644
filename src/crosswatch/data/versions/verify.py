"""Does a revision still hold what was delivered? Its cache and its remote, byte by byte."""

import concurrent.futures
import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from crosswatch.data.store.landing import Wanted
from crosswatch.data.store.objects import ObjectInfo, Objects
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.transfer import download
from crosswatch.data.versions import remote as remotes
from crosswatch.data.versions import revision as revisions
from crosswatch.data.versions import shards
from crosswatch.data.versions.clone import Registry
from crosswatch.data.versions.records import Index, revision_text
from crosswatch.data.versions.remote import Expected, Gap
from crosswatch.data.versions.resolve import check_holds_any, commit_of, indices_at, resolve
from crosswatch.progress import Meter, track


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is not as it was committed."""

    delivery: str
    file: str  # as it was delivered; of a shard the first that is damaged
    object: str
    where: str  # cache, remote, or store
    what: str

    def __str__(self) -> str:
        return f"{self.delivery}: {self.file}: {self.where}: {self.object} {self.what}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verified:
    revision: str
    commit: str
    deliveries: int
    objects: int
    bytes: int
    in_cache: int
    faults: tuple[Fault, ...]


def verify(
    registry: Registry,
    revision: str,
    *,
    deep: bool,
    store: str | None = None,
    config: TransferConfig,
) -> Verified:
    """Hold a revision's objects against its index in git, in the cache and at the remote.

    Raises:
        UserError: there is no such revision, or its index is damaged.
        ResourceError: the remote does not answer.
    """
    commit = commit_of(registry, revision)
    indices = indices_at(registry, commit)
    check_holds_any(indices, revision)
    every = remotes.expected(indices)
    cached = [one for one in every if (registry.cache / one.key).is_file()]
    faults = _in_cache(registry, cached, indices, config)
    remote = registry.open_remote(config)
    there = remotes.listing(remote)
    gaps = remotes.gaps(there, indices)
    faults += [_of_gap(registry, gap) for gap in gaps]
    if deep:
        absent = {gap.expected.key for gap in gaps}
        for index in indices.values():
            some = [one for one in every if one.delivery == index.id and one.key not in absent]
            faults += _at_remote(registry, remote, there, some, index, config)
    if store is not None:
        faults += _at_store(registry, revision, store, config)
    return Verified(
        revision=revision,
        commit=commit,
        deliveries=len(indices),
        objects=len(every),
        bytes=sum(one.bytes for one in every),
        in_cache=len(cached),
        faults=tuple(faults),
    )


def _in_cache(
    registry: Registry,
    cached: Sequence[Expected],
    indices: Mapping[str, Index],
    config: TransferConfig,
) -> list[Fault]:
    def check(one: Expected) -> Fault | None:
        path = registry.cache / one.key
        advice = f"Delete {path} and run dvc fetch."
        return _damage(path, one, indices[one.delivery], where="cache", advice=advice)

    return _faults(check, cached, what="objects of the cache", threads=config.concurrency)


def _at_remote(
    registry: Registry,
    remote: Objects,
    there: Mapping[str, ObjectInfo],
    some: Sequence[Expected],
    index: Index,
    config: TransferConfig,
) -> list[Fault]:
    """Read and hash the bytes of one delivery's objects, whatever the cache holds."""
    folder = registry.scratch / "deep" / index.id
    wanted = [
        Wanted(key=one.key, path=one.md5, bytes=one.bytes, tag=there[one.key].tag, sha256=None)
        for one in some
    ]

    def check(one: Expected) -> Fault | None:
        advice = "Delete it there and run crosswatch data commit again."
        return _damage(folder / one.md5, one, index, where="remote", advice=advice)

    try:
        download(remote, wanted, folder, config=config, meter=Meter(f"bytes of {index.id}"))
        return _faults(check, some, what="objects of the remote", threads=config.concurrency)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _faults(
    check: Callable[[Expected], Fault | None],
    objects: Sequence[Expected],
    *,
    what: str,
    threads: int,
) -> list[Fault]:
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        found = track(pool.map(check, objects), what=what, total=len(objects))
        return [fault for fault in found if fault is not None]


def _damage(path: Path, one: Expected, index: Index, *, where: str, advice: str) -> Fault | None:
    """What is wrong with an object's bytes, named after the first file that it concerns."""
    md5, sha256 = shards.hashes_of(path)
    pieces = [piece for piece in index.files if piece.object == one.path]
    is_whole = md5 == one.md5 and one.sha256 in (None, sha256)
    if is_whole and len(pieces) == 1 and pieces[0].sha256 == sha256:
        return None
    bad = [piece for piece in pieces if shards.sha256_at(path, piece) != piece.sha256]
    if is_whole and not bad:
        return None
    inside = f" in {one.path}" if len(pieces) > 1 else ""
    return Fault(
        delivery=one.delivery,
        file=(bad[0].path if bad else one.path) + inside,
        object=one.key,
        where=where,
        what=f"has other contents than were committed (MD5 {md5[:12]}...). {advice}",
    )


def _of_gap(registry: Registry, gap: Gap) -> Fault:
    one = gap.expected
    if gap.found_bytes is not None:
        what = (
            f"has {gap.found_bytes} bytes, {one.bytes} were committed. "
            "Run crosswatch data commit again."
        )
    elif (registry.cache / one.key).is_file():
        what = "is missing: committed but not pushed, or lost. Run crosswatch data commit again."
    else:
        what = "is missing, and not in this clone's cache. Push from the clone that committed it."
    return Fault(delivery=one.delivery, file=one.path, object=one.key, where="remote", what=what)


def _at_store(registry: Registry, revision: str, store: str, config: TransferConfig) -> list[Fault]:
    """The manifest that travels has to be the one that the registry resolves to."""
    found = resolve(registry, revision)
    key = revisions.stored_key(found)
    stored = open_objects(parse_place(store), config).get(key)
    what = f"is missing. crosswatch data resolve {revision} --store {store}"
    if stored is not None:
        if stored.data == revision_text(found).encode():
            return []
        what = "is damaged. Delete it and resolve the revision again."
    return [Fault(delivery=revision, file="manifest", object=key, where="store", what=what)]
