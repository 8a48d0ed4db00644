"""Motion and appearance of snippets: what moves where and how fast, whatever films it."""

import dataclasses
import pickle
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made_pictures import cosine, encoded, moving, source_of
from test_index import REAL

from crosswatch import experiment, stages
from crosswatch.config import plain
from crosswatch.data.batches import open_set
from crosswatch.data.store.settings import TransferConfig
from crosswatch.features.encoder import Input
from crosswatch.features.pictures.histograms import orientations, squash
from crosswatch.features.pictures.motion import FULL_SPEED, MotionEncoder
from crosswatch.features.pictures.snippets import grouped, snippets_of
from crosswatch.features.settings import MotionConfig
from crosswatch.features.source import sources_of

ENCODER = MotionEncoder(MotionConfig())
TIMES_S = np.arange(16) / 25


def vectors_of(folder: Path, pictures: list[np.ndarray] | Path, **options: object) -> np.ndarray:
    vectors, failed = encoded(ENCODER, source_of(folder, pictures, **options))
    assert not failed
    return np.stack([vectors[row] for row in sorted(vectors)])


def blocks(vector: np.ndarray) -> tuple[np.ndarray, ...]:
    """HOF, MBH, HOG and the rest: (4, 4, 8) each."""
    return tuple(vector.reshape(4, 4, 4, 8))


def motion_part(vector: np.ndarray) -> np.ndarray:
    hof, mbh, _, rest = blocks(vector)
    return np.concatenate([hof.ravel(), mbh.ravel(), rest[..., 6:].ravel()])


def test_what_stands_still_has_no_motion(tmp_path: Path) -> None:
    (vector,) = vectors_of(tmp_path, moving(np.zeros(16), velocity=(0, 0)))
    assert not motion_part(vector).any()
    assert (blocks(vector)[2].sum(axis=2) > 0.1).all(), "edges are seen all the same"


@pytest.mark.parametrize("turn", range(8))
def test_what_moves_one_way_counts_for_that_direction(tmp_path: Path, turn: int) -> None:
    angle = turn * np.pi / 4
    velocity = 0.3 * np.cos(angle), 0.3 * np.sin(angle)
    (vector,) = vectors_of(tmp_path, moving(TIMES_S, velocity=velocity))
    by_direction = blocks(vector)[0].mean(axis=(0, 1))
    assert by_direction.argmax() == turn
    assert by_direction[turn] > 2 * np.delete(by_direction, turn).max()


def test_speed_is_in_longer_sides_per_second(tmp_path: Path) -> None:
    last = np.zeros(32)
    for speed in (0.05, 0.1, 0.2, 0.4, 0.8):
        (vector,) = vectors_of(tmp_path, moving(TIMES_S, velocity=(speed, 0)))
        hof, _, _, rest = blocks(vector)
        inner = rest[1:3, 1:3, 7]  # textures enter and leave at the border
        np.testing.assert_allclose(inner, squash(np.array(speed), FULL_SPEED), atol=0.06)
        now = np.concatenate([hof[..., 0].ravel(), rest[..., 7].ravel()])
        assert (now > last).all()
        last = now


def test_only_what_moves_otherwise_than_its_surroundings_has_boundaries(tmp_path: Path) -> None:
    (alone,) = vectors_of(tmp_path, moving(TIMES_S, velocity=(0.3, 0), disc=True))
    (camera,) = vectors_of(tmp_path, moving(TIMES_S, velocity=(0.3, 0)))
    boundaries, shake = blocks(alone)[1], blocks(camera)[1]
    assert boundaries[1:3, 1:3].mean() > 2 * shake[1:3, 1:3].mean()
    assert boundaries[:, 3].mean() < 0.3 * boundaries[:, 1].mean(), "it is where the disc is"


@pytest.mark.parametrize("disc", [False, True])
def test_neither_frame_rate_nor_size_matters(tmp_path: Path, disc: bool) -> None:
    scene = {"velocity": (0.25, 0.1), "disc": disc}
    (plain_one,) = vectors_of(tmp_path, moving(TIMES_S, **scene))
    (slow,) = vectors_of(tmp_path, moving(TIMES_S[::2], **scene), rate_hz=12.5)
    (large,) = vectors_of(tmp_path, moving(TIMES_S, size=(320, 192), **scene))
    for other in (slow, large):
        assert cosine(plain_one, other) > 0.98
        assert cosine(motion_part(plain_one), motion_part(other)) > 0.9
        for strength in (6, 7):  # change and speed
            now, expected = blocks(other)[3][..., strength], blocks(plain_one)[3][..., strength]
            np.testing.assert_allclose(now.mean(), expected.mean(), atol=0.02)


def test_the_size_that_is_looked_at_changes_no_scale(tmp_path: Path) -> None:
    source = source_of(tmp_path, moving(TIMES_S, velocity=(0.25, 0.1), disc=True))
    small, large = (
        encoded(MotionEncoder(MotionConfig(size_px=px)), source)[0][0] for px in (96, 160)
    )
    for one, other in zip(blocks(small), blocks(large), strict=True):
        assert cosine(one.ravel(), other.ravel()) > 0.95
        assert one.mean() == pytest.approx(other.mean(), rel=0.1)


def test_a_mirrored_video_mirrors_cells_and_directions(tmp_path: Path) -> None:
    pictures = moving(TIMES_S, velocity=(0.25, 0.1), disc=True)
    (straight,) = vectors_of(tmp_path, pictures)
    (mirrored,) = vectors_of(tmp_path, [picture[:, ::-1] for picture in pictures])
    hof, mbh, hog, rest = (block[:, ::-1] for block in blocks(mirrored))
    half_turn = (-np.arange(8)) % 8
    of_boundaries = np.concatenate([(-np.arange(4)) % 4, 4 + (-np.arange(4)) % 4])
    back = [hof[..., (4 - np.arange(8)) % 8], mbh[..., of_boundaries], hog[..., half_turn], rest]
    for block, expected in zip(back, blocks(straight), strict=True):
        assert cosine(block.ravel(), expected.ravel()) > 0.97
    assert cosine(hof.ravel(), blocks(straight)[0].ravel()) < 0.7


def test_batch_size_order_and_company_change_no_row(tmp_path: Path) -> None:
    source = source_of(tmp_path, moving(np.arange(70) / 25, velocity=(0.2, 0.1), size=(64, 48)))
    all_at_once, _ = encoded(ENCODER, source)
    one_by_one, _ = encoded(ENCODER, source, batch_size=1)
    assert len(all_at_once) == 5
    model = ENCODER.load("cpu")
    for row in reversed(range(5)):
        (alone,) = ENCODER.inputs(source, np.array([row]))
        (vector,) = model([alone.values])
        for other in (all_at_once, one_by_one):
            np.testing.assert_array_equal(vector["motion"].values, other[row])
    assert vector["motion"].valid.shape == ()
    assert vector["motion"].valid
    assert not list(ENCODER.inputs(source, np.empty(0, np.int64)))


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4),
    frames=st.integers(2, 20),
    pause=st.integers(0, 5),
    stored=st.booleans(),
)
def test_snippets_stay_in_their_recording_and_last_until_the_next(
    tmp_path_factory: pytest.TempPathFactory,
    lengths: list[int],
    frames: int,
    pause: int,
    stored: bool,
) -> None:
    spans, start = [], 0
    for length in lengths:
        spans.append((start / 25, (start + length) / 25))
        start += length + pause
    source = source_of(
        tmp_path_factory.mktemp("s"), [], shown=range(start + 1), segments=tuple(spans)
    )
    if not stored:  # what the pauses show
        times_s = source.batch.frame_times
        inside = np.any([(times_s >= a) & (times_s <= b) for a, b in spans], axis=0)
        vars(source)["batch"] = dataclasses.replace(source.batch, frame_times=times_s[inside])
    encoder = MotionEncoder(MotionConfig(snippet_frames=frames))
    found = snippets_of(source.batch, frames)
    begins_s, until_s = encoder.spans_s(source).T
    times_s = source.batch.frame_times
    np.testing.assert_array_equal(begins_s, times_s[found.first])
    last_s = times_s[found.behind - 1]
    assert (until_s > last_s).all()
    assert (until_s <= last_s + 1 / 25 + 1e-9).all()
    assert (until_s[:-1] <= begins_s[1:] + 1e-9).all()
    assert len(found.first)


@pytest.mark.parametrize(
    "size", [(16, 16), (35, 51), (512, 16), (9, 300), (1, 1), (64, 47), (641, 361)]
)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_any_size_and_length_gives_numbers(
    tmp_path: Path, size: tuple[int, int], count: int
) -> None:
    (vector,) = vectors_of(tmp_path, moving(TIMES_S[:count], velocity=(0.2, 0), size=size))
    assert vector.shape == (512,)
    assert vector.dtype == np.float32
    assert np.isfinite(vector).all()
    if count == 1:
        assert not motion_part(vector).any()


def test_black_pictures_are_all_zero_and_noise_is_finite(tmp_path: Path) -> None:
    (black,) = vectors_of(tmp_path, [np.zeros((48, 64, 3), np.uint8)] * 16)
    np.testing.assert_allclose(black, 0, atol=1e-6)
    noise = np.random.default_rng(0).integers(0, 256, (16, 48, 64, 3), np.uint8)
    (wild,) = vectors_of(tmp_path, list(noise))
    assert np.isfinite(wild).all()
    assert -1 <= wild.min() <= wild.max() < 2


def test_a_camera_may_change_its_size_on_the_way(tmp_path: Path) -> None:
    pictures = moving(TIMES_S, velocity=(0.2, 0))
    (steady,) = vectors_of(tmp_path, pictures)
    larger = moving(TIMES_S[8:], velocity=(0.2, 0), size=(320, 160))
    (changing,) = vectors_of(tmp_path, pictures[:8] + larger)
    assert cosine(motion_part(steady), motion_part(changing)) > 0.95


def test_what_happens_while_pictures_are_lost_is_not_motion(tmp_path: Path) -> None:
    here = moving(np.zeros(8), velocity=(0, 0))
    there = moving(np.full(8, 0.2), velocity=(1.0, 0.5))
    (seen,) = vectors_of(tmp_path, here + there)
    (unseen,) = vectors_of(tmp_path, here + there, missing=(7,))
    assert motion_part(seen).any()
    assert not motion_part(unseen).any()


def test_a_lost_picture_costs_its_pairs_alone(tmp_path: Path) -> None:
    pictures = moving(np.arange(48) / 25, velocity=(0.2, 0.1), size=(64, 48))
    whole = vectors_of(tmp_path, pictures)
    lost = vectors_of(tmp_path, pictures, missing=(20, 21))
    np.testing.assert_array_equal(lost[[0, 2]], whole[[0, 2]])
    assert (lost[1] != whole[1]).any()
    assert cosine(motion_part(lost[1]), motion_part(whole[1])) > 0.99
    np.testing.assert_allclose(blocks(lost[1])[3][..., 7], blocks(whole[1])[3][..., 7], atol=0.05)
    # When it was ingested it was lost as well: the frame before it is stored again.
    shown = [19 if at in (20, 21) else at for at in range(48)]
    repeated = vectors_of(tmp_path, pictures, shown=shown)
    np.testing.assert_array_equal(repeated, lost)


def test_a_row_fails_where_half_its_pictures_are_lost(tmp_path: Path) -> None:
    pictures = moving(np.arange(50) / 25, velocity=(0.2, 0.1), size=(64, 48))
    missing = (*range(16, 25), *range(33, 48, 2), 49)
    vectors, failed = encoded(ENCODER, source_of(tmp_path, pictures, missing=missing))
    assert sorted(vectors) == [0]
    assert failed[1].startswith("7 of its 16 pictures can be decoded; half of them")
    assert failed[2].startswith("no two successive pictures of its 16 can be compared")
    assert failed[3].startswith("no two successive pictures of its 2")
    missing = tuple(range(8))
    vectors, failed = encoded(ENCODER, source_of(tmp_path, pictures[:33], missing=(*missing, 32)))
    assert sorted(vectors) == [0, 1]
    assert failed[2].startswith("0 of its 1 pictures")


@given(
    st.lists(st.lists(st.integers(0, 30), max_size=5), max_size=6),
    st.sets(st.integers(0, 30), max_size=5),
)
def test_each_group_gets_its_pictures_whatever_the_order(
    wanted: list[list[int]], lost: set[int]
) -> None:
    come = [(at, str(at)) for at in range(31) if at not in lost]
    found = list(grouped(iter(come), [np.array(group, np.int64) for group in wanted]))
    assert sorted(number for number, _ in found) == list(range(len(wanted)))
    for number, pictures in found:
        assert pictures == {at: str(at) for at in wanted[number] if at not in lost}


def test_a_group_is_done_before_the_next_one_begins_and_then_forgotten() -> None:
    class Picture: ...

    alive: weakref.WeakSet[Picture] = weakref.WeakSet()

    def come() -> Iterator[tuple[int, Picture]]:
        for at in range(1000):
            picture = Picture()
            alive.add(picture)
            yield at, picture

    most = 0
    for number, pictures in grouped(come(), [np.arange(k, k + 10) for k in range(0, 1000, 10)]):
        assert list(pictures) == list(range(10 * number, 10 * number + 10))
        most = max(most, len(alive))
    assert most < 25


FORMATS = {
    "yuv420p": ("v.mp4", "libx264"),
    "yuv444p": ("v.mp4", "libx264"),
    "yuv420p10le": ("v.mp4", "libx264"),
    "yuvj420p": ("v.avi", "mjpeg"),
    "gbrp": ("v.avi", "utvideo"),
    "rgb24": ("v.mov", "qtrle"),
}


@pytest.mark.parametrize("form", FORMATS)
def test_pixel_formats_tell_the_same(tmp_path: Path, form: str) -> None:
    pictures = moving(TIMES_S, velocity=(0.2, 0.1), disc=True)
    name, codec = FORMATS[form]
    with av.open(str(tmp_path / name), "w") as out:
        stream = out.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, form
        if codec == "libx264":
            stream.options = {"crf": "8", "threads": "1"}
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            out.mux(stream.encode(frame.reformat(format=form)))
        out.mux(stream.encode())
    (from_file,) = vectors_of(tmp_path, tmp_path / name)
    (from_stills,) = vectors_of(tmp_path, pictures)
    for one, other in zip(blocks(from_file), blocks(from_stills), strict=True):
        assert cosine(one.ravel(), other.ravel()) > 0.95
    np.testing.assert_allclose(
        blocks(from_file)[3][..., :6], blocks(from_stills)[3][..., :6], atol=0.05
    )


VECTORS = arrays.arrays(
    np.float32, (2, 2, 8, 12), elements=st.floats(-5, 5, width=32, allow_subnormal=False)
)


@settings(max_examples=40, deadline=None)
@given(VECTORS, st.booleans())
def test_bins_share_out_the_mean_length(vectors: np.ndarray, signed: bool) -> None:
    found = orientations(vectors[0], vectors[1], signed=signed)
    length = np.hypot(*vectors).reshape(2, 4, 2, 4, 3).mean(axis=(0, 2, 4))
    assert found.min() >= -1e-6
    np.testing.assert_allclose(found.sum(axis=2), length, atol=1e-4)
    turned = orientations(-vectors[0], -vectors[1], signed=signed)
    np.testing.assert_allclose(turned, np.roll(found, 4, axis=2) if signed else found, atol=0.05)


@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_the_scale_keeps_the_order_of_strengths(one: float, other: float) -> None:
    small, large = (float(squash(np.array(v), 5.0)) for v in sorted((one, other)))
    assert 0 <= small <= large
    assert float(squash(np.array(5.0), 5.0)) == pytest.approx(1)


def test_the_identity_names_every_setting(tmp_path: Path) -> None:
    config = MotionConfig()
    others = [
        dataclasses.replace(config, snippet_frames=8),
        dataclasses.replace(config, size_px=64),
    ]
    digests = {MotionEncoder(each).identity.digest for each in (config, *others)}
    assert len(digests) == 3
    sent = pickle.loads(pickle.dumps(ENCODER))
    assert sent == ENCODER
    assert sent.identity.digest == ENCODER.identity.digest


def test_a_batch_without_video_has_no_rows(tmp_path: Path) -> None:
    source = source_of(tmp_path, [np.zeros((8, 8, 3), np.uint8)] * 3)
    vars(source)["batch"] = dataclasses.replace(source.batch, frames=None, frame_times=None)
    assert ENCODER.spans_s(source).shape == (0, 2)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/fight_surv is absent")
def test_real_clips(tmp_path: Path) -> None:
    names = ("src02", "src04", "src07", "src13", "src15", "src20")
    lines = (REAL / "index.csv").read_text().splitlines()
    here = tmp_path / "here"
    here.mkdir()
    some = [line for line in lines if line.endswith((",source", *names))]
    (here / "index.csv").write_text("\n".join(some))
    (here / "clips").symlink_to((REAL / "clips_h160").resolve())
    index = {"root": "clips", "label": "label_fight"}
    config = plain(experiment.resolve("clips", {"ingest": {"index": index}}))
    out = tmp_path / "batches"
    stages.run("ingest", values=config, paths={"arrivals": here, "out": out})
    found = sources_of(out, open_set(out), fetched=tmp_path / "fetched", transfer=TransferConfig())
    assert len(found) == len(names)
    for source in found:
        spans_s = ENCODER.spans_s(source)
        vectors, failed = encoded(ENCODER, source)
        assert not failed
        assert len(vectors) == len(spans_s) >= len(source.batch.segments)
        values = np.stack([vectors[row] for row in range(len(vectors))])
        assert values.shape[1:] == (512,)
        assert np.isfinite(values).all()
        assert values.min() > -1.5
        assert values.max() < 1.5
        assert values.std(axis=0).max() > 0.01
        assert isinstance(next(ENCODER.inputs(source, np.array([0]))), Input)
