"""Recipes of published sets, from an import or videos to metrics: small sets, small models."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tiny_clip
from test_imported import msrvtt
from test_index import clip as film
from test_index import index
from test_msrvtt import clip
from test_vadclip import RATE_HZ, deliver
from test_word2vec import some_vectors, write
from tiny_bert import make_tiny_bert
from tiny_blip import write_tiny_blip

from crosswatch import config, experiment, stages
from crosswatch.evaluation.detection import detection_map
from crosswatch.evaluation.frames import frame_metrics
from crosswatch.evaluation.predictions import Predictions
from crosswatch.examples.clips import ClipExamples
from crosswatch.examples.opening import Sources, open_examples
from crosswatch.features.exchange.vadclip import VadclipConfig, import_vadclip
from crosswatch.models.detector import Detector, load_detector
from crosswatch.records import Block
from crosswatch.stages.evaluate import PREDICTIONS

IN_PROCESS = ("train.workers=0", "train.threads=1", "evaluate.samples=20")
ROLES = ("batches", "labels", "captions", "features", "checkpoint")


class Ended(NamedTuple):
    """Where a recipe's artifacts lie, and what it measured."""

    folder: Path
    metrics: Mapping[str, float | None]
    predictions: Predictions

    def detector(self) -> Detector:
        return load_detector(self.folder / "checkpoint")

    def examples(self, block: Block) -> ClipExamples:
        places = (self.folder / role for role in ("batches", "labels", "features"))
        found = open_examples(Sources.open(*places), self.detector().facts, block)
        assert isinstance(found, ClipExamples)
        return found


def through_the_stages(recipe: str, source: Path, folder: Path, *given: str) -> Ended:
    over = experiment.over(None, [*IN_PROCESS, *given])
    values = config.plain(experiment.resolve(recipe, over))
    made: dict[str, Path] = {"arrivals": source}
    for stage, role in zip(
        ("ingest", "refine", "caption", "extract", "train", "evaluate"),
        (*ROLES, "evaluation"),
        strict=True,
    ):
        known = {each: made.get(each) for each in stages.paths_of(stage)}
        stages.call(stage, values=values, paths={**known, "out": folder / role})
        made[role] = folder / role
    measured = json.loads((folder / "evaluation/metrics.json").read_text())["metrics"]
    return Ended(folder, measured, Predictions.load(folder / "evaluation" / PREDICTIONS))


def defined(metrics: Mapping[str, float | None], name: str) -> float:
    value = metrics[name]
    assert value is not None, f"{name} is undefined"
    return value


XD = ("A", "B1", "B2", "B4", "B5", "B6", "G")
SNIPPETS = {"t1_label_B1-B2-0": 20, "t2_label_A": 3, "t3_label_G-0-0": 9}
Happens = Mapping[str, tuple[int, int]]  # class to the first frame and the one after the last
HAPPENS: dict[str, Happens] = {
    "t1_label_B1-B2-0": {"B1": (16, 96), "B2": (80, 200)},
    "t2_label_A": {},
    "t3_label_G-0-0": {"G": (32, 100)},
}
LENGTH = 8  # positions of the model; two of the videos of test are longer
TRAINING: dict[str, Happens] = {
    "A": {},
    "B1-0-0": {"B1": (32, 80)},
    "B2-0-0": {"B2": (0, 32)},
    "G-B2-0": {"G": (0, 32), "B2": (48, 80)},
}


def delivered(
    place: Path, videos: Mapping[str, Happens], snippets: Mapping[str, int], crops: Sequence[int]
) -> Path:
    """A list whose features tell what happens: each class has a number of its own."""
    place.mkdir(parents=True)
    labels = {video: video.rpartition("_")[2] for video in videos}
    listing = deliver(place, labels, crops=crops, snippets=snippets)
    for video, happens in videos.items():
        for file in (place / "files").glob(f"{video}__*.npy"):
            values = np.load(file)
            for name, (first, behind) in happens.items():
                values[first // 16 : -(-behind // 16), XD.index(name) - 1] += 4
            np.save(file, values)
    return listing


def imported_xd(place: Path) -> Path:
    training = {f"v{at}_label_{label}": TRAINING[label] for at in range(8) for label in TRAINING}
    both = {"train": training, "test": HAPPENS}
    snippets = {"train": dict.fromkeys(training, 5), "test": SNIPPETS}
    for split, videos in both.items():
        folder = place / "lists" / split
        listing = delivered(folder, videos, snippets[split], (0, 4) if split == "train" else (0,))
        annotations = folder / "annotations.txt"
        annotations.write_text(
            "".join(
                f"{video} {' '.join(f'{name} {a} {b}' for name, (a, b) in happens.items())}\n"
                for video, happens in videos.items()
                if happens
            )
        )
        facts = VadclipConfig(
            frame_rate_hz=RATE_HZ, root=folder / "files", split=split,
            annotations=annotations if split == "test" else None,
        )  # fmt: skip
        import_vadclip(listing, place / "sets" / split, facts)
    return place / "sets"


@pytest.fixture(scope="module")
def xd(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    place = tmp_path_factory.mktemp("xd")
    return through_the_stages(
        "clipfusionvad-xd", imported_xd(place), place,
        "split.validation_videos_share=0.3", "model.class_text=learned", "model.prompts=[]",
        f"model.length={LENGTH}", "model.window=4", "model.layers=1", "train.epochs=8",
        "train.batch_size=8", "train.optim.learning_rate=0.01", "train.optim.drops=[]",
    )  # fmt: skip


def test_a_detector_of_moments_is_measured_on_an_imported_set(xd: Ended) -> None:
    rows, anomaly = xd.predictions.rows, xd.predictions.anomaly_N
    assert all(0 <= defined(xd.metrics, name) <= 1 for name in ("auc", "ap", "auc2", "ap2"))
    assert 0 < defined(xd.metrics, "map") <= 100
    assert 0 <= defined(xd.metrics, "map_released") <= 100  # classes that do not occur count as 0
    abnormal, video = rows["label"].to_numpy() > 0, rows["batch"].to_numpy(object)
    by_binary = frame_metrics(abnormal, anomaly, video)
    by_classes = frame_metrics(abnormal, 1 - xd.predictions.probability_NK[:, 0], video)
    for name in ("auc", "ap"):
        assert xd.metrics[name] == pytest.approx(by_binary[name])
        assert xd.metrics[f"{name}2"] == pytest.approx(by_classes[name])
    assert xd.detector().selected_by == "validation ap2"
    curves = json.loads((xd.folder / "checkpoint/curves.json").read_text())
    assert curves[-1]["train_loss"] < 0.7 * curves[0]["train_loss"]


def test_every_frame_of_a_test_video_is_scored_once(xd: Ended) -> None:
    rows = xd.predictions.rows
    assert rows["batch"].value_counts().to_dict() == {
        video: 16 * count for video, count in SNIPPETS.items()
    }
    for video, count in SNIPPETS.items():
        own = (rows["batch"] == video).to_numpy()
        np.testing.assert_allclose(rows["end_s"][own], np.arange(16 * count) / RATE_HZ)
        truth = np.zeros(16 * count, bool)
        for first, last in HAPPENS[video].values():
            truth[first:last] = True
        np.testing.assert_array_equal(rows["label"][own] > 0, truth)
        assert rows["segment"][own].nunique() == rows["start_s"][own].nunique() == 1
        by_snippet = xd.predictions.anomaly_N[own].reshape(count, 16)
        assert (by_snippet == by_snippet[:, :1]).all(), "a frame has the score of its snippet"
        assert len(np.unique(by_snippet[:, 0])) == count


def test_a_video_longer_than_the_model_is_scored_in_pieces(xd: Ended) -> None:
    """Not pooled: each piece gets what the model says of it alone."""
    examples, detector = xd.examples("evaluation"), xd.detector()
    of_frames = xd.predictions
    for row, video in enumerate(examples.table()["batch"]):
        (visual,) = examples.example(np.array([row])).inputs
        assert visual.valid_BL.sum() == SNIPPETS[video]
        own = (of_frames.rows["batch"] == video).to_numpy()
        for first in range(0, SNIPPETS[video], LENGTH):
            piece = slice(first, first + LENGTH)
            part = type(visual)(*(each[:, piece] for each in visual))
            alone, _ = detector.score((part,)).moments()
            found = of_frames.anomaly_N[own][::16][piece]
            np.testing.assert_allclose(found, alone[0].numpy(), atol=1e-5)


def test_videos_of_several_classes_keep_them_all(xd: Ended) -> None:
    trained, tested = xd.examples("train"), xd.examples("evaluation")
    for examples in (trained, tested):
        table = examples.table()
        told = examples.example(np.arange(len(examples))).target.classes_BK.numpy()
        for video, occurs in zip(table["batch"], told, strict=True):
            names = set(video.rpartition("_")[2].split("-")) - {"0"}
            assert {name for name, there in zip(XD, occurs, strict=True) if there} == names
    crops = trained.table().groupby("batch")["crop"].apply(list)
    assert all(of_video == [0, 4] for of_video in crops), "each crop is an example"


def test_frames_of_two_classes_count_for_both(xd: Ended) -> None:
    of_batch = xd.predictions.rows.groupby("batch").indices
    curves = [xd.predictions.probability_NK[of_batch[video]] for video in HAPPENS]
    happens = [of or {"A": (0, 16 * SNIPPETS[video])} for video, of in HAPPENS.items()]
    spans, names = [list(of.values()) for of in happens], [list(of) for of in happens]
    for name, compat in (("map", False), ("map_released", True)):
        found = detection_map(curves, spans, names, XD, compat=compat)
        assert xd.metrics[name] == pytest.approx(np.mean(list(found.values())))


@pytest.fixture(scope="module")
def caam(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    place = tmp_path_factory.mktemp("msrvtt")
    numbers = {"train": range(12), "validation": range(6513, 6517), "test": range(7010, 7016)}
    given = [
        clip(f"video{number}", category=number % 5, columns=60 + number % 7)
        for block in numbers.values()
        for number in block
    ]
    given[3]["audio"] = given[-1]["audio"] = None
    words = write(place / "words.vec", some_vectors(("sings", "song", "man", "a"), 8))
    return through_the_stages(
        "caam-msrvtt", msrvtt(place / "pickles", place / "sets", given), place,
        f"features.word2vec.weights.source={words}", "model.audio_frontend=small",
        "model.width=32", "model.heads=4", "train.epochs=2", "train.batch_size=8",
    )  # fmt: skip


def test_a_model_of_clips_is_measured_on_an_imported_set(caam: Ended) -> None:
    named = {"accuracy", "top5", "weighted_f1", "accuracy_va", "accuracy_at", "accuracy_tv"}
    assert all(0 <= defined(caam.metrics, name) <= 1 for name in named)
    assert not {"auc", "ap", "f1", "precision", "recall"} & caam.metrics.keys(), "none is normal"
    rows = caam.predictions.rows
    label = {f"video{number}": number % 5 for number in range(7010, 7016)}
    assert rows["batch"].is_unique
    assert dict(zip(rows["batch"], rows["label"], strict=True)) == label
    decided = caam.predictions.probability_NK.argmax(1)
    assert caam.metrics["accuracy"] == pytest.approx((decided == rows["label"]).mean())
    for pair, probability in caam.predictions.branches.items():
        right = (probability.argmax(1) == rows["label"]).mean()
        assert caam.metrics[f"accuracy_{pair}"] == pytest.approx(right)
    assert caam.detector().selected_by == "validation accuracy"


def test_clips_bring_their_pictures_sound_and_words(caam: Ended) -> None:
    assert caam.detector().facts.shape.widths == (4096, 40, 8)
    examples = caam.examples("evaluation")
    video, audio, text = examples.example(np.arange(len(examples))).inputs
    assert video.valid_BL.sum(1).tolist() == [1] * 6
    assert audio.valid_BL.sum(1).tolist() == [*(60 + n % 7 for n in range(7010, 7015)), 0]
    assert text.valid_BL.sum(1).tolist() == [5] * 6, "a man sings a song"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of eight sources, one of each class."""
    folder, rows = tmp_path_factory.mktemp("videos"), []
    for source in range(8):
        for label in (0, 1):
            path = f"{source}-{label}.mp4"
            film(folder / path, rate_hz=5, seconds=2.0 + label)
            rows.append((path, str(label), f"s{source}"))
    return index(folder, rows)


def test_videos_become_captions_and_vectors_and_are_told_apart(
    videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "clip").mkdir()
    weights = {
        "caption.blip": write_tiny_blip(tmp_path / "blip"),
        "features.clip": tiny_clip.save_folder(tmp_path / "clip"),
        "features.distilbert": make_tiny_bert(tmp_path / "bert"),
    }
    named = [f"{each}.weights.source={path}" for each, path in weights.items()]
    blocks = ("split.by=batch", "split.validation=[s1, s2]", "split.evaluation=[s5, s6, s7]")
    small = ("model.hidden=16", "model.heads=2", "train.epochs=3", "train.batch_size=4")
    often = ("features.image.frames.every_s=1.0", "caption.frames.every_s=1.0")
    settings = (*named, *blocks, *small, *often)
    ended = through_the_stages("cmaf-ucf", videos, tmp_path, *settings)
    assert ended.detector().facts.shape.widths == (tiny_clip.WIDTH, 32)
    rows = ended.predictions.rows
    assert rows.groupby("batch")["label"].apply(sorted).to_dict() == {
        name: [0, 1] for name in ("s5", "s6", "s7")
    }
    assert all(0 <= defined(ended.metrics, name) <= 1 for name in ("auc", "ap", "accuracy", "f1"))
    assert ended.detector().threshold is not None, "picked on validation"
    frames, text = ended.examples("evaluation").example(np.arange(6)).inputs
    assert frames.valid_BL.sum(1).tolist() == [2, 3] * 3, "one a second"
    assert text.valid_BL.any(1).all()
