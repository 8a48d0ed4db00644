"""Detection mAP against the released procedure, against a plain one, and what has to hold."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import block_bootstrap, estimate
from crosswatch.evaluation.detection import (
    IOU_THRESHOLDS,
    detection_map,
    detection_statistics,
)

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path.stem for each in ("ucf_", "xd_") for path in GOLDEN.glob(f"{each}*.json"))
UCF = (
    "Normal", "Abuse", "Arrest", "Arson", "Assault", "Burglary", "Explosion", "Fighting",
    "RoadAccidents", "Robbery", "Shooting", "Shoplifting", "Stealing", "Vandalism",
)  # fmt: skip
XD = ("A", "B1", "B2", "B4", "B5", "B6", "G")
ABC = ("normal", "a", "b")


def interval_of(*case, **options):
    """Of the average mAP, by resampled videos."""
    of_map = detection_statistics(*case)["map"]
    return block_bootstrap(np.arange(len(case[0])), of_map, **options)


quick = settings(max_examples=40, deadline=None)


def golden(case):
    data = np.load(GOLDEN / f"{case}.npz")
    curves = [data[name] for name in sorted(data.files) if name.startswith("pred_")]
    segments, labels = (json.loads(str(data[f"{what}_json"])) for what in ("segments", "labels"))
    return curves, segments, labels, UCF if case.startswith("ucf") else XD


@pytest.mark.parametrize("case", CASES)
def test_golden(case):
    expected = json.loads((GOLDEN / f"{case}.json").read_text())
    ours = detection_map(*golden(case), iou_thresholds=expected["iou"], compat=True)
    near = 1e-6 if case == "xd_overlap_ties" else 1e-9  # the order among ties is numpy's
    assert list(ours) == expected["iou"]
    assert list(ours.values()) == pytest.approx(expected["mAP"], abs=near, rel=0)
    average = detection_statistics(*golden(case), compat=True)["map"]
    assert estimate(average, expected["n_videos"]) == pytest.approx(expected["mAP_avg"], abs=near)


def test_there_are_goldens():
    assert len(CASES) == 9


@st.composite
def made(draw, most=7):
    """Videos of 4 to 80 frames in steps of 1 to 5 frames, with scores that do not repeat."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32)))
    curves, segments, labels = [], [], []
    for _ in range(draw(st.integers(1, most))):
        frames, step = int(chance.integers(4, 81)), int(chance.integers(1, 6))
        steps = chance.dirichlet((0.5, 0.5, 0.5), frames)
        curves.append(np.repeat(steps, step, axis=0)[:frames])
        firsts = chance.integers(0, frames - 1, chance.integers(0, 4)).tolist()
        segments.append([(first, int(chance.integers(first + 1, frames + 1))) for first in firsts])
        labels.append([ABC[chance.integers(0, 3)] for _ in firsts])
    return curves, segments, labels, ABC


def plain(curves, segments, labels, classes, iou_thresholds=IOU_THRESHOLDS):
    """The corrected procedure, frame by frame."""
    means = []
    for least in iou_thresholds:
        precisions = []
        for k in range(1, len(classes)):
            found = []
            free = [
                [set(range(*span)) for span, name in zip(*each, strict=True) if name == classes[k]]
                for each in zip(segments, labels, strict=True)
            ]
            truths = sum(map(len, free))
            for video, curve in enumerate(curves):
                found += [(score, video, run) for score, run in runs(curve[:, k])]
            right, gained = 0, 0.0
            for rank, (_, video, run) in enumerate(sorted(found, key=lambda f: -f[0]), start=1):
                overlaps = [len(run & true) / len(run | true) for true in free[video]]
                if overlaps and max(overlaps) >= least:
                    free[video].pop(overlaps.index(max(overlaps)))
                    right += 1
                    gained += right / rank
            if truths:
                precisions.append(gained / truths)
        means.append(100 * np.mean(precisions) if precisions else np.nan)
    return means


def runs(curve):
    strength = np.mean(sorted(curve)[-max(1, len(curve) // 16) :])
    bar = max(curve) - 0.6 * (max(curve) - min(curve))
    run = []
    for frame, value in enumerate([*curve, -np.inf]):
        if value > bar:
            run.append(frame)
        else:
            if len(run) >= 2:
                yield max(curve[run]) + 0.7 * strength, set(run)
            run = []


@given(made())
@quick
def test_the_corrected_form_equals_the_plain_procedure(case):
    ours = detection_map(*case)
    assert list(ours.values()) == pytest.approx(plain(*case), abs=1e-9, nan_ok=True)


@given(made(), st.randoms(), st.booleans())
@quick
def test_the_order_of_videos_does_not_matter(case, random, compat):
    order = list(range(len(case[0])))
    random.shuffle(order)
    shuffled = [[part[i] for i in order] for part in case[:3]]
    ours, theirs = (detection_map(*each, ABC, compat=compat) for each in (case[:3], shuffled))
    assert ours == pytest.approx(theirs, nan_ok=True)


@given(made(), st.booleans())
@quick
def test_map_falls_with_the_iou(case, compat):
    thresholds = np.linspace(0.05, 1, 12).tolist()
    values = list(detection_map(*case, iou_thresholds=thresholds, compat=compat).values())
    assert np.isnan(values).all() or (np.diff(values) <= 1e-9).all()


@given(made(), st.integers(0, 1000), st.booleans())
@quick
def test_a_weight_repeats_a_video(case, seed, compat):
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(case[0])))
    weights[0, :], weights[1, 0] = 2, 1
    weights[2, 0] = 1
    statistics = detection_statistics(*case, compat=compat)
    for weight in weights:
        again = np.repeat(np.arange(len(weight)), weight)
        repeated = detection_map(
            *([part[i] for i in again] for part in case[:3]), ABC, compat=compat
        )
        for iou, value in repeated.items():
            ours = statistics[f"map_{iou:g}"](weight[None].astype(float))
            assert ours == pytest.approx([value], nan_ok=True)


@given(st.integers(0, 2**32), st.integers(2, 6))
@quick
def test_perfect_predictions_have_100(seed, videos):
    chance = np.random.default_rng(seed)
    curves, segments, labels = [], [], []
    for _ in range(videos):
        first, name = int(chance.integers(1, 20)), int(chance.integers(1, 3))
        stop = first + int(chance.integers(2, 30))
        curve = np.zeros((stop + int(chance.integers(1, 30)), 3))
        curve[:, 0], curve[first:stop, 0], curve[first:stop, name] = 1, 0, 1
        curves.append(curve)
        segments.append([(first, stop)])
        labels.append([ABC[name]])
    found = detection_map(curves, segments, labels, ABC, iou_thresholds=[0.1, 1.0])
    assert set(found.values()) == {100.0}


def one_video(frames=40, at=(10, 20), name="a"):
    curve = np.full((frames, 3), 0.05)
    curve[slice(*at), ABC.index(name)] = 0.9
    return [curve], [[at]], [[name]]


def test_a_class_found_nowhere_voids_only_the_released_form():
    case = one_video()
    assert set(detection_map(*case, ABC).values()) == {100.0}
    assert set(detection_map(*case, ABC, compat=True).values()) == {0.0}


def test_a_short_video_counts_in_the_corrected_form():
    curves, segments, labels = one_video(frames=15, at=(3, 9))
    rest = np.tile([[0.2, 0.1, 0.1], [0.6, 0.3, 0.3]], (10, 1)).repeat(3, axis=0)
    case = ([*curves, rest], [*segments, []], [*labels, []], ABC)
    assert detection_map(*case)[0.5] == 100
    assert detection_map(*case, compat=True)[0.5] == 0


def test_a_class_that_does_not_occur_is_left_out_and_one_not_found_is_0():
    curves, segments, labels = one_video()
    both = [[*segments[0], (30, 35)]], [[*labels[0], "b"]]
    assert detection_map(curves, segments, labels, ABC)[0.5] == 100
    assert detection_map(curves, *both, ABC)[0.5] == 50
    nothing = detection_map(curves, [[]], [[]], ABC)
    assert np.isnan(list(nothing.values())).all()


def test_the_released_form_takes_what_the_released_files_hold():
    curves, segments, labels = one_video()
    curves[0][np.arange(40) % 4 < 2] += 0.01  # every class is detected somewhere
    ours = detection_map(curves, segments, labels, ABC, compat=True)
    assert ours[0.5] == pytest.approx(100 / 3)
    odd = detection_map(
        [*curves], [[*segments[0], (0, 640)]], [[*labels[0], "A"]], ABC, compat=True
    )
    assert odd == ours
    lost = curves[0].copy()
    lost[3, 1] = np.nan
    assert detection_map([lost], segments, labels, ABC, compat=True)[0.1] == 0


def test_float32_and_lists_are_taken():
    curves, segments, labels = one_video()
    for same in (np.float32(curves), curves[0][None].tolist()):
        assert detection_map(same, segments, labels, ABC)[0.5] == 100


def test_the_interval_is_the_bootstrap_of_the_average_over_videos():
    case = golden("xd_typical")
    interval = interval_of(*case, samples=300, seed=4)
    average = np.mean(list(detection_map(*case).values()))
    assert interval.low < interval.estimate < interval.high
    assert interval.estimate == pytest.approx(average)
    assert interval.units == 50
    narrow = interval_of(*case, samples=300, seed=4, level=0.5)
    assert narrow.high - narrow.low < interval.high - interval.low


def test_resamples_without_a_true_segment_are_dropped():
    curves, segments, labels = one_video()
    interval = interval_of([*curves, curves[0]], [*segments, []], [*labels, []], ABC)
    assert 200 < interval.dropped < 300


def with_one(**changed):
    curves, segments, labels = one_video()
    case = {"predictions": curves, "segments": segments, "labels": labels, "classes": ABC}
    return detection_map(**(case | changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"segments": [[], []]}, "predictions of 1 videos, segments of 2, labels of 1"),
        ({"predictions": [], "segments": [], "labels": []}, "predictions of 0 videos"),
        ({"predictions": [np.ones((9, 2))]}, r"video 0: predictions of shape \(9, 2\); .* of 3"),
        ({"predictions": [np.ones((0, 3))]}, r"shape \(0, 3\)"),
        ({"predictions": [np.full((40, 3), np.nan)]}, "video 0: 40 of 40 frames"),
        ({"predictions": [np.full((40, 3), np.inf)], "compat": True}, "40 of 40 frames"),
        ({"labels": [["Abuse"]]}, "video 0: label 'Abuse' is none of the classes normal, a, b"),
        ({"labels": [["a", "a"]]}, "video 0: 1 segments, but 2 labels"),
        ({"segments": [[(5, 41)]]}, r"video 0: segment \[5, 41\) is empty or outside of its 40"),
        ({"segments": [[(-1, 4)]], "compat": True}, r"segment \[-1, 4\)"),
        ({"segments": [[(5, 5)]], "compat": True}, r"segment \[5, 5\)"),
        ({"segments": [[(1.5, 5)]]}, "segment 1.5 to 5; whole frames"),
        ({"segments": [[("1", "5")]]}, "segment '1' to '5'; whole frames"),
        ({"classes": ("a", "b", "a")}, "classes a, b, a; 2 or more different"),
        ({"iou_thresholds": (0.5, 0.0)}, r"iou_thresholds \(0.5, 0.0\); one or more above 0"),
        ({"iou_thresholds": ()}, r"iou_thresholds \(\)"),
    ],
)
def test_refuses_what_does_not_fit(changed, message):
    with pytest.raises(UserError, match=message):
        with_one(**changed)
