"""CLIP's vectors are open_clip's own, whatever the batch, and from no weights but those named."""

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
from deliveries import encode
from hypothesis import given, settings
from hypothesis import strategies as st
from made import batch

from crosswatch.data.originals import Original, OriginalPlace
from crosswatch.data.raw import RawBatch
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.video.decode import RawVideo
from crosswatch.errors import UserError
from crosswatch.features.encoder import Failed, Input
from crosswatch.features.pictures.clip import ClipEncoder, ClipTower
from crosswatch.features.pictures.pixels import Preprocessing
from crosswatch.features.settings import ClipConfig
from crosswatch.features.source import Source
from crosswatch.features.weights.torchvision_shim import ensure_torchvision
from crosswatch.records import WeightsConfig

SHAPES = {
    "landscape": (72, 128),
    "portrait": (128, 72),
    "square": (64, 64),
    "as it is shown": (32, 32),
    "tiny": (11, 17),
    "odd": (51, 37),
    "high definition": (720, 1280),
}
GREY_LEVELS = 1  # between torch's and Pillow's resizing of pictures; 2 where a few pixels grow
COUNT = 42


def picture(shape: tuple[int, ...], *, seed: int = 0) -> np.ndarray:
    """Large and small features, down to noise of single pixels."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    at = seed + np.arange(3)
    waves = 90 * np.sin(x[..., None] / (5 + at) + at) * np.cos(y[..., None] / (9 - at % 4))
    noise = np.random.default_rng(seed).normal(0, 20, (*shape, 3))
    return np.clip(127 + waves + noise, 0, 255).astype(np.uint8)


def cosine(ours: Any, theirs: Any) -> np.ndarray:
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    lengths = np.linalg.norm(ours, axis=-1) * np.linalg.norm(theirs, axis=-1)
    return (ours * theirs).sum(-1) / lengths


def told(**changes: Any) -> dict[str, Any]:
    ensure_torchvision()
    from open_clip.transform import PreprocessCfg

    return dataclasses.asdict(PreprocessCfg()) | {"size": tiny_clip.SIZE_PX} | changes


def their_transform(**changes: Any) -> Callable[[np.ndarray], Any]:
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from PIL import Image

    transform = image_transform_v2(PreprocessCfg(**told(**changes)), is_train=False)
    return lambda shown: transform(Image.fromarray(shown))


def their_vectors(folder: Path, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """As open_clip's documentation says it."""
    ensure_torchvision()
    import open_clip
    import torch
    from PIL import Image

    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    model.eval()
    with torch.no_grad():
        shown = torch.stack([transform(Image.fromarray(each)) for each in pictures])
        return model.encode_image(shown).numpy()


def named(path: Path | str, **changes: Any) -> ClipConfig:
    return ClipConfig(weights=WeightsConfig(source=str(path)), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.save_folder(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> str:
    return tiny_clip.register(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "video.mp4"
    encode(path, np.stack([picture((48, 80), seed=at) for at in range(COUNT)]))
    return path


@pytest.fixture
def source(tmp_path: Path, video: Path) -> Source:
    """Stored frames at 10 Hz, of which the second recording begins at 2.5 s."""
    np.save(tmp_path / "frame_sources.npy", np.arange(COUNT))
    place = OriginalPlace(ingest={}, fetched=tmp_path, transfer=TransferConfig())
    made = Source(batch_id="batch-1", batch_digest="d", folder=tmp_path, place=place)
    stored = batch(seconds=COUNT / 10, segments=((0.0, 2.05), (2.45, 5.0)))
    shown = RawVideo(path=video, times_s=None, rate_hz=10.0)
    raw = RawBatch(id="batch-1", plant="", started_at="", video=shown, signal=None)
    vars(made).update(batch=stored, original=Original(raw=raw, path=video))
    return made


def encoded(encoder: ClipEncoder, inputs: Sequence[Input], *, at_once: int = 8) -> np.ndarray:
    model = encoder.load("cpu")
    rows: list[Any] = []
    for start in range(0, len(inputs), at_once):
        rows += model([each.values for each in inputs[start : start + at_once]])
    assert all(row["clip"].valid.all() for row in rows)
    return np.stack([row["clip"].values for row in rows])


def all_inputs(encoder: ClipEncoder, source: Source) -> list[Input]:
    rows = np.arange(len(encoder.spans_s(source)))
    found = list(encoder.inputs(source, rows))
    assert all(isinstance(each, Input) for each in found)
    return sorted((each for each in found if isinstance(each, Input)), key=lambda each: each.row)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_vectors_are_those_of_open_clip(folder: Path, shape: tuple[int, int]) -> None:
    pictures = [picture(shape, seed=seed) for seed in range(4)]
    tower = ClipTower(named(folder), "fp32")
    ours = tower.load("cpu")([tower.prepare(each) for each in pictures])
    theirs = their_vectors(folder, pictures)
    assert ours.dtype == np.float32
    assert cosine(ours, theirs).min() >= 0.999
    assert cosine(ours, np.roll(theirs, 1, axis=0)).max() < 0.99  # another picture's is another
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1), 0.01)


@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 150),
    width=st.integers(1, 150),
    size=st.one_of(st.integers(1, 64), st.tuples(st.integers(1, 64), st.integers(1, 64))),
    resize_mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear", "random"]),
    fill=st.integers(0, 255),
)
def test_pixels_are_those_of_open_clip(
    height: int, width: int, size: Any, resize_mode: str, interpolation: str, fill: int
) -> None:
    asked = {"size": size, "resize_mode": resize_mode, "interpolation": interpolation}
    asked |= {"fill_color": fill, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    if resize_mode == "longest":  # a side of nothing, which Pillow refuses
        target = (size, size) if isinstance(size, int) else size
        ratio = max(height / target[0], width / target[1])
        height, width = max(height, round(ratio)), max(width, round(ratio))
    # Without black and white, where the order of the axes would matter.
    shown = np.uint8(80) + picture((height, width), seed=height) // 3
    ours = Preprocessing.of(told(**asked), where="here").shown(shown)
    theirs = np.rint(their_transform(**asked)(shown).numpy() * 255)
    assert ours.shape == theirs.shape
    assert ours.dtype == np.uint8
    assert np.abs(ours - theirs).max() <= GREY_LEVELS + 1


@settings(deadline=None, max_examples=40)
@given(*[st.integers(1, 100)] * 2, *[st.integers(1, 64)] * 2, st.integers(0, 99))
def test_black_and_white_are_cut_as_pillow_does_rows_first(
    height: int, width: int, size_y: int, size_x: int, seed: int
) -> None:
    ensure_torchvision()
    from PIL import Image

    shown = picture((height, width), seed=seed) // 128 * 255
    asked = told(size=(size_y, size_x), resize_mode="squash")
    ours = Preprocessing.of(asked, where="here").shown(shown)
    rows = Image.fromarray(shown).resize((size_x, height), Image.Resampling.BICUBIC)
    theirs = np.asarray(rows.resize((size_x, size_y), Image.Resampling.BICUBIC))
    assert np.abs(ours.transpose(1, 2, 0).astype(int) - theirs).max() <= GREY_LEVELS + 1


@pytest.mark.parametrize("shape", [(720, 1280), (1280, 720), (479, 641)])
def test_shrinking_is_at_most_a_grey_level_from_pillow(shape: tuple[int, int]) -> None:
    asked = {"size": 224, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
    shown = picture(shape)
    ours = Preprocessing.of(told(**asked), where="here").shown(shown)
    theirs = np.rint(their_transform(**asked)(shown).numpy() * 255)
    assert np.abs(ours - theirs).max() <= GREY_LEVELS


def test_scaling_is_that_of_open_clip() -> None:
    import torch

    shown = picture((32, 32))  # not resized, so that nothing else differs
    asked = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    preprocessing = Preprocessing.of(told(**asked), where="here")
    ours = preprocessing.normalised(torch.from_numpy(preprocessing.shown(shown))[None])
    np.testing.assert_allclose(ours[0], their_transform(**asked)(shown), atol=2e-6)


@pytest.mark.parametrize("shape", [(72, 128), (128, 72), (51, 38), (40, 40)])
def test_ten_crops_are_torchvisions(shape: tuple[int, int]) -> None:
    ensure_torchvision()
    from PIL import Image
    from torchvision import transforms

    size = tiny_clip.SIZE_PX
    shown = picture(shape)
    bicubic = transforms.InterpolationMode.BICUBIC
    larger = transforms.Resize(round(size * 256 / 224), interpolation=bicubic)
    theirs = transforms.TenCrop(size)(larger(Image.fromarray(shown)))
    ours = Preprocessing.of(told(), where="here").ten_crops(shown)
    assert ours.shape == (10, 3, size, size)
    for our, their in zip(ours, theirs, strict=True):
        difference = our.transpose(1, 2, 0).astype(int) - np.asarray(their)
        assert np.abs(difference).max() <= GREY_LEVELS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resize_mode": "stretch"}, "resize_mode 'stretch'; allowed shortest, longest, squash"),
        ({"interpolation": "lanczos"}, "interpolation 'lanczos'; allowed bicubic"),
        ({"mode": "BGR"}, "mode 'BGR'; allowed RGB"),
        ({"std": (0.0, 1.0, 1.0)}, "those of std above 0"),
        ({"mean": "grey"}, "expected pixels, three numbers"),
        ({"size": (1, 2, 3)}, "expected pixels, three numbers"),
    ],
)
def test_preprocessing_that_is_not_known_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.of(told(**change), where="here")


def test_a_folder_says_how_it_wants_pictures(tmp_path: Path) -> None:
    changed = {"resize_mode": "squash", "interpolation": "bilinear"}
    folder = tiny_clip.save_folder(tmp_path / "squashed", preprocessing=changed, size_px=48)
    pictures = [picture((40, 90), seed=seed) for seed in range(2)]
    tower = ClipTower(named(folder, model="of no importance"), "fp32")
    ours = tower.load("cpu")([tower.prepare(each) for each in pictures])
    assert tower.prepare(pictures[0]).shape == (3, 48, 48)
    assert cosine(ours, their_vectors(folder, pictures)).min() >= 0.999


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_a_file_needs_the_name_of_its_model(tmp_path: Path, registered: str, ending: str) -> None:
    file = tiny_clip.save_file(tmp_path / f"weights{ending}")
    tower = ClipTower(named(file, model=registered), "fp32")
    vector = tower.load("cpu")([tower.prepare(picture((40, 90)))])
    ensure_torchvision()
    import open_clip
    import torch

    model = open_clip.create_model(registered, pretrained=str(file)).eval()
    with torch.no_grad():
        theirs = model.encode_image(their_transform()(picture((40, 90)))[None])
    assert cosine(vector, theirs.numpy()).min() >= 0.999


def test_files_get_the_preprocessing_that_was_published_with_the_model(tmp_path: Path) -> None:
    file = tiny_clip.save_file(tmp_path / "weights.pt")
    squashed = ClipTower(named(file, model="ViT-B-16-SigLIP"), "fp32").weights.preprocessing
    assert (squashed.resize_mode, squashed.mean) == ("squash", (0.5, 0.5, 0.5))
    usual = ClipTower(named(file, model="ViT-B/32"), "fp32").weights.preprocessing
    assert usual == Preprocessing.of(told(size=224), where="here")


@settings(deadline=None, max_examples=8)
@given(st.integers(1, 30), st.randoms(use_true_random=False))
def test_neither_batches_nor_order_change_a_vector(folder: Path, at_once: int, random: Any) -> None:
    encoder = ClipEncoder(named(folder), "fp32")
    pixels = [encoder.tower.prepare(picture((48, 80), seed=seed)) for seed in range(12)]
    inputs = [Input(row=row, values={"pixels": each}) for row, each in enumerate(pixels)]
    whole = encoded(encoder, inputs, at_once=12)
    random.shuffle(inputs)
    parts = encoded(encoder, inputs, at_once=at_once)
    np.testing.assert_allclose(parts, whole[[each.row for each in inputs]], atol=1e-5)


def test_bf16_is_near_and_fp16_needs_an_accelerator(folder: Path) -> None:
    pixels = [picture((32, 32), seed=seed).transpose(2, 0, 1) for seed in range(8)]
    exact, near = (ClipTower(named(folder), each).load("cpu")(pixels) for each in ("fp32", "bf16"))
    assert near.dtype == np.float32
    assert cosine(exact, near).min() >= 0.99
    with pytest.raises(UserError, match=r"fp16 and the device is cpu.*Use bf16 or fp32"):
        ClipTower(named(folder), "fp16").load("cpu")


def test_every_frame_of_a_recording_has_its_row(folder: Path, source: Source) -> None:
    encoder = ClipEncoder(named(folder, take="frames"), "fp32")
    spans = encoder.spans_s(source)
    first, second = np.arange(21) / 10, np.arange(25, 42) / 10
    np.testing.assert_allclose(spans[:, 0], np.concatenate([first, second]))
    np.testing.assert_allclose(spans[:, 1], np.concatenate([first, second]) + 0.1)


@given(every=st.integers(1, 50))
@settings(deadline=None, max_examples=10)
def test_snippets_cover_recordings_without_overlap(every: int) -> None:
    from crosswatch.features.pictures.snippets import snippets_of

    stored = batch(seconds=6.0, segments=((0.0, 2.0), (2.0, 3.04), (3.5, 5.9)))
    found = snippets_of(stored, every)
    frames, spans = found.first, found.spans_s
    assert (np.diff(frames) > 0).all()
    np.testing.assert_allclose(spans[:, 0], frames / 10)
    assert (spans[:-1, 1] <= spans[1:, 0] + 1e-9).all()
    covered = (spans[:, 1] - spans[:, 0]).sum()
    assert covered == pytest.approx(2.0 + 1.1 + 2.5)  # a frame on the border counts once
    assert (spans[:, 1] - spans[:, 0] <= every / 10 + 1e-9).all()


def test_rows_look_at_the_pictures_behind_their_frames(folder: Path, source: Source) -> None:
    encoder = ClipEncoder(named(folder, take="snippets", snippet_frames=4), "fp32")
    spans = encoder.spans_s(source)
    np.testing.assert_allclose(spans[:, 0], [0.0, 0.4, 0.8, 1.2, 1.6, 2.0, 2.5, 2.9, 3.3, 3.7, 4.1])
    assert spans[5, 1] == pytest.approx(2.1)
    frames = np.rint(spans[:, 0] * 10).astype(int)
    pictures = dict(source.original.pictures(np.arange(COUNT)))
    theirs = their_vectors(folder, [pictures[frame] for frame in frames])
    ours = encoded(encoder, all_inputs(encoder, source))
    assert cosine(ours, theirs).min() >= 0.999


def test_ten_crops_are_ten_vectors_of_a_row(folder: Path, source: Source) -> None:
    encoder = ClipEncoder(named(folder, take="ten_crops"), "fp32")
    inputs = all_inputs(encoder, source)
    ours = encoded(encoder, inputs, at_once=2)
    assert ours.shape == (4, 10, tiny_clip.WIDTH)
    alone = encoder.tower.load("cpu")
    for row, each in zip(ours, inputs, strict=True):
        np.testing.assert_allclose(row, alone(list(each.values["pixels"])), atol=1e-5)


def test_a_frame_that_stands_in_for_a_lost_one_is_a_failed_row(
    folder: Path, source: Source
) -> None:
    shown = np.arange(COUNT)
    shown[[4, 5]] = 3
    np.save(source.folder / "frame_sources.npy", shown)
    encoder = ClipEncoder(named(folder, take="frames"), "fp32")
    rows = np.array([3, 4, 5, 20])
    found = {each.row: each for each in encoder.inputs(source, rows)}
    assert sorted(found) == rows.tolist()
    assert [row for row, each in found.items() if isinstance(each, Failed)] == [4, 5]
    assert found[4].reason == "its picture could not be decoded by ingest either"


def test_a_picture_that_cannot_be_decoded_fails_its_rows_only(folder: Path, source: Source) -> None:
    class Damaged:
        def __len__(self) -> int:
            return COUNT

        def __iter__(self) -> Any:
            return ((at, picture((40, 60), seed=at)) for at in range(COUNT - 1) if at != 4)

    whole = source.original
    shown = dataclasses.replace(whole.raw.video, pictures=Damaged())
    raw = dataclasses.replace(whole.raw, video=shown)
    vars(source)["original"] = dataclasses.replace(whole, raw=raw)
    encoder = ClipEncoder(named(folder, take="frames"), "fp32")
    rows = np.arange(len(encoder.spans_s(source)))
    found = list(encoder.inputs(source, rows))
    assert sorted(each.row for each in found) == rows.tolist()
    failed = {each.row: each.reason for each in found if isinstance(each, Failed)}
    last = COUNT - 1 - 4  # four frames lie in the pause
    assert failed == {4: "picture 4 cannot be decoded", last: "picture 41 cannot be decoded"}


def test_a_batch_without_video_gives_no_rows(folder: Path, source: Source) -> None:
    vars(source)["batch"] = batch(video_hz=0)
    assert ClipEncoder(named(folder), "fp32").spans_s(source).shape == (0, 2)


def test_encoder_and_inputs_travel(folder: Path, source: Source) -> None:
    encoder = ClipEncoder(named(folder), "fp32")
    before = pickle.loads(pickle.dumps(encoder))
    inputs = all_inputs(encoder, source)  # which looks the weights up
    assert encoder.identity.weights
    after = pickle.loads(pickle.dumps(encoder))
    assert before == after == encoder
    assert before.identity == after.identity == encoder.identity
    travelled = pickle.loads(pickle.dumps(inputs))
    np.testing.assert_array_equal(encoded(after, travelled), encoded(encoder, inputs))


def test_identity_follows_what_changes_a_vector(folder: Path, tmp_path: Path) -> None:
    changed = tiny_clip.save_folder(tmp_path / "changed", preprocessing={"mean": (0, 0, 0)})

    def digest(config: ClipConfig, precision: str = "fp32") -> str:
        return ClipEncoder(config, precision).identity.digest

    own = digest(named(folder))
    moved = shutil.copytree(folder, tmp_path / "another name")
    others = tiny_clip.save_folder(tmp_path / "others", seed=1)
    assert digest(named(moved)) == own
    digests = [
        own,
        digest(named(others)),
        digest(named(changed)),
        digest(named(folder), "bf16"),
        digest(named(folder, take="frames")),
        digest(named(folder, take="ten_crops")),
        digest(named(folder, snippet_frames=8)),
    ]
    assert len(set(digests)) == len(digests)
    frames = named(folder, take="frames")
    assert digest(frames) == digest(dataclasses.replace(frames, snippet_frames=8))


WRONG = {
    "other width": ({"vision": {"width": 48}}, r"conv1.weight \[48, 3, 8, 8\] instead of \[32,"),
    "more layers": ({"vision": {"layers": 3}}, "has also transformer.resblocks.2"),
    "fewer layers": ({"vision": {"layers": 1}}, "lacks transformer.resblocks.1.*and 9 more"),
    "other size": ({"size_px": 64}, r"positional_embedding \[65, 32\] instead of \[17, 32\]"),
}


@pytest.mark.parametrize(("changes", "message"), WRONG.values(), ids=WRONG)
def test_weights_of_another_architecture_are_refused(
    tmp_path: Path, registered: str, changes: dict[str, Any], message: str
) -> None:
    file = tiny_clip.save_file(tmp_path / "weights.safetensors", **changes)
    with pytest.raises(UserError, match=message) as refused:
        ClipTower(named(file, model=registered), "fp32").load("cpu")
    assert "features.clip.weights.source" in str(refused.value)
    assert "Set features.clip.model" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_without_an_image_tower_is_refused(tmp_path: Path, registered: str) -> None:
    import torch

    for content in ({"weight": torch.zeros(2)}, [1, 2]):
        torch.save(content, tmp_path / "weights.pt")
        with pytest.raises(UserError, match=r"lacks class_embedding|holds no tensors by name"):
            ClipTower(named(tmp_path / "weights.pt", model=registered), "fp32").load("cpu")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}")
    with pytest.raises(UserError, match=r"cut\.safetensors cannot be read"):
        ClipTower(named(tmp_path / "cut.safetensors", model=registered), "fp32").load("cpu")


class Runs:
    """What a pickle may ask for: to touch a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", ["torch", "plain"])
def test_code_in_a_pickle_is_refused_and_not_run(
    tmp_path: Path, registered: str, protocol: str
) -> None:
    import torch

    file, trace = tmp_path / "weights.pt", tmp_path / "was run"
    if protocol == "torch":
        torch.save({"visual.proj": Runs(trace)}, file)
    else:
        file.write_bytes(pickle.dumps({"visual.proj": Runs(trace)}))
    with pytest.raises(UserError, match="not run"):
        ClipTower(named(file, model=registered), "fp32").load("cpu")
    assert not trace.exists()


def test_missing_weights_name_option_files_and_alternative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for missing in ("", str(tmp_path / "none.pt"), "laion2b_s34b_b79k", "owner/name", "hf-hub:a/b"):
        with pytest.raises(UserError) as refused:
            _ = ClipEncoder(named(missing, model="ViT-B-32"), "fp32").identity
        for part in ("features.clip.weights.", "open_clip_model.safetensors", "[motion]"):
            assert part in str(refused.value)
    with pytest.raises(UserError, match="laion/CLIP-ViT-B-32-laion2B-s34B-b79K"):
        _ = ClipEncoder(named("laion2b_s34b_b79k", model="ViT-B-32"), "fp32").identity


def test_weights_are_taken_from_the_hubs_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    shutil.copytree(folder, repository / "snapshots" / ("a" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    local, cached = ClipTower(named(folder), "fp32"), ClipTower(named("hf-hub:owner/name"), "fp32")
    pixels = [local.prepare(picture((40, 50)))]
    np.testing.assert_array_equal(local.load("cpu")(pixels), cached.load("cpu")(pixels))


def test_published_weights_are_known_by_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the activation that they were trained with, whatever the model's name says."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--timm--vit_base_patch32_clip_224.openai"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    (snapshot / "open_clip_model.safetensors").write_bytes(b"weights")
    found = ClipTower(named("openai", model="ViT-B-32"), "fp32").weights
    assert found.file == snapshot / "open_clip_model.safetensors"
    assert found.architecture["quick_gelu"]
    assert found.architecture["vision_cfg"]["patch_size"] == 32


def test_wrong_digests_and_unknown_models_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = WeightsConfig(source=str(folder), sha256="0" * 64)
    with pytest.raises(UserError, match=r"features\.clip\.weights\.sha256 is 0000"):
        _ = ClipEncoder(ClipConfig(weights=weights), "fp32").identity
    file = tiny_clip.save_file(tmp_path / "weights.pt")
    with pytest.raises(UserError, match=r"'ViT-B-23' is none of .* Did you mean .*ViT-B-32"):
        _ = ClipEncoder(named(file, model="ViT-B-23"), "fp32").identity


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"model_cfg": {}}', '{"model_cfg": {"embed_dim": 4}}']
)
def test_a_damaged_configuration_is_refused(folder: Path, tmp_path: Path, content: str) -> None:
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "open_clip_config.json").write_text(content)
    with pytest.raises(UserError, match=r"open_clip_config\.json"):
        _ = ClipEncoder(named(damaged), "fp32").identity


def test_an_architecture_that_open_clip_cannot_build_is_refused(
    folder: Path, tmp_path: Path
) -> None:
    strange = shutil.copytree(folder, tmp_path / "strange")
    told = json.loads((strange / "open_clip_config.json").read_text())
    told["model_cfg"]["vision_cfg"]["depth"] = 3
    (strange / "open_clip_config.json").write_text(json.dumps(told))
    with pytest.raises(UserError, match="describes no model of open_clip"):
        ClipTower(named(strange), "fp32").load("cpu")
