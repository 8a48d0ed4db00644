"""Models of features through the stages: they learn what features tell, and nothing else."""

import dataclasses
import json
import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tiny_clip
import torch
from made import deliver_with_events
from made_features import MODALITIES, WIDTH, make_features

from crosswatch import artifacts, config, experiment, stages
from crosswatch.errors import UserError
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.scoring import score_block
from crosswatch.examples import example
from crosswatch.examples.clips import ClipExamples
from crosswatch.examples.facts import facts_of
from crosswatch.examples.opening import Sources, open_examples
from crosswatch.examples.reading import Floats
from crosswatch.features.schema import FeatureSet
from crosswatch.features.weights.finding import digest_of_weights
from crosswatch.models.detector import load_detector, save_detector
from crosswatch.models.settings.common import Stream
from crosswatch.stages.evaluate import EXPLANATIONS, PREDICTIONS
from crosswatch.tracking import manual
from crosswatch.tracking.registry import RegistryPlace
from crosswatch.training import learner

COMMON = (
    "ingest.frame_px=32",
    "windows.frames=4",
    "windows.stride=2",
    "windows.signal_s=3",
    "clips.length_s=3",
    "clips.step_s=1.5",
    "clips.least_event_s=1",
    "refine.masks=none",
    "caption.source=none",
    f"features.encoders=[{', '.join(MODALITIES)}]",
    "model.standardise=true",
    "evaluate.samples=50",
    "evaluate.block_s=3",
    "train.workers=0",
    "train.threads=1",
    "train.batch_size=8",
    "train.epochs=12",
    "train.optim.learning_rate=2.0e-3",
    "train.metric=auc",
    "register.primary=auc",
)
MODELS = {
    "cmaf": ("model.hidden=32", "model.heads=4", "model.dropout=0.0", "model.text=[hashed]"),
    "cross_modal_detector": ("model.width=32", "model.heads=4"),
    "caam": ("model.width=32", "model.heads=4", "model.audio_frontend=none", "model.text=[hashed]"),
    "clipfusion_vad": ("model.window=4", "model.layers=1", "model.length=32"),
}


def resolved(model: str, *settings: str) -> experiment.Experiment:
    given = [*COMMON, f"model.name={model}", *MODELS[model], *settings]
    return experiment.resolve("fmformer-furnace", experiment.over(None, given))


def run(stage: str, model: str, *settings: str, **paths: Path) -> None:
    stages.run(stage, values=config.plain(resolved(model, *settings)), paths=paths)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for seed in range(2):
        deliver_with_events(folder / "arrivals", name=f"batch-{seed}", seed=seed)
    run("ingest", "cmaf", arrivals=folder / "arrivals", out=folder / "batches", known=None)
    run("refine", "cmaf", batches=folder / "batches", out=folder / "labels")
    make_features(folder / "batches", folder / "features")
    return folder


def places(data: Path, features: str = "features") -> dict[str, Path]:
    named = {"batches": "batches", "labels": "labels", "features": features}
    return {role: data / name for role, name in named.items()}


def trained(data: Path, out: Path, model: str, *settings: str, features: str = "features") -> Path:
    run("train", model, *settings, **places(data, features), out=out, checkpoints=None)
    return out


@pytest.fixture(scope="module")
def checkpoints(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trained")
    return {model: trained(data, folder / model, model) for model in MODELS}


@pytest.mark.parametrize("model", MODELS)
def test_it_learns_what_the_features_tell_and_names_it_on_unseen_time(
    data: Path, checkpoints: dict[str, Path], tmp_path: Path, model: str
) -> None:
    run("evaluate", model, **places(data), checkpoint=checkpoints[model], out=tmp_path / "out")
    told = json.loads((tmp_path / "out/metrics.json").read_text())
    assert told["metrics"]["auc"] > 0.9
    assert told["selected_by"] == "validation auc"
    assert 0 < told["threshold"] < 1
    assert "warning" not in told
    predictions = Predictions.load(tmp_path / "out" / PREDICTIONS)
    assert (predictions.rows["start_s"] < predictions.rows["end_s"]).mean() > 0.9
    assert (tmp_path / "out" / EXPLANATIONS).exists() == (model == "cmaf")


def test_moments_are_told_from_bags_alone(
    data: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    """Trained with one set of classes a clip, it finds the frames."""
    model = "clipfusion_vad"
    run("evaluate", model, **places(data), checkpoint=checkpoints[model], out=tmp_path / "out")
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())["metrics"]
    assert {"auc", "ap", "ano_auc", "within_auc", "auc2", "ap2", "map", "map_released"} <= {
        *metrics
    }
    assert {"false_alarms_per_hour", "detection_delay_s", "detected_share"} <= {*metrics}
    assert metrics["auc2"] > 0.8
    assert metrics["within_auc"] > 0.8
    rows = Predictions.load(tmp_path / "out" / PREDICTIONS).rows
    assert rows.groupby(["batch", "end_s"]).size().max() == 1  # every frame once


def test_explanations_stand_beside_scores(
    data: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    run("caption", "cmaf", "caption.source=template", batches=data / "batches",
        out=tmp_path / "captions")  # fmt: skip
    run("evaluate", "cmaf", **places(data), captions=tmp_path / "captions",
        checkpoint=checkpoints["cmaf"], out=tmp_path / "out")  # fmt: skip
    told = pd.read_parquet(tmp_path / "out" / EXPLANATIONS)
    predictions = Predictions.load(tmp_path / "out" / PREDICTIONS)
    assert len(told) == len(predictions)
    np.testing.assert_allclose(told["score"], predictions.anomaly_N, atol=1e-6)
    assert told["explanation"].str.startswith("Video shows").all()
    parents = artifacts.open_artifact(tmp_path / "out").parents
    assert parents["captions"] == artifacts.open_artifact(tmp_path / "captions").digest
    assert told["gate"].between(0, 1).all()
    assert told["cosine"].between(-1, 1).all()
    assert all(abs(sum(weights) - 1) < 1e-4 for weights in told["text_attention"])


def test_an_epoch_picked_on_the_evaluation_set_is_branded_and_never_promoted(
    data: Path, tmp_path: Path
) -> None:
    checkpoint = trained(data, tmp_path / "ck", "cmaf", "train.select=test", "train.epochs=2")
    assert load_detector(checkpoint).threshold is None
    run("evaluate", "cmaf", **places(data), checkpoint=checkpoint, out=tmp_path / "evaluation")
    told = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    assert told["warning"].startswith("SELECTED ON THE EVALUATION SET")
    run("register", "cmaf", **places(data), checkpoint=checkpoint,
        evaluation=tmp_path / "evaluation", registry=tmp_path / "registry",
        out=tmp_path / "registration")  # fmt: skip
    told = json.loads((tmp_path / "registration/registration.json").read_text())
    assert not told["verdict"]["promote"]
    assert "picked on the evaluation set itself" in told["verdict"]["reasons"][0]
    place = RegistryPlace(folder=tmp_path / "registry")
    with pytest.raises(UserError, match=r"picked on the evaluation set .*--override REASON"):
        manual.promote(place, told["model"], told["version"], "Production", override=None)


def test_a_candidate_meets_the_champion_on_features_and_lineage_names_them(
    data: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    for model in ("cmaf", "clipfusion_vad", "cross_modal_detector"):
        run("evaluate", model, **places(data), checkpoint=checkpoints[model], out=tmp_path / model)
        run("register", model, **places(data), checkpoint=checkpoints[model],
            evaluation=tmp_path / model, registry=tmp_path / "registry",
            out=tmp_path / f"registration-{model}")  # fmt: skip
    first, second, third = (
        json.loads((tmp_path / f"registration-{model}/registration.json").read_text())
        for model in ("cmaf", "clipfusion_vad", "cross_modal_detector")
    )
    assert first["verdict"]["promote"]
    digest = artifacts.open_artifact(data / "features").digest
    assert first["tags"]["features_digest"] == digest
    # Frames and clips share no instant that could be compared.
    assert "cannot be compared" in second["verdict"]["reasons"][0]
    assert third["verdict"]["champion"] is not None


def test_a_registered_model_takes_arrays_of_features(
    data: Path, checkpoints: dict[str, Path]
) -> None:
    from crosswatch.tracking.scoring_model import ScoringModel

    class Context:
        artifacts = {"checkpoint": str(checkpoints["cross_modal_detector"])}  # noqa: RUF012

    model = ScoringModel()
    model.load_context(Context())
    image = np.random.default_rng(0).normal(size=(3, 5, WIDTH)).astype(np.float32)
    valid = np.arange(5) < 3
    alone = model.predict(None, {"image": image, "image_valid": np.tile(valid, (3, 1))})
    loud = np.where(valid[:, None], image, 1e3)
    same = model.predict(None, {"image": loud, "image_valid": np.tile(valid, (3, 1))})
    assert alone.shape == (3, 2)
    np.testing.assert_array_equal(alone, same)
    assert not np.allclose(alone, model.predict(None, {"image": image, "video": image}))


READ = {
    "cmaf": ("model.visual=[motion, image]", "model.most_frames=3", "model.most_words=2"),
    "caam": ("model.video=[motion, image]", "model.video_tokens=frames", "model.video_frames=4",
             "model.audio_columns=2", "model.text_words=2"),
    "cross_modal_detector": ("model.most_tokens=2",),
    "clipfusion_vad": ("model.visual=[motion, image]", "model.length=4"),
}  # fmt: skip
"""Settings under which sequences are joined, cut and pooled."""


def untrained(sources: Sources, out: Path, model: str, *settings: str) -> Path:
    given = resolved(model, *settings)
    facts = facts_of(sources, given.windows, given.clips, given.model)
    out.mkdir()
    torch.manual_seed(0)
    save_detector(out, facts, facts.build().state_dict())
    return out


def as_extracted(examples: ClipExamples, features: FeatureSet, row: int, stream: Stream) -> Floats:
    """Rows (L, D) of one clip as the artifact has them, joined at the times of the first."""
    number, clip, _ = examples.clip_NC[row]
    batch, table = examples.batch_set.batches[number].id, examples.tables[number]
    parts = [features.feature(batch, name) for name in stream.modalities]
    middle_s = parts[0].spans_s.mean(axis=1)
    middle_s = middle_s[(middle_s >= table.start_s[clip]) & (middle_s < table.stop_s[clip])]
    found = [part.values[part.rows_at(middle_s, within_s=0.5)] for part in parts]
    return np.concatenate(found, axis=1)


def registered(checkpoint: Path) -> Any:
    from crosswatch.tracking.scoring_model import ScoringModel

    model = ScoringModel()
    model.load_context(types.SimpleNamespace(artifacts={"checkpoint": str(checkpoint)}))
    return model


@pytest.mark.parametrize("model", MODELS)
def test_a_registered_model_gives_the_numbers_of_the_evaluation(
    data: Path, tmp_path: Path, model: str
) -> None:
    sources = Sources.open(**places(data))
    checkpoint = untrained(sources, tmp_path / "ck", model, *READ[model])
    detector = load_detector(checkpoint)
    predictions = score_block(detector, sources, pool="segment")
    examples = open_examples(sources, detector.facts, "evaluation")
    given: dict[str, np.ndarray] = {}
    for stream in detector.facts.streams:
        clips = [
            as_extracted(examples, sources.features, row, stream) for row in range(len(examples))
        ]
        longest = max(map(len, clips))
        assert longest > stream.most
        values = np.full((len(clips), longest + 1, clips[0].shape[1]), 1e3, np.float32)
        for row, clip in enumerate(clips):
            values[row, : len(clip)] = clip
        lengths = np.array([len(clip) for clip in clips])
        given |= {stream.name: values}
        given |= {f"{stream.name}_valid": np.arange(longest + 1) < lengths[:, None]}
    asked = registered(checkpoint).predict(None, given)
    np.testing.assert_allclose(asked, predictions.probability_NK, atol=1e-5)


def test_a_registered_model_refuses_what_it_does_not_know(data: Path, tmp_path: Path) -> None:
    sources = Sources.open(**places(data))
    model = registered(untrained(sources, tmp_path / "ck", "cross_modal_detector"))
    image = np.zeros((2, 3, WIDTH), np.float32)
    for given, message in (
        ({"image": image, "vdeio": image}, "the model knows no vdeio; it takes image, image_valid"),
        ({"image": image[..., 1:]}, r"image is of shape \(2, 3, 11\)"),
        ({"image": image, "image_valid": np.ones((2, 4))}, r"image_valid of \(2, 4\); expected"),
        ({"image": image, "audio": image[:1]}, r"streams are of \[1, 2\] clips"),
        ({}, "streams are of no clips; expected one or more of image"),
    ):
        with pytest.raises(UserError, match=message):
            model.predict(None, given)


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        ("cmaf", ("model.visual=[clip, motion]",), r"joins clip\+motion, and a row of clip is sev"),
        ("cmaf", ("model.text=[hashed, hashed_tokens]",), "a row of hashed_tokens is several"),
        ("clipfusion_vad", ("model.visual=[hashed_tokens]",), "the model tells moments by rows"),
    ],
)
def test_rows_of_several_vectors_are_neither_joined_nor_moments(
    data: Path, tmp_path: Path, model: str, settings: tuple[str, ...], message: str
) -> None:
    names = (*MODALITIES, "clip", "hashed_tokens")
    make_features(data / "batches", tmp_path / "several", modalities=names, crops=2)
    encoders = f"features.encoders=[{', '.join((*MODALITIES, 'clip'))}]"
    with pytest.raises(UserError, match=message):
        untrained(
            Sources.open(data / "batches", data / "labels", tmp_path / "several"),
            tmp_path / "ck", model, *settings, encoders,
        )  # fmt: skip


def test_clips_of_no_recording_and_of_no_feature_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no whole recording .* split.by=time"):
        trained(data, tmp_path / "a", "cmaf", "clips.length_s=0")
    detector = load_detector(untrained(Sources.open(**places(data)), tmp_path / "ck", "cmaf"))
    make_features(data / "batches", tmp_path / "silent", silent=True)
    silent = Sources.open(data / "batches", data / "labels", tmp_path / "silent")
    with pytest.raises(UserError, match=r"none of the \d+ clips of the evaluation blocks has a va"):
        score_block(detector, silent)


def test_fewer_clips_than_workers_are_refused(data: Path, tmp_path: Path) -> None:
    length = ("clips.length_s=20", "clips.step_s=20", "train.select=last")
    with pytest.raises(UserError, match=r"hold \d+ windows or clips, fewer than there are workers"):
        trained(data, tmp_path / "ck", "cmaf", *length, "train.workers=8")


def test_clips_are_scored_in_no_more_places_than_memory_holds(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, model = Sources.open(**places(data)), "clipfusion_vad"
    detector = load_detector(untrained(sources, tmp_path / "ck", model))
    usual = score_block(detector, sources, pool="segment")
    seen: list[tuple[int, ...]] = []
    detector.module.register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].valid_BL.shape))
    )
    monkeypatch.setattr(example, "PLACES", 20)
    found = score_block(detector, sources, pool="segment")
    assert len(seen) > 1
    assert all(clips * longest <= 20 for clips, longest in seen)
    np.testing.assert_allclose(found.probability_NK, usual.probability_NK, atol=1e-6)
    pd.testing.assert_frame_equal(found.rows, usual.rows)

    job = learner.Job(
        **places(data), checkpoints=tmp_path, facts=detector.facts, train=resolved(model).train
    )
    validating = learner.Learner(job, learner.Alone())
    seen.clear()
    validating.bare.register_forward_pre_hook(
        lambda _, inputs: seen.append(tuple(inputs[0].valid_BL.shape))
    )
    assert "validation_auc" in validating._validate()
    assert sum(clips for clips, _ in seen) == len(validating.validation)
    assert all(clips * longest <= 20 for clips, longest in seen)


def test_features_of_another_encoder_are_refused(
    data: Path, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    make_features(data / "batches", data / "others", version="2")
    with pytest.raises(
        UserError, match=r"is of another encoder .* than the model was trained with"
    ):
        run("evaluate", "cmaf", **places(data, "others"), checkpoint=checkpoints["cmaf"],
            out=tmp_path / "out")  # fmt: skip


def test_what_a_model_looks_at_has_to_be_there(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--features is missing"):
        run("train", "cmaf", batches=data / "batches", labels=data / "labels", out=tmp_path / "a")
    make_features(data / "batches", data / "pictures", modalities=("image",))
    with pytest.raises(UserError, match="holds no 'hashed', which the model's stream 'text'"):
        trained(data, tmp_path / "b", "cmaf", features="pictures")
    with pytest.raises(UserError, match=r"model.visual is flow, and features.encoders is motion"):
        resolved("cmaf", "model.visual=[flow]")
    with pytest.raises(UserError, match="unknown key 'depth' for CmafConfig"):
        resolved("cmaf", "model.depth=3")
    with pytest.raises(UserError, match=r"'cmfa' is not one of fmformer, cmaf.*mean 'cmaf'"):
        experiment.resolve("fmformer-furnace", {"model": {"name": "cmfa"}})


def test_a_batch_without_a_stream_is_scored_by_the_others(data: Path, tmp_path: Path) -> None:
    make_features(data / "batches", data / "silent", missing=[("batch-1", "mel")])
    model = "cross_modal_detector"
    checkpoint = trained(data, tmp_path / "ck", model, features="silent")
    run("evaluate", model, **places(data, "silent"), checkpoint=checkpoint, out=tmp_path / "out")
    predictions = Predictions.load(tmp_path / "out" / PREDICTIONS)
    assert set(predictions.rows["batch"]) == {"batch-0", "batch-1"}
    assert np.isfinite(predictions.probability_NK).all()


def test_streams_are_standardised_by_training_clips_alone(data: Path) -> None:
    settings = resolved("cmaf")
    sources = Sources.open(**places(data))
    facts = facts_of(sources, settings.windows, settings.clips, settings.model)
    training = open_examples(sources, facts, "train")
    example = training.example(np.arange(len(training)))
    for tokens in example.inputs:
        values = tokens.values_BLD[tokens.valid_BL]
        assert values.mean(0).abs().max() < 1e-3
        assert (values.std(0) - 1).abs().max() < 0.02
        assert not tokens.values_BLD[~tokens.valid_BL].any()


def test_every_crop_of_a_picture_trains_and_the_first_is_judged(data: Path) -> None:
    make_features(data / "batches", data / "crops", modalities=("clip",), crops=3)
    given = ("model.visual=[clip]", "features.encoders=[clip]", "model.standardise=false")
    settings = resolved("clipfusion_vad", *given)
    sources = Sources.open(**places(data, "crops"))
    facts = facts_of(sources, settings.windows, settings.clips, settings.model)
    training, validation = (open_examples(sources, facts, b) for b in ("train", "validation"))
    assert sorted(set(training.table()["crop"])) == [1, 2]
    assert set(validation.table()["crop"]) == {1}
    one, two = (training.example(np.array([row])).inputs[0].values_BLD for row in (0, 1))
    np.testing.assert_allclose((two - one).numpy(), 1.0, atol=1e-5)


def test_the_first_crop_that_there_is_may_train_alone(data: Path) -> None:
    crops = make_features(data / "batches", data / "few-crops", modalities=("clip",), crops=3)
    given = ("model.visual=[clip]", "features.encoders=[clip]", "clips.crops=first")
    settings = resolved("clipfusion_vad", *given)
    sources = Sources.open(**places(data, crops.name))
    facts = facts_of(sources, settings.windows, settings.clips, settings.model)
    training = open_examples(sources, facts, "train").table()
    assert set(training["crop"]) == {1}
    assert not training.duplicated(["batch", "start_s"]).any()
    every = dataclasses.replace(facts, clips=dataclasses.replace(facts.clips, crops="all"))
    both = open_examples(sources, every, "train").table()
    assert len(both) == 2 * len(training)
    pd.testing.assert_frame_equal(both[both["crop"] == 1].reset_index(drop=True), training)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_classes_told_by_clip_train_and_are_judged_without_its_weights(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    text = {
        **tiny_clip.CONFIG["text_cfg"],
        "vocab_size": 49408,
        "context_length": 77,
        "width": WIDTH,
    }
    monkeypatch.setitem(tiny_clip.CONFIG, "text_cfg", text)
    monkeypatch.setitem(tiny_clip.CONFIG, "embed_dim", WIDTH)
    weights = tiny_clip.save_folder(tmp_path / "clip")
    settings = (
        "model.class_text=clip",
        "model.prompts=[normal, semi molten]",
        f"model.text.weights.source={weights}",
        "train.epochs=3",
        f"train.workers={workers}",
    )
    model = "clipfusion_vad"
    checkpoint = trained(data, tmp_path / "ck", model, *settings)
    parents = artifacts.open_artifact(checkpoint).parents
    assert parents["text_tower"] == digest_of_weights(weights)
    shutil.rmtree(weights)
    run("evaluate", model, **places(data), checkpoint=checkpoint, out=tmp_path / "out")
    assert len(Predictions.load(tmp_path / "out" / PREDICTIONS)) > 100
    with pytest.raises(UserError, match=r"model.text.weights.source: .* (is|lies) .*"):
        trained(data, tmp_path / "again", model, *settings)
