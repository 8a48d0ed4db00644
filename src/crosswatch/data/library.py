"""Every batch that was ever ingested, so that training data accumulate.

A folder for each way of ingesting (another frame size or sync setting means another), one artifact
a batch. With a store the batches of all machines are known: a pointer there names the artifact.
"""

import contextlib
import dataclasses
import functools
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from crosswatch import artifacts, progress
from crosswatch.data.holding import held
from crosswatch.data.store.objects import Objects
from crosswatch.data.store.stored import Store
from crosswatch.data.sums import ID_PATTERN
from crosswatch.errors import UserError

BATCH = "batch"
SOURCE = "source.json"
POINTERS = "batches"
DELIVERIES = "deliveries"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Known:
    """A batch of an earlier run: which delivery it was made from, and where that came from."""

    arrival: str  # digest
    source: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pointer:
    """What the store says of one ingested batch."""

    artifact: str  # digest
    arrival: str
    source: Mapping[str, str]
    at: float


class Library:
    """Batches below `root`, ingested in the one way that `settings` describe."""

    def __init__(self, root: Path, settings: Mapping[str, Any], store: Store | None) -> None:
        self.root = root
        self._way = artifacts.digest_of([settings, artifacts.code_version("data")])[:12]
        self.folder = root / self._way
        self._store = store

    @property
    def deliveries(self) -> Path:
        """Where deliveries that lie elsewhere are brought to."""
        return self.root / DELIVERIES

    def held(self, batch_id: str) -> AbstractContextManager[None]:
        """One run of this machine at a time looks for, writes and links a batch."""
        what = f"{batch_id}: another run has been ingesting it"
        return held(self.folder, batch_id, what=what)

    def arrival_of(self, batch_id: str) -> str | None:
        """Digest of the delivery that the library's batch was made from; None if there is none.

        The batch is whole: it was verified, or fetched from the store just now.
        """
        if (self.folder / batch_id / artifacts.MANIFEST).exists():
            try:
                manifest = artifacts.open_artifact(self.folder / batch_id, kind=BATCH)
                return manifest.parents["arrival"]
            except UserError as error:
                progress.warn(f"{error} Looking for {batch_id} elsewhere.")
        pointer = self._pointers.get(batch_id)
        if self._store is None or pointer is None or pointer[0] != self._way:
            return None
        self._store.fetch(pointer[1].artifact, self.folder / batch_id)
        return pointer[1].arrival

    def publish(self, batch_id: str) -> None:
        """Let other machines know a batch that lies here, unless they do."""
        if self._store is None:
            return
        manifest = artifacts.open_artifact(self.folder / batch_id, kind=BATCH, verify=False)
        way, standing = self._pointers.get(batch_id, ("", None))
        if way == self._way and standing and standing.arrival == manifest.parents["arrival"]:
            return
        pointer = _Pointer(
            artifact=self._store.push(self.folder / batch_id),
            arrival=manifest.parents["arrival"],
            source=artifacts.read_json(self.folder / batch_id / SOURCE),
            at=self._store.objects.now(),
        )
        key = f"{POINTERS}/{self._way}/{batch_id}.json"
        self._store.objects.put(key, json.dumps(dataclasses.asdict(pointer)).encode())

    def known(self) -> dict[str, Known | UserError]:
        """Every batch that earlier runs ingested in any way; an error where nobody can tell how."""
        found: dict[str, Known | UserError] = {
            batch_id: Known(arrival=pointer.arrival, source=pointer.source)
            for batch_id, (_, pointer) in self._pointers.items()
        }
        found |= {batch_id: _known_from(folder) for batch_id, folder in self._local().items()}
        return dict(sorted(found.items()))

    def _local(self) -> dict[str, Path]:
        """Where each batch lies: here, else where it was last ingested otherwise."""
        written: list[tuple[bool, float, Path]] = []
        for manifest in self.root.glob(f"*/[!.]*/{artifacts.MANIFEST}"):
            with contextlib.suppress(FileNotFoundError):  # another run replaces it this very moment
                folder = manifest.parent
                if folder.parent != self.deliveries:
                    written.append((folder.parent == self.folder, manifest.stat().st_mtime, folder))
        return {folder.name: folder for _, _, folder in sorted(written)}

    @functools.cached_property
    def _pointers(self) -> dict[str, tuple[str, _Pointer]]:
        """The store's batches, each with the way it was ingested: this one, else the latest."""
        if self._store is None:
            return {}
        found = []
        for info in self._store.objects.list(f"{POINTERS}/"):
            way, _, file = info.key.removeprefix(f"{POINTERS}/").partition("/")
            name = file.removesuffix(".json")
            if not ID_PATTERN.fullmatch(name):
                raise UserError(f"{self._store.objects.url}/{info.key}: names no batch. Remove it.")
            pointer = _read_pointer(self._store.objects, info.key)
            found.append((way == self._way, pointer.at, name, way, pointer))
        ordered = sorted(found, key=lambda item: item[:2])
        return {name: (way, pointer) for _, _, name, way, pointer in ordered}


def number_evaluation_set(objects: Objects, digest: str) -> int:
    """The number of this evaluation set in a library or store: the next one if it is new."""
    number = 1
    while True:
        key = f"evaluation-sets/{number}.json"
        if objects.create(key, json.dumps({"digest": digest}).encode()):
            return number
        standing = objects.get(key)
        if standing is not None and json.loads(standing.data)["digest"] == digest:
            return number
        number += 1


def _known_from(folder: Path) -> Known | UserError:
    try:
        manifest = artifacts.open_artifact(folder, kind=BATCH, verify=False)
        return Known(
            arrival=manifest.parents["arrival"], source=artifacts.read_json(folder / SOURCE)
        )
    except (OSError, ValueError, KeyError) as error:
        return UserError(f"{folder / SOURCE} does not say where it came from ({error})")


def _read_pointer(objects: Objects, key: str) -> _Pointer:
    standing = objects.get(key)
    try:
        assert standing is not None, "nothing ever deletes a pointer"
        return _Pointer(**json.loads(standing.data))
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{objects.url}/{key}: is no pointer to a batch ({error}). Remove it; the batch is "
            "ingested again when it is delivered."
        ) from error
