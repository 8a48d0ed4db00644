"""Deliveries wherever they lie: in a folder, below a prefix in a bucket, or in a data revision."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from crosswatch import progress
from crosswatch.data.adapters import Adapter, Arrival, Found, RawBatch, open_adapter
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.store.landing import CorruptError
from crosswatch.data.store.names import check_paths
from crosswatch.data.store.objects import ObjectInfo
from crosswatch.data.store.opening import open_objects
from crosswatch.data.store.place import Bucket, Place, parse_place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.store.stored import mirror
from crosswatch.data.sums import ID_PATTERN, SUMS, read_sums
from crosswatch.data.versions import revision as revisions
from crosswatch.errors import BadBatchError, UserError

ARRIVAL_LAYOUT = "arrival"


class Deliveries(Protocol):
    """Finding is cheap: only a delivery that is read is brought to this machine."""

    @property
    def name(self) -> str: ...

    def find(self) -> Found: ...

    def read(self, arrival: Arrival) -> RawBatch: ...

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        """What `reopen_deliveries` needs to find this one again."""
        ...


def open_deliveries(
    source: Place | None,
    revision: Place | None,
    *,
    ingest: IngestConfig,
    fetched: Path,
    transfer: TransferConfig,
) -> Deliveries:
    """Those below `source`, held to a data revision if one is named, or those of the revision.

    Raises:
        UserError: neither is named, or the adapter needs another place.
    """
    adapter = open_adapter(ingest)
    known = None if revision is None else revisions.read_revision(revision)
    if known is not None and ingest.adapter != ARRIVAL_LAYOUT:
        raise UserError(
            f"{revision}: a data revision holds deliveries of the arrival layout; "
            f"ingest.adapter is {ingest.adapter}. Name the folder instead."
        )
    if source is None:
        if known is None or revision is None:
            raise UserError(
                "no deliveries are named. Give a folder, s3://bucket/prefix or a revision."
            )
        return _OfRevision(known, revision, adapter, fetched, transfer)
    found: Deliveries
    if isinstance(source, Path):
        found = _InFolder(source, adapter)
    elif ingest.adapter == ARRIVAL_LAYOUT:
        found = _InBucket(source, adapter, fetched, transfer)
    else:
        found = _Mirrored(source, adapter, fetched, transfer)
    return found if known is None else _Held(found, known)


def reopen_deliveries(
    source: Mapping[str, str], *, ingest: IngestConfig, fetched: Path, transfer: TransferConfig
) -> Deliveries:
    """Where a batch of an earlier run came from, as `source_of` described it.

    Raises:
        UserError: it cannot be told, or is of another machine and not here.
    """
    place, revision = source.get("path"), source.get("revision")
    return open_deliveries(
        parse_place(place) if place else None,
        parse_place(revision) if revision else None,
        ingest=ingest,
        fetched=fetched,
        transfer=transfer,
    )


def refuse_nothing(found: Found, source: str) -> None:
    """Hold a place to holding at least one batch that has arrived.

    Raises:
        UserError: there is none; says what is still arriving and what cannot be read.
    """
    if found.arrivals:
        return
    waiting = ", ".join(found.not_arrived)
    why = f"; still arriving (no {SUMS} yet): {waiting}" if waiting else ""
    why += "".join(f"; {reason}" for reason in found.unreadable.values())
    raise UserError(f"{source}: holds no batch that has arrived{why}")


@dataclasses.dataclass(frozen=True)
class _InFolder:
    source: Path
    adapter: Adapter

    @property
    def name(self) -> str:
        return str(self.source)

    def find(self) -> Found:
        return self.adapter.find(self.source)

    def read(self, arrival: Arrival) -> RawBatch:
        return self.adapter.read(arrival)

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        return {"path": str(arrival.path.resolve())}


@dataclasses.dataclass(frozen=True)
class _BelowPrefix:
    """Deliveries in a bucket, and where they are brought to."""

    source: Bucket
    adapter: Adapter
    fetched: Path
    transfer: TransferConfig

    @property
    def name(self) -> str:
        return str(self.source)


class _InBucket(_BelowPrefix):
    """The arrival layout: what is there and whole is told by each SHA256SUMS alone."""

    def find(self) -> Found:
        batches: dict[str, set[str]] = {}
        for info in open_objects(self.source, self.transfer).list():
            folder, _, rest = info.key.partition("/")
            batches.setdefault(folder if rest else "", set()).add(rest or folder)
        if SUMS in batches.get("", ()):  # the prefix is one batch
            return _found({str(self.source).rpartition("/")[2]: self.source}, {}, self)
        visible = {name: files for name, files in batches.items() if name and name[0] != "."}
        if not visible:
            raise UserError(
                f"{self.source}: holds no batch. A batch is a folder with batch.json, its streams "
                f"and {SUMS}."
            )
        whole = {name: self.source / name for name, files in visible.items() if SUMS in files}
        return _found(whole, visible, self)

    def digest_of(self, batch: Bucket) -> str:
        standing = open_objects(batch, self.transfer).get(SUMS)
        assert standing is not None, "it was listed this very moment"
        return hashlib.sha256(standing.data).hexdigest()

    def read(self, arrival: Arrival) -> RawBatch:
        if not arrival.path.exists():
            self._bring(arrival)
        return self.adapter.read(arrival)

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        return {"path": arrival.origin}

    def _bring(self, arrival: Arrival) -> None:
        objects = open_objects(parse_place(arrival.origin), self.transfer)
        standing = objects.get(SUMS)
        if standing is None or hashlib.sha256(standing.data).hexdigest() != arrival.digest:
            raise BadBatchError(
                f"{SUMS}: changed since the batch was found. Let the delivery finish, run again."
            )
        hashes = {**read_sums(standing.data), SUMS: arrival.digest}
        listed = {info.key: info for info in objects.list()}
        for name in hashes:
            if name not in listed:
                raise BadBatchError(
                    f"{name[:200]!r}: is missing though {SUMS} lists it. Deliver the batch again."
                )
        try:
            check_paths(hashes)
        except UserError as error:
            raise BadBatchError(str(error)) from error
        try:
            mirror(
                objects,
                [listed[name] for name in hashes],
                arrival.path,
                prefix="",
                sha256_of=hashes,
                config=self.transfer,
                meter=progress.Meter(f"fetch {arrival.id}", unit="B"),
            )
        except CorruptError as error:
            raise BadBatchError(str(error)) from error


class _Mirrored(_BelowPrefix):
    """Any other layout: everything below the prefix is brought here before it is looked at."""

    def find(self) -> Found:
        objects = open_objects(self.source, self.transfer)
        listed = list(objects.list())
        if not listed:
            raise UserError(f"{self.source}: holds nothing")
        folder = self._folder(listed)
        if not folder.exists():
            mirror(
                objects,
                listed,
                folder,
                prefix="",
                sha256_of={},
                config=self.transfer,
                meter=progress.Meter("fetch", unit="B"),
            )
        return self.adapter.find(folder)

    def read(self, arrival: Arrival) -> RawBatch:
        return self.adapter.read(arrival)

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        return {"path": str(self.source)}

    def _folder(self, listed: list[ObjectInfo]) -> Path:
        """Named after what lies there, so that a change is brought anew."""
        told = "\n".join(f"{info.key}\0{info.bytes}\0{info.tag}" for info in listed)
        name = hashlib.sha256(told.encode()).hexdigest()[:12]
        return self.fetched / name / (self.source.prefix.rpartition("/")[2] or self.source.name)


@dataclasses.dataclass(frozen=True)
class _OfRevision:
    """What a data revision names, from the remote of the data registry."""

    revision: revisions.Revision
    place: Place
    adapter: Adapter
    fetched: Path
    transfer: TransferConfig

    @property
    def name(self) -> str:
        return f"revision {self.revision.revision}"

    def find(self) -> Found:
        return Found(
            arrivals=tuple(
                Arrival(id=name, digest=digest, path=self.fetched / digest[:12] / name)
                for name in revisions.deliveries(self.revision)
                for digest in [self.revision.sha256sums_digest(name)]
            ),
            not_arrived=(),
        )

    def read(self, arrival: Arrival) -> RawBatch:
        if not arrival.path.exists():
            meter = progress.Meter(f"fetch {arrival.id}", unit="B")
            arrival.path.parent.mkdir(parents=True, exist_ok=True)
            revisions.fetch(
                self.revision, arrival.id, arrival.path, config=self.transfer, meter=meter
            )
        return self.adapter.read(arrival)

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        place = self.place.resolve() if isinstance(self.place, Path) else self.place
        return {"revision": str(place)}


@dataclasses.dataclass(frozen=True)
class _Held:
    """Deliveries of which each has to be the one that a data revision names."""

    inner: Deliveries
    revision: revisions.Revision

    @property
    def name(self) -> str:
        return self.inner.name

    def find(self) -> Found:
        found = self.inner.find()
        named = {name: self.revision.sha256sums_digest(name) for name in self._names()}
        other = {
            arrival.id: f"is not what revision {self.revision.revision} names: "
            + ("other contents" if arrival.id in named else "no such delivery there")
            + ". Deliver what was committed, or commit this delivery."
            for arrival in found.arrivals
            if named.get(arrival.id) != arrival.digest
        }
        return dataclasses.replace(
            found,
            arrivals=tuple(each for each in found.arrivals if each.id not in other),
            unreadable={**found.unreadable, **other},
        )

    def read(self, arrival: Arrival) -> RawBatch:
        return self.inner.read(arrival)

    def source_of(self, arrival: Arrival) -> dict[str, str]:
        return self.inner.source_of(arrival)

    def _names(self) -> tuple[str, ...]:
        return tuple(revisions.deliveries(self.revision))


def _found(whole: Mapping[str, Bucket], seen: Mapping[str, set[str]], bucket: _InBucket) -> Found:
    odd = {
        name[:100]: f"{name[:100]!r} is no batch's name: letters, digits, '.', '_' or '-', at most "
        "100. Rename it in the bucket."
        for name in whole
        if not ID_PATTERN.fullmatch(name)
    }
    return Found(
        arrivals=tuple(
            Arrival(
                id=name,
                digest=digest,
                path=bucket.fetched / digest[:12] / name,
                origin=str(place),
            )
            for name, place in sorted(whole.items())
            if ID_PATTERN.fullmatch(name)
            for digest in [bucket.digest_of(place)]
        ),
        not_arrived=tuple(sorted(set(seen) - set(whole))),
        unreadable=odd,
    )
