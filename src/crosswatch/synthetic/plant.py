"""A simulated plant: draw a batch, film it, meter it, annotate it, hand it in."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import cv2
import numpy as np

from crosswatch.errors import UserError
from crosswatch.synthetic.camera import Camera, Course, plan_course, shoot_all, write_video
from crosswatch.synthetic.clocks import (
    Delivery,
    DeviceClock,
    deliver_frames,
    draw_clock,
    sample_times,
)
from crosswatch.synthetic.current import Arc, run_arc
from crosswatch.synthetic.glow import Glow, anomaly_glow, distractor_glow
from crosswatch.synthetic.handover import Delivered, write_csv, write_json, write_sums
from crosswatch.synthetic.microphone import plan_sound, write_sound
from crosswatch.synthetic.notes import write_notes
from crosswatch.synthetic.scene import Scene, build_scene
from crosswatch.synthetic.schedule import EventLimits, Schedule, plan_batch
from crosswatch.synthetic.truth import TruthRecorder

PLANT = "simulated-furnace"
FIRST_START = datetime(2025, 1, 6, 6, 0, tzinfo=UTC)
BETWEEN_STARTS = timedelta(hours=8)
LEAST_AUDIO_HZ, MOST_AUDIO_HZ = 8_000, 192_000
PHASES = ("phase_a", "phase_b", "phase_c")
SUBSYSTEMS = (
    "schedule",
    "current",
    "clocks",
    "samples",
    "glows",
    "scene",
    "course",
    "notes",
    "microphone",  # a new one stands last, so that the others keep their random streams
)


@dataclass(frozen=True, kw_only=True)
class SimulateConfig:
    """How many batches to simulate and how they are recorded; difficulty is not configurable."""

    batches: int = 3
    minutes: float = 8.0
    fps: float = 25.0
    frame_px: int = 128
    signal_rate_hz: float = 2.0
    audio: bool = True
    audio_rate_hz: int = 16_000
    seed: int = 7
    events_min: int = 10
    events_max: int = 14
    abnormal_share_min: float = 0.25
    abnormal_share_max: float = 0.30
    max_offset_s: float = 2.0
    max_drift_ppm: float = 100.0
    dropped_share: float = 0.001
    doubled_share: float = 0.0005
    gap_s: float = 2.0
    note_error_s: float = 0.5
    keyframe_every_s: float = 3.0

    def __post_init__(self) -> None:
        _check(self)


@dataclass(frozen=True, kw_only=True)
class Plant:
    """Everything about one batch that is drawn before a frame is rendered."""

    schedule: Schedule
    arc: Arc
    clock: DeviceClock
    microphone: DeviceClock | None
    """None where nothing listens."""
    delivery: Delivery
    spots: tuple[Glow, ...]
    distractors: tuple[Glow, ...]
    scene: Scene
    course: Course


def batch_id(index: int) -> str:
    """Name of the batch with this index, which counts from 0."""
    return f"furnace-{index + 1:04d}"


def simulate_batch(
    config: SimulateConfig,
    index: int,
    *,
    arrivals: Path,
    truth: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write batch `index` to `arrivals` and what really happened in it to `truth`.

    Each subsystem draws from a random stream of its own that depends on seed and index alone, so
    that a batch is the same whatever else is simulated. `progress` hears frames done and in all.
    """
    name = batch_id(index)
    if (arrivals / name).exists():
        raise UserError(f"{arrivals / name} exists already; choose another folder or remove it.")
    streams = _random_streams(config.seed, index)
    plant = _draw_plant(config, streams)
    with Delivered(arrivals / name) as folder, Delivered(truth / name) as truth_folder:
        _write_signal(folder / "signal.csv", plant, config, streams["samples"])
        write_json(folder / "annotations.json", _notes(plant, config, streams["notes"]))
        recorder = _film(folder, plant, config, progress)
        if plant.microphone is not None:
            _record(folder / "audio.wav", plant, plant.microphone, config, streams["microphone"])
        write_json(folder / "batch.json", _describe(config, index))
        write_sums(folder)
        recorder.write(
            truth_folder,
            clock=plant.clock,
            microphone=plant.microphone,
            delivery=plant.delivery,
            schedule=plant.schedule,
        )


def event_limits(config: SimulateConfig) -> EventLimits:
    """The configured limits of the anomalies' number and share of time."""
    return EventLimits(
        count_min=config.events_min,
        count_max=config.events_max,
        share_min=config.abnormal_share_min,
        share_max=config.abnormal_share_max,
        margin_s=config.max_offset_s + 1.0,
    )


def _check(config: SimulateConfig) -> None:
    if config.frame_px < 32 or config.frame_px % 2:
        raise UserError(f"frame_px is {config.frame_px}; it must be even (H.264) and at least 32")
    if config.batches < 1:
        raise UserError(f"batches is {config.batches}; at least 1 is needed")
    if not LEAST_AUDIO_HZ <= config.audio_rate_hz <= MOST_AUDIO_HZ:
        raise UserError(
            f"audio_rate_hz is {config.audio_rate_hz}; expected {LEAST_AUDIO_HZ}..{MOST_AUDIO_HZ}"
        )
    for name in ("minutes", "fps", "signal_rate_hz", "keyframe_every_s"):
        if not 0 < getattr(config, name) < math.inf:
            raise UserError(f"{name} is {getattr(config, name):g}; it has to be above 0")
    for name in ("seed", "max_offset_s", "max_drift_ppm", "gap_s", "note_error_s"):
        if not 0 <= getattr(config, name) < math.inf:
            raise UserError(f"{name} is {getattr(config, name):g}; it has to be 0 or above")
    for name in ("dropped_share", "doubled_share"):
        if not 0 <= getattr(config, name) < 1:
            raise UserError(f"{name} is {getattr(config, name):g}; expected 0..1, 1 excluded")
    if not 0 <= config.events_min <= config.events_max:
        raise UserError(
            f"events_min is {config.events_min} and events_max {config.events_max}; expected "
            "0 <= events_min <= events_max"
        )
    if not 0 <= config.abnormal_share_min <= config.abnormal_share_max <= 1:
        raise UserError(
            f"abnormal_share_min is {config.abnormal_share_min:g} and abnormal_share_max "
            f"{config.abnormal_share_max:g}; expected 0 <= abnormal_share_min <= "
            "abnormal_share_max <= 1"
        )


def _random_streams(seed: int, index: int) -> dict[str, np.random.Generator]:
    children = np.random.SeedSequence([seed, index]).spawn(len(SUBSYSTEMS))
    return {
        name: np.random.default_rng(child) for name, child in zip(SUBSYSTEMS, children, strict=True)
    }


def _draw_plant(config: SimulateConfig, streams: dict[str, np.random.Generator]) -> Plant:
    duration_s = config.minutes * 60.0
    schedule = plan_batch(streams["schedule"], duration_s=duration_s, limits=event_limits(config))
    arc = run_arc(streams["current"], schedule)
    clock = draw_clock(
        streams["clocks"], max_offset_s=config.max_offset_s, max_drift_ppm=config.max_drift_ppm
    )
    delivery = deliver_frames(
        streams["clocks"],
        duration_s=duration_s,
        fps=config.fps,
        dropped_share=config.dropped_share,
        doubled_share=config.doubled_share,
        gap_s=config.gap_s,
    )
    microphone = draw_clock(
        streams["microphone"], max_offset_s=config.max_offset_s, max_drift_ppm=config.max_drift_ppm
    )
    control_s = clock.to_control(delivery.exposed_s)
    rng, px = streams["glows"], config.frame_px
    return Plant(
        schedule=schedule,
        arc=arc,
        clock=clock,
        microphone=microphone if config.audio else None,
        delivery=delivery,
        spots=tuple(anomaly_glow(rng, event, frame_px=px) for event in schedule.events),
        distractors=tuple(distractor_glow(rng, it, frame_px=px) for it in schedule.distractors),
        scene=build_scene(streams["scene"], frame_px=px),
        course=plan_course(streams["course"], schedule, arc, control_s, fps=config.fps),
    )


def _film(
    folder: Path, plant: Plant, config: SimulateConfig, progress: Callable[[int, int], None]
) -> TruthRecorder:
    """Write video.mp4 and video_times.csv; record the truth on the way."""
    cv2.setNumThreads(1)
    recorder = TruthRecorder(plant.course.times_s, plant.spots, frame_px=config.frame_px)
    camera = Camera(plant.scene, plant.course, plant.spots + plant.distractors)
    write_video(
        folder / "video.mp4",
        shoot_all(camera, plant.delivery),
        frame_px=config.frame_px,
        fps=config.fps,
        count=plant.delivery.stamp_s.size,
        see=recorder.see,
        progress=progress,
    )
    rows = ((frame, f"{time_s:.6f}") for frame, time_s in enumerate(plant.delivery.stamp_s))
    write_csv(folder / "video_times.csv", ("frame", "time_s"), rows)
    return recorder


def _write_signal(
    path: Path, plant: Plant, config: SimulateConfig, rng: np.random.Generator
) -> None:
    times_s = sample_times(rng, duration_s=plant.schedule.duration_s, rate_hz=config.signal_rate_hz)
    current_a = plant.arc.sample(times_s, period_s=1.0 / config.signal_rate_hz)
    rows = (
        (f"{time_s:.4f}", *(f"{value:.1f}" for value in phases))
        for time_s, phases in zip(times_s, current_a, strict=True)
    )
    write_csv(path, ("time_s", *PHASES), rows)


def _record(
    path: Path,
    plant: Plant,
    clock: DeviceClock,
    config: SimulateConfig,
    rng: np.random.Generator,
) -> None:
    sound = plan_sound(rng, plant.schedule, plant.arc, clock, rate_hz=config.audio_rate_hz)
    write_sound(path, sound, rng)


def _notes(plant: Plant, config: SimulateConfig, rng: np.random.Generator) -> dict[str, object]:
    return write_notes(
        rng,
        plant.spots,
        frame_px=config.frame_px,
        error_s=config.note_error_s,
        keyframe_every_s=config.keyframe_every_s,
    )


def _describe(config: SimulateConfig, index: int) -> dict[str, object]:
    """What batch.json declares."""
    started_at = FIRST_START + index * BETWEEN_STARTS
    sound = {
        "file": "audio.wav",
        "clock": "microphone",
        "rate_hz": config.audio_rate_hz,
        "unit": "pcm",
    }
    return {
        "id": batch_id(index),
        "plant": PLANT,
        "started_at": started_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "streams": {
            "video": {
                "file": "video.mp4",
                "clock": "camera",
                "rate_hz": config.fps,
                "unit": "rgb",
                "times": "video_times.csv",
            },
            "signal": {
                "file": "signal.csv",
                "clock": "control",
                "rate_hz": config.signal_rate_hz,
                "unit": "A",
                "columns": list(PHASES),
            },
            **({"audio": sound} if config.audio else {}),
        },
        "annotations": "annotations.json",
    }
