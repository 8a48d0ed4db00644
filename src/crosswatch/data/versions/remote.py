"""A registry's objects at the DVC remote: pushed until a listing shows every one of them."""

import concurrent.futures
import dataclasses
import shutil
from collections.abc import Mapping, Sequence

from crosswatch.data.store.objects import ObjectInfo, Objects
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.versions import shards
from crosswatch.data.versions.clone import BATCHES, Registry, batched
from crosswatch.data.versions.records import Index, key_of
from crosswatch.data.versions.resolve import RAW
from crosswatch.errors import ResourceError

UNDER = "files/md5/"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """An object that has to be at the remote; `path` is what the delivery calls it."""

    key: str
    bytes: int
    sha256: str | None  # None: DVC's own list of a delivery's objects
    md5: str
    delivery: str
    path: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gap:
    """An object that is not at the remote, or is there with another size."""

    expected: Expected
    found_bytes: int | None

    def __str__(self) -> str:
        one = self.expected
        has = "is missing" if self.found_bytes is None else f"has {self.found_bytes} bytes"
        return f"{one.delivery}: {one.path}: {one.key} {has} at the remote ({one.bytes} bytes)"


def expected(indices: Mapping[str, Index]) -> list[Expected]:
    """Every object of these deliveries; one that several hold is named once."""
    found: dict[str, Expected] = {}
    for index in indices.values():
        for packed in index.objects:
            one = Expected(key=key_of(packed.md5), bytes=packed.bytes, sha256=packed.sha256,
                           md5=packed.md5, delivery=index.id, path=packed.path)  # fmt: skip
            found.setdefault(one.key, one)
        one = Expected(key=index.directory_key, bytes=index.directory_bytes, sha256=None,
                       md5=index.directory_md5, delivery=index.id, path=RAW)  # fmt: skip
        found.setdefault(one.key, one)
    return list(found.values())


def listing(remote: Objects) -> dict[str, ObjectInfo]:
    """What is at the remote; asked for each time, because nothing else is proof."""
    return {info.key: info for info in remote.list(UNDER)}


def gaps(there: Mapping[str, ObjectInfo], indices: Mapping[str, Index]) -> list[Gap]:
    """What a listing of the remote does not show, or shows with another size."""
    found = [(one, there.get(one.key)) for one in expected(indices)]
    return [
        Gap(expected=one, found_bytes=None if info is None else info.bytes)
        for one, info in found
        if info is None or info.bytes != one.bytes
    ]


def push(
    registry: Registry, indices: Mapping[str, Index], config: TransferConfig
) -> tuple[int, int]:
    """Bring to the remote what it lacks; the number and the bytes of the objects that are there.

    Raises:
        ResourceError: the push failed, or objects are still missing or damaged after it.
    """
    remote = registry.open_remote(config)
    there = listing(remote)
    if lacking := gaps(there, indices):
        _check_cache(registry, [gap.expected for gap in lacking], config)
        names = sorted({gap.expected.delivery for gap in lacking})
        _make_dvc_look(registry, remote, there, lacking, [indices[name] for name in names])
        for some in batched(names):
            registry.dvc("push", *(f"{BATCHES}/{name}/{RAW}.dvc" for name in some))
        if lacking := gaps(listing(remote), indices):
            raise ResourceError(
                f"{registry.remote}: {len(lacking)} objects are still missing or damaged after "
                f"dvc push, first {lacking[0]}. Nothing was tagged; run the same command again."
            )
    every = expected(indices)
    return len(every), sum(one.bytes for one in every)


def _make_dvc_look(
    registry: Registry,
    remote: Objects,
    there: Mapping[str, ObjectInfo],
    lacking: Sequence[Gap],
    indices: Sequence[Index],
) -> None:
    """DVC takes an object that is there for whole, and a delivery's list of objects for proof that
    all of them are. It looks again once its memory and these are gone; the cache has them."""
    shutil.rmtree(registry.memory, ignore_errors=True)
    doubtful = {gap.expected.key for gap in lacking} | {index.directory_key for index in indices}
    for key in sorted(doubtful & there.keys()):
        if (registry.cache / key).is_file():
            remote.delete(key)


def _check_cache(registry: Registry, objects: Sequence[Expected], config: TransferConfig) -> None:
    """DVC pushes what its cache holds under a name, without looking whether it still is that.

    Raises:
        ResourceError: the cache lacks an object, or holds other contents.
    """

    def fault(one: Expected) -> str:
        path = registry.cache / one.key
        if not path.is_file():
            return "not in this clone's cache. Push from the clone that committed it."
        if shards.hashes_of(path)[0] != one.md5:
            return f"damaged in the cache ({path}). Bring it from another clone or a backup."
        return ""

    with concurrent.futures.ThreadPoolExecutor(config.concurrency) as pool:
        for one, what in zip(objects, pool.map(fault, objects), strict=True):
            if what:
                raise ResourceError(
                    f"{one.delivery}: {one.path} is missing or damaged at the remote, and it is "
                    f"{what}"
                )
