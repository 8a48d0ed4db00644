"""What `crosswatch data import` wrote: features artifacts with labels.json, a record a batch.

A manifest may list a hundred thousand files: it is read once a process, until it changes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts
from crosswatch.data.sums import ID_PATTERN
from crosswatch.errors import BadBatchError, UserError

KIND = "features"
INDEX = "features.json"
LABELS = "labels.json"
PARTS = ("", "_valid", "_spans")  # the files of a modality
AGAIN = "Import it again."

Entries = Mapping[str, Mapping[str, Any]]
"""Files by name, each with its size and SHA-256."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedSet:
    """
    Attributes:
        digest: of the whole artifact.
        frame_rate_hz: of the videos; None where the layout does not tell it.
        batches: their ids in the order of the import.
        modalities: that any batch may have.
        files: of each batch.
        records: what labels.json says of each batch.
    """

    folder: Path
    digest: str
    layout: str
    frame_rate_hz: float | None
    batches: tuple[str, ...]
    modalities: tuple[str, ...]
    files: Mapping[str, Entries]
    records: Mapping[str, Any]

    def modalities_of(self, batch: str) -> tuple[str, ...]:
        held = self.files.get(batch, {})
        return tuple(name for name in self.modalities if f"{name}.npy" in held)

    def verify(self, batch: str) -> None:
        """Hold every file of a batch to its size and hash.

        Raises:
            BadBatchError: one is missing or was changed.
        """
        for name, entry in self.files.get(batch, {}).items():
            path = self.folder / batch / name
            if not path.is_file():
                raise BadBatchError(f"{name}: is missing though the import lists it. {AGAIN}")
            if path.stat().st_size != entry["bytes"]:
                raise BadBatchError(
                    f"{name}: has {path.stat().st_size} bytes; the import wrote {entry['bytes']}. "
                    f"{AGAIN}"
                )
            if artifacts.sha256_of(path) != entry["sha256"]:
                raise BadBatchError(f"{name}: its SHA-256 differs from the import's. {AGAIN}")


def is_imported(folder: Path) -> bool:
    """Whether a finished features artifact lies there."""
    state = _state(folder / artifacts.MANIFEST)
    return state is not None and _kind(folder, state) == KIND


def open_imported(folder: Path) -> ImportedSet:
    """
    Raises:
        UserError: it is no features artifact, damaged, was not imported, or names files or
            modalities by more than plain names.
    """
    state = tuple(_state(folder / name) for name in (artifacts.MANIFEST, INDEX, LABELS))
    return _opened(folder, state)


def _state(path: Path) -> tuple[int, int] | None:
    """What changes with a file; None where there is none."""
    if not path.is_file():
        return None
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


@functools.lru_cache(maxsize=64)
def _kind(folder: Path, state: tuple[int, int]) -> str:
    return artifacts.open_artifact(folder, verify=False).kind


@functools.lru_cache(maxsize=8)
def _opened(folder: Path, state: tuple[Any, ...]) -> ImportedSet:
    manifest = artifacts.open_artifact(folder, kind=KIND, verify=False)
    if LABELS not in manifest.files or "layout" not in manifest.config:
        raise UserError(
            f"{folder}: holds features without {LABELS}, so they were not imported. Name what "
            "crosswatch data import wrote."
        )
    for name in (INDEX, LABELS):
        path, entry = folder / name, manifest.files.get(name)
        if entry is None or not path.is_file() or artifacts.sha256_of(path) != entry["sha256"]:
            raise UserError(f"{path}: is missing or was changed since the import. {AGAIN}")
    files: dict[str, dict[str, Mapping[str, Any]]] = {}
    for listed, entry in manifest.files.items():
        if "/" in listed:
            batch, name = listed.split("/", 1)
            if not ID_PATTERN.fullmatch(name):
                raise UserError(f"{folder}: {listed[:100]!r} is no file of a batch. {AGAIN}")
            files.setdefault(batch, {})[name] = entry
    index = artifacts.read_json(folder / INDEX)
    for modality in index["modalities"]:
        if not ID_PATTERN.fullmatch(modality):
            raise UserError(f"{folder}: {modality[:100]!r} is no name of a modality. {AGAIN}")
    return ImportedSet(
        folder=folder,
        digest=manifest.digest,
        layout=str(manifest.config["layout"]),
        frame_rate_hz=manifest.config.get("frame_rate_hz"),
        batches=tuple(index["batches"]),
        modalities=tuple(index["modalities"]),
        files=files,
        records=artifacts.read_json(folder / LABELS),
    )
