"""Ranking of frames against the published code and scikit-learn, over videos and within."""

import json
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import Units, block_bootstrap
from crosswatch.evaluation.frames import frame_metrics, frame_runs, frame_statistics

GOLDEN = Path(__file__).parent / "golden"
quick = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("case", ["ucf_typical", "ucf_normal_label_fixed", "xd_typical"])
def test_golden(case):
    data = np.load(GOLDEN / f"{case}.npz")
    expected = json.loads((GOLDEN / f"{case}.json").read_text())
    lengths = [len(data[name]) for name in sorted(data.files) if name.startswith("pred_")]
    video = np.repeat(np.arange(len(lengths)), lengths)
    ours = frame_metrics(data["frame_gt"], data["frame_scores"], video)
    theirs = [expected[name] for name in ("AUC", "AP", "Ano_AUC", "Ano_AP")]
    assert [ours[name] for name in ("auc", "ap", "ano_auc", "ano_ap")] == pytest.approx(
        theirs, abs=1e-9, rel=0
    )


@st.composite
def made(draw, weighted=True):
    """Labels, scores in tenths, videos whose frames need not be neighbours, and weights."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    frames = draw(st.integers(2, 80))
    video = chance.integers(0, draw(st.integers(1, 6)), frames)
    if draw(st.booleans()):
        video = np.sort(video)
    label = (chance.random(frames) < chance.random(6)[video]).astype(int)
    score = chance.integers(0, 11, frames) / 10
    weight = chance.integers(0, 4, frames).astype(float) if weighted else np.ones(frames)
    return label, score, video, weight


def equal_error_rate(label, score, sample_weight):
    alarmed, found, _ = reference.roc_curve(
        label, score, sample_weight=sample_weight, drop_intermediate=False
    )
    return np.interp(0, alarmed + found - 1, alarmed)


def plain(label, score, video, weight):
    """By scikit-learn; nan where a class is missing."""

    def ranked(measure, rows):
        kept = rows & (weight > 0)
        if len(np.unique(label[kept])) < 2:
            return np.nan
        return measure(label[kept], score[kept], sample_weight=weight[kept])

    everywhere = np.ones(len(label), bool)
    auc, ap = reference.roc_auc_score, reference.average_precision_score
    abnormal = np.isin(video, video[label == 1])
    within, of_video = [], []
    for each in np.unique(video):
        within.append(ranked(auc, video == each))
        of_video.append(weight[video == each].mean())
    within, of_video = np.array(within), np.array(of_video)
    defined = np.isfinite(within)
    return {
        "auc": ranked(auc, everywhere),
        "ap": ranked(ap, everywhere),
        "eer": ranked(equal_error_rate, everywhere),
        "ano_auc": ranked(auc, abnormal),
        "ano_ap": ranked(ap, abnormal),
        "within_auc": np.average(within[defined], weights=of_video[defined])
        if defined.any()
        else np.nan,
    }


@given(made(weighted=False))
@quick
def test_equal_scikit_learn(case):
    label, score, video, weight = case
    expected = plain(label, score, video, weight)
    if not label.any():
        expected["ap"] = np.nan
    elif label.all():
        expected["ap"] = 1.0
    if label.any() and np.isnan(expected["ano_ap"]):
        expected["ano_ap"] = 1.0
    assert frame_metrics(label, score, video) == pytest.approx(expected, nan_ok=True)


@given(made())
@quick
def test_equal_scikit_learn_under_weights(case):
    label, score, video, weight = case
    expected = plain(label, score, video, weight)
    for name, of in frame_statistics(label, score, video).items():
        ours = of(np.stack((weight, 3 * weight)))
        if name in ("ap", "ano_ap") and np.isnan(expected[name]):
            assert (np.isnan(ours) | (np.abs(ours - 1) < 1e-12)).all()  # one class
        else:
            assert ours == pytest.approx([expected[name]] * 2, nan_ok=True), name


@given(made(weighted=False), st.integers(1, 5), st.integers(0, 1000))
@quick
def test_runs_of_equal_frames_are_the_frames(case, repeats, seed):
    label, score, video, _ = (np.repeat(part, repeats) for part in case)
    chance = np.random.default_rng(seed)
    weights = chance.integers(0, 3, (4, 6)).astype(float)
    one_by_one = frame_statistics(label, score, video)
    of_any = chance.integers(0, 6, len(label))
    for unit in (video, of_any):  # a unit may cut a video, and a run
        runs = frame_runs(label, score, video, Units(unit_N=unit, count=6))
        assert runs.frames_M.sum() == len(label)
        assert unit is of_any or len(runs.label_M) <= len(label) // repeats
        for name, of in runs.statistics().items():
            expected = one_by_one[name](weights[:, unit])
            assert of(weights) == pytest.approx(expected, nan_ok=True), name


@given(made(weighted=False), st.randoms())
@quick
def test_the_order_of_frames_and_a_rising_change_of_scores_do_not_matter(case, random):
    label, score, video, _ = case
    order = list(range(len(label)))
    random.shuffle(order)
    named = np.array([f"video {number}" for number in video])
    ours = frame_metrics(label[order], np.exp(5 * score[order]) - 3, named[order])
    assert ours == pytest.approx(frame_metrics(label, score, video), nan_ok=True)


def test_what_a_video_adds_to_every_score_hides_from_the_auc_within():
    video = np.repeat(np.arange(4), 50)
    label = np.tile(np.arange(50) >= 40, 4).astype(int)
    score = label + 10.0 * video
    metrics = frame_metrics(label, score, video)
    assert metrics["within_auc"] == 1
    assert metrics["auc"] < 0.7


def test_normal_videos_count_in_the_auc_but_not_in_the_others():
    label = np.array([0, 1, 0, 0, 0])
    video = np.array(["a", "a", "b", "b", "b"])
    metrics = frame_metrics(label, [0.1, 0.5, 0.9, 0.9, 0.9], video)
    assert metrics["auc"] == 0.25
    assert metrics["ano_auc"] == metrics["within_auc"] == metrics["ano_ap"] == 1


def test_without_an_abnormal_frame_all_is_nan():
    metrics = frame_metrics([0, 0, 0], [0.1, 0.2, 0.3], [1, 1, 2])
    assert np.isnan(list(metrics.values())).all()
    assert list(metrics) == ["auc", "ap", "eer", "ano_auc", "ano_ap", "within_auc"]


def test_videos_are_the_units_of_an_interval():
    chance = np.random.default_rng(3)
    video = np.repeat(np.arange(30), 160)
    label = np.repeat(chance.random(300) < 0.3, 16) & (video < 20)
    score = np.repeat(chance.random(300), 16) + 0.3 * label
    units, frames = Units.named(video), frame_statistics(label, score, video)
    for name, of in frame_statistics(label, score, video, units=units).items():
        interval = block_bootstrap(np.arange(units.count), of, samples=100)
        assert interval.low < interval.estimate < interval.high
        same = block_bootstrap(video, frames[name], samples=100)
        assert (interval.low, interval.high) == pytest.approx((same.low, same.high))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (([0, 1], [0.1], [1, 1]), r"labels of shape \(2,\), scores of \(1,\), videos of \(2,\)"),
        (([], [], []), "at least 1 frame"),
        (([0, 2], [0.1, 0.2], [1, 1]), "labels hold 2; 0 for normal"),
        (([0, np.nan], [0.1, 0.2], [1, 1]), "labels hold nan"),
        (([0, 1], [0.1, np.inf], [1, 1]), "1 of 2 frames have a score"),
    ],
)
def test_refuses_arrays_that_do_not_fit(arrays, message):
    for attempt in (frame_metrics, frame_statistics):
        with pytest.raises(UserError, match=message):
            attempt(*arrays)
