"""From a delivery to a synchronised batch: what is stored, repaired and counted."""

import dataclasses
import itertools
from pathlib import Path

import av
import numpy as np
import pytest
from deliveries import RATE_HZ, Scene, deliver, edit_json, encode, film, seal
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from stored import GIVEN, SMALL, read, store

from crosswatch import config
from crosswatch.data import signals
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.raw import RawBatch
from crosswatch.data.signals import RawSignal, repair
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import Event

SCENE = Scene(seconds=40.0)
ASSETS = Path(__file__).parents[1].parent / "shared" / "data" / "decode_assets"


@pytest.fixture(scope="module")
def delivery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return deliver(tmp_path_factory.mktemp("arrivals"), scene=SCENE)


def test_a_batch_opens_as_memory_maps_on_one_clock(delivery: Path, tmp_path: Path) -> None:
    batch, summary = store(read(delivery), tmp_path / "out")
    assert isinstance(batch.frames, np.memmap)
    assert isinstance(batch.signal, np.memmap)
    assert batch.frame_times is not None
    assert batch.signal_times is not None
    assert (batch.frames.shape, batch.frames.dtype) == ((400, 16, 16, 3), np.uint8)
    assert (batch.signal.shape, batch.signal.dtype) == ((80, 3), np.float32)
    assert batch.frame_times.dtype == batch.signal_times.dtype == np.float64
    np.testing.assert_allclose(batch.frame_times, np.arange(400) / RATE_HZ + SCENE.offset_s)
    np.testing.assert_allclose(batch.signal_times, np.arange(80) / 2)
    assert (batch.video_rate_hz, batch.signal_rate_hz) == (RATE_HZ, 2.0)
    assert batch.segments == (pytest.approx((0.7, 39.5)),)
    assert batch.sync["passed"]
    assert summary.warnings == ()
    assert summary.counts["frames"] == 400


def test_stored_frames_are_the_area_mean_of_the_pictures(delivery: Path, tmp_path: Path) -> None:
    batch, _ = store(read(delivery), tmp_path / "out")
    assert batch.frames is not None
    pictures = film(SCENE, np.arange(400) / RATE_HZ)
    expected = pictures.reshape(400, 16, 2, 16, 2, 3).mean((2, 4))
    assert np.abs(batch.frames - expected).mean() < 3  # the codec loses a little


def test_boxes_follow_the_pictures_through_crop_and_resize(delivery: Path, tmp_path: Path) -> None:
    whole, _ = store(read(delivery), tmp_path / "whole")
    cropped, _ = store(
        read(delivery),
        tmp_path / "crop",
        ingest=IngestConfig(frame_px=16, crop_xywh_px=(4, 12, 8, 16)),
    )
    # drawn as (8, 16, 4, 8) on 32x32 pixels
    assert whole.keyframes[0].box_xywh_px == (4.0, 8.0, 2.0, 4.0)
    assert cropped.keyframes[0].box_xywh_px == (8.0, 4.0, 8.0, 8.0)


def test_notes_drawn_on_a_larger_picture_are_scaled(delivery: Path, tmp_path: Path) -> None:
    raw = dataclasses.replace(read(delivery), frame_size_px=(64, 128))
    batch, _ = store(raw, tmp_path / "out")
    assert batch.keyframes[0].box_xywh_px == (2.0, 2.0, 1.0, 1.0)


def test_a_crop_outside_the_pictures_is_refused(delivery: Path, tmp_path: Path) -> None:
    ingest = IngestConfig(frame_px=16, crop_xywh_px=(20, 0, 16, 16))
    with pytest.raises(BadBatchError, match=r"reaches 36x16; the pictures are 32x32"):
        store(read(delivery), tmp_path / "out", ingest=ingest)


def test_notes_outside_of_data_or_crop_are_left_out_and_counted(
    delivery: Path, tmp_path: Path
) -> None:
    raw = read(delivery)
    late = Event(class_name="semi_molten", onset_s=90.0, apex_s=91.0, offset_s=92.0)
    raw = dataclasses.replace(raw, events=(*raw.events, late))
    ingest = IngestConfig(frame_px=16, crop_xywh_px=(16, 0, 16, 16))
    batch, summary = store(raw, tmp_path / "out", ingest=ingest)
    assert len(batch.events) == 1
    assert batch.keyframes == ()
    assert summary.counts["labels_skipped"] == 2
    assert summary.warnings == ("2 notes lie outside of the data or of the crop and were left out",)


def test_notes_on_the_cameras_clock_move_with_it(delivery: Path, tmp_path: Path) -> None:
    raw = read(delivery)
    on_control, _ = store(raw, tmp_path / "control")
    on_camera, _ = store(dataclasses.replace(raw, labels_clock="camera"), tmp_path / "camera")
    assert on_camera.events[0].apex_s == pytest.approx(on_control.events[0].apex_s + 0.7)
    assert on_camera.keyframes[0].time_s == pytest.approx(on_control.keyframes[0].time_s + 0.7)


def test_streams_on_one_clock_need_no_alignment(delivery: Path, tmp_path: Path) -> None:
    raw = read(delivery)
    assert raw.video is not None
    raw = dataclasses.replace(raw, video=dataclasses.replace(raw.video, clock="control"))
    batch, _ = store(raw, tmp_path / "out", sync=SyncConfig())
    assert batch.frame_times is not None
    np.testing.assert_allclose(batch.frame_times, np.arange(400) / RATE_HZ)
    assert batch.sync["streams"]["video"]["method"] == "one clock, nothing to align"


def test_doubled_frames_are_taken_once(tmp_path: Path) -> None:
    camera_s = np.arange(200) / RATE_HZ
    twice = np.sort(np.concatenate([camera_s, camera_s[[20, 21, 90]] + 0.001, camera_s[[150]]]))
    folder = deliver(tmp_path, scene=Scene(seconds=20), camera_s=twice)
    batch, summary = store(read(folder), tmp_path / "out")
    assert batch.frames is not None
    assert batch.frame_times is not None
    assert len(batch.frames) == len(batch.frame_times) == 200
    assert summary.counts["frames_doubled"] == 4
    assert batch.sync["streams"]["video"]["counts"]["frames_doubled"] == 4
    np.testing.assert_allclose(batch.frame_times, camera_s + 0.7)


def test_dropped_frames_are_counted_and_a_long_gap_ends_a_segment(tmp_path: Path) -> None:
    camera_s = np.delete(np.arange(400) / RATE_HZ, [50, 51, 300])
    camera_s = camera_s[(camera_s < 12.0) | (camera_s >= 18.0)]
    folder = deliver(tmp_path, scene=SCENE, camera_s=camera_s)
    batch, _ = store(read(folder), tmp_path / "out")
    told = batch.sync["streams"]["video"]
    assert told["counts"]["frames_dropped"] == 3
    assert told["gaps"] == [pytest.approx([12.6, 18.7])]
    assert batch.segments == (pytest.approx((0.7, 12.6)), pytest.approx((18.7, 39.5)))


def test_streams_that_are_never_there_together_are_refused(delivery: Path, tmp_path: Path) -> None:
    raw = read(delivery)
    assert raw.signal is not None
    times_s = raw.signal.times_s + 100.0 * (raw.signal.times_s > 3.0)
    signal = dataclasses.replace(raw.signal, times_s=times_s)
    sync = SyncConfig(estimate="given", camera_lag_s=4.0)  # the video lies in the signal's gap
    with pytest.raises(BadBatchError, match="never speak together"):
        store(dataclasses.replace(raw, signal=signal), tmp_path / "out", sync=sync)


def test_a_short_gap_does_not_end_a_segment(tmp_path: Path) -> None:
    camera_s = np.arange(400) / RATE_HZ
    camera_s = camera_s[(camera_s < 12.0) | (camera_s >= 14.0)]
    folder = deliver(tmp_path, scene=SCENE, camera_s=camera_s)
    batch, _ = store(read(folder), tmp_path / "a")
    assert len(batch.segments) == 1
    strict = dataclasses.replace(GIVEN, max_gap_s=1.5)
    batch, _ = store(read(folder), tmp_path / "b", sync=strict)
    assert len(batch.segments) == 2


def test_a_few_broken_samples_are_filled_and_counted(delivery: Path, tmp_path: Path) -> None:
    raw = read(delivery)
    assert raw.signal is not None
    values = raw.signal.values.copy()
    values[10, 1] = np.nan
    values[11, 1] = np.inf
    raw = dataclasses.replace(raw, signal=dataclasses.replace(raw.signal, values=values))
    batch, summary = store(raw, tmp_path / "out")
    assert batch.signal is not None
    assert len(batch.signal) == 80
    assert np.all(batch.signal[10:12, 1] == np.float32(values[9, 1]))
    np.testing.assert_array_equal(batch.signal[10:12, 0], values[10:12, 0].astype(np.float32))
    assert summary.warnings == (
        "2 samples held NaN and were filled with the last value, or left as a gap",
    )


def test_single_broken_pictures_repeat_the_one_before(tmp_path: Path) -> None:
    folder = deliver(tmp_path, scene=SCENE)
    damage_picture(folder / "video.mp4", number=203)
    seal(folder, lambda _: None)
    batch, summary = store(
        read(folder), tmp_path / "out", ingest=IngestConfig(frame_px=16, max_bad_frames_share=0.1)
    )
    assert batch.frames is not None
    assert len(batch.frames) == 400
    assert 1 <= summary.counts["frames_repaired"] <= 8  # up to the next key picture
    np.testing.assert_array_equal(batch.frames[203], batch.frames[202])
    assert "frames could not be decoded" in summary.warnings[0]


def damage_picture(path: Path, *, number: int) -> None:
    """Overwrite one compressed picture in the file."""
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        packets.sort(key=lambda packet: packet.pts)
        start, size = packets[number].pos, packets[number].size
    data = bytearray(path.read_bytes())
    data[start + 4 : start + size] = b"\xff" * (size - 4)
    path.write_bytes(bytes(data))


def test_a_times_file_one_row_too_long_is_a_warning(tmp_path: Path) -> None:
    folder = deliver(tmp_path, scene=SCENE)

    def add_row(batch: Path) -> None:
        with (batch / "video_times.csv").open("a") as stream:
            stream.write("400,40.0\n")

    batch, summary = store(read(seal(folder, add_row)), tmp_path / "out")
    assert batch.frames is not None
    assert len(batch.frames) == 400
    assert summary.warnings == ("1 times at the end have no frame",)


def test_without_a_times_file_the_videos_own_times_count(tmp_path: Path) -> None:
    folder = deliver(tmp_path, scene=SCENE)
    seal(
        folder,
        lambda batch: edit_json(
            batch / "batch.json", lambda told: told["streams"]["video"].update(times=None)
        ),
    )
    batch, _ = store(read(folder), tmp_path / "out")
    assert batch.frame_times is not None
    np.testing.assert_allclose(batch.frame_times, np.arange(400) / RATE_HZ + 0.7, atol=1e-4)


@pytest.mark.skipif(not ASSETS.is_dir(), reason="../shared/data/decode_assets is absent")
@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("av1_video.mkv", 125),
        ("bt601_limited_range.mp4", 60),
        ("discard_first_keyframe.mp4", 25),
        ("h264_10bits.mp4", 30),
        ("h265_video.mp4", 10),
        ("nasa_13013.mp4", 325),
    ],
)
def test_videos_of_many_makes_are_read_whole(name: str, frames: int, tmp_path: Path) -> None:
    with av.open(str(ASSETS / name)) as container:
        rate_hz = float(container.streams.video[0].average_rate or 0)
    raw = RawBatch(
        id="b",
        plant="p",
        started_at="2025-01-06T06:00:00Z",
        video=RawVideo(path=ASSETS / name, times_s=None, rate_hz=rate_hz),
        signal=None,
    )
    batch, summary = store(raw, tmp_path / "out")
    assert batch.frames is not None
    assert len(batch.frames) == frames
    assert summary.counts["frames_repaired"] == 0
    assert all(frame.std() > 1 for frame in batch.frames)


def test_streams_that_share_no_time_are_refused(delivery: Path, tmp_path: Path) -> None:
    sync = SyncConfig(estimate="given", camera_lag_s=500.0)
    with pytest.raises(BadBatchError, match=r"share no time \(frame 500\.0\.\.539\.9 s; signal"):
        store(read(delivery), tmp_path / "out", sync=sync)


def test_progress_hears_every_picture(delivery: Path, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    (tmp_path / "out").mkdir()
    write_batch(
        read(delivery),
        tmp_path / "out",
        ingest=SMALL,
        sync=GIVEN,
        progress=lambda done, total: heard.append((done, total)),
    )
    assert heard == [(done, 400) for done in range(1, 401)]


def test_a_video_alone_is_a_batch(tmp_path: Path) -> None:
    encode(tmp_path / "v.mp4", film(SCENE, np.arange(50) / RATE_HZ))
    raw = RawBatch(
        id="b",
        plant="p",
        started_at="2025-01-06T06:00:00Z",
        video=RawVideo(path=tmp_path / "v.mp4", times_s=None, rate_hz=RATE_HZ),
        signal=None,
    )
    batch, _ = store(raw, tmp_path / "out", sync=SyncConfig())
    assert batch.signal is None
    assert batch.signal_rate_hz == 0.0
    assert batch.span_s == pytest.approx((0.0, 4.9))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frame_px": 4}, "frame_px is 4; at least 8"),
        ({"crop_xywh_px": [1, 2, 3]}, r"crop_xywh_px is \[1, 2, 3\]"),
        ({"classes": ["a", "a"]}, "have to be different"),
        ({"max_nan_share": 1.5}, "max_nan_share is 1.5"),
        ({"adapter": "arival"}, "Did you mean 'arrival'"),
    ],
)
def test_settings_that_cannot_work_are_refused(values: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.build(IngestConfig, values, where="ingest")


def as_signal(values: np.ndarray, times_s: np.ndarray | None = None) -> RawSignal:
    return RawSignal(
        values=values,
        times_s=np.arange(len(values)) / 2 if times_s is None else times_s,
        columns=tuple(f"c{at}" for at in range(values.shape[1])),
        unit="A",
        rate_hz=2.0,
    )


@settings(max_examples=80, deadline=None)
@given(
    values=arrays.arrays(
        np.float64,
        st.tuples(st.integers(4, 40), st.integers(1, 3)),
        elements=st.one_of(st.floats(-1e4, 1e4), st.just(np.nan)),
    )
)
def test_repair_leaves_no_nan_and_invents_no_value(values: np.ndarray) -> None:
    try:
        found = repair(as_signal(values), max_nan_share=0.5, max_fill_s=2.0)
    except BadBatchError:
        assert (
            np.isnan(values).mean(axis=0).max() > 0.5 or np.isnan(values).any(axis=1).mean() > 0.5
        )
        return
    assert np.isfinite(found.values).all()
    assert (np.diff(found.times_s) > 0).all()
    assert found.nan_samples == np.isnan(values).any(axis=1).sum()
    for column in range(values.shape[1]):
        known = values[:, column].astype(np.float32)
        assert set(found.values[:, column]) <= set(known[np.isfinite(known)])
    whole = np.flatnonzero(~np.isnan(values).any(axis=1))
    at = np.searchsorted(found.times_s, whole / 2)
    np.testing.assert_array_equal(found.values[at], values[whole].astype(np.float32))


@settings(max_examples=80, deadline=None)
@given(missing=st.sets(st.integers(1, 98), max_size=60))
def test_short_holes_are_filled_to_the_rate_and_long_ones_stay(missing: set[int]) -> None:
    there = np.array([at for at in range(100) if at not in missing])
    found = repair(
        as_signal(there[:, None].astype(float), there / 2), max_nan_share=0.0, max_fill_s=2.0
    )
    expected = [
        at
        for start, stop in itertools.pairwise(there)
        for at in (range(start, stop) if (stop - start) / 2 <= 2.0 else [start])
    ]
    np.testing.assert_allclose(found.times_s, np.array([*expected, there[-1]]) / 2)
    gaps = signals.find_gaps(found.times_s, longer_than_s=2.0)
    assert len(gaps) == (np.diff(there) > 4).sum()


def test_doubled_samples_are_taken_once() -> None:
    times_s = np.array([0.0, 0.5, 0.5, 1.0, 1.5])
    found = repair(as_signal(np.arange(5.0)[:, None], times_s), max_nan_share=0.0, max_fill_s=2.0)
    assert found.doubled == 1
    np.testing.assert_array_equal(found.values[:, 0], [0, 1, 3, 4])
