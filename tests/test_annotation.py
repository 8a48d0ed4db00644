"""From sparse notes to boxes and masks."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import batch

from crosswatch import artifacts
from crosswatch.annotation.labels import LABELS, open_labels
from crosswatch.annotation.propagate import interpolate, propagate
from crosswatch.annotation.refine import UNKNOWN, RefineConfig, box_mask, refine_mask
from crosswatch.annotation.score import box_iou, held_out_iou, mask_iou
from crosswatch.data.windows import WindowConfig, window_table
from crosswatch.errors import UserError
from crosswatch.records import Event, Keyframe
from crosswatch.stages import refine as refine_stage

CLASSES = ("normal", "semi_molten", "burnt")


def event(onset_s: float, offset_s: float, name: str = "semi_molten") -> Event:
    middle = (onset_s + offset_s) / 2
    return Event(class_name=name, onset_s=onset_s, apex_s=middle, offset_s=offset_s)


def keyframe(time_s: float, x: float, name: str = "semi_molten") -> Keyframe:
    return Keyframe(class_name=name, time_s=time_s, box_xywh_px=(x, 4.0, 8.0, 6.0))


@given(st.lists(st.floats(0, 100), min_size=4, max_size=4, unique=True).map(sorted))
def test_boxes_stand_inside_events_only_and_never_cross_from_one_to_the_next(
    ends: list[float],
) -> None:
    first, second = event(ends[0], ends[1]), event(ends[2], ends[3])
    frames = [keyframe((e.onset_s + e.offset_s) / 2, x) for e, x in ((first, 0.0), (second, 30.0))]
    times = np.linspace(-5, 105, 441)
    left = np.ones(len(times), bool)
    boxes = propagate(times, (second, first), frames, CLASSES)
    for one, x in ((first, 0.0), (second, 30.0)):
        inside = (times >= one.onset_s) & (times <= one.offset_s)
        assert (boxes.corners[inside, 0] == x).all()
        assert (boxes.classes[inside] == 1).all()
        left &= ~inside
    assert np.isnan(boxes.corners[left]).all()
    assert not boxes.classes[left].any()


def test_corners_move_linearly_between_keyframes_and_hold_outside_them() -> None:
    frames = [keyframe(2.0, 10.0), keyframe(6.0, 18.0)]
    corners = interpolate(np.array([0.0, 2.0, 4.0, 5.0, 6.0, 9.0]), frames)
    np.testing.assert_allclose(corners[:, 0], [10, 10, 14, 16, 18, 18])
    np.testing.assert_allclose(corners[:, 2] - corners[:, 0], 8)


def test_an_event_without_keyframes_has_a_class_and_no_place() -> None:
    times = np.arange(10.0)
    boxes = propagate(times, [event(2, 5)], [keyframe(3.0, 1.0, "burnt")], CLASSES)
    assert boxes.boxless_events == 1
    assert boxes.classes.tolist() == [0, 0, 1, 1, 1, 1, 0, 0, 0, 0]
    assert np.isnan(boxes.corners).all()


def test_a_keyframe_far_from_every_event_is_not_used() -> None:
    boxes = propagate(np.arange(10.0), [event(2, 5)], [keyframe(6.0, 1.0)], CLASSES)
    assert boxes.boxless_events == 1


def test_refinement_moves_the_border_to_the_edge_of_the_spot() -> None:
    rows, columns = np.mgrid[:64, :64]
    spot = ((rows - 30) / 7) ** 2 + ((columns - 34) / 10) ** 2 <= 1
    frame = np.where(spot, 190, 90)[..., None].repeat(3, axis=2).astype(np.uint8)
    corners = np.array([22, 21, 46, 39], np.float32)
    box, refined = box_mask(corners, 64, 64), refine_mask(frame, corners, RefineConfig())
    truth = spot.astype(np.uint8)
    assert mask_iou(refined, truth) > 0.95 > 0.75 > mask_iou(box, truth)


@settings(deadline=None)
@given(
    x=st.floats(-20, 80), y=st.floats(-20, 80), width=st.floats(1, 40), height=st.floats(1, 40),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_a_mask_stays_inside_its_grown_box(
    x: float, y: float, width: float, height: float, seed: int
) -> None:
    frame = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)
    corners = np.array([x, y, x + width, y + height], np.float32)
    mask = refine_mask(frame, corners, RefineConfig(iterations=1))
    centre, half = (corners[:2] + corners[2:]) / 2, (corners[2:] - corners[:2]) / 2 * 1.25
    grown = box_mask(np.concatenate([centre - half, centre + half]), 64, 64)
    assert set(np.unique(mask)) <= {0, 1}
    assert not (mask & (1 - grown)).any()


def test_no_iterations_give_the_box() -> None:
    corners = np.array([10, 12, 20, 30], np.float32)
    frame = np.zeros((64, 64, 3), np.uint8)
    refined = refine_mask(frame, corners, RefineConfig(iterations=0))
    np.testing.assert_array_equal(refined, box_mask(corners, 64, 64))


@given(st.lists(st.floats(0, 50), min_size=4, max_size=4))
def test_overlap_of_boxes_is_symmetric_and_one_with_itself(sides: list[float]) -> None:
    first = np.array([sides[0], sides[1], sides[0] + 5, sides[1] + 5], np.float32)
    second = np.array([sides[2], sides[3], sides[2] + 9, sides[3] + 3], np.float32)
    assert box_iou(first, second) == box_iou(second, first)
    assert 0 <= box_iou(first, second) < 1
    assert box_iou(first, first) == 1


def test_held_out_keyframes_judge_propagation() -> None:
    straight = [keyframe(t, 2 * t) for t in (1.0, 2.0, 3.0, 4.0)]
    assert held_out_iou([event(0, 5)], straight) == pytest.approx([1.0, 1.0])
    bent = [keyframe(1.0, 0.0), keyframe(2.0, 4.0), keyframe(3.0, 0.0)]
    assert held_out_iou([event(0, 5)], bent) == pytest.approx([4 / 12])
    assert held_out_iou([event(0, 5)], bent[:2]) == []


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"radius_share 0.9 lies in"):
        RefineConfig(radius_share=0.9)
    with pytest.raises(UserError, match="iterations is 11"):
        RefineConfig(iterations=11)


@pytest.mark.parametrize("video_hz", [10.0, 0.0])
def test_the_class_of_a_window_does_not_depend_on_its_frames(
    tmp_path: Path, video_hz: float
) -> None:
    made = batch(video_hz=video_hz, events=(event(20, 30), event(44, 50, "burnt")))
    times_s = made.signal_times if made.frame_times is None else made.frame_times
    folder = tmp_path / made.id
    folder.mkdir()
    boxes = propagate(times_s, made.events, (), CLASSES)
    np.save(folder / "classes.npy", boxes.classes)
    labels = open_labels(tmp_path, made)
    for frames in (0, 4) if video_hz else (0,):
        windows = WindowConfig(frames=frames, stride=2, signal_s=5.0)
        table = window_table(made, windows)
        expected = propagate(table.end_s, made.events, (), CLASSES).classes
        assert set(expected) == {0, 1, 2}
        np.testing.assert_array_equal(labels.class_of(table), expected)


def test_masks_that_came_are_kept_as_they_are_and_bound_their_boxes(tmp_path: Path) -> None:
    made = batch(seconds=20.0, events=(event(5.0, 9.9),))
    masks = np.zeros((len(made.frames), 16, 16), np.uint8)
    masks[50:100, 3:7, 2:12] = 1
    masks[60, 0, 0] = 1  # a filter would remove it
    masks[70] = UNKNOWN
    made = dataclasses.replace(made, masks=masks)
    for name, config in (("ends", RefineConfig()), ("all", RefineConfig(masks="all"))):
        with artifacts.create(tmp_path / name, kind=LABELS, config={}, parents={}) as draft:
            windows = WindowConfig(frames=4, signal_s=2.0)
            (draft / made.id).mkdir()
            refine_stage._write_batch(draft, made, CLASSES, config, windows)
        labels = open_labels(tmp_path / name, made)
        np.testing.assert_array_equal(labels.masks, masks[labels.mask_frames])
        assert len(labels.mask_frames) == (
            200 if name == "all" else len(window_table(made, windows))
        )
        boxes = np.load(tmp_path / name / made.id / "boxes.npy")
        assert np.isnan(boxes[:50]).all()
        assert np.isnan(boxes[70]).all()
        assert boxes[55].tolist() == [2, 3, 12, 7]
        assert boxes[60].tolist() == [0, 0, 12, 7]
        assert labels.classes[50:100].all()
        assert not labels.classes[:50].any()
