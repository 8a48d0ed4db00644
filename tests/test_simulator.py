"""The simulated furnace keeps its promises: layout, reproducibility, limits and truth."""

import csv
import hashlib
import json
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.config import build
from crosswatch.data.audio.decode import RawAudio, decode_audio
from crosswatch.errors import UserError
from crosswatch.synthetic import SimulateConfig, batch_id, read_truth, simulate_batch
from crosswatch.synthetic.clocks import deliver_frames
from crosswatch.synthetic.current import run_arc
from crosswatch.synthetic.microphone import BLOCK, STEP, Sound, Strikes, write_sound
from crosswatch.synthetic.plant import event_limits
from crosswatch.synthetic.schedule import EVENT_DURATION_S, MIN_GAP_S, plan_batch, plan_events

SMALL = SimulateConfig(minutes=1.0, frame_px=64, fps=10.0, events_min=2, events_max=3)
LAYOUT = {
    "batch.json",
    "video.mp4",
    "video_times.csv",
    "signal.csv",
    "audio.wav",
    "annotations.json",
    "SHA256SUMS",
}


def simulate(config: SimulateConfig, index: int, folder: Path) -> tuple[Path, Path]:
    simulate_batch(config, index, arrivals=folder / "arrivals", truth=folder / "truth")
    return folder / "arrivals" / batch_id(index), folder / "truth" / batch_id(index)


@pytest.fixture(scope="module")
def batch(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return simulate(SMALL, 0, tmp_path_factory.mktemp("plant"))


def numbers(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1)


def test_a_batch_arrives_complete_and_sealed(batch: tuple[Path, Path]) -> None:
    arrival, _ = batch
    assert {path.name for path in arrival.iterdir()} == LAYOUT
    assert [path.name for path in arrival.parent.iterdir()] == [arrival.name]
    sums = dict(
        reversed(line.split("  ")) for line in (arrival / "SHA256SUMS").read_text().splitlines()
    )
    assert set(sums) == LAYOUT - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((arrival / name).read_bytes()).hexdigest() == digest


def test_batch_json_declares_the_files_that_are_there(batch: tuple[Path, Path]) -> None:
    arrival, _ = batch
    declared = json.loads((arrival / "batch.json").read_text())
    assert declared["id"] == arrival.name
    video, signal, audio = (declared["streams"][name] for name in ("video", "signal", "audio"))
    assert [stream["clock"] for stream in (video, signal, audio)] == [
        "camera",
        "control",
        "microphone",
    ]
    files = (video["file"], video["times"], signal["file"], audio["file"])
    for name in (*files, declared["annotations"]):
        assert (arrival / name).stat().st_size > 0
    with (arrival / signal["file"]).open(newline="") as file:
        assert next(csv.reader(file)) == ["time_s", *signal["columns"]]


def test_same_seed_same_bytes(batch: tuple[Path, Path], tmp_path: Path) -> None:
    arrival, _ = batch
    again, _ = simulate(SMALL, 0, tmp_path)
    for name in ("signal.csv", "annotations.json", "video_times.csv", "audio.wav", "batch.json"):
        assert (again / name).read_bytes() == (arrival / name).read_bytes()


def test_another_seed_or_index_is_another_batch(batch: tuple[Path, Path], tmp_path: Path) -> None:
    arrival, _ = batch
    for config, index in ((replace(SMALL, seed=8), 0), (SMALL, 1)):
        other, _ = simulate(config, index, tmp_path / str(config.seed))
        for name in ("signal.csv", "annotations.json", "audio.wav"):
            assert (other / name).read_bytes() != (arrival / name).read_bytes()


def test_a_batch_does_not_depend_on_how_many_there_are(
    batch: tuple[Path, Path], tmp_path: Path
) -> None:
    arrival, _ = batch
    alone, _ = simulate(replace(SMALL, batches=1), 0, tmp_path)
    for name in ("signal.csv", "annotations.json", "video_times.csv", "audio.wav"):
        assert (alone / name).read_bytes() == (arrival / name).read_bytes()


def test_a_crash_leaves_nothing_half_made(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_batch(
            SMALL, 0, arrivals=tmp_path / "arrivals", truth=tmp_path / "truth", progress=stop
        )
    assert list((tmp_path / "arrivals").iterdir()) == []
    assert list((tmp_path / "truth").iterdir()) == []


def test_an_existing_batch_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "arrivals" / batch_id(0)).mkdir(parents=True)
    with pytest.raises(ValueError, match="furnace-0001 exists already"):
        simulate(SMALL, 0, tmp_path)


def test_progress_ends_at_the_number_of_frames(tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    simulate_batch(
        SMALL,
        0,
        arrivals=tmp_path / "arrivals",
        truth=tmp_path / "truth",
        progress=lambda done, total: heard.append((done, total)),
    )
    done = [one for one, _ in heard]
    assert done == sorted(set(done))
    assert heard[-1][0] == heard[-1][1]


def test_every_frame_has_its_time(batch: tuple[Path, Path]) -> None:
    arrival, truth_folder = batch
    with av.open(str(arrival / "video.mp4")) as container:
        shapes = [(frame.height, frame.width) for frame in container.decode(video=0)]
    times = numbers(arrival / "video_times.csv")
    assert shapes == [(SMALL.frame_px, SMALL.frame_px)] * len(times)
    assert (times[:, 0] == np.arange(len(times))).all()
    assert (np.diff(times[:, 1]) > 0).all()
    assert read_truth(truth_folder).control_s.size == len(times)


def test_the_signal_has_its_rate_and_plausible_currents(batch: tuple[Path, Path]) -> None:
    arrival, _ = batch
    signal = numbers(arrival / "signal.csv")
    assert signal.shape == (SMALL.minutes * 60 * SMALL.signal_rate_hz, 4)
    assert (np.diff(signal[:, 0]) > 0).all()
    assert signal[:, 1:].min() >= 5_500
    assert signal[:, 1:].max() <= 14_500
    assert (signal[:, 1:].std(axis=0) > 50).all()


def test_the_clocks_differ_within_their_limits(batch: tuple[Path, Path]) -> None:
    arrival, truth_folder = batch
    clock, microphone = read_truth(truth_folder).clock, read_truth(truth_folder).microphone
    assert microphone is not None
    for one in (clock, microphone):
        assert 0 < abs(one.offset_s) <= SMALL.max_offset_s
        assert 0 < abs(one.drift_ppm) <= SMALL.max_drift_ppm
    assert clock != microphone
    stamps_s = numbers(arrival / "video_times.csv")[:, 1]
    error_s = clock.to_control(stamps_s) - read_truth(truth_folder).control_s
    assert 0 < np.abs(error_s).max() < 0.5 / SMALL.fps


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_the_camera_drops_doubles_and_pauses(seed: int) -> None:
    config = SimulateConfig()
    delivery = deliver_frames(
        np.random.default_rng(seed),
        duration_s=config.minutes * 60,
        fps=config.fps,
        dropped_share=config.dropped_share,
        doubled_share=config.doubled_share,
        gap_s=config.gap_s,
    )
    steps_s = np.diff(delivery.stamp_s)
    assert (steps_s > 0).all()
    assert (steps_s > 0.9 * config.gap_s).sum() == 1
    assert ((steps_s > 1.5 / config.fps) & (steps_s < 0.5)).sum() >= 1
    assert ((steps_s < 0.5 / config.fps) == delivery.doubled[1:]).all()
    assert delivery.doubled.sum() >= 1
    assert delivery.dropped_count >= 1


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_events_keep_the_configured_limits(seed: int) -> None:
    config = SimulateConfig()
    limits, duration_s = event_limits(config), config.minutes * 60
    events = plan_events(np.random.default_rng(seed), duration_s=duration_s, limits=limits)
    assert config.events_min <= len(events) <= config.events_max
    share = sum(event.offset_s - event.onset_s for event in events) / duration_s
    assert config.abnormal_share_min - 1e-6 <= share <= config.abnormal_share_max + 1e-6
    edges_s = np.array([[event.onset_s, event.offset_s] for event in events])
    assert edges_s[0, 0] >= config.max_offset_s
    assert edges_s[-1, 1] <= duration_s - config.max_offset_s
    assert (edges_s[1:, 0] - edges_s[:-1, 1] >= MIN_GAP_S - 1e-6).all()
    lengths_s = edges_s[:, 1] - edges_s[:, 0]
    assert lengths_s.min() >= EVENT_DURATION_S[0] - 1e-6
    assert lengths_s.max() <= EVENT_DURATION_S[1] + 1e-6
    assert all(event.onset_s < event.apex_s < event.offset_s for event in events)


def test_events_that_do_not_fit_are_refused_with_the_numbers() -> None:
    config = replace(SMALL, events_min=9, events_max=9)
    with pytest.raises(ValueError, match=r"1 minutes with .* asked for 9-9\. Change"):
        plan_events(np.random.default_rng(0), duration_s=60.0, limits=event_limits(config))


def test_an_odd_frame_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frame_px is 65; it must be even"):
        simulate(replace(SMALL, frame_px=65), 0, tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batches": 0}, "simulate: batches is 0; at least 1"),
        ({"minutes": 0}, "minutes is 0; it has to be above 0"),
        ({"keyframe_every_s": 0}, "keyframe_every_s is 0; it has to be above 0"),
        ({"events_min": 5, "events_max": 4}, "events_min is 5 and events_max 4"),
        ({"audio_rate_hz": 4000}, "audio_rate_hz is 4000; expected 8000..192000"),
        ({"dropped_share": 1.5}, "dropped_share is 1.5; expected 0..1"),
        ({"abnormal_share_min": 0.5}, "abnormal_share_min is 0.5 and abnormal_share_max 0.3"),
        ({"note_error_s": -1}, "note_error_s is -1; it has to be 0 or above"),
    ],
)
def test_a_plant_that_cannot_be_is_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(SimulateConfig, values, where="simulate")


def test_an_anomaly_lowers_the_current_late_and_a_distractor_never_does() -> None:
    config = SimulateConfig()

    def arc(keep: Callable[[str], bool]) -> tuple[np.ndarray, np.ndarray, float]:
        schedule = plan_batch(
            np.random.default_rng(3), duration_s=480.0, limits=event_limits(config)
        )
        first = schedule.events[0]
        schedule = replace(
            schedule,
            events=schedule.events if keep("events") else (),
            distractors=schedule.distractors if keep("distractors") else (),
        )
        burned = run_arc(np.random.default_rng(4), schedule)
        return burned.times_s, burned.current_a, first.onset_s + first.trace_delay_s

    times_s, full_a, traced_s = arc(lambda part: True)
    _, calm_a, _ = arc(lambda part: part != "events")
    _, undistracted_a, _ = arc(lambda part: part != "distractors")
    assert (full_a == undistracted_a).all()
    before = times_s < traced_s
    assert (full_a[:, before] == calm_a[:, before]).all()
    assert (full_a[:, ~before] - calm_a[:, ~before]).mean() < 0


def test_notes_are_near_the_truth_and_never_equal_to_it(batch: tuple[Path, Path]) -> None:
    arrival, truth_folder = batch
    notes = json.loads((arrival / "annotations.json").read_text())
    events = read_truth(truth_folder).events
    assert len(notes["events"]) == len(events)
    for noted, true in zip(notes["events"], events, strict=True):
        for instant in ("onset_s", "apex_s", "offset_s"):
            assert 0 < abs(noted[instant] - true[instant]) <= SMALL.note_error_s


def test_keyframes_are_sparse_and_lie_on_the_spot(batch: tuple[Path, Path]) -> None:
    arrival, truth_folder = batch
    notes, truth = json.loads((arrival / "annotations.json").read_text()), read_truth(truth_folder)
    for event in notes["events"]:
        keyframes = [
            keyframe
            for keyframe in notes["keyframes"]
            if event["onset_s"] <= keyframe["time_s"] <= event["offset_s"]
        ]
        times_s = [keyframe["time_s"] for keyframe in keyframes]
        assert times_s[0] == event["onset_s"]
        assert times_s[-1] == event["offset_s"]
        assert max(np.diff(times_s)) < 2 * SMALL.keyframe_every_s
        for keyframe in keyframes:
            left, top, width, height = keyframe["box_xywh_px"]
            assert min(left, top) >= 0
            assert max(left + width, top + height) <= SMALL.frame_px
            nearest = int(np.abs(truth.control_s - keyframe["time_s"]).argmin())
            rows, columns = np.nonzero(truth.masks[nearest])
            if rows.size:
                assert left < columns.mean() + 0.5 < left + width
                assert top < rows.mean() + 0.5 < top + height


def test_masks_cover_the_middle_of_every_event_and_nothing_else(batch: tuple[Path, Path]) -> None:
    truth = read_truth(batch[1])
    size = truth.masks.reshape(len(truth.masks), -1).sum(axis=1)
    assert (size[truth.event < 0] == 0).all()
    for number, event in enumerate(truth.events):
        apex = int(np.abs(truth.control_s - event["apex_s"]).argmin())
        assert truth.event[apex] == number
        assert size[apex] > 10
        lasts = truth.event == number
        assert (truth.control_s[lasts] >= event["onset_s"]).all()
        assert (truth.control_s[lasts] <= event["offset_s"]).all()
        assert (size[lasts] > 0).mean() > 0.8


def test_a_spot_reddens_the_pixels_under_its_mask(batch: tuple[Path, Path]) -> None:
    arrival, truth_folder = batch
    truth = read_truth(truth_folder)
    with av.open(str(arrival / "video.mp4")) as container:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
    redness = frames[..., 0].astype(float) - frames[..., 2]
    for event in truth.events:
        apex = int(np.abs(truth.control_s - event["apex_s"]).argmin())
        before = int(np.abs(truth.control_s - event["onset_s"]).argmin()) - 1
        gain = (redness[apex] - redness[before])[truth.masks[apex]].mean()
        assert gain > 0.1 * event["peak_levels"] * (1 - truth.spot_mist_share[apex])


def test_the_flame_follows_the_arc(tmp_path: Path) -> None:
    config = replace(SMALL, minutes=2.0, events_min=3, events_max=5)
    arrival, truth_folder = simulate(config, 0, tmp_path)
    with av.open(str(arrival / "video.mp4")) as container:
        frames = np.stack([f.to_ndarray(format="gray") for f in container.decode(video=0)])
    flame = frames[:, : config.frame_px // 3].mean(axis=(1, 2))
    half_second = np.convolve(flame, np.full(5, 0.2), mode="same")
    signal, control_s = numbers(arrival / "signal.csv"), read_truth(truth_folder).control_s
    power = (signal[8:-8, 1:] ** 2).sum(axis=1)

    def match(shift_s: float) -> float:
        seen = np.interp(signal[8:-8, 0], control_s + shift_s, half_second)
        return float(np.corrcoef(np.diff(seen), np.diff(power))[0, 1])

    assert match(0.0) > 0.5
    assert match(0.0) > match(1.5) + 0.2
    assert match(0.0) > match(-1.5) + 0.2


def recorded(path: Path) -> np.ndarray:
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getsampwidth()) == (1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def test_the_sound_is_as_long_as_the_batch_and_hardly_clipped(batch: tuple[Path, Path]) -> None:
    sound = recorded(batch[0] / "audio.wav")
    assert sound.size == SMALL.minutes * 60 * SMALL.audio_rate_hz
    assert 1_000 < sound.std() < 10_000
    assert (np.abs(sound.astype(int)) >= 32_767).mean() < 1e-3


def test_without_sound_everything_else_stays_as_it_is(
    batch: tuple[Path, Path], tmp_path: Path
) -> None:
    heard, heard_truth = batch
    deaf, deaf_truth = simulate(replace(SMALL, audio=False), 0, tmp_path)
    assert {path.name for path in deaf.iterdir()} == LAYOUT - {"audio.wav"}
    for name in LAYOUT - {"audio.wav", "batch.json", "SHA256SUMS"}:
        assert (deaf / name).read_bytes() == (heard / name).read_bytes(), name
    assert (deaf_truth / "frames.npz").read_bytes() == (heard_truth / "frames.npz").read_bytes()
    told, truth = (
        json.loads((folder / name).read_text())
        for folder, name in ((heard, "batch.json"), (heard_truth, "truth.json"))
    )
    del told["streams"]["audio"], truth["microphone"]
    assert json.loads((deaf / "batch.json").read_text()) == told
    assert json.loads((deaf_truth / "truth.json").read_text()) == truth
    assert read_truth(deaf_truth).microphone is None


def test_the_hum_follows_the_arc_on_the_microphones_clock(tmp_path: Path) -> None:
    config = replace(SMALL, minutes=2.0, events_min=3, events_max=5)
    arrival, truth_folder = simulate(config, 0, tmp_path)
    raw = RawAudio(path=arrival / "audio.wav", rate_hz=16_000, clock="microphone")
    heard = decode_audio(raw, tmp_path / "audio.npy", rate_hz=16_000, max_bad_share=0.0)
    microphone = read_truth(truth_folder).microphone
    assert microphone is not None
    half_second = np.convolve(heard.loudness[:, 1], np.full(25, 0.04), mode="same")
    signal = numbers(arrival / "signal.csv")[8:-8]
    power = np.log((signal[:, 1:] ** 2).sum(axis=1))

    def match(shift_s: float) -> float:
        control_s = microphone.to_control(heard.loudness_s) + shift_s
        seen = np.interp(signal[:, 0], control_s, half_second)
        return float(np.corrcoef(np.diff(seen), np.diff(power))[0, 1])

    shifts_s = np.arange(-3.0, 3.01, 0.1)
    matches = np.array([match(shift_s) for shift_s in shifts_s])
    assert abs(shifts_s[matches.argmax()]) <= 0.1 + 1e-9
    assert matches.max() > 0.5
    assert matches.max() > matches[np.abs(shifts_s) > 1.0].max() + 0.2


def test_a_block_ends_without_a_seam(tmp_path: Path) -> None:
    """Hum and a knock, each across the border of two blocks, as one formula says."""
    steps = BLOCK // STEP + 100
    shape = np.sin(np.arange(4_800) / 20, dtype=np.float32)
    silence = Strikes(at=np.zeros(0, np.int64), peak=np.zeros(0, np.float32))
    sound = Sound(
        rate_hz=16_000,
        samples=steps * STEP,
        waves=np.arange(steps + 1) * 0.997,
        hum=np.full(steps + 1, 0.2),
        hiss=np.zeros(steps + 1),
        wave=np.sin(2 * np.pi * np.arange(4_096) / 4_096).astype(np.float32),
        knock_shapes=np.stack([shape] * 12),
        knocks=Strikes(at=np.array([BLOCK - 1_000]), peak=np.float32([0.5])),
        crackles=silence,
    )
    write_sound(tmp_path / "a.wav", sound, np.random.default_rng(0))
    expected = 0.2 * np.sin(2 * np.pi * 0.997 * np.arange(steps * STEP) / STEP)
    expected[BLOCK - 1_000 : BLOCK + 3_800] += 0.5 * shape
    # a wave of 4096 points errs by up to 2 pi / 4096 of the hum, rounding by half a level
    np.testing.assert_allclose(
        recorded(tmp_path / "a.wav") / 32_767, expected, atol=0.2 * 2 * np.pi / 4_096 + 2e-5
    )
