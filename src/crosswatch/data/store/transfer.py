"""Many files between a store and a folder: in parallel, resumable, verified on the way."""

import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from crosswatch.data.store.crew import Crew
from crosswatch.data.store.disk import disk_faults
from crosswatch.data.store.journal import Journal
from crosswatch.data.store.landing import Landing, Site, Wanted
from crosswatch.data.store.names import check_paths
from crosswatch.data.store.objects import Objects
from crosswatch.data.store.sending import Dispatch, Outgoing, Sending
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import ResourceError
from crosswatch.progress import as_bytes

FEW = 10
LISTED_PER_FILE = 100  # entries of a listing that cost less than to ask for one object

Meter: TypeAlias = Callable[[int, int], None]


def download(
    objects: Objects,
    wanted: Sequence[Wanted],
    into: Path,
    *,
    config: TransferConfig,
    meter: Meter | None = None,
) -> None:
    """Bring objects below a folder. A call that was cut off goes on where it was.

    Raises:
        UserError: a name that no folder takes; an object that is missing or damaged in the store.
        ResourceError: the disk is too full, or the store did not answer for `patience_s`.
    """
    check_paths(one.path for one in wanted)
    crew = Crew(config.concurrency)
    with disk_faults(into), _staging(into) as (staging, journal):
        tally = _Tally(sum(one.bytes for one in wanted), meter)
        site = Site(
            objects=objects,
            config=config,
            into=into,
            staging=staging,
            journal=journal,
            moved=tally.add,
            later=crew.later,
            stop=crew.stop,
        )
        landings = [Landing(one, site) for one in _large_first(wanted)]
        _check_space(into, landings)
        crew.run(landing.begin for landing in landings)


def upload(
    objects: Objects,
    outgoing: Sequence[Outgoing],
    *,
    config: TransferConfig,
    meter: Meter | None = None,
    again: bool = False,
) -> None:
    """Send files whose keys name their contents; what stands there is only sent `again`.

    Raises:
        UserError: a file is not what its hash says.
        ResourceError: the store did not answer for `patience_s`.
    """
    crew = Crew(config.concurrency)
    tally = _Tally(sum(one.bytes for one in outgoing), meter)
    dispatch = Dispatch(
        objects=objects,
        config=config,
        standing={} if again else _standing(objects, outgoing),
        moved=tally.add,
        stop=crew.stop,
    )
    crew.run(
        Sending(one, dispatch).begin
        for one in sorted(outgoing, key=lambda one: one.bytes, reverse=True)
    )


def _standing(objects: Objects, outgoing: Sequence[Outgoing]) -> Mapping[str, int] | None:
    """Sizes of all that stands where the files go; None if that is more than to ask for each."""
    if objects.multipart is None or len(outgoing) < FEW:
        return None
    sizes: dict[str, int] = {}
    prefix = os.path.commonprefix([one.key for one in outgoing])  # noqa: RUF071 as listings go
    for info in objects.list(prefix):
        if len(sizes) >= LISTED_PER_FILE * len(outgoing):
            return None
        sizes[info.key] = info.bytes
    return sizes


class _Tally:
    """Counts bytes that many threads move."""

    def __init__(self, total: int, meter: Meter | None) -> None:
        self._total = total
        self._meter = meter
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            if self._meter:
                self._meter(self._done, self._total)


def _large_first(wanted: Sequence[Wanted]) -> list[Wanted]:
    """So that the last thing to end is small."""
    return sorted(wanted, key=lambda one: one.bytes, reverse=True)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """A folder of which one process at a time is in charge; a killed one lets go of it."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock", timeout=0):
            yield
    except Timeout as error:
        raise ResourceError(
            f"{folder}: another process is writing there. Wait until it has ended."
        ) from error


@contextlib.contextmanager
def _staging(into: Path) -> Iterator[tuple[Path, Journal]]:
    """Where files lie until they are whole; it goes when all are."""
    into.mkdir(parents=True, exist_ok=True)
    into = into.absolute()
    staging = into.with_name(f".{into.name}.arriving")
    with locked_folder(staging):
        journal = Journal(staging / "journal.jsonl")
        try:
            yield staging, journal
        finally:
            journal.close()
        shutil.rmtree(staging)


def _check_space(into: Path, landings: Sequence[Landing]) -> None:
    needed = sum(landing.missing_bytes() for landing in landings)
    free = shutil.disk_usage(into).free
    if needed > free:
        raise ResourceError(
            f"{into}: {as_bytes(needed)} are to be fetched and {as_bytes(free)} are free. "
            "Free some space or name a folder on a larger disk."
        )
