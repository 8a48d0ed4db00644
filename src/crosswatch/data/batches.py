"""A synchronised batch on disk, and the batch set that stages take.

Folder of a batch, all times on the reference clock (the control system's):

    frames.npy        uint8 (T, H, W, 3), absent without video
    frame_times.npy   float64 (T,) in s; without frames.npy of pictures that nobody delivered
    frame_sources.npy int64 (T,): which picture of the original each frame shows, counted from 0 in
                      order of presentation; hidden ones (edit lists) do not count
    signal.npy        float32 (S, C), absent without a signal
    signal_times.npy  float64 (S,) in s
    audio.npy         int16 (A,), one channel, evenly sampled on its own clock; absent without sound
    masks.npy         uint8 (T, H, W), absent unless masks were delivered: class index, 255 unknown
    labels.json       classes, events, keyframes (pixels of the stored frames), segments, the blocks
                      of a published split, whether it is read as a published loader does, and
                      whether a split gives it to one block as a whole
    sync.json         rates, each stream's clock, what was repaired, and the limits that were met
    sync.png          the alignment to look at; absent where there was nothing to align
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.data.sync.clocks import ClockMap
from crosswatch.errors import UserError
from crosswatch.records import Block, Event, Keyframe, TimeRange

BATCH_SET = "batch-set"
SET_INDEX = "set.json"
BATCH_MANIFEST = "batch-manifest.json"  # what the library's manifest of the batch is called here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """One synchronised batch; arrays are memory-mapped.

    A bare one has neither frames nor a signal: its frame_times alone, for features from elsewhere.
    """

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
    masks: npt.NDArray[np.uint8] | None = None
    blocks: tuple[tuple[Block, float, float], ...] = ()  # a published split
    released: bool = False  # windows and splits follow a published loader
    undivided: bool = False  # a split gives it to one block as a whole
    audio: npt.NDArray[np.int16] | None = None
    audio_rate_hz: float = 0.0

    def audio_times_s(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """When these samples of the sound were taken, on the reference clock."""
        assert self.audio is not None, "the batch has no sound"
        told = self.sync["streams"]["audio"]
        own_s = told["start_s"] + np.asarray(samples, np.float64) / told["rate_hz"]
        return ClockMap.restored(told).to_reference(own_s)

    @property
    def is_bare(self) -> bool:
        """It holds times and labels, and nothing that could be looked at."""
        return self.frames is None and self.signal is None

    @property
    def span_s(self) -> tuple[float, float]:
        """First and last instant that every present stream covers; of a bare batch, until the
        end of its recording, which its last frame does not reach."""
        if self.is_bare:
            return self.segments[0][0], self.segments[-1][1]
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
        masks=_mapped(folder / "masks.npy"),
        audio=_mapped(folder / "audio.npy"),
        audio_rate_hz=float(sync["streams"].get("audio", {}).get("rate_hz", 0.0)),
        blocks=tuple((name, float(a), float(b)) for name, a, b in labels.get("blocks", ())),
        released=bool(labels.get("released", False)),
        undivided=bool(labels.get("undivided", False)),
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
