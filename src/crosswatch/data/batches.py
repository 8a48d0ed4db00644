"""A synchronised batch on disk, and the batch set that stages take.

Folder of a batch, all times on the reference clock (the control system's):

    frames.npy        uint8 (T, H, W, 3), absent without video
    frame_times.npy   float64 (T,) in s
    signal.npy        float32 (S, C), absent without a signal
    signal_times.npy  float64 (S,) in s
    labels.json       classes, events, keyframes (pixels of the stored frames), segments
    sync.json         rates, clock estimates and what was repaired
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.errors import UserError
from crosswatch.records import Event, Keyframe, TimeRange

BATCH_SET = "batch-set"
SET_INDEX = "set.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """One synchronised batch; arrays are memory-mapped."""

    id: str
    digest: str
    folder: Path
    frames: npt.NDArray[np.uint8] | None
    frame_times: npt.NDArray[np.float64] | None
    signal: npt.NDArray[np.float32] | None
    signal_times: npt.NDArray[np.float64] | None
    events: tuple[Event, ...]
    keyframes: tuple[Keyframe, ...]
    segments: tuple[tuple[float, float], ...]
    video_rate_hz: float
    signal_rate_hz: float
    sync: Mapping[str, Any]

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last instant that every present stream covers."""
        times = [t for t in (self.frame_times, self.signal_times) if t is not None]
        return max(float(t[0]) for t in times), min(float(t[-1]) for t in times)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSet:
    """Every known batch, the classes they are labelled with, and the blocks of the split."""

    digest: str
    batches: tuple[Batch, ...]
    classes: tuple[str, ...]
    ranges: tuple[TimeRange, ...]
    evaluation_set: Mapping[str, Any]

    def ranges_of(self, batch: Batch) -> tuple[TimeRange, ...]:
        return tuple(item for item in self.ranges if item.batch == batch.id)


def open_batch(folder: Path, *, batch_id: str, digest: str) -> Batch:
    labels = artifacts.read_json(folder / "labels.json")
    sync = artifacts.read_json(folder / "sync.json")
    return Batch(
        id=batch_id,
        digest=digest,
        folder=folder,
        frames=_mapped(folder / "frames.npy"),
        frame_times=_mapped(folder / "frame_times.npy"),
        signal=_mapped(folder / "signal.npy"),
        signal_times=_mapped(folder / "signal_times.npy"),
        events=tuple(Event(**event) for event in labels["events"]),
        keyframes=tuple(
            Keyframe(**{**frame, "box_xywh_px": tuple(frame["box_xywh_px"])})
            for frame in labels["keyframes"]
        ),
        segments=tuple((float(a), float(b)) for a, b in labels["segments"]),
        video_rate_hz=float(sync["video_rate_hz"]),
        signal_rate_hz=float(sync["signal_rate_hz"]),
        sync=sync,
    )


def open_set(path: Path, *, verify: bool = True) -> BatchSet:
    """Open a batch set, by default holding every byte against its manifest.

    Raises:
        UserError: not a batch set, damaged, or empty.
    """
    manifest = artifacts.open_artifact(path, kind=BATCH_SET, verify=verify)
    index = artifacts.read_json(path / SET_INDEX)
    if not index["batches"]:
        raise UserError(f"{path}: holds no batch. Every delivery was quarantined or is incomplete.")
    return BatchSet(
        digest=manifest.digest,
        batches=tuple(
            open_batch(path / entry["id"], batch_id=entry["id"], digest=entry["digest"])
            for entry in index["batches"]
        ),
        classes=tuple(index["classes"]),
        ranges=tuple(TimeRange(**entry) for entry in index["ranges"]),
        evaluation_set=index["evaluation_set"],
    )


def _mapped(path: Path) -> npt.NDArray[Any] | None:
    return np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None
