"""Verify, decode and synchronise deliveries into a batch set with splits."""

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crosswatch import artifacts, config, progress
from crosswatch.data import splits
from crosswatch.data.adapters import ADAPTERS, Arrival
from crosswatch.data.batches import BATCH_SET, SET_INDEX, Batch, open_batch
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.splits import SplitConfig
from crosswatch.data.sync import SyncConfig
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import TimeRange

BATCH = "batch"


def ingest(
    *,
    arrivals: Path,
    out: Path,
    known: Path | None = None,
    ingest: IngestConfig,
    sync: SyncConfig,
    split: SplitConfig,
    windows: WindowConfig,
) -> None:
    """`known` is the library of batches that earlier runs ingested; new ones are added to it."""
    found = ADAPTERS[ingest.adapter].find(arrivals)
    if not found.arrivals:
        waiting = ", ".join(found.not_arrived)
        why = f"; still arriving (no SHA256SUMS yet): {waiting}" if waiting else ""
        raise UserError(f"{arrivals}: holds no batch that has arrived{why}")
    settings = {"ingest": config.plain(ingest), "sync": config.plain(sync)}
    with (
        artifacts.create(out, kind=BATCH_SET, config=settings) as draft,
        _library(known, out, settings) as library,
    ):
        for name in found.not_arrived:
            draft.warnings.append(f"{name}: not arrived yet (no SHA256SUMS), left alone")
            progress.warn(draft.warnings[-1])
        ingestion = _Ingestion(draft=draft, library=library, ingest=ingest, sync=sync)
        for arrival in found.arrivals:
            ingestion.add(arrival)
        ingestion.link_known()
        ranges = ingestion.split(windows=windows, split=split)
        _write_index(draft, ingestion.batches, ranges, classes=ingest.classes, known=known)
        _summarise(draft, ingestion.batches)


@contextlib.contextmanager
def _library(known: Path | None, out: Path, settings: Mapping[str, Any]) -> Iterator[Path]:
    """One folder for each way of ingesting: another frame size or sync setting means another."""
    if known is not None:
        yield known / artifacts.digest_of([settings, artifacts.code_version("data")])[:12]
    else:
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
            yield Path(folder)


@dataclasses.dataclass(kw_only=True)
class _Ingestion:
    draft: artifacts.Draft
    library: Path
    ingest: IngestConfig
    sync: SyncConfig
    batches: dict[str, Batch] = dataclasses.field(default_factory=dict)

    def add(self, arrival: Arrival) -> None:
        """Ingest one delivery, or find it in the library; quarantine it with the reason."""
        try:
            if self._digest_in_library(arrival.id) != arrival.digest:
                self._write(arrival)
        except BadBatchError as error:
            self.draft.quarantined[arrival.id] = str(error)
            progress.warn(f"{arrival.id} quarantined: {error}")
            return
        self._link(arrival.id)

    def link_known(self) -> None:
        """Take in what earlier runs ingested in the same way and this delivery did not replace."""
        for folder in sorted(self.library.iterdir()) if self.library.exists() else ():
            named = folder.name not in self.batches and folder.name not in self.draft.quarantined
            if named and (folder / artifacts.MANIFEST).exists():
                self._link(folder.name)

    def split(self, *, windows: WindowConfig, split: SplitConfig) -> tuple[TimeRange, ...]:
        """Blocks of every batch; one that is too short for them is quarantined."""
        ranges: list[TimeRange] = []
        for batch in list(self.batches.values()):
            try:
                ranges += splits.split(batch, windows=windows, config=split)
            except BadBatchError as error:
                self.draft.quarantined[batch.id] = str(error)
                progress.warn(f"{batch.id} quarantined: {error}")
                del self.batches[batch.id]
        if not self.batches:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.draft.quarantined.items())
            raise UserError(f"no batch is left. {reasons}")
        _refuse_empty_blocks(ranges, split)
        return tuple(ranges)

    def _digest_in_library(self, batch_id: str) -> str | None:
        if not (self.library / batch_id / artifacts.MANIFEST).exists():
            return None
        try:
            manifest = artifacts.open_artifact(self.library / batch_id, kind=BATCH)
        except UserError as error:
            progress.warn(f"{error} Ingesting {batch_id} again.")
            return None
        return manifest.parents["arrival"]

    def _write(self, arrival: Arrival) -> None:
        raw = ADAPTERS[self.ingest.adapter].read(arrival)
        with artifacts.create(
            self.library / arrival.id, kind=BATCH, parents={"arrival": arrival.digest}
        ) as draft:
            summary = write_batch(
                raw,
                draft.path,
                ingest=self.ingest,
                sync=self.sync,
                progress=progress.Meter(arrival.id),
            )
            draft.counts.update(summary.counts)
            draft.warnings += summary.warnings
            artifacts.write_json(draft / "source.json", {"path": str(arrival.path.resolve())})

    def _link(self, batch_id: str) -> None:
        folder = self.library / batch_id
        manifest = artifacts.open_artifact(folder, kind=BATCH, verify=False)
        artifacts.link_tree(folder, self.draft.path / batch_id)
        (self.draft.path / batch_id / artifacts.MANIFEST).rename(
            self.draft.path / batch_id / "batch-manifest.json"
        )
        self.draft.parents[batch_id] = manifest.parents["arrival"]
        self.draft.warnings += [f"{batch_id}: {text}" for text in manifest.warnings]
        self.batches[batch_id] = open_batch(
            self.draft.path / batch_id, batch_id=batch_id, digest=manifest.parents["arrival"]
        )


def _refuse_empty_blocks(ranges: list[TimeRange], config: SplitConfig) -> None:
    blocks = {item.block for item in ranges}
    for needed in ("train", "evaluation"):
        if needed not in blocks:
            named = ", ".join(config.evaluation) or "none"
            raise UserError(
                f"split.by={config.by} leaves no {needed} block (split.evaluation names {named}; "
                f"batches here: {', '.join(sorted({item.batch for item in ranges}))})"
            )


def _write_index(
    draft: artifacts.Draft,
    batches: Mapping[str, Batch],
    ranges: tuple[TimeRange, ...],
    *,
    classes: tuple[str, ...],
    known: Path | None,
) -> None:
    version = splits.evaluation_set(ranges)
    index = {
        "batches": [{"id": batch.id, "digest": batch.digest} for batch in batches.values()],
        "classes": list(classes),
        "ranges": [dataclasses.asdict(item) for item in ranges],
        "evaluation_set": {**version, "version": _version_number(known, str(version["digest"]))},
    }
    artifacts.write_json(draft / SET_INDEX, index)


def _version_number(known: Path | None, digest: str) -> int:
    """The number of this evaluation set in the library: the next one if it is new."""
    number = 1
    while known is not None:
        path = known / "evaluation-sets" / f"{number}.json"
        if artifacts.create_exclusively(path, {"digest": digest}):
            return number
        if artifacts.read_json(path)["digest"] == digest:
            return number
        number += 1
    return number


def _summarise(draft: artifacts.Draft, batches: Mapping[str, Batch]) -> None:
    draft.counts["batches"] = len(batches)
    bounds = [batch.sync.get("bound_half_width_s") for batch in batches.values()]
    known = [f"±{1000 * bound:.0f} ms" for bound in bounds if bound is not None]
    text = f"{len(batches)} batches"
    if known:
        text += f", clocks known to {', '.join(known)}"
    if draft.quarantined:
        text += f", {len(draft.quarantined)} quarantined"
    progress.outcome(text)
