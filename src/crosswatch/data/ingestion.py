"""One delivery becomes one synchronised batch: decoded, repaired, on one clock."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.data import signals
from crosswatch.data.audio.decode import decode_audio
from crosswatch.data.bare import write_bare
from crosswatch.data.labels import Picture, check_classes, place_events, place_keyframes
from crosswatch.data.layouts import DonkeycarConfig, FmfConfig, ImportedConfig, IndexConfig
from crosswatch.data.placing import Placed, Streams, place
from crosswatch.data.raw import RawBatch as RawBatch
from crosswatch.data.spans import common_span
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.sync.evidence import VIDEO_FEATURES
from crosswatch.data.video import decode as video
from crosswatch.data.video.decode import RawVideo
from crosswatch.data.video.masks import write_masks
from crosswatch.errors import UserError
from crosswatch.records import Keyframe

ROWS = 256  # at a time, when an array is written again


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Where deliveries come from, what is stored of them, and how broken they may be."""

    adapter: Literal["arrival", "itsc", "fmf", "index", "donkeycar", "single", "imported"] = (
        "arrival"
    )
    frame_px: int = 64
    crop_xywh_px: tuple[int, ...] | None = None  # of the original pictures; None keeps them whole
    classes: tuple[str, ...] = ("normal", "semi_molten")
    audio_hz: int = 16_000  # sound is stored at this rate
    max_bad_frames_share: float = 0.01  # frames lost or undecodable; more is a broken file
    max_nan_share: float = 0.05  # per column; more is a broken meter
    max_fill_s: float = 2.0  # a reading stands in for the ones that follow for no longer
    fmf: FmfConfig = dataclasses.field(default_factory=FmfConfig)
    index: IndexConfig = dataclasses.field(default_factory=IndexConfig)
    donkeycar: DonkeycarConfig = dataclasses.field(default_factory=DonkeycarConfig)
    imported: ImportedConfig = dataclasses.field(default_factory=ImportedConfig)

    def __post_init__(self) -> None:
        if self.frame_px < 8:
            raise UserError(f"frame_px is {self.frame_px}; at least 8 are needed")
        if not 2_000 <= self.audio_hz <= 192_000:
            raise UserError(f"audio_hz is {self.audio_hz}; expected 2000..192000")
        crop = self.crop_xywh_px
        if crop is not None and (len(crop) != 4 or min(crop) < 0 or 0 in crop[2:]):
            raise UserError(f"crop_xywh_px is {list(crop)}; expected [x, y, width, height]")
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise UserError(f"classes {list(self.classes)} have to be different and not empty")
        for name in ("max_bad_frames_share", "max_nan_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0..1, 1 excluded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSummary:
    counts: dict[str, int]
    warnings: tuple[str, ...]


def write_batch(
    raw: RawBatch,
    folder: Path,
    *,
    ingest: IngestConfig,
    sync: SyncConfig,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> BatchSummary:
    """Write a batch as data/batches.py describes it; the caller removes `folder` on an error.

    Raises:
        BadBatchError: the streams are too broken to be used, or their clocks cannot be aligned;
            then it carries the report and the figure.
    """
    check_classes(raw.events, raw.keyframes, ingest.classes)
    if raw.times is not None:
        counts = write_bare(raw, folder, ingest.classes)
        return BatchSummary(counts=counts, warnings=(*raw.warnings, *_warnings(counts)))
    streams = _read_streams(raw, folder, ingest=ingest, sync=sync, progress=progress)
    placed = place(raw, streams, sync)
    _keep_placed(folder, placed)
    for name, values in placed.times.items():
        np.save(folder / f"{name}_times.npy", values)
    if streams.signal is not None:
        np.save(folder / "signal.npy", streams.signal.values)
    labels, skipped = _labels(raw, streams, placed, ingest)
    labels |= {"classes": list(ingest.classes), "segments": [list(span) for span in placed.spans]}
    labels |= {"blocks": [list(block) for block in raw.blocks], "released": raw.released}
    labels |= {"undivided": raw.undivided}
    artifacts.write_json(folder / "labels.json", labels)
    artifacts.write_json(folder / "sync.json", placed.report)
    if placed.figure is not None:
        (folder / "sync.png").write_bytes(placed.figure)
    counts = {**placed.counts, "labels_skipped": skipped, "segments": len(placed.spans)}
    told = (*raw.warnings, *placed.alignment.warnings, *_warnings(counts))
    return BatchSummary(counts=counts, warnings=told)


def _read_streams(
    raw: RawBatch,
    folder: Path,
    *,
    ingest: IngestConfig,
    sync: SyncConfig,
    progress: Callable[[int, int], None],
) -> Streams:
    repaired = audio = None
    if raw.signal is not None:
        signals.check_times(raw.signal.times_s, name=raw.signal.name)
        signals.check_rate(raw.signal.times_s, rate_hz=raw.signal.rate_hz, name=raw.signal.name)
        repaired = signals.repair(
            raw.signal,
            max_nan_share=ingest.max_nan_share,
            max_fill_s=ingest.max_fill_s,
            fill_gaps=not raw.segments,
        )
    if raw.audio is not None:
        audio = decode_audio(
            raw.audio,
            folder / "audio.npy",
            rate_hz=ingest.audio_hz,
            max_bad_share=ingest.max_bad_frames_share,
        )
    if raw.video is None:
        return Streams(signal=repaired, audio=audio)
    if raw.video.times_s is not None:
        _check_order(raw.video)
        signals.check_rate(raw.video.times_s, rate_hz=raw.video.rate_hz, name=raw.video.times_name)
    plan = video.plan_frames(raw.video, max_bad_share=ingest.max_bad_frames_share)
    alone = raw.signal is None and raw.audio is None
    frames = video.decode(
        raw.video,
        plan,
        folder / "frames.npy",
        frame_px=ingest.frame_px,
        crop_xywh_px=ingest.crop_xywh_px,
        max_bad_share=ingest.max_bad_frames_share,
        progress=progress,
        feature=None if alone else VIDEO_FEATURES[sync.video](),
    )
    np.save(folder / "frame_sources.npy", frames.sources)
    if raw.masks is not None:
        write_masks(
            raw.masks,
            plan,
            folder / "masks.npy",
            size_px=frames.size_px,
            frame_px=ingest.frame_px,
            crop_xywh_px=ingest.crop_xywh_px,
            classes=len(ingest.classes),
        )
    return Streams(plan=plan, frames=frames, signal=repaired, audio=audio)


def _check_order(raw: RawVideo) -> None:
    """An adapter that found late rows or resets says so; any other step back is a fault."""
    assert raw.times_s is not None
    if raw.reordered == 0 and raw.pieces is None:
        signals.check_times(raw.times_s, name=raw.times_name)


def _keep_placed(folder: Path, placed: Placed) -> None:
    """Take out the frames that have no place on the reference clock, and sound without one."""
    if placed.alignment.audio_left_out:
        (folder / "audio.npy").unlink()
    if placed.kept.all():
        return
    for name in ("frames", "frame_sources", "masks"):
        if (folder / f"{name}.npy").exists():
            _keep_rows(folder / f"{name}.npy", placed.kept)


def _keep_rows(path: Path, kept: npt.NDArray[np.bool_]) -> None:
    """Write an array again with some of its rows, a block at a time."""
    rows, source = np.flatnonzero(kept), np.load(path, mmap_mode="r", allow_pickle=False)
    fewer = path.with_suffix(".partial")
    target = np.lib.format.open_memmap(
        fewer, mode="w+", dtype=source.dtype, shape=(rows.size, *source.shape[1:])
    )
    for start in range(0, rows.size, ROWS):
        target[start : start + ROWS] = source[rows[start : start + ROWS]]
    target.flush()
    fewer.replace(path)


def _labels(
    raw: RawBatch, streams: Streams, placed: Placed, ingest: IngestConfig
) -> tuple[dict[str, Any], int]:
    """The notes as they are stored, and how many lie outside of what is stored."""
    noted = placed.alignment.noted_by(raw.labels_clock)
    span_s = common_span(tuple(placed.times.values()))

    def to_reference_s(time_s: float) -> float:
        return time_s if noted is None else noted.instant(time_s)

    events = place_events(raw.events, to_reference_s, span_s)
    keyframes: list[Keyframe] = []
    if streams.frames is not None:
        picture = Picture(
            drawn_on_px=raw.frame_size_px or streams.frames.size_px,
            size_px=streams.frames.size_px,
            crop_xywh_px=ingest.crop_xywh_px,
            frame_px=ingest.frame_px,
        )
        keyframes = place_keyframes(raw.keyframes, to_reference_s, span_s, picture)
    skipped = len(raw.events) + len(raw.keyframes) - len(events) - len(keyframes)
    stored = {
        "events": [dataclasses.asdict(event) for event in events],
        "keyframes": [dataclasses.asdict(keyframe) for keyframe in keyframes],
    }
    return stored, skipped


def _warnings(counts: dict[str, int]) -> list[str]:
    texts = {
        "frames_repaired": "frames could not be decoded and repeat the one before",
        "frames_missing_at_end": "times at the end have no frame",
        "samples_nan": "samples held NaN and were filled with the last value, or left as a gap",
        "samples_doubled": "samples came twice and were taken once",
        "samples_filled": "samples that never came were filled with the last value",
        "audio_lost_packets": "packets of sound could not be decoded and are silence",
        "labels_skipped": "notes lie outside of the data or of the crop and were left out",
    }
    return [f"{counts[name]} {text}" for name, text in texts.items() if counts.get(name)]
