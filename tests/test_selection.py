"""Which frames are chosen, and what each stands for."""

import dataclasses
import json
from pathlib import Path

import made
import numpy as np
import pytest
from deliveries import RATE_HZ, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.config import plain
from crosswatch.data.adapters.single import SingleAdapter
from crosswatch.data.batches import Batch, open_batch
from crosswatch.data.ingestion import IngestConfig, write_batch
from crosswatch.data.library import SOURCE
from crosswatch.data.originals import OriginalPlace
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.errors import BadBatchError
from crosswatch.features.pictures.selection import choose_frames, spans_of
from crosswatch.features.settings import SelectionConfig
from crosswatch.features.source import Source

SINGLE = IngestConfig(adapter="single", frame_px=16)


def source_of(batch: Batch, fetched: Path = Path("nowhere")) -> Source:
    place = OriginalPlace(ingest=plain(SINGLE), fetched=fetched, transfer=TransferConfig())
    source = Source(batch_id=batch.id, batch_digest=batch.digest, folder=batch.folder, place=place)
    vars(source)["batch"] = batch
    return source


def selection(by: str, every_s: float, **more: float) -> SelectionConfig:
    return SelectionConfig(by=by, every_s=every_s, **{"duplicate": 0.0, **more})


def coloured(levels: np.ndarray, *, segments: tuple = (), size_px: int = 16) -> Batch:
    """A frame a row of `levels` (T, 3), at 10 Hz."""
    rows = np.asarray(levels, np.uint8)
    batch = made.batch(seconds=len(rows) / 10, size_px=size_px, segments=segments or None)
    shape = (len(rows), size_px, size_px, 3)
    return dataclasses.replace(batch, frames=np.broadcast_to(rows[:, None, None], shape).copy())


RECORDINGS = st.lists(
    st.tuples(st.floats(0.0, 3.0), st.floats(0.3, 9.0)), min_size=1, max_size=4
).map(
    lambda parts: tuple(
        (sum(a + b for a, b in parts[:at]) + gap, sum(a + b for a, b in parts[: at + 1]))
        for at, (gap, _) in enumerate(parts)
    )
)


@settings(max_examples=150, deadline=None)
@given(
    by=st.sampled_from(["uniform", "scene"]),
    segments=RECORDINGS,
    every_s=st.floats(0.05, 4.0),
    change=st.sampled_from([0.0, 0.25, 1.0]),
    duplicate=st.sampled_from([0.0, 0.02, 1.0]),
    seed=st.integers(0, 5),
    jitter=st.floats(0.0, 0.04),
)
def test_chosen_frames_stand_for_each_recording_without_overlap(
    by: str,
    segments: tuple[tuple[float, float], ...],
    every_s: float,
    change: float,
    duplicate: float,
    seed: int,
    jitter: float,
) -> None:
    rng = np.random.default_rng(seed)
    levels = rng.integers(0, 255, (round(segments[-1][1] * 10) + 5, 3))
    batch = coloured(np.repeat(levels[::4], 4, axis=0)[: len(levels)], segments=segments)
    assert batch.frame_times is not None
    times_s = batch.frame_times + rng.uniform(0, jitter, len(batch.frame_times))
    source = source_of(dataclasses.replace(batch, frame_times=times_s))
    config = selection(by, every_s, scene_change=change, duplicate=duplicate)
    frames = choose_frames(source, config)
    spans_s = spans_of(source, frames)
    assert spans_s.shape == (frames.size, 2)
    assert (np.diff(frames) > 0).all()
    np.testing.assert_array_equal(spans_s[:, 0], times_s[frames])
    covered = np.zeros(frames.size, bool)
    for at, (start_s, stop_s) in enumerate(segments):
        taken = start_s <= times_s
        if at + 1 < len(segments):  # where two meet, the frame is the later one's
            taken &= times_s < segments[at + 1][0]
        inside = np.flatnonzero(taken & (times_s <= stop_s))
        rows = np.flatnonzero(np.isin(frames, inside))
        covered[rows] = True
        if inside.size:
            assert frames[rows[0]] == inside[0], "each recording begins with a frame"
            np.testing.assert_array_equal(spans_s[rows[1:], 0], spans_s[rows[:-1], 1])
            assert spans_s[rows[-1], 1] == stop_s
            apart_s = np.diff(times_s[frames[rows]])
            least_s = every_s - (0.05 if by == "scene" else 0.1 + jitter)
            assert (apart_s >= least_s - 1e-9).all()
    assert covered.all(), "nothing outside of the recordings"


def test_uniform_keeps_to_its_grid_however_long() -> None:
    source = source_of(made.batch(seconds=400.0, segments=((0.0, 100.0), (200.03, 400.0))))
    frames = choose_frames(source, selection("uniform", 0.7))
    assert source.batch.frame_times is not None
    times_s = source.batch.frame_times[frames]
    expected = np.concatenate([np.arange(0, 100.01, 0.7), 200.1 + np.arange(0, 199.81, 0.7)])
    np.testing.assert_allclose(times_s, expected, atol=0.05 + 1e-9)


def test_uniform_looks_at_every_frame_where_there_are_fewer() -> None:
    source = source_of(made.batch(seconds=10.0, drop=slice(20, 50)))
    frames = choose_frames(source, selection("uniform", 0.01))
    assert frames.tolist() == list(range(70))


@pytest.mark.parametrize("by", ["uniform", "keyframe", "scene"])
def test_a_batch_without_video_gives_none(by: str) -> None:
    source = source_of(made.batch(video_hz=0.0))
    frames = choose_frames(source, selection(by, 2.0))
    assert frames.shape == (0,)
    assert spans_of(source, frames).shape == (0, 2)


def test_a_recording_without_a_frame_gives_none() -> None:
    source = source_of(made.batch(seconds=9.0, segments=((0.0, 2.0), (2.01, 2.09), (3.0, 8.0))))
    frames = choose_frames(source, selection("uniform", 1.0))
    assert frames.tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 80]
    assert spans_of(source, frames)[:4].tolist() == [[0, 1], [1, 2], [2, 2], [3, 4]]


def test_where_two_recordings_meet_the_frame_is_the_later_one_s() -> None:
    source = source_of(made.batch(seconds=4.0, segments=((0.0, 2.0), (2.0, 4.0))))
    frames = choose_frames(source, selection("uniform", 1.0))
    assert spans_of(source, frames).tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]]


def noisy(levels: np.ndarray, *, sigma: float = 3.0, size_px: int = 32) -> Batch:
    batch = coloured(levels, size_px=size_px)
    assert batch.frames is not None
    noise = np.random.default_rng(3).normal(0, sigma, batch.frames.shape)
    frames = np.clip(batch.frames + noise, 0, 255).astype(np.uint8)
    return dataclasses.replace(batch, frames=frames)


@pytest.mark.parametrize("level", [10, 119, 127, 128, 136, 200])
def test_scene_finds_the_cuts_and_nothing_in_noise(level: int) -> None:
    """Also where the picture's grey lies between two levels of the histogram."""
    levels = np.repeat([[level] * 3, [level, 60, 220], [250, 240, 10]], [75, 60, 65], axis=0)
    frames = choose_frames(source_of(noisy(levels)), selection("scene", 1.0))
    assert frames.tolist() == [0, 75, 135]


def test_scene_is_the_same_wherever_blocks_end(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 255, (60, 3)).repeat(5, axis=0)
    found = []
    for count in (1, 7, 1000):
        monkeypatch.setattr(
            "crosswatch.features.pictures.selection.BLOCK_BYTES", count * 32 * 32 * 3
        )
        config = selection("scene", 0.3, duplicate=0.05)
        found.append(choose_frames(source_of(noisy(levels)), config).tolist())
    assert found[0] == found[1] == found[2]
    assert len(found[0]) > 40


def test_scene_waits_its_time() -> None:
    """A change that comes too soon is seen as soon as it may be, if it still stands."""
    levels = np.repeat([[0] * 3, [255] * 3, [0] * 3, [255] * 3], [30, 5, 30, 10], axis=0)
    frames = choose_frames(source_of(coloured(levels)), selection("scene", 2.0))
    assert frames.tolist() == [0, 30, 50, 70]


def test_scene_sees_a_slow_change_add_up() -> None:
    levels = np.repeat(np.arange(200)[:, None], 3, axis=1)
    frames = choose_frames(source_of(coloured(levels)), selection("scene", 0.1))
    assert 10 < frames.size < 100
    assert np.ptp(np.diff(frames)) <= 3


def test_near_duplicates_are_left_out_of_any_choice() -> None:
    levels = np.repeat([[50], [51], [90], [50]], [40, 40, 40, 40], axis=0).repeat(3, axis=1)
    source = source_of(coloured(levels, segments=((0.0, 7.9), (8.0, 16.0))))
    every = choose_frames(source, selection("uniform", 1.0))
    assert every.tolist() == list(range(0, 160, 10))
    fewer = choose_frames(source, selection("uniform", 1.0, duplicate=0.01))
    assert fewer.tolist() == [0, 80, 120], "the first of each recording, and what is new"
    assert spans_of(source, fewer).tolist() == [[0, 7.9], [8, 12], [12, 16]]
    drifting = source_of(coloured(np.arange(100)[:, None].repeat(3, axis=1)))
    kept = choose_frames(drifting, selection("uniform", 0.1, duplicate=0.05))
    assert set(np.diff(kept)) == {13}, "compared with the last one kept, not the one before"


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """A video of which every eighth picture is a keyframe."""
    folder = tmp_path_factory.mktemp("filmed")
    pictures = np.random.default_rng(1).integers(0, 255, (200, 32, 32, 3)).astype(np.uint8)
    encode(folder / "v.mp4", pictures)
    adapter = SingleAdapter()
    (arrival,) = adapter.find(folder / "v.mp4").arrivals
    (folder / "v").mkdir()
    write_batch(adapter.read(arrival), folder / "v", ingest=SINGLE, sync=SyncConfig())
    (folder / "v" / SOURCE).write_text(json.dumps({"path": str(folder / "v.mp4")}))
    batch = open_batch(folder / "v", batch_id=arrival.id, digest=arrival.digest)
    return source_of(batch, fetched=folder / "fetched")


def opened(source: Source, **changed: object) -> Source:
    return source_of(dataclasses.replace(source.batch, **changed), fetched=source.place.fetched)


@pytest.mark.parametrize(
    ("every_s", "expected"),
    [
        (0.1, range(0, 200, 8)),
        (8 / RATE_HZ, range(0, 200, 8)),
        (1.0, range(0, 200, 16)),
        (5.0, range(0, 200, 56)),
    ],
)
def test_keyframes_of_the_codec_are_chosen(filmed: Source, every_s: float, expected: range) -> None:
    frames = choose_frames(filmed, selection("keyframe", every_s))
    assert frames.tolist() == list(expected)


def test_a_clock_that_runs_a_little_fast_loses_no_keyframe(filmed: Source) -> None:
    times_s = np.asarray(filmed.batch.frame_times) * (1 - 1e-4)
    source = opened(filmed, frame_times=times_s)
    assert len(choose_frames(source, selection("keyframe", 0.8))) == 25


def test_a_recording_that_begins_between_keyframes_has_its_first_frame(filmed: Source) -> None:
    source = opened(filmed, segments=((0.3, 4.0), (10.1, 12.0)))
    frames = choose_frames(source, selection("keyframe", 0.8))
    assert frames.tolist() == [3, 16, 24, 32, 40, 101, 112, 120]


def test_keyframes_need_the_original(filmed: Source, tmp_path: Path) -> None:
    (tmp_path / SOURCE).write_text(json.dumps({"path": str(tmp_path / "gone.mp4")}))
    np.save(tmp_path / "frame_sources.npy", np.arange(200))
    gone = opened(filmed, folder=tmp_path)
    with pytest.raises(BadBatchError, match=r"gone\.mp4 is gone"):
        choose_frames(gone, selection("keyframe", 1.0))
    assert choose_frames(gone, selection("uniform", 1.0)).size == 20
