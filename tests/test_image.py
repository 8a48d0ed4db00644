"""One vector a chosen frame: what of a picture appearance tells, and that CLIP's comes through."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
import tiny_clip
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays
from made_pictures import encoded, moving, source_of

from crosswatch.errors import UserError
from crosswatch.features.pictures import appearance
from crosswatch.features.pictures.clip import ClipTower
from crosswatch.features.pictures.image import ImageEncoder
from crosswatch.features.pictures.selection import choose_frames, spans_of
from crosswatch.features.settings import ClipConfig, ImageConfig, SelectionConfig
from crosswatch.records import WeightsConfig

EVERY = SelectionConfig(every_s=0.2, duplicate=0.0)
CONFIG = ImageConfig(frames=EVERY)
ENCODER = ImageEncoder(CONFIG, ClipConfig(), "fp32")
SHARES = {
    "colour": slice(0, 8),
    "brightness": slice(8, 12),
    "hog": slice(12, 20),
    "texture": slice(20, 30),
}
SIZE = (128, 72)  # is not shrunk


def cells(vector: np.ndarray) -> np.ndarray:
    return vector.reshape(4, 4, 32)


def flat(red: int, green: int, blue: int) -> np.ndarray:
    return np.full((72, 128, 3), (red, green, blue), np.uint8)


PICTURES = arrays.arrays(np.uint8, (32, 40, 3))


@settings(max_examples=40, deadline=None)
@given(PICTURES)
def test_every_number_lies_on_its_scale(picture: np.ndarray) -> None:
    found = cells(appearance.describe(picture))
    assert found.dtype == np.float32
    for name in ("brightness", "texture"):
        np.testing.assert_allclose((found[..., SHARES[name]] ** 2).sum(axis=2), 1, atol=1e-5)
    assert ((found[..., SHARES["colour"]] ** 2).sum(axis=2) <= 1 + 1e-5).all()
    assert found.min() >= 0
    assert found[..., 30:].max() <= 1 + 1e-6
    assert found.max() < 1.5


@settings(max_examples=40, deadline=None)
@given(PICTURES)
def test_a_mirrored_picture_mirrors_cells_and_gradients(picture: np.ndarray) -> None:
    straight = cells(appearance.describe(picture))
    mirrored = cells(appearance.describe(np.ascontiguousarray(picture[:, ::-1])))[:, ::-1]
    hog = mirrored[..., SHARES["hog"]][..., (-np.arange(8)) % 8]
    np.testing.assert_allclose(hog, straight[..., SHARES["hog"]], atol=0.05)
    for part in (slice(0, 12), slice(20, 32)):
        np.testing.assert_allclose(mirrored[..., part], straight[..., part], atol=1e-5)


@pytest.mark.parametrize(
    ("colour", "hue"),
    [((255, 0, 0), 0), ((0, 255, 0), 8 / 3), ((0, 0, 255), 16 / 3), ((0, 200, 200), 4)],
)
def test_a_colour_counts_for_its_hue(colour: tuple[int, int, int], hue: float) -> None:
    found = cells(appearance.describe(flat(*colour)))[..., SHARES["colour"]] ** 2
    near = [int(hue), int(np.ceil(hue)) % 8]
    expected = max(colour) / 255
    np.testing.assert_allclose(found[..., sorted(set(near))].sum(axis=2), expected, atol=0.01)
    if len(set(near)) == 2:
        share = found[0, 0, near[1]] / expected
        assert share == pytest.approx(hue % 1, abs=0.02)


def test_grey_has_no_colour_and_lies_between_its_levels() -> None:
    for grey, expected in ((0, [1, 0, 0, 0]), (255, [0, 0, 0, 1]), (127.5, [0, 0.5, 0.5, 0])):
        found = cells(appearance.describe(flat(*(round(grey),) * 3)))
        assert found[..., SHARES["colour"]].max() < 1e-3
        squares = found[..., SHARES["brightness"]] ** 2
        np.testing.assert_allclose(squares, np.broadcast_to(expected, squares.shape), atol=0.01)
        assert not found[..., SHARES["hog"]].any()
        assert not found[..., 30:].any()


def test_stripes_count_for_the_direction_that_they_change_in() -> None:
    picture = flat(0, 0, 0)
    picture[:, ::8] = picture[:, 1::8] = 255
    upright = cells(appearance.describe(picture))
    assert (upright[..., SHARES["hog"]].argmax(axis=2) == 0).all()
    lying = cells(appearance.describe(np.ascontiguousarray(picture[:72, :72].transpose(1, 0, 2))))
    assert (lying[..., SHARES["hog"]].argmax(axis=2) == 4).all()
    assert (upright[..., 30] > 0.3).all(), "edges"
    half = flat(0, 0, 0)
    half[:, ::2] = 255
    np.testing.assert_allclose(cells(appearance.describe(half))[..., 31], 1, atol=1e-3)


def test_patterns_are_those_of_the_paper() -> None:
    grey = np.full((5, 5), 10, np.uint8)
    grey[2, 2] = 20
    assert appearance.patterns(grey)[2, 2] == 0, "a bright spot"
    assert appearance.patterns(255 - grey)[2, 2] == 8, "a dark spot"
    edge = np.repeat(np.uint8([[10, 10, 20, 20, 20]]), 5, axis=0)
    assert appearance.patterns(edge)[2].tolist() == [8, 8, 5, 8, 8]
    board = (np.indices((5, 5)).sum(axis=0) % 2 * 9).astype(np.uint8)
    assert appearance.patterns(board)[2, 3] == 9, "four runs"


@pytest.mark.parametrize("size", [(16, 16), (1, 1), (35, 51), (512, 16), (641, 361)])
def test_any_size_gives_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    source = source_of(tmp_path, moving(np.arange(6) / 5, velocity=(0.2, 0), size=size))
    vectors, failed = encoded(ENCODER, source)
    assert not failed
    for vector in vectors.values():
        assert vector.shape == (512,)
        assert np.isfinite(vector).all()


def test_rows_are_the_chosen_frames_and_change_with_nothing_else(tmp_path: Path) -> None:
    pictures = moving(np.arange(50) / 25, velocity=(0.2, 0.1), size=SIZE)
    source = source_of(tmp_path, pictures)
    frames = choose_frames(source, EVERY)
    np.testing.assert_array_equal(ENCODER.spans_s(source), spans_of(source, frames))
    vectors, _ = encoded(ENCODER, source)
    one_by_one, _ = encoded(ENCODER, source, batch_size=1)
    assert sorted(vectors) == list(range(10)) == list(range(len(frames)))
    for row, frame in enumerate(frames):
        np.testing.assert_array_equal(vectors[row], appearance.describe(pictures[frame]))
        np.testing.assert_array_equal(vectors[row], one_by_one[row])
    (alone,) = ENCODER.inputs(source, np.array([7]))
    (vector,) = ENCODER.load("cpu")([alone.values])
    np.testing.assert_array_equal(vector["image"].values, vectors[7])
    assert vector["image"].valid.shape == ()
    assert vector["image"].valid


def test_a_lost_picture_fails_its_row_alone(tmp_path: Path) -> None:
    pictures = moving(np.arange(50) / 25, velocity=(0.2, 0.1), size=SIZE)
    whole, _ = encoded(ENCODER, source_of(tmp_path, pictures))
    vectors, failed = encoded(ENCODER, source_of(tmp_path, pictures, missing=(10, 45)))
    assert list(failed) == [2, 9]
    assert "cannot be decoded" in failed[2]
    assert sorted(vectors) == [0, 1, 3, 4, 5, 6, 7, 8]
    for row, vector in vectors.items():
        np.testing.assert_array_equal(vector, whole[row])


@pytest.fixture(scope="module")
def clip_config(tmp_path_factory: pytest.TempPathFactory) -> ClipConfig:
    folder = tiny_clip.save_folder(tmp_path_factory.mktemp("clip"))
    return ClipConfig(weights=WeightsConfig(source=str(folder)))


def test_from_clip_it_is_what_the_tower_says(tmp_path: Path, clip_config: ClipConfig) -> None:
    pictures = moving(np.arange(20) / 25, velocity=(0.2, 0.1), size=SIZE)
    source = source_of(tmp_path, pictures)
    config = dataclasses.replace(CONFIG, source="clip")
    encoder = ImageEncoder(config, clip_config, "fp32")
    vectors, failed = encoded(pickle.loads(pickle.dumps(encoder)), source)
    assert not failed
    tower = ClipTower(clip_config, "fp32")
    frames = choose_frames(source, EVERY)
    expected = tower.load("cpu")([tower.prepare(pictures[frame]) for frame in frames])
    found = np.stack([vectors[row] for row in range(len(frames))])
    assert found.shape == (len(frames), tiny_clip.WIDTH)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_vector_that_is_not_finite_fails_its_row_alone(
    tmp_path: Path, clip_config: ClipConfig
) -> None:
    encoder = ImageEncoder(dataclasses.replace(CONFIG, source="clip"), clip_config, "fp32")
    model = encoder.load("cpu")
    embed = model._embed
    model._embed = lambda pictures: embed(pictures) * np.array([[1.0], [np.nan]], np.float32)
    source = source_of(tmp_path, moving(np.arange(10) / 25, velocity=(0.2, 0), size=SIZE))
    good, bad = model([item.values for item in encoder.inputs(source, np.arange(2))])
    assert np.isfinite(good["image"].values).all()
    assert isinstance(bad, ArithmeticError)


def test_the_identity_names_what_changes_a_result(clip_config: ClipConfig) -> None:
    digest = ENCODER.identity.digest
    assert not ENCODER.identity.weights
    assert ImageEncoder(CONFIG, clip_config, "bf16").identity.digest == digest
    slower = ImageConfig(frames=dataclasses.replace(EVERY, every_s=1.0))
    assert ImageEncoder(slower, ClipConfig(), "fp32").identity.digest != digest
    config = dataclasses.replace(CONFIG, source="clip")
    exact, rough = (ImageEncoder(config, clip_config, p).identity for p in ("fp32", "bf16"))
    assert exact.name == "image"
    assert len({exact.digest, rough.digest, digest}) == 3


def test_clip_without_weights_is_refused_with_a_way_out() -> None:
    encoder = ImageEncoder(dataclasses.replace(CONFIG, source="clip"), ClipConfig(), "fp32")
    with pytest.raises(UserError, match=r"features\.image\.source=appearance"):
        _ = encoder.identity
