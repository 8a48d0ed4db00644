"""Turn an expert's sparse notes into a box, a class and a mask; masks that came are kept."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts, config, progress
from crosswatch.annotation.labels import LABELS
from crosswatch.annotation.propagate import FrameBoxes, propagate
from crosswatch.annotation.refine import UNKNOWN, RefineConfig, bounds_of, refine_mask
from crosswatch.annotation.score import held_out_iou
from crosswatch.data.batches import Batch, open_set
from crosswatch.data.frames import RowWriter
from crosswatch.data.windows import WindowConfig, window_table

COPIED = 1024
"""Masks held at once."""


def refine(*, batches: Path, out: Path, refine: RefineConfig, windows: WindowConfig) -> None:
    """Masks stand where windows end unless refine.masks asks for all frames or none."""
    batch_set = open_set(batches)
    settings = {"refine": config.plain(refine), "windows": config.plain(windows)}
    parents = {"batches": batch_set.digest}
    with artifacts.create(out, kind=LABELS, config=settings, parents=parents) as draft:
        scores: dict[str, list[float]] = {}
        for batch in batch_set.batches:
            boxes = _write_batch(draft, batch, batch_set.classes, refine, windows)
            scores[batch.id] = held_out_iou(batch.events, batch.keyframes)
            if boxes.boxless_events and batch.masks is None and batch.frames is not None:
                draft.warnings.append(
                    f"{batch.id}: {boxes.boxless_events} events have no keyframe, "
                    "so they have a class but no mask"
                )
        _summarise(draft, scores)


def _write_batch(
    draft: artifacts.Draft,
    batch: Batch,
    classes: tuple[str, ...],
    refine: RefineConfig,
    windows: WindowConfig,
) -> FrameBoxes:
    times = batch.signal_times if batch.frame_times is None else batch.frame_times
    assert times is not None, "a batch has at least one stream"
    boxes = propagate(np.asarray(times), batch.events, batch.keyframes, classes)
    np.save(draft / f"{batch.id}/classes.npy", boxes.classes)
    draft.counts["frames"] = draft.counts.get("frames", 0) + len(boxes.classes)
    if batch.frames is None:
        draft.note = "no video: classes of the notes, no boxes and no masks"
        return boxes
    corners = boxes.corners if batch.masks is None else bounds_of(batch.masks)
    np.save(draft / f"{batch.id}/boxes.npy", corners)
    at = _mask_frames(batch, refine, windows)
    if len(at):
        np.save(draft / f"{batch.id}/mask_frames.npy", at)
        out = draft / f"{batch.id}/masks.npy"
        if batch.masks is None:
            np.save(out, _masks(batch, boxes, at, refine))
        else:
            _copy(batch.masks, at, out)
        draft.counts["masks"] = draft.counts.get("masks", 0) + len(at)
    return boxes


def _copy(masks: npt.NDArray[np.uint8], at: npt.NDArray[np.int64], out: Path) -> None:
    """Masks as they were delivered, some at a time."""
    with RowWriter(out, masks.shape[1:], np.uint8) as writer:
        for start in range(0, len(at), COPIED):
            writer.extend(masks[at[start : start + COPIED]])


def _mask_frames(
    batch: Batch, refine: RefineConfig, windows: WindowConfig
) -> npt.NDArray[np.int64]:
    assert batch.frames is not None
    if refine.masks == "none" or windows.frames == 0:
        return np.empty(0, np.int64)
    if refine.masks == "all":
        return np.arange(len(batch.frames))
    return np.unique(window_table(batch, windows).last_frame)


def _masks(
    batch: Batch, boxes: FrameBoxes, at: npt.NDArray[np.int64], refine: RefineConfig
) -> npt.NDArray[np.uint8]:
    assert batch.frames is not None
    height, width = batch.frames.shape[1:3]
    masks = np.zeros((len(at), height, width), np.uint8)
    abnormal = np.flatnonzero(boxes.classes[at])
    for row in progress.track(abnormal, what=f"{batch.id}: masks", total=len(abnormal)):
        frame, label = at[row], boxes.classes[at[row]]
        if np.isnan(boxes.corners[frame, 0]):
            masks[row] = UNKNOWN
        else:
            masks[row] = label * refine_mask(batch.frames[frame], boxes.corners[frame], refine)
    return masks


def _summarise(draft: artifacts.Draft, scores: dict[str, list[float]]) -> None:
    every = [iou for found in scores.values() for iou in found]
    mean = float(np.mean(every)) if every else None
    artifacts.write_json(
        draft / "scores.json",
        {"held_out_keyframe_iou": mean, "keyframes": len(every), "by_batch": scores},
    )
    masks = int(draft.counts.get("masks", 0))
    told = [f"{masks} masks" if masks else draft.note or "classes"]
    if mean is not None:
        told.append(f"propagated boxes meet held-out keyframes with IoU {mean:.2f}")
    progress.outcome(", ".join(told))
