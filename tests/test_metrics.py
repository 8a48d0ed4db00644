"""Metrics against the published code and scikit-learn, and what an interval promises."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import Units, block_bootstrap, paired_difference
from crosswatch.evaluation.classification import (
    classification_metrics,
    classification_statistics,
)
from crosswatch.evaluation.segmentation import (
    pixel_confusion,
    segmentation_metrics,
)

GOLDEN = Path(__file__).parent / "golden"
quick = settings(max_examples=60, deadline=None)


def one_hot(decided, classes=2):
    return np.eye(classes)[decided]


def binary(score):
    return np.stack((1 - score, score), axis=1)


@st.composite
def scored(draw, both=True):
    count = draw(st.integers(4, 40))
    labels = draw(arrays.arrays(np.int64, count, elements=st.integers(0, 1)))
    assume(not both or 0 < labels.sum() < count)
    tenths = draw(arrays.arrays(np.int64, count, elements=st.integers(0, 10)))
    return labels, tenths / 10


def test_golden_classification():
    data, expected = np.load(GOLDEN / "fmf_metrics.npz"), golden_metrics()["cls"]
    ours = classification_metrics(data["cls_true"], one_hot(data["cls_pred"]))
    theirs = [expected[name] for name in ("Acc", "F1", "FDR", "MDR")]
    assert [ours[name] for name in ("accuracy", "f1", "fdr", "mdr")] == pytest.approx(
        theirs, abs=1e-4
    )


def test_golden_segmentation():
    data, expected = np.load(GOLDEN / "fmf_metrics.npz"), golden_metrics()["seg"]
    ours = segmentation_metrics(pixel_confusion(data["seg_true"], data["seg_pred"], classes=2))
    assert ours["miou"] == pytest.approx(expected["mIoU"], abs=1e-4)
    assert ours["frame_accuracy"] == pytest.approx(expected["frameAcc"], abs=1e-4)


def golden_metrics():
    return json.loads((GOLDEN / "fmf_metrics.json").read_text())


@given(scored())
@quick
def test_binary_metrics_equal_scikit_learn(case):
    labels, score = case
    decided = binary(score).argmax(axis=1)
    (tn, fp), (fn, tp) = reference.confusion_matrix(labels, decided, labels=[0, 1])
    assert classification_metrics(labels, binary(score)) == pytest.approx({
        "accuracy": reference.accuracy_score(labels, decided),
        "f1": reference.f1_score(labels, decided),
        "fdr": fp / (fp + tn),
        "mdr": fn / (fn + tp),
        "balanced_accuracy": reference.balanced_accuracy_score(labels, decided),
        "auc": reference.roc_auc_score(labels, binary(score)[:, 1]),
        "ap": reference.average_precision_score(labels, binary(score)[:, 1]),
        "eer": equal_error_rate(labels, binary(score)[:, 1]),
    })  # fmt: skip


def equal_error_rate(labels, score, weights=None):
    """Where the ROC curve of scikit-learn, drawn with straight lines, meets alarmed = missed."""
    alarmed, found, _ = reference.roc_curve(
        labels, score, sample_weight=weights, drop_intermediate=False
    )
    return np.interp(0, alarmed + found - 1, alarmed)


@given(scored(), st.integers(0, 100))
@quick
def test_weighted_ranking_metrics_equal_scikit_learn(case, seed):
    labels, score = case
    weights = np.random.default_rng(seed).integers(0, 4, size=(1, len(labels))).astype(float)
    assume(0 < weights[0] @ labels < weights.sum())
    statistics = classification_statistics(labels, binary(score))
    assert statistics["auc"](weights)[0] == pytest.approx(
        reference.roc_auc_score(labels, score, sample_weight=weights[0])
    )
    assert statistics["ap"](weights)[0] == pytest.approx(
        reference.average_precision_score(labels, score, sample_weight=weights[0])
    )
    assert statistics["eer"](weights)[0] == pytest.approx(
        equal_error_rate(labels, score, weights[0])
    )


@given(scored())
@quick
def test_the_equal_error_rate_is_that_of_the_classes_swapped(case):
    labels, score = case
    swapped = classification_metrics(1 - labels, binary(1 - score))["eer"]
    assert swapped == pytest.approx(classification_metrics(labels, binary(score))["eer"])


def test_equal_error_rates():
    def eer(labels, score):
        return classification_metrics(labels, binary(np.array(score)))["eer"]

    assert eer([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]) == 0
    assert eer([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]) == 1
    assert eer([0, 1, 0, 1], [0.5, 0.5, 0.5, 0.5]) == 0.5
    assert eer([0, 0, 0, 1, 1], [0.1, 0.2, 0.6, 0.5, 0.9]) == pytest.approx(1 / 3)


@given(st.integers(2, 9), st.integers(0, 1000), st.booleans())
@quick
def test_multi_class_metrics_equal_scikit_learn(classes, seed, has_normal):
    chance = np.random.default_rng(seed)
    labels, probability = chance.integers(0, classes, 50), chance.dirichlet(np.ones(classes), 50)
    assume(classes > 2 or not has_normal)
    decided, abnormal = probability.argmax(axis=1), labels > 0
    expected = {
        "accuracy": reference.accuracy_score(labels, decided),
        "macro_f1": reference.f1_score(labels, decided, average="macro"),
        "weighted_f1": reference.f1_score(labels, decided, average="weighted"),
        "balanced_accuracy": balanced_accuracy(labels, decided),
    }
    if has_normal:
        expected["auc"] = reference.roc_auc_score(abnormal, 1 - probability[:, 0])
        expected["ap"] = reference.average_precision_score(abnormal, 1 - probability[:, 0])
    if classes >= 6:
        expected["top5"] = reference.top_k_accuracy_score(
            labels, probability, k=5, labels=range(classes)
        )
    ours = classification_metrics(labels, probability, has_normal=has_normal)
    assert ours == pytest.approx(expected)


def balanced_accuracy(labels, decided):
    with warnings.catch_warnings():  # a class that is decided, but does not occur
        warnings.simplefilter("ignore")
        return reference.balanced_accuracy_score(labels, decided)


@given(st.integers(3, 7), st.integers(0, 1000))
@quick
def test_weights_repeat_instants(classes, seed):
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, classes, 30)
    probability = chance.integers(0, 4, (30, classes)) / 4
    weights = chance.integers(0, 3, 30)
    repeated = [np.repeat(each, weights, axis=0) for each in (labels, probability)]
    expected = classification_metrics(*repeated)
    for name, of in classification_statistics(labels, probability).items():
        ours = of(weights[None].astype(float))
        assert ours == pytest.approx([expected[name]], nan_ok=True), name


@given(st.integers(2, 7), st.integers(0, 1000))
@quick
def test_weights_of_units_are_those_of_their_instants(classes, seed):
    chance = np.random.default_rng(seed)
    labels = chance.integers(0, classes, 30)
    probability = chance.integers(0, 4, (30, classes)) / 4
    units = Units.named(chance.integers(0, 9, 30))
    weights = chance.integers(0, 3, (5, units.count)).astype(float)
    one_by_one = classification_statistics(labels, probability)
    for name, of in classification_statistics(labels, probability, units=units).items():
        expected = one_by_one[name](weights[:, units.unit_N])
        assert of(weights) == pytest.approx(expected, nan_ok=True), name


def test_top5_goes_by_rank_and_of_equal_chances_the_first_class_comes_first():
    ranked = np.arange(7)[::-1][None] / 10
    top5 = [classification_metrics([k], ranked)["top5"] for k in range(7)]
    assert top5 == [1, 1, 1, 1, 1, 0, 0]
    equal = [classification_metrics([k], np.ones((1, 7)))["top5"] for k in range(7)]
    assert equal == top5


def test_abnormal_classes_rank_together_however_sure_the_model_is():
    labels = np.array([0, 0, 1, 2])
    normal = np.array([1e-18, 0.9, 1e-20, 1e-30])  # 1 - p_0 would be 1 three times
    probability = np.stack((normal, (1 - normal) / 2, (1 - normal) / 2), axis=1)
    assert classification_metrics(labels, probability)["auc"] == 1
    assert "auc" not in classification_metrics(labels, probability, has_normal=False)


@given(st.integers(2, 4), st.integers(0, 1000))
@quick
def test_mean_iou_is_the_mean_jaccard_index_of_all_pixels(classes, seed):
    chance = np.random.default_rng(seed)
    true, decided = chance.integers(0, classes, (2, 6, 8, 8))
    ours = segmentation_metrics(pixel_confusion(true, decided, classes=classes))["miou"]
    theirs = reference.jaccard_score(true.ravel(), decided.ravel(), average="macro")
    assert ours == pytest.approx(theirs)


@given(scored(), st.randoms())
@quick
def test_the_order_of_instants_does_not_matter(case, random):
    labels, score = case
    order = list(range(len(labels)))
    random.shuffle(order)
    shuffled = classification_metrics(labels[order], binary(score[order]))
    assert shuffled == pytest.approx(classification_metrics(labels, binary(score)))


def test_perfect_prediction():
    labels = np.array([0, 1, 1, 0, 1])
    metrics = classification_metrics(labels, one_hot(labels))
    assert [metrics.pop(name) for name in ("fdr", "mdr", "eer")] == [0, 0, 0]
    assert set(metrics.values()) == {1.0}
    masks = np.arange(32).reshape(2, 4, 4) % 2
    perfect = segmentation_metrics(pixel_confusion(masks, masks, classes=2))
    assert perfect == {"miou": 1.0, "frame_accuracy": 1.0}


def test_what_has_no_denominator_is_nan():
    metrics = classification_metrics([0, 0, 0], binary(np.array([0.1, 0.2, 0.3])))
    undefined = {name for name, value in metrics.items() if np.isnan(value)}
    assert undefined == {"f1", "mdr", "auc", "ap", "eer", "balanced_accuracy"}
    empty = np.zeros((2, 4, 4), dtype=int)
    assert np.isnan(segmentation_metrics(pixel_confusion(empty, empty, classes=2))["miou"])


def test_an_instant_without_known_pixels_is_not_counted():
    masks = (
        np.random.default_rng(1).integers(0, 2, (2, 5, 4, 4))
        * np.arange(2).repeat([2, 3])[:, None, None]
    )
    masks[1, 0] = 1
    confusion = pixel_confusion(*masks, classes=2)
    unknown = np.concatenate((confusion, np.zeros((3, 2, 2))))
    assert segmentation_metrics(unknown) == segmentation_metrics(confusion)
    assert segmentation_metrics(confusion)["frame_accuracy"] == 0.8


def test_a_model_that_finds_nothing_has_f1_zero():
    metrics = classification_metrics([0, 1, 1], binary(np.array([0.1, 0.2, 0.3])))
    assert (metrics["f1"], metrics["mdr"]) == (0, 1)


def blocks(chance, units=30, each=20, spread=0.15):
    """Scores whose quality varies by unit: neighbours are not independent."""
    unit = np.repeat(np.arange(units), each)
    labels = chance.integers(0, 2, units * each)
    hard = chance.normal(0, spread, units)[unit]
    score = np.clip(0.5 + 0.2 * (labels - 0.5) + hard + chance.normal(0, 0.15, len(unit)), 0, 1)
    return unit, labels, score


@given(st.integers(0, 200))
@settings(max_examples=15, deadline=None)
def test_the_interval_holds_the_estimate(seed):
    unit, labels, score = blocks(np.random.default_rng(seed))
    for name, statistic in classification_statistics(labels, binary(score)).items():
        interval = block_bootstrap(unit, statistic, samples=200, seed=seed)
        assert interval.low <= interval.estimate <= interval.high, name
        assert (interval.units, interval.dropped) == (30, 0)


def test_about_95_of_100_intervals_hold_the_truth():
    chance, held = np.random.default_rng(11), 0
    unit = np.repeat(np.arange(40), 5)
    for _ in range(200):
        right = chance.random(200) < chance.beta(8, 2, 40)[unit]
        statistic = classification_statistics(np.ones(200), one_hot(right.astype(int)))["accuracy"]
        interval = block_bootstrap(unit, statistic, samples=300)
        held += interval.low <= 0.8 <= interval.high
    assert 180 <= held <= 198


def test_units_that_move_together_widen_the_interval():
    chance, unit = np.random.default_rng(5), np.repeat(np.arange(30), 20)
    right = chance.random(600) < chance.beta(2, 2, 30)[unit]
    accuracy = classification_statistics(np.ones(600), one_hot(right.astype(int)))["accuracy"]
    together = block_bootstrap(unit, accuracy)
    apart = block_bootstrap(np.arange(len(unit)), accuracy)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_the_names_of_units_do_not_matter_and_a_seed_repeats():
    unit, labels, score = blocks(np.random.default_rng(6))
    auc = classification_statistics(labels, binary(score))["auc"]
    named = np.array([f"block {number:03}" for number in unit])
    assert block_bootstrap(unit, auc, seed=3) == block_bootstrap(named, auc, seed=3)
    assert block_bootstrap(unit, auc, seed=3) != block_bootstrap(unit, auc, seed=4)


def test_resamples_in_pieces_are_the_same_resamples(monkeypatch):
    unit, labels, score = blocks(np.random.default_rng(6))
    auc = classification_statistics(labels, binary(score))["auc"]
    whole = block_bootstrap(unit, auc, samples=100)
    monkeypatch.setattr("crosswatch.evaluation.bootstrap.WEIGHTS_AT_ONCE", 7 * len(unit))
    assert block_bootstrap(unit, auc, samples=100) == whole


def test_resamples_of_one_class_are_dropped_and_counted():
    labels, unit = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 1])
    auc = classification_statistics(labels, binary(np.array([0.1, 0.6, 0.5, 0.9])))["auc"]
    interval = block_bootstrap(unit, auc, samples=400)
    assert 120 < interval.dropped < 280
    assert interval.low == interval.high == interval.estimate == 0.75


def test_one_unit_gives_no_interval():
    accuracy = classification_statistics([0, 1], one_hot([0, 1]))["accuracy"]
    interval = block_bootstrap([7, 7], accuracy)
    assert (interval.estimate, interval.units) == (1, 1)
    assert np.isnan([interval.low, interval.high]).all()
    assert not interval.excludes_zero


def test_pairing_sees_a_difference_that_two_intervals_hide():
    unit, labels, score = blocks(np.random.default_rng(9), spread=0.3)
    better = np.where(labels == 1, score + 0.05, score - 0.05)
    first, second = (classification_statistics(labels, binary(s))["auc"] for s in (better, score))
    one, other = block_bootstrap(unit, first), block_bootstrap(unit, second)
    assert one.low < other.high
    difference = paired_difference(unit, first, second)
    assert difference.excludes_zero
    assert difference.estimate == pytest.approx(one.estimate - other.estimate)
    assert not paired_difference(unit, first, first).excludes_zero


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda: classification_metrics([0, 2], np.ones((2, 2))), "0 to 2; with 2 classes 0 to 1"),
        (lambda: classification_metrics([0], np.ones((2, 2))), r"\(1,\) and .* \(2, 2\)"),
        (lambda: classification_metrics([], np.ones((0, 2))), "0 instants of 2 classes"),
        (lambda: classification_metrics([0, 1], [[1, 0], [np.nan, 0]]), "1 of 2 instants"),
        (lambda: pixel_confusion([[[0, 1]]], [[[0]]], classes=2), "N x H x W twice needed"),
        (lambda: pixel_confusion(*np.full((2, 1, 2, 2), 3), classes=2), "from 3 to 3; with 2"),
        (lambda: block_bootstrap([], np.sum), "one unit for each instant"),
        (lambda: block_bootstrap([1, 2], np.sum, samples=0), "samples: 0, but at least 1"),
        (lambda: block_bootstrap([1, 2], np.sum, level=95), "level: 95, but more than 0"),
    ],
)  # fmt: skip
def test_refuses_arrays_that_do_not_fit(attempt, message):
    with pytest.raises(UserError, match=message):
        attempt()
