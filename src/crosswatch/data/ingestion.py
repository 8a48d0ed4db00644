"""One delivery becomes one synchronised batch: decoded, repaired, on one clock."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.data import signals, video
from crosswatch.data.labels import Picture, check_classes, place_events, place_keyframes
from crosswatch.data.lag import SILENT_S
from crosswatch.data.signals import RawSignal
from crosswatch.data.sync import ClockMap, SyncConfig, estimate, given
from crosswatch.data.video import Decoded, Plan, RawVideo
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Event, Keyframe

Spans = tuple[tuple[float, float], ...]
FloatArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestConfig:
    """Where deliveries come from, what is stored of them, and how broken they may be."""

    adapter: Literal["arrival", "itsc"] = "arrival"
    frame_px: int = 64
    crop_xywh_px: tuple[int, ...] | None = None  # of the original pictures; None keeps them whole
    classes: tuple[str, ...] = ("normal", "semi_molten")
    max_bad_frames_share: float = 0.01  # frames lost or undecodable; more is a broken file
    max_nan_share: float = 0.05  # per column; more is a broken meter
    max_fill_s: float = 2.0  # a reading stands in for the ones that follow for no longer

    def __post_init__(self) -> None:
        if self.frame_px < 8:
            raise UserError(f"frame_px is {self.frame_px}; at least 8 are needed")
        crop = self.crop_xywh_px
        if crop is not None and (len(crop) != 4 or min(crop) < 0 or 0 in crop[2:]):
            raise UserError(f"crop_xywh_px is {list(crop)}; expected [x, y, width, height]")
        if len(set(self.classes)) != len(self.classes) or not self.classes:
            raise UserError(f"classes {list(self.classes)} have to be different and not empty")
        for name in ("max_bad_frames_share", "max_nan_share"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; expected 0..1, 1 excluded")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RawBatch:
    """What an adapter understood of a delivery; the video is not decoded yet."""

    id: str
    plant: str
    started_at: str
    video: RawVideo | None
    signal: RawSignal | None
    events: tuple[Event, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()
    labels_clock: str = "control"
    frame_size_px: tuple[int, int] | None = None  # pictures that the keyframes were drawn on
    segments: Spans = ()  # recordings on the reference clock; empty: found from gaps
    warnings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSummary:
    counts: dict[str, int]
    warnings: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Streams:
    """Both streams after repair, the video still on its own clock."""

    plan: Plan | None
    frames: Decoded | None
    signal: signals.Repaired | None


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
        BadBatchError: the streams are too broken to be used, or their clocks cannot be aligned.
    """
    check_classes(raw.events, raw.keyframes, ingest.classes)
    streams = _read_streams(raw, folder, ingest=ingest, progress=progress)
    clocks = _align(raw, streams, sync)
    times = _reference_times(streams, clocks)
    for name, values in times.items():
        np.save(folder / f"{name}_times.npy", values)
    if streams.signal is not None:
        np.save(folder / "signal.npy", streams.signal.values)
    spans = raw.segments or _segments(tuple(times.values()), sync.max_gap_s)
    labels, skipped = _labels(raw, streams, clocks, times, ingest)
    labels |= {"classes": list(ingest.classes), "segments": [list(span) for span in spans]}
    artifacts.write_json(folder / "labels.json", labels)
    facts = _facts(raw, streams, times)
    artifacts.write_json(folder / "sync.json", _described(raw, clocks, times, facts))
    counts = {name: len(values) for name, values in facts.items() if isinstance(values, list)}
    counts |= {name: value for name, value in facts.items() if isinstance(value, int)}
    counts |= {"labels_skipped": skipped, "segments": len(spans)}
    return BatchSummary(counts=counts, warnings=(*raw.warnings, *_warnings(counts)))


def _read_streams(
    raw: RawBatch, folder: Path, *, ingest: IngestConfig, progress: Callable[[int, int], None]
) -> _Streams:
    repaired = None
    if raw.signal is not None:
        signals.check_times(raw.signal.times_s, name=raw.signal.name)
        signals.check_rate(raw.signal.times_s, rate_hz=raw.signal.rate_hz, name=raw.signal.name)
        repaired = signals.repair(
            raw.signal,
            max_nan_share=ingest.max_nan_share,
            max_fill_s=ingest.max_fill_s,
            fill_gaps=not raw.segments,
        )
    if raw.video is None:
        return _Streams(plan=None, frames=None, signal=repaired)
    if raw.video.times_s is not None:
        signals.check_times(raw.video.times_s, name=raw.video.times_name)
        signals.check_rate(raw.video.times_s, rate_hz=raw.video.rate_hz, name=raw.video.times_name)
    plan = video.plan_frames(raw.video, max_bad_share=ingest.max_bad_frames_share)
    frames = video.decode(
        raw.video,
        plan,
        folder / "frames.npy",
        frame_px=ingest.frame_px,
        crop_xywh_px=ingest.crop_xywh_px,
        max_bad_share=ingest.max_bad_frames_share,
        progress=progress,
    )
    return _Streams(plan=plan, frames=frames, signal=repaired)


def _align(raw: RawBatch, streams: _Streams, config: SyncConfig) -> ClockMap:
    if streams.frames is None or streams.signal is None:
        return ClockMap(method="one stream, nothing to align")
    assert raw.video is not None
    assert raw.signal is not None
    camera_s = streams.frames.times_s
    if raw.video.clock == raw.signal.clock:
        return ClockMap(method="one clock, nothing to align")
    if config.estimate == "given":
        return given(config, t_mid_s=float(camera_s[0] + camera_s[-1]) / 2)
    return estimate(
        camera_s,
        streams.frames.brightness,
        streams.signal.times_s,
        streams.signal.values,
        config,
    )


def _reference_times(streams: _Streams, clocks: ClockMap) -> dict[str, FloatArray]:
    times: dict[str, FloatArray] = {}
    if streams.frames is not None:
        times["frame"] = clocks.to_reference(streams.frames.times_s)
    if streams.signal is not None:
        times["signal"] = streams.signal.times_s
    if max(t[0] for t in times.values()) >= min(t[-1] for t in times.values()):
        spans = "; ".join(f"{name} {t[0]:.1f}..{t[-1]:.1f} s" for name, t in times.items())
        raise BadBatchError(
            f"sync outside limits: the streams share no time ({spans}). Check sync.camera_lag_s "
            "and the clocks in batch.json."
        )
    return times


def _segments(times: Sequence[FloatArray], max_gap_s: float) -> Spans:
    """Stretches that every stream covers without a longer silence."""
    start_s = max(float(t[0]) for t in times)
    stop_s = min(float(t[-1]) for t in times)
    silences = sorted(
        gap
        for t in times
        for gap in signals.find_gaps(t, longer_than_s=_longest_s(t, max_gap_s))
        if gap[1] > start_s and gap[0] < stop_s
    )
    spans: list[tuple[float, float]] = []
    for gap_start_s, gap_stop_s in silences:
        if gap_start_s > start_s:
            spans.append((start_s, gap_start_s))
        start_s = max(start_s, gap_stop_s)
    if start_s < stop_s:
        spans.append((start_s, stop_s))
    if not spans:
        raise BadBatchError(
            f"the streams never speak together for longer than their gaps of over {max_gap_s:g} s. "
            f"{signals.ADVICE}"
        )
    return tuple(spans)


def _longest_s(times_s: FloatArray, seconds: float) -> float:
    """At least two and a half periods, so that a slow stream is not all gaps."""
    return max(seconds, 2.5 * float(np.median(np.diff(times_s))))


def _labels(
    raw: RawBatch,
    streams: _Streams,
    clocks: ClockMap,
    times: dict[str, FloatArray],
    ingest: IngestConfig,
) -> tuple[dict[str, Any], int]:
    """The notes as they are stored, and how many lie outside of what is stored."""
    on_camera = raw.video is not None and raw.video.clock == raw.labels_clock
    span_s = max(float(t[0]) for t in times.values()), min(float(t[-1]) for t in times.values())

    def to_reference_s(time_s: float) -> float:
        return float(clocks.to_reference(np.array([time_s]))[0]) if on_camera else time_s

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


def _facts(raw: RawBatch, streams: _Streams, times: dict[str, FloatArray]) -> dict[str, Any]:
    """What was found and mended; the same words in sync.json and in the counts."""
    facts: dict[str, Any] = {}
    for name, values in times.items():
        longest_s = _longest_s(values, SILENT_S)
        gaps = signals.find_gaps(values, longer_than_s=longest_s)
        facts[f"{name}_gaps"] = [list(gap) for gap in gaps]
    if streams.frames is not None and streams.plan is not None and raw.video is not None:
        facts |= {
            "frames": len(times["frame"]),
            "frames_doubled": streams.plan.doubled,
            "frames_dropped": signals.count_dropped(
                times["frame"], rate_hz=raw.video.rate_hz, shorter_than_s=SILENT_S
            ),
            "frames_repaired": streams.frames.repaired,
            "frames_missing_at_end": streams.plan.missing,
        }
    if streams.signal is not None:
        facts |= {
            "samples": len(times["signal"]),
            "samples_nan": streams.signal.nan_samples,
            "samples_doubled": streams.signal.doubled,
            "samples_filled": streams.signal.filled,
        }
    return facts


def _described(
    raw: RawBatch, clocks: ClockMap, times: dict[str, FloatArray], facts: dict[str, Any]
) -> dict[str, Any]:
    spans = [(float(t[0]), float(t[-1])) for t in times.values()]
    common_s = min(stop for _, stop in spans) - max(start for start, _ in spans)
    longest_s = max(stop - start for start, stop in spans)
    return {
        "batch": raw.id,
        "plant": raw.plant,
        "started_at": raw.started_at,
        "reference_clock": next(s.clock for s in (raw.signal, raw.video) if s is not None),
        "video_rate_hz": raw.video.rate_hz if raw.video else 0.0,
        "signal_rate_hz": raw.signal.rate_hz if raw.signal else 0.0,
        "signal_columns": list(raw.signal.columns) if raw.signal else [],
        "signal_unit": raw.signal.unit if raw.signal else "",
        **clocks.described(),
        "coverage_share": common_s / longest_s,
        **facts,
    }


def _warnings(counts: dict[str, int]) -> list[str]:
    texts = {
        "frames_repaired": "frames could not be decoded and repeat the one before",
        "frames_missing_at_end": "times at the end have no frame",
        "samples_nan": "samples held NaN and were filled with the last value, or left as a gap",
        "samples_doubled": "samples came twice and were taken once",
        "samples_filled": "samples that never came were filled with the last value",
        "labels_skipped": "notes lie outside of the data or of the crop and were left out",
    }
    return [f"{counts[name]} {text}" for name, text in texts.items() if counts.get(name)]
