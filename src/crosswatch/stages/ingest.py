"""Verify, decode and synchronise deliveries into a batch set with splits."""

import collections
import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from crosswatch import artifacts, config, progress
from crosswatch.data import splits
from crosswatch.data.adapters import Arrival
from crosswatch.data.batches import BATCH_MANIFEST, BATCH_SET, SET_INDEX, Batch, open_batch
from crosswatch.data.deliveries import (
    Deliveries,
    open_deliveries,
    refuse_nothing,
    reopen_deliveries,
)
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.library import BATCH, SOURCE, Known, Library, number_evaluation_set
from crosswatch.data.splits import SplitConfig
from crosswatch.data.store.objects import Objects
from crosswatch.data.store.opening import open_objects, open_store
from crosswatch.data.store.place import Place
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig, check_windows
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import TimeRange


def ingest(
    *,
    arrivals: Place | None = None,
    out: Path,
    known: Path | None = None,
    store: Place | None = None,
    revision: Place | None = None,
    ingest: IngestConfig,
    sync: SyncConfig,
    split: SplitConfig,
    windows: WindowConfig,
    transfer: TransferConfig,
) -> None:
    """`known` is the library of batches that earlier runs ingested; new ones are added to it, and
    with a store to the library of all machines. Without arrivals, those of the revision count."""
    settings = {"ingest": config.plain(ingest), "sync": config.plain(sync)}
    blocks = {"split": config.plain(split), "windows": config.plain(windows)}
    with (
        _library_root(known, out) as root,
        artifacts.create(out, kind=BATCH_SET, config=settings | blocks) as draft,
    ):
        shared = None if store is None else open_store(store, transfer)
        library = Library(root, settings, shared)
        deliveries = open_deliveries(
            arrivals, revision, ingest=ingest, fetched=library.deliveries, transfer=transfer
        )
        found = deliveries.find()
        refuse_nothing(found, deliveries.name)
        for name in found.not_arrived:
            draft.warnings.append(f"{name}: not arrived yet (no SHA256SUMS), left alone")
            progress.warn(draft.warnings[-1])
        ingestion = _Ingestion(
            draft=draft, library=library, ingest=ingest, sync=sync, transfer=transfer
        )
        for name, reason in found.unreadable.items():
            ingestion.refuse(name, reason)
        for arrival in found.arrivals:
            ingestion.add(arrival, deliveries)
        ingestion.add_known()
        ingestion.hold_to_windows(windows)
        ingestion.hold_to_each_other(windows)
        ranges = ingestion.split(windows=windows, split=split)
        objects = shared.objects if shared is not None else open_objects(root, transfer)
        _write_index(draft, ingestion.batches, ranges, classes=ingest.classes, objects=objects)
        _summarise(draft, ingestion.batches)


@contextlib.contextmanager
def _library_root(known: Path | None, out: Path) -> Iterator[Path]:
    if known is not None:
        yield known
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as folder:
        yield Path(folder)


QUARANTINE = "quarantine"
REASONS = 9  # told in one line


@dataclasses.dataclass(kw_only=True)
class _Ingestion:
    draft: artifacts.Draft
    library: Library
    ingest: IngestConfig
    sync: SyncConfig
    transfer: TransferConfig
    batches: dict[str, Batch] = dataclasses.field(default_factory=dict)
    delivered: set[str] = dataclasses.field(default_factory=set)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # id -> reason

    def add(self, arrival: Arrival, deliveries: Deliveries) -> None:
        """Ingest one delivery, or find it in the library; quarantine it with the reason."""
        self.delivered.add(arrival.id)
        try:
            with self.library.held(arrival.id):
                if self.library.arrival_of(arrival.id) != arrival.digest:
                    self._write(arrival, deliveries)
                self._take(arrival.id)
        except BadBatchError as error:
            self._keep_report(arrival.id, error)
            self.leave_out(arrival.id, str(error))

    def refuse(self, batch_id: str, why: str) -> None:
        """Quarantine a delivery that cannot even be opened."""
        self.delivered.add(batch_id)
        self.leave_out(batch_id, why)

    def add_known(self) -> None:
        """Take in what earlier runs ingested and this delivery did not replace."""
        for batch_id, known in self.library.known().items():
            if batch_id in self.delivered:
                continue
            try:
                with self.library.held(batch_id):
                    if self.library.arrival_of(batch_id) is None:
                        self._write(*self._delivered_again(batch_id, known))
                    self._take(batch_id)
            except UserError as error:
                self.leave_out(batch_id, str(error))

    def hold_to_windows(self, windows: WindowConfig) -> None:
        """A batch that gives no window at all would only fail the stages that follow.

        Windows are of pictures and signals: where there are none, features are read as they are.
        """
        for batch in [each for each in self.batches.values() if not each.is_bare]:
            try:
                check_windows(batch, windows)
            except UserError as error:
                self.leave_out(batch.id, str(error))

    def hold_to_each_other(self, windows: WindowConfig) -> None:
        """Windows of all batches are stacked, so streams that they use have to be alike.

        What most batches have counts; where as many differ, what was known before.
        """
        windowed = [batch for batch in self.batches.values() if not batch.is_bare]
        ordered = sorted(windowed, key=lambda batch: batch.id in self.delivered)
        facts = {batch.id: _stream_facts(batch, windows) for batch in ordered}
        counted = collections.Counter(tuple(found.items()) for found in facts.values())
        usual = dict(counted.most_common(1)[0][0]) if counted else {}
        like = next((name for name, found in facts.items() if found == usual), "")
        for name, found in facts.items():
            odd = [what for what, value in found.items() if value != usual[what]]
            if odd:
                told = "; ".join(f"{what} {found[what]}, not {usual[what]}" for what in odd)
                self.leave_out(
                    name,
                    f"does not go with {like}: {told}. One set holds one kind of stream: correct "
                    "batch.json, or keep the two kinds in different workspaces.",
                )

    def split(self, *, windows: WindowConfig, split: SplitConfig) -> tuple[TimeRange, ...]:
        """Blocks of every batch; one that is too short for them is left out."""
        ranges: list[TimeRange] = []
        validates = not splits.publishes_validation(self.batches.values())
        for batch in list(self.batches.values()):
            try:
                ranges += splits.split(batch, windows=windows, config=split, validates=validates)
            except BadBatchError as error:
                self.leave_out(batch.id, str(error))
        if not self.batches:
            told = [f"{name}: {why}" for name, why in self.left_out.items()]
            more = f"; and {len(told) - REASONS} others" if len(told) > REASONS else ""
            raise UserError(f"no batch is left. {'; '.join(told[:REASONS])}{more}")
        _refuse_empty_blocks(ranges, split)
        return tuple(ranges)

    def _keep_report(self, batch_id: str, refused: BadBatchError) -> None:
        """What was found of a batch whose clocks are at fault, for the person who looks into it."""
        if refused.report is not None:
            artifacts.write_json(self.draft / f"{QUARANTINE}/{batch_id}/sync.json", refused.report)
        if refused.figure is not None:
            (self.draft / f"{QUARANTINE}/{batch_id}/sync.png").write_bytes(refused.figure)

    def leave_out(self, batch_id: str, why: str) -> None:
        """Quarantine a delivery; of a batch from an earlier run only warn."""
        self.left_out[batch_id] = why
        if batch_id in self.delivered:
            self.draft.quarantined[batch_id] = why
            progress.warn(f"{batch_id} quarantined: {why}")
        else:
            self.draft.warnings.append(f"{batch_id}: known from an earlier run, left out: {why}")
            progress.warn(self.draft.warnings[-1])
        if self.batches.pop(batch_id, None) is not None:
            self.draft.parents.pop(batch_id)
            shutil.rmtree(self.draft.path / batch_id)

    def _delivered_again(
        self, batch_id: str, known: Known | UserError
    ) -> tuple[Arrival, Deliveries]:
        """The delivery that a known batch was made from.

        Raises:
            UserError: it is gone, was changed, or cannot be told.
        """
        why = "its stored form is damaged, or of other settings or another version"
        if isinstance(known, UserError):
            raise UserError(f"{why}, and {known}. Deliver it again.")
        deliveries = reopen_deliveries(
            known.source,
            ingest=self.ingest,
            fetched=self.library.deliveries,
            transfer=self.transfer,
        )
        try:
            arrivals = deliveries.find().arrivals
        except UserError as error:
            raise UserError(
                f"{why}, and its delivery {deliveries.name} is gone. Deliver it again."
            ) from error
        for arrival in arrivals:
            if arrival.id == batch_id and arrival.digest == known.arrival:
                return arrival, deliveries
        raise UserError(
            f"{why}, and its delivery {deliveries.name} has changed since. Deliver it again."
        )

    def _write(self, arrival: Arrival, deliveries: Deliveries) -> None:
        raw = deliveries.read(arrival)
        with artifacts.create(
            self.library.folder / arrival.id,
            kind=BATCH,
            config={"ingest": config.plain(self.ingest), "sync": config.plain(self.sync)},
            parents={"arrival": arrival.digest},
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
            artifacts.write_json(draft / SOURCE, deliveries.source_of(arrival))

    def _take(self, batch_id: str) -> None:
        """Link a batch into the set; a run that was killed may have left it unsent."""
        self.library.publish(batch_id)
        folder = self.library.folder / batch_id
        manifest = artifacts.open_artifact(folder, kind=BATCH, verify=False)
        artifacts.link_tree(folder, self.draft.path / batch_id)
        (self.draft.path / batch_id / artifacts.MANIFEST).rename(
            self.draft.path / batch_id / BATCH_MANIFEST
        )
        self.draft.verified |= {f"{batch_id}/{name}": e for name, e in manifest.files.items()}
        self.draft.parents[batch_id] = manifest.parents["arrival"]
        self.draft.warnings += [f"{batch_id}: {text}" for text in manifest.warnings]
        self.batches[batch_id] = open_batch(
            self.draft.path / batch_id, batch_id=batch_id, digest=manifest.parents["arrival"]
        )


def _stream_facts(batch: Batch, windows: WindowConfig) -> dict[str, str]:
    """What the windows of two batches have to share, in words."""
    facts = {}
    if windows.frames:
        facts["video rate"] = f"{batch.video_rate_hz:.4g} Hz"
    if windows.signal_s:
        assert batch.signal is not None, "hold_to_windows comes first"
        facts["signal columns"] = ", ".join(batch.sync["signal_columns"])
        facts["signal unit"] = batch.sync["signal_unit"]
        facts["signal channels"] = str(batch.signal.shape[1])
        facts["signal rate"] = f"{batch.signal_rate_hz:.4g} Hz"
        facts["samples in a window"] = str(windows.signal_samples(batch.signal_rate_hz))
    return facts


def _refuse_empty_blocks(ranges: list[TimeRange], config: SplitConfig) -> None:
    blocks = {item.block for item in ranges}
    for needed in ("train", "evaluation"):
        if needed not in blocks:
            named = ", ".join(config.evaluation) or "none"
            named = f"split.evaluation names {named}; " if config.by == "batch" else ""
            raise UserError(
                f"split.by={config.by} leaves no {needed} block ({named}"
                f"batches here: {', '.join(sorted({item.batch for item in ranges}))})"
            )


def _write_index(
    draft: artifacts.Draft,
    batches: Mapping[str, Batch],
    ranges: tuple[TimeRange, ...],
    *,
    classes: tuple[str, ...],
    objects: Objects,
) -> None:
    version = splits.evaluation_set(ranges)
    number = number_evaluation_set(objects, str(version["digest"]))
    index = {
        "batches": [{"id": batch.id, "digest": batch.digest} for batch in batches.values()],
        "classes": list(classes),
        "ranges": [dataclasses.asdict(item) for item in ranges],
        "evaluation_set": {**version, "version": number},
    }
    artifacts.write_json(draft / SET_INDEX, index)


def _summarise(draft: artifacts.Draft, batches: Mapping[str, Batch]) -> None:
    draft.counts["batches"] = len(batches)
    streams = [batch.sync["streams"].get("video") for batch in batches.values()]
    bounds = [told["bound_s"]["half_width"] for told in streams if told is not None]
    known = [f"±{1000 * bound:.0f} ms" for bound in bounds if bound is not None]
    text = f"batches: {len(batches)}"
    if known:
        text += f", clocks known to {', '.join(known)}"
    if draft.quarantined:
        text += f", {len(draft.quarantined)} quarantined"
    progress.outcome(text)
