"""The gate, the registry on a real MLflow database, and the history."""

import concurrent.futures
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crosswatch import config, experiment
from crosswatch.errors import UserError
from crosswatch.evaluation.measure import statistics_of
from crosswatch.evaluation.predictions import Predictions
from crosswatch.evaluation.seeds import compare
from crosswatch.evaluation.settings import EvaluateConfig
from crosswatch.records import TimeRange
from crosswatch.stages.train import SELECTED_BY as SELECTED
from crosswatch.tracking import manual
from crosswatch.tracking.history import History
from crosswatch.tracking.lineage import SELECTED_BY
from crosswatch.tracking.promotion import GATE, Gate, judge, unjudged, weigh
from crosswatch.tracking.registry import CHAMPION, ModelRegistry, RegistryPlace
from crosswatch.training.learner import validation_metrics
from crosswatch.training.loop import Predicted

GATE_F1 = Gate(primary="f1", min_gain=0.0, evaluate=EvaluateConfig(block_s=5.0, samples=200))
SET = "e" * 64


def predictions(hits: float, *, seed: int = 0, instants: int = 120) -> Predictions:
    """A share `hits` of the instants decided right."""
    rng = np.random.default_rng(seed)
    label = np.arange(instants) // 10 % 2
    right = rng.random(instants) < hits
    chance = np.where(right, label, 1 - label) * 0.8 + 0.1
    rows = pd.DataFrame(
        {"batch": "b", "end_s": np.arange(instants) / 2, "segment": 0, "label": label}
    )
    return Predictions(
        rows=rows, probability_NK=np.stack([1 - chance, chance], axis=1), pixels_NKK=None
    )


def test_without_a_champion_the_candidate_is_promoted() -> None:
    verdict = weigh(predictions(0.6), None, GATE_F1, 1)
    assert verdict.promote
    assert verdict.reasons == ("there is no champion yet",)


def test_only_a_gain_promotes_and_the_paired_interval_is_recorded() -> None:
    better, worse = predictions(0.95), predictions(0.6, seed=1)
    verdict = weigh(better, worse, GATE_F1, 3)
    assert verdict.promote
    assert verdict.difference.low > 0
    assert "evaluation set 3: gain +" in verdict.reasons[0]
    refused = weigh(worse, better, GATE_F1, 3)
    assert not refused.promote
    assert refused.difference.estimate == pytest.approx(-verdict.difference.estimate)


def test_an_equal_candidate_is_refused_with_the_numbers() -> None:
    same = predictions(0.8)
    verdict = weigh(same, same, GATE_F1, 1)
    assert not verdict.promote
    assert verdict.difference.low == verdict.difference.high == 0
    assert "gain +0.0000 <= 0" in verdict.reasons[0]


def test_comparison_uses_only_instants_that_both_have() -> None:
    first, second = predictions(0.9), predictions(0.9)
    mine, theirs, difference = compare(
        first.take(np.arange(0, 100)), second.take(np.arange(20, 120)), "f1", GATE_F1.evaluate
    )
    assert mine == theirs
    assert difference.estimate == 0
    with pytest.raises(UserError, match="no common instant"):
        compare(first.take(np.arange(5)), second.take(np.arange(50, 60)), "f1", GATE_F1.evaluate)


def test_predictions_survive_parquet(tmp_path: Path) -> None:
    made = predictions(0.7)
    cells = np.random.default_rng(0).integers(0, 99, (len(made), 2, 2))
    made = Predictions(rows=made.rows, probability_NK=made.probability_NK, pixels_NKK=cells)
    made.save(tmp_path / "p.parquet")
    again = Predictions.load(tmp_path / "p.parquet")
    pd.testing.assert_frame_equal(again.rows, made.rows)
    np.testing.assert_array_equal(again.probability_NK, made.probability_NK)
    np.testing.assert_array_equal(again.pixels_NKK, cells)


def test_pooling_gives_one_decision_a_recording() -> None:
    made = predictions(0.7)
    made.rows["segment"] = np.arange(len(made)) // 10
    pooled = made.pooled("segment")
    assert len(pooled) == 12
    np.testing.assert_allclose(pooled.probability_NK[3], made.probability_NK[30:40].mean(0))


def test_writers_of_the_history_get_one_number_each(tmp_path: Path) -> None:
    history = History(folder=tmp_path)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: history.append("m", action="a", version=str(n), champion=True), range(24)
            )
        )
    assert {entry["version"] for entry in history.entries("m")} == set(map(str, range(24)))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> RegistryPlace:
    """A registry with three versions, the first two judged on one evaluation set."""
    place = RegistryPlace(folder=tmp_path_factory.mktemp("registry"))
    models = ModelRegistry(place)
    models.client.create_registered_model("m")
    for number, hits in ((1, 0.7), (2, 0.95), (3, 0.6)):
        models.client.create_model_version("m", source=f"file:///nowhere/{number}")
        digest = f"checkpoint-{number}"
        models.tag("m", str(number), {
            GATE: config.to_json(GATE_F1), "checkpoint_digest": digest,
            "evaluation_set_digest": SET, "evaluation_set_version": 1, "labels_digest": "l",
        })  # fmt: skip
        kept = place.predictions(SET, "l", digest)
        kept.parent.mkdir(parents=True, exist_ok=True)
        predictions(hits, seed=number).save(kept)
    return place


def stages(place: RegistryPlace) -> dict[str, str]:
    found = ModelRegistry(place).client.search_model_versions("name = 'm'")
    return {str(version.version): version.current_stage for version in found}


def champion(place: RegistryPlace) -> str | None:
    found = ModelRegistry(place).champion("m")
    return None if found is None else str(found.version)


def test_alias_and_stage_move_together_through_the_gate(place: RegistryPlace) -> None:
    assert champion(place) is None
    manual.promote(place, "m", "1", "Production", override=None)
    assert (champion(place), stages(place)["1"]) == ("1", "Production")
    manual.promote(place, "m", "2", "Production", override=None)
    assert champion(place) == "2"
    assert stages(place) == {"1": "Archived", "2": "Production", "3": "None"}

    with pytest.raises(UserError, match=r"version 3 is not promoted: f1 .* --override REASON"):
        manual.promote(place, "m", "3", "Production", override=None)
    assert champion(place) == "2"
    manual.promote(place, "m", "3", "Production", override="the plant asked for it")
    assert champion(place) == "3"
    assert place.history.entries("m")[-1]["override"] == "the plant asked for it"

    assert manual.rollback(place, "m")["version"] == "2"
    assert (champion(place), stages(place)["2"]) == ("2", "Production")
    assert manual.rollback(place, "m")["version"] == "1"
    with pytest.raises(UserError, match="no champion stood before version 1"):
        manual.rollback(place, "m")

    manual.promote(place, "m", "1", "Archived", override=None)
    assert champion(place) is None
    manual.promote(place, "m", "2", "Staging", override=None)
    assert (champion(place), stages(place)["2"]) == (None, "Staging")
    assert manual.rollback(place, "m")["version"] == "1"
    manual.promote(place, "m", "2", "Production", override=None)
    manual.promote(place, "m", "1", "Production", override="an old one again")
    assert manual.rollback(place, "m")["version"] == "2"
    actions = [entry["action"] for entry in place.history.entries("m")]
    by_hand = "promote by hand"
    assert actions == [by_hand] * 3 + ["rollback"] * 2 + [by_hand] * 2 + [
        "rollback", by_hand, by_hand, "rollback",
    ]  # fmt: skip


def test_models_and_versions_that_are_not_there_are_named(place: RegistryPlace) -> None:
    with pytest.raises(UserError, match=r"n version 1: there is no such model; registered here: m"):
        manual.promote(place, "n", "1", "Staging", override=None)
    with pytest.raises(UserError, match="m version 9: there is no such version; known: 1, 2, 3"):
        manual.promote(place, "m", "9", "Staging", override=None)


def test_versions_scored_on_different_sets_are_not_compared(place: RegistryPlace) -> None:
    manual.promote(place, "m", "1", "Production", override="start over")
    models = ModelRegistry(place)
    models.client.create_model_version("m", source="file:///nowhere/4")
    models.tag("m", "4", {
        GATE: config.to_json(GATE_F1), "checkpoint_digest": "checkpoint-4",
        "evaluation_set_digest": "f" * 64, "evaluation_set_version": 2, "labels_digest": "l",
    })  # fmt: skip
    kept = place.predictions("f" * 64, "l", "checkpoint-4")
    kept.parent.mkdir(parents=True)
    predictions(0.99).save(kept)
    with pytest.raises(UserError, match="has not been scored on evaluation set 2"):
        manual.promote(place, "m", "4", "Production", override=None)
    assert ModelRegistry(place).client.get_model_version_by_alias("m", CHAMPION).tags
    assert champion(place) == "1"


def test_an_epoch_picked_on_the_evaluation_set_needs_a_reason(place: RegistryPlace) -> None:
    models = ModelRegistry(place)
    number = models.client.create_model_version("m", source="file:///nowhere/best").version
    models.tag("m", number, {
        GATE: config.to_json(GATE_F1), "checkpoint_digest": "checkpoint-best",
        "evaluation_set_digest": SET, "evaluation_set_version": 1, "labels_digest": "l",
        SELECTED_BY: SELECTED["test"].format(metric="auc"),
    })  # fmt: skip
    predictions(1.0).save(place.predictions(SET, "l", "checkpoint-best"))
    before = champion(place)
    with pytest.raises(UserError, match=r"is not promoted: its epoch was picked .*--override REA"):
        manual.promote(place, "m", number, "Production", override=None)
    assert champion(place) == before
    manual.promote(place, "m", number, "Staging", override=None)
    manual.promote(place, "m", number, "Production", override="a comparison with the paper")
    assert champion(place) == str(number)
    assert place.history.entries("m")[-1]["override"] == "a comparison with the paper"
    manual.promote(place, "m", number, "Archived", override=None)


def test_an_undefined_metric_is_never_promoted_and_never_defends_itself() -> None:
    found, nothing = predictions(0.8), predictions(0.8)
    nothing.rows["label"] = 0
    nothing.probability_NK[:] = (0.9, 0.1)
    assert not weigh(nothing, None, GATE_F1, 1).promote
    undefined = judge(
        metric="f1",
        evaluation_set="1",
        candidate=0.5,
        champion=float("nan"),
        difference=weigh(found, found, GATE_F1, 1).difference,
        min_gain=0.0,
    )
    assert undefined.promote
    assert "undefined" in undefined.reasons[0]


def test_two_that_cannot_be_compared_are_a_refusal_with_the_reason() -> None:
    verdict = unjudged(predictions(0.9), GATE_F1, 2, "the champion takes other frames")
    assert (verdict.promote, verdict.reasons) == (False, ("the champion takes other frames",))


def test_instants_that_trained_the_champion_are_left_out() -> None:
    made = predictions(0.9)
    seen = TimeRange(batch="b", batch_digest="d", block="train", start_s=10.0, stop_s=20.0)
    left = made.outside([seen], {"b": "d"}).rows["end_s"]
    assert not ((left >= 10) & (left < 20)).any()
    assert len(left) == len(made) - 20
    assert len(made.outside([seen], {"b": "another delivery"})) == len(made)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["register.primary=fdr"], "'fdr' is not one of f1"),
        (["register.primary=macro_f1"], "register.primary is macro_f1, which is not defined for 2"),
        (["ingest.classes=[normal, a, b]"], "train.metric is f1, which is not defined for 3"),
        (["ingest.frame_px=72"], r"ingest.frame_px: 72 is no positive multiple of 16"),
        (["model.class_head=false"], r"model.class_head is false; selection and the gate need it"),
        (["model.pixel_head=false", "register.primary=miou"], "register.primary is miou"),
        (
            ["evaluate.has_normal=false"],
            r"register.primary is f1, .* 2 classes, none of them normal",
        ),
        (["evaluate.has_normal=false", "register.primary=auc"], "register.primary is auc, which"),
        (
            ["evaluate.has_normal=false", "register.primary=macro_f1", "train.metric=macro_f1"],
            "train.metric is macro_f1, which is not defined for 2 classes and",
        ),
    ],
)
def test_what_the_gate_could_not_judge_is_refused_before_anything_runs(
    settings: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        experiment.resolve("fmformer-furnace", experiment.over(None, settings))


@pytest.mark.parametrize("metric", ["f1", "auc"])
def test_validation_knows_normal_though_the_evaluation_does_not(metric: str) -> None:
    """As learner.validation_metrics and measure.statistics_of compute them."""
    settings = ("evaluate.has_normal=false", "register.primary=macro_f1", f"train.metric={metric}")
    found = experiment.resolve("fmformer-furnace", experiment.over(None, settings))
    made = predictions(0.9)
    assert found.register.primary in statistics_of(made, found.evaluate)
    chances = torch.from_numpy(made.probability_NK)
    part = Predicted(
        label_N=torch.tensor(made.rows["label"].to_numpy()),
        probability_NK=chances,
        anomaly_N=None,
        loss=0.0,
    )
    assert metric in validation_metrics([part])
