"""Small synchronised batches in memory, and whole deliveries with events in every block."""

import json
from pathlib import Path

import numpy as np
from deliveries import Scene, deliver, seal

from crosswatch.data.batches import Batch
from crosswatch.records import Event, Keyframe

SECONDS = 90.0
TINY = (
    "ingest.frame_px=32",
    "windows.frames=4",
    "windows.stride=2",
    "windows.signal_s=6",
    "evaluate.block_s=5",
    "evaluate.samples=200",
    "model.width=16",
    "model.depth=1",
    "model.heads=2",
    "model.head_width=8",
    "model.feed_forward_width=32",
    "train.epochs=2",
    "train.workers=0",
    "train.threads=1",
)
"""Settings under which a delivery of 90 s goes through the whole pipeline in seconds."""


def tiny_options() -> list[str]:
    return [part for setting in TINY for part in ("--set", setting)]


def batch(
    *,
    seconds: float = 60.0,
    video_hz: float = 10.0,
    signal_hz: float = 2.0,
    batch_id: str = "batch-1",
    segments: tuple[tuple[float, float], ...] | None = None,
    events: tuple[Event, ...] = (),
    keyframes: tuple[Keyframe, ...] = (),
    size_px: int = 16,
    drop: slice = slice(0, 0),
) -> Batch:
    """Frame t is filled with t % 256, sample s holds s; `drop` leaves frames out."""
    count = round(seconds * video_hz)
    times = np.arange(count) / video_hz
    frames = np.empty((count, size_px, size_px, 3), np.uint8)
    frames[:] = (np.arange(count) % 256)[:, None, None, None]
    keep = np.ones(count, bool)
    keep[drop] = False
    samples = round(seconds * signal_hz)
    signal_times = np.arange(samples) / signal_hz
    signal = np.repeat(np.arange(samples, dtype=np.float32)[:, None], 3, axis=1)
    return Batch(
        id=batch_id,
        digest="d" * 64,
        folder=Path("nowhere"),
        frames=frames[keep] if video_hz else None,
        frame_times=times[keep] if video_hz else None,
        signal=signal if signal_hz else None,
        signal_times=signal_times if signal_hz else None,
        events=events,
        keyframes=keyframes,
        segments=segments or ((0.0, seconds),),
        video_rate_hz=video_hz,
        signal_rate_hz=signal_hz,
        sync={},
    )


def deliver_with_events(source: Path, name: str = "batch-1", seed: int = 0) -> Path:
    """A whole delivery of SECONDS with an event of 6 s in every 12, so that each block has some."""
    folder = deliver(source, name=name, scene=Scene(seconds=SECONDS, seed=seed))
    onsets = np.arange(4.0, SECONDS - 8, 12.0)
    notes = json.loads((folder / "annotations.json").read_text())
    notes["events"] = [
        {"class": "semi_molten", "onset_s": t, "apex_s": t + 3, "offset_s": t + 6} for t in onsets
    ]
    notes["keyframes"] = [
        {"time_s": t + after, "class": "semi_molten", "box_xywh_px": [8, 8, 12, 10]}
        for t in onsets
        for after in (1.0, 3.0, 5.0)
    ]
    return seal(folder, lambda at: (at / "annotations.json").write_text(json.dumps(notes)) and None)
