"""The repaired streams of a batch put on one clock, judged, and told of in a report."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data import signals
from crosswatch.data.audio.decode import DecodedAudio
from crosswatch.data.raw import RawBatch
from crosswatch.data.spans import FloatArray, Spans, common_span, segments, span_of
from crosswatch.data.sync.align import Timeline
from crosswatch.data.sync.alignment import Alignment, align_batch
from crosswatch.data.sync.clocks import Check, Course
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.sync.evidence import signal_series
from crosswatch.data.sync.lag import SILENT_S
from crosswatch.data.sync.plot import draw_alignment
from crosswatch.data.sync.report import StreamFacts, check_coverage, described
from crosswatch.data.video.decode import Decoded, Plan
from crosswatch.errors import BadBatchError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Streams:
    """All streams after repair, each still on its own clock."""

    plan: Plan | None = None
    frames: Decoded | None = None
    signal: signals.Repaired | None = None
    audio: DecodedAudio | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Placed:
    """Where everything lies on the reference clock, and what is told about it."""

    alignment: Alignment
    times: Mapping[str, FloatArray]  # of what is stored: `frame`, `signal`
    kept: npt.NDArray[np.bool_]  # of the frames; the others have no place
    spans: Spans
    counts: Mapping[str, int]
    report: Mapping[str, Any]
    figure: bytes | None


def place(raw: RawBatch, streams: Streams, config: SyncConfig) -> Placed:
    """Align the streams, and hold them to the limits.

    Raises:
        BadBatchError: a limit is broken; it carries the report and the figure.
    """
    alignment = align_batch(*_timelines(raw, streams, config), config)
    aligned = [each for each in (alignment.video, alignment.audio) if each is not None]
    figure = draw_alignment(raw.id, aligned)
    times, kept = _reference_times(streams, alignment)
    facts = _facts(raw, streams, alignment, times)
    checks, spans, refused = list(alignment.checks), raw.segments, ""
    try:
        _hold(checks)
        _check_common(times)
        if not spans:
            spans = segments(tuple(times.values()), config.max_gap_s)
            checks.append(check_coverage(spans, span_of(tuple(times.values())), config))
            _hold(checks[-1:])
    except BadBatchError as error:
        refused = str(error)
    report = described(
        _identity(raw), alignment, facts, checks, config, spans=spans, refused=refused
    )
    if refused:
        raise BadBatchError(refused, report=report, figure=figure)
    return Placed(
        alignment=alignment,
        times=times,
        kept=kept,
        spans=spans,
        counts=_counts(facts),
        report=report,
        figure=figure,
    )


def _hold(checks: list[Check]) -> None:
    for check in checks:
        if not check.passed:
            raise BadBatchError(check.refusal)


def _timelines(
    raw: RawBatch, streams: Streams, config: SyncConfig
) -> tuple[Timeline | None, Timeline | None, Timeline | None]:
    """What of each stream tells the time."""
    camera = control = sound = None
    alone = sum(each is not None for each in (raw.video, raw.signal, raw.audio)) == 1
    if raw.video is not None and streams.frames is not None:
        frames = streams.frames
        seen = np.zeros((frames.times_s.size, 1)) if frames.series is None else frames.series
        camera = Timeline(
            course=Course(
                stream="video", feature=config.video, times_s=frames.times_s, values=seen
            ),
            clock=raw.video.clock,
            triggers_s=raw.video.triggers_s,
            pieces=frames.pieces,
        )
    if raw.signal is not None and streams.signal is not None:
        values, times_s = streams.signal.values, streams.signal.times_s
        drawn = (
            values[:, 0]
            if alone
            else signal_series(config.signal, values, times_s, raw.signal.columns)
        )
        control = Timeline(
            course=Course(stream="signal", feature=config.signal, times_s=times_s, values=drawn),
            clock=raw.signal.clock,
            triggers_s=raw.signal.triggers_s,
        )
    if raw.audio is not None and streams.audio is not None:
        heard = streams.audio
        if heard.loudness_s.size < 3:
            raise BadBatchError(
                f"{raw.audio.path.name}: holds {heard.samples / heard.rate_hz:.2f} s of sound; "
                "at least 0.2 s are needed. Leave the audio stream out of batch.json."
            )
        sound = Timeline(
            course=Course(
                stream="audio", feature="loudness", times_s=heard.loudness_s, values=heard.loudness
            ),
            clock=raw.audio.clock,
        )
    return camera, control, sound


def _reference_times(
    streams: Streams, alignment: Alignment
) -> tuple[dict[str, FloatArray], npt.NDArray[np.bool_]]:
    """Instants of the frames and samples that are stored, and which of the frames are."""
    times: dict[str, FloatArray] = {}
    kept = np.ones(0, np.bool_)
    if streams.frames is not None and alignment.video is not None:
        camera_s = streams.frames.times_s
        kept = alignment.video.kept(camera_s)
        if not kept.any():  # it is refused, and the report tells of all frames
            kept = np.ones(camera_s.size, np.bool_)
        times["frame"] = alignment.video.to_reference(camera_s)[kept]
    if streams.signal is not None:
        times["signal"] = streams.signal.times_s
    return times, kept


def _check_common(times: Mapping[str, FloatArray]) -> None:
    first_s, last_s = common_span(tuple(times.values()))
    if first_s >= last_s:
        spans = "; ".join(f"{name} {t[0]:.1f}..{t[-1]:.1f} s" for name, t in times.items())
        raise BadBatchError(
            f"sync outside limits: the streams share no time ({spans}). Check sync.camera_lag_s "
            "and the clocks in batch.json."
        )


def _identity(raw: RawBatch) -> dict[str, Any]:
    return {
        "batch": raw.id,
        "plant": raw.plant,
        "started_at": raw.started_at,
        "video_rate_hz": raw.video.rate_hz if raw.video else 0.0,
        "signal_rate_hz": raw.signal.rate_hz if raw.signal else 0.0,
        "signal_columns": list(raw.signal.columns) if raw.signal else [],
        "signal_unit": raw.signal.unit if raw.signal else "",
    }


def _facts(
    raw: RawBatch, streams: Streams, alignment: Alignment, times: Mapping[str, FloatArray]
) -> list[StreamFacts]:
    """What was found and mended, stream by stream."""
    facts: list[StreamFacts] = []
    if raw.video is not None and alignment.video is not None:
        assert streams.frames is not None
        assert streams.plan is not None
        dropped = signals.count_dropped(
            times["frame"], rate_hz=raw.video.rate_hz, shorter_than_s=SILENT_S
        )
        counts = {
            "frames": times["frame"].size,
            "frames_doubled": streams.plan.doubled,
            "frames_dropped": dropped,
            "frames_reordered": raw.video.reordered,
            "frames_repaired": streams.frames.repaired,
            "frames_missing_at_end": streams.plan.missing,
            "frames_not_placed": streams.frames.times_s.size - times["frame"].size,
            "camera_clock_resets": len(alignment.video.stretches) - 1,
            "camera_clock_rollovers": raw.video.rollovers,
        }
        facts.append(
            StreamFacts(
                name="video",
                aligned=alignment.video,
                times_s=times["frame"],
                rate_hz=raw.video.rate_hz,
                counts=counts,
            )
        )
    if raw.signal is not None and alignment.signal is not None and streams.signal is not None:
        counts = {
            "samples": times["signal"].size,
            "samples_nan": streams.signal.nan_samples,
            "samples_doubled": streams.signal.doubled,
            "samples_filled": streams.signal.filled,
            "samples_reordered": raw.signal.reordered,
            "control_clock_rollovers": raw.signal.rollovers,
        }
        facts.append(
            StreamFacts(
                name="signal",
                aligned=alignment.signal,
                times_s=times["signal"],
                rate_hz=raw.signal.rate_hz,
                counts=counts,
            )
        )
    if streams.audio is not None and alignment.audio is not None:
        facts.append(_sound(streams.audio, alignment))
    return facts


def _sound(heard: DecodedAudio, alignment: Alignment) -> StreamFacts:
    assert alignment.audio is not None
    return StreamFacts(
        name="audio",
        aligned=alignment.audio,
        times_s=alignment.audio.to_reference(heard.loudness_s),
        rate_hz=heard.rate_hz,
        counts={
            "audio_samples": heard.samples,
            "audio_holes": len(heard.holes),
            "audio_lost_packets": heard.lost_packets,
        },
        extra={
            "start_s": heard.start_s,
            "file_rate_hz": heard.file_rate_hz,
            "clipped_share": heard.clipped_share,
            "silent_share": heard.silent_share,
            "left_out": alignment.audio_left_out or None,
        },
    )


def _counts(facts: list[StreamFacts]) -> dict[str, int]:
    """As the manifest tells them."""
    counts: dict[str, int] = {}
    for each in facts:
        singular = "frame" if each.name == "video" else each.name
        counts |= {**each.counts, f"{singular}_gaps": len(each.gaps)}
    return counts
