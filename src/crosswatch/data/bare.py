"""A batch of times alone: features of it exist, pictures and signals do not."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from crosswatch import artifacts
from crosswatch.data.labels import place_events
from crosswatch.data.raw import RawBatch
from crosswatch.data.spans import common_span


def write_bare(raw: RawBatch, folder: Path, classes: tuple[str, ...]) -> dict[str, int]:
    """frame_times.npy, labels.json and sync.json as any batch has them; what there was to count.

    It has one clock, so there is nothing to align, and its notes are on it.
    """
    assert raw.times is not None, "a batch of times alone"
    times_s = raw.times.times_s
    np.save(folder / "frame_times.npy", times_s)
    events = place_events(raw.events, lambda time_s: time_s, common_span((times_s,)))
    labels: dict[str, Any] = {
        "events": [dataclasses.asdict(event) for event in events],
        "keyframes": [],
        "classes": list(classes),
        "segments": [list(span) for span in raw.segments],
        "blocks": [list(block) for block in raw.blocks],
        "released": raw.released,
        "undivided": raw.undivided,
    }
    artifacts.write_json(folder / "labels.json", labels)
    report = {
        "batch": raw.id,
        "plant": raw.plant,
        "started_at": raw.started_at,
        "video_rate_hz": raw.times.rate_hz,
        "signal_rate_hz": 0.0,
        "signal_columns": [],
        "signal_unit": "",
        "reference_clock": raw.times.clock,
        "streams": {},
        "checks": [],
        "passed": True,
        "refused": None,
    }
    artifacts.write_json(folder / "sync.json", report)
    return {
        "instants": times_s.size,
        "events": len(events),
        "labels_skipped": len(raw.events) - len(events),
        "segments": len(raw.segments),
    }
