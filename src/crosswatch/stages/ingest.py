"""Verify, decode and synchronise deliveries into a batch set with splits."""

import collections
import contextlib
import dataclasses
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crosswatch import artifacts, config, progress
from crosswatch.data import splits
from crosswatch.data.adapters import Arrival, open_adapter
from crosswatch.data.batches import BATCH_SET, SET_INDEX, Batch, open_batch
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.splits import SplitConfig
from crosswatch.data.sync import SyncConfig
from crosswatch.data.windows import WindowConfig, check_windows
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import TimeRange

BATCH = "batch"
LOCK_TIMEOUT_S = 1800
SOURCE = "source.json"


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
    found = open_adapter(ingest).find(arrivals)
    if not found.arrivals:
        waiting = ", ".join(found.not_arrived)
        why = f"; still arriving (no SHA256SUMS yet): {waiting}" if waiting else ""
        why += "".join(f"; {reason}" for reason in found.unreadable.values())
        raise UserError(f"{arrivals}: holds no batch that has arrived{why}")
    settings = {"ingest": config.plain(ingest), "sync": config.plain(sync)}
    blocks = {"split": config.plain(split), "windows": config.plain(windows)}
    with (
        artifacts.create(out, kind=BATCH_SET, config=settings | blocks) as draft,
        _library(known, out, settings) as library,
    ):
        for name in found.not_arrived:
            draft.warnings.append(f"{name}: not arrived yet (no SHA256SUMS), left alone")
            progress.warn(draft.warnings[-1])
        ingestion = _Ingestion(draft=draft, library=library, ingest=ingest, sync=sync)
        for name, reason in found.unreadable.items():
            ingestion.refuse(name, reason)
        for arrival in found.arrivals:
            ingestion.add(arrival)
        ingestion.add_known(known)
        ingestion.hold_to_windows(windows)
        ingestion.hold_to_each_other(windows)
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
    delivered: set[str] = dataclasses.field(default_factory=set)
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # id -> reason

    def add(self, arrival: Arrival) -> None:
        """Ingest one delivery, or find it in the library; quarantine it with the reason."""
        self.delivered.add(arrival.id)
        try:
            with self._held(arrival.id):
                if self._digest_in_library(arrival.id) != arrival.digest:
                    self._write(arrival)
                self._link(arrival.id)
        except BadBatchError as error:
            self.leave_out(arrival.id, str(error))

    def refuse(self, batch_id: str, why: str) -> None:
        """Quarantine a delivery that cannot even be opened."""
        self.delivered.add(batch_id)
        self.leave_out(batch_id, why)

    def add_known(self, known: Path | None) -> None:
        """Take in what earlier runs ingested and this delivery did not replace."""
        for batch_id, folder in _known_batches(known, self.library).items():
            if batch_id in self.delivered:
                continue
            try:
                with self._held(batch_id):
                    if self._digest_in_library(batch_id) is None:
                        self._write(_source_of(folder, batch_id, self.ingest))
                    self._link(batch_id)
            except UserError as error:
                self.leave_out(batch_id, str(error))

    def hold_to_windows(self, windows: WindowConfig) -> None:
        """A batch that gives no window at all would only fail the stages that follow."""
        for batch in list(self.batches.values()):
            try:
                check_windows(batch, windows)
            except UserError as error:
                self.leave_out(batch.id, str(error))

    def hold_to_each_other(self, windows: WindowConfig) -> None:
        """Windows of all batches are stacked, so streams that they use have to be alike.

        What most batches have counts; where as many differ, what was known before.
        """
        ordered = sorted(self.batches.values(), key=lambda batch: batch.id in self.delivered)
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
        for batch in list(self.batches.values()):
            try:
                ranges += splits.split(batch, windows=windows, config=split)
            except BadBatchError as error:
                self.leave_out(batch.id, str(error))
        if not self.batches:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise UserError(f"no batch is left. {reasons}")
        _refuse_empty_blocks(ranges, split)
        return tuple(ranges)

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

    @contextlib.contextmanager
    def _held(self, batch_id: str) -> Iterator[None]:
        """One run at a time looks for, writes and links a batch of the library."""
        try:
            self.library.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"{self.library}: cannot be written: {error.strerror}. Name a folder that you own."
            ) from error
        lock = FileLock(self.library / f".{batch_id}.lock", timeout=LOCK_TIMEOUT_S)
        try:
            lock.acquire()
        except Timeout as error:
            raise UserError(
                f"{batch_id}: another run has been ingesting it for {LOCK_TIMEOUT_S} s. "
                "Wait for that run, or end it."
            ) from error
        try:
            yield
        finally:
            lock.release()

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
        raw = open_adapter(self.ingest).read(arrival)
        with artifacts.create(
            self.library / arrival.id,
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
            artifacts.write_json(draft / SOURCE, {"path": str(arrival.path.resolve())})

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


def _known_batches(known: Path | None, library: Path) -> dict[str, Path]:
    """Where each batch of earlier runs lies: here, else where it was last ingested otherwise."""
    if known is None:
        return {}
    written: list[tuple[bool, float, Path]] = []
    for manifest in known.glob(f"*/[!.]*/{artifacts.MANIFEST}"):
        with contextlib.suppress(FileNotFoundError):  # another run replaces it this very moment
            folder = manifest.parent
            written.append((folder.parent == library, manifest.stat().st_mtime, folder))
    newest = {folder.name: folder for _, _, folder in sorted(written)}
    return dict(sorted(newest.items()))


def _source_of(folder: Path, batch_id: str, ingest: IngestConfig) -> Arrival:
    """The delivery that a known batch was made from.

    Raises:
        UserError: it is gone, was changed, or cannot be told.
    """
    why = "its stored form is damaged, or of other settings or another version"
    manifest = artifacts.open_artifact(folder, kind=BATCH, verify=False)
    try:
        source = Path(artifacts.read_json(folder / SOURCE)["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{why}, and {folder / SOURCE} does not say where it came from. Deliver it again."
        ) from error
    if not source.exists():
        raise UserError(f"{why}, and its delivery {source} is gone. Deliver it again.")
    for arrival in open_adapter(ingest).find(source).arrivals:
        if arrival.id == batch_id and arrival.digest == manifest.parents.get("arrival"):
            return arrival
    raise UserError(f"{why}, and its delivery {source} has changed since. Deliver it again.")


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
    text = f"batches: {len(batches)}"
    if known:
        text += f", clocks known to {', '.join(known)}"
    if draft.quarantined:
        text += f", {len(draft.quarantined)} quarantined"
    progress.outcome(text)
