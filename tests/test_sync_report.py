"""What sync.json says of three clocks, what is stored with it, and what a refused batch brings."""

import dataclasses
import wave
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import Scene, current_course, deliver
from stored import GIVEN, read, store

from crosswatch.data.audio.decode import RawAudio
from crosswatch.data.raw import RawBatch
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import BadBatchError

LIVELY = Scene(seconds=120.0, offset_s=-0.9)
QUICK = SyncConfig(resamples=200)


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> RawBatch:
    return read(deliver(tmp_path_factory.mktemp("lively"), scene=LIVELY))


def record(path: Path, scene: Scene, *, lag_s: float, seed: int = 0) -> RawAudio:
    """A hum whose loudness follows the current; its recorder was switched on `lag_s` late."""
    rate_hz = 4000
    own_s = np.arange(round(scene.seconds * rate_hz)) / rate_hz
    times_s, current = current_course(dataclasses.replace(scene, seed=seed))
    loudness = np.exp((np.interp(own_s + lag_s, times_s, current) - 10_000) / 600)
    sound = 4000 * loudness * np.sin(2 * np.pi * 100 * own_s)
    sound += 400 * np.random.default_rng(seed).standard_normal(sound.size)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(np.clip(sound, -32_000, 32_000).astype("<i2").tobytes())
    return RawAudio(path=path, rate_hz=float(rate_hz), clock="microphone")


def test_sync_json_tells_of_every_stream_clock_and_limit(lively: RawBatch, tmp_path: Path) -> None:
    raw = dataclasses.replace(lively, audio=record(tmp_path / "a.wav", LIVELY, lag_s=0.4))
    batch, summary = store(raw, tmp_path / "out", sync=QUICK)
    told = batch.sync
    assert told["reference_clock"] == "control"
    assert {name: each["clock"] for name, each in told["streams"].items()} == {
        "video": "camera",
        "signal": "control",
        "audio": "microphone",
    }
    for name, true_s in (("video", -0.9), ("audio", 0.4)):
        each = told["streams"][name]
        assert each["bound_s"]["low"] <= true_s <= each["bound_s"]["high"]
        assert each["bound_s"]["half_width"] < 0.3
        assert each["drift_bound_ppm"] <= told["limits"]["max_drift_ppm"]
        assert 0.9 < each["coverage_share"] <= 1.0
        assert each["gaps"] == []
    assert told["streams"]["signal"]["bound_s"]["half_width"] is None
    for name, count in summary.counts.items():
        stored = [
            each["counts"][name] for each in told["streams"].values() if name in each["counts"]
        ]
        assert stored in ([], [count])
    assert told["passed"]
    assert told["refused"] is None
    assert {(check["stream"], check["name"]) for check in told["checks"]} >= {
        ("video", "bound_half_width_s"),
        ("video", "offset_s"),
        ("audio", "bound_half_width_s"),
        ("batch", "coverage_share"),
    }
    assert all(check["passed"] for check in told["checks"])
    assert told["coverage_share"] == pytest.approx(119.1 / 120.4, abs=0.02)
    with av.open(str(tmp_path / "out" / "sync.png")) as picture:
        assert picture.streams.video[0].width > 600


def test_sound_is_stored_evenly_and_says_when_it_was(lively: RawBatch, tmp_path: Path) -> None:
    raw = dataclasses.replace(lively, audio=record(tmp_path / "a.wav", LIVELY, lag_s=0.4))
    known = dataclasses.replace(QUICK, audio_lag_s=0.4, audio_drift_ppm=50.0)
    batch, _ = store(raw, tmp_path / "out", sync=known)
    assert isinstance(batch.audio, np.memmap)
    assert batch.audio.dtype == np.int16
    assert batch.audio_rate_hz == 16_000
    assert batch.audio.size == pytest.approx(120 * 16_000, abs=10)
    t_mid_s = batch.sync["streams"]["audio"]["t_mid_s"]
    at = np.array([0, 16_000, 160_000])
    expected_s = at / 16_000 + 0.4 + 50e-6 * (at / 16_000 - t_mid_s)
    np.testing.assert_allclose(batch.audio_times_s(at), expected_s)


def test_a_batch_whose_sound_says_nothing_is_stored_without_it(
    lively: RawBatch, tmp_path: Path
) -> None:
    other = record(tmp_path / "a.wav", LIVELY, lag_s=0.4, seed=99)
    raw = dataclasses.replace(lively, audio=other)
    batch, summary = store(raw, tmp_path / "out", sync=QUICK)
    assert batch.audio is None
    assert any("the sound could not be aligned" in text for text in summary.warnings)
    assert "agree only" in batch.sync["streams"]["audio"]["left_out"]
    assert batch.sync["passed"]
    strict = dataclasses.replace(QUICK, audio_required=True)
    with pytest.raises(BadBatchError, match="loudness and power agree only"):
        store(raw, tmp_path / "strict", sync=strict)
    on_its_clock = dataclasses.replace(raw, labels_clock="microphone")
    with pytest.raises(BadBatchError, match="annotations: are on the clock 'microphone'"):
        store(on_its_clock, tmp_path / "noted", sync=QUICK)


def test_a_refused_batch_brings_its_report_and_figure(lively: RawBatch, tmp_path: Path) -> None:
    assert lively.signal is not None
    times_s, current = current_course(dataclasses.replace(LIVELY, seed=5))
    other = np.interp(lively.signal.times_s, times_s, current)[:, None] * np.ones(3)
    raw = dataclasses.replace(lively, signal=dataclasses.replace(lively.signal, values=other))
    with pytest.raises(BadBatchError, match="sync outside limits") as refused:
        store(raw, tmp_path / "out", sync=QUICK)
    report = refused.value.report
    assert report is not None
    assert not report["passed"]
    assert report["refused"] == str(refused.value)
    failed = [check["name"] for check in report["checks"] if not check["passed"]]
    assert failed == ["agreement_by_chance"]
    assert report["streams"]["video"]["counts"]["frames"] == 1200
    assert refused.value.figure is not None
    assert refused.value.figure.startswith(b"\x89PNG")


def test_a_batch_that_is_mostly_gaps_is_refused_with_the_share(tmp_path: Path) -> None:
    raw = read(deliver(tmp_path / "arrivals", scene=Scene(seconds=40.0)))
    assert raw.signal is not None
    times_s = raw.signal.times_s + 60.0 * (raw.signal.times_s > 20.0)
    raw = dataclasses.replace(raw, signal=dataclasses.replace(raw.signal, times_s=times_s))
    with pytest.raises(BadBatchError, match=r"together cover \d+% of the batch's 100 s; 50%") as it:
        store(raw, tmp_path / "out")
    assert it.value.report is not None
    assert it.value.report["coverage_share"] < 0.5
    batch, _ = store(
        raw, tmp_path / "loose", sync=dataclasses.replace(GIVEN, min_coverage_share=0.1)
    )
    assert batch.sync["limits"]["min_coverage_share"] == 0.1


def test_frames_between_two_resets_that_are_not_found_are_taken_out(
    lively: RawBatch, tmp_path: Path
) -> None:
    """The clock starts anew at 80 s, and again 5 s later: too short a stretch to be found."""
    assert lively.video is not None
    assert lively.video.times_s is not None
    pieces = np.searchsorted([80.0, 85.0], lively.video.times_s, side="right")
    own_s = lively.video.times_s - np.array([0.0, 80.0, 85.0])[pieces]
    video = dataclasses.replace(lively.video, times_s=own_s, pieces=pieces)
    batch, summary = store(dataclasses.replace(lively, video=video), tmp_path / "out", sync=QUICK)
    whole, _ = store(lively, tmp_path / "whole", sync=QUICK)
    assert batch.frames is not None
    assert whole.frames is not None
    assert batch.frame_times is not None
    kept = np.flatnonzero(pieces != 1)
    assert summary.counts["camera_clock_resets"] == 2
    assert 50 <= summary.counts["frames_not_placed"] <= 52  # up to two where stretches meet
    assert len(batch.frames) == len(batch.frame_times) == 1200 - summary.counts["frames_not_placed"]
    assert (np.diff(batch.frame_times) > 0).all()
    np.testing.assert_array_equal(batch.frames[-300:], whole.frames[kept[-300:]])
    assert np.abs(batch.frame_times[-300:] - (lively.video.times_s[kept[-300:]] - 0.9)).max() < 0.2
    told = batch.sync["streams"]["video"]["pieces"]
    assert [piece["lost"] is None for piece in told] == [True, False, True]
    assert any("could not be placed" in text for text in summary.warnings)
