"""The labels artifact: what `refine` writes for each batch and training and evaluation read.

Folder of a batch:

    classes.npy      uint8 (T,) per frame, or (S,) per sample of a batch without video
    boxes.npy        float32 (T, 4) as x1, y1, x2, y2; NaN where there is none
    masks.npy        uint8 (M, H, W): class index, 255 where the place is unknown
    mask_frames.npy  int64 (M,), the frame each mask belongs to, ascending
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts
from crosswatch.data.batches import Batch
from crosswatch.data.windows import WindowTable, nearest
from crosswatch.errors import UserError

LABELS = "labels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchLabels:
    classes: npt.NDArray[np.uint8]
    times_s: npt.NDArray[np.float64]  # of each class: the frames', or the samples' without video
    masks: npt.NDArray[np.uint8] | None
    mask_frames: npt.NDArray[np.int64] | None

    def class_of(self, table: WindowTable) -> npt.NDArray[np.int64]:
        """Class (N,) of each window's last frame; without frames, at its end."""
        if table.frames.shape[1]:
            return np.asarray(self.classes)[table.last_frame].astype(np.int64)
        return np.asarray(self.classes)[nearest(self.times_s, table.end_s)].astype(np.int64)

    def mask_row(self, table: WindowTable) -> npt.NDArray[np.int64]:
        """Row of `masks` (N,) for each window's last frame.

        Raises:
            UserError: the masks were refined for other instants.
        """
        assert self.masks is not None
        assert self.mask_frames is not None
        frames = np.asarray(self.mask_frames)
        row = np.minimum(np.searchsorted(frames, table.last_frame), len(frames) - 1)
        missing = int(np.count_nonzero(frames[row] != table.last_frame))
        if missing:
            raise UserError(
                f"{missing} of {len(table)} windows end on a frame without a mask. "
                "Run refine again with the same windows section, or with refine.masks=all."
            )
        return row


def open_labels(path: Path, batch: Batch) -> BatchLabels:
    """The labels of one batch of an artifact that was verified before."""
    folder = path / batch.id
    if not folder.is_dir():
        raise UserError(f"{path}: has no labels of batch {batch.id}. Run refine on this batch set.")
    has_masks = (folder / "masks.npy").exists()
    times_s = batch.signal_times if batch.frame_times is None else batch.frame_times
    assert times_s is not None, "a batch has at least one stream"
    return BatchLabels(
        classes=np.load(folder / "classes.npy", mmap_mode="r", allow_pickle=False),
        times_s=np.asarray(times_s),
        masks=_mapped(folder / "masks.npy") if has_masks else None,
        mask_frames=_mapped(folder / "mask_frames.npy") if has_masks else None,
    )


def open_labelled(path: Path, *, batch_set_digest: str, verify: bool = True) -> artifacts.Manifest:
    """Open a labels artifact and hold it to the batch set it was made from.

    Raises:
        UserError: no such artifact, damaged, or of another batch set.
    """
    manifest = artifacts.open_artifact(path, kind=LABELS, verify=verify)
    if manifest.parents.get("batches") != batch_set_digest:
        raise UserError(f"{path}: was made from another batch set. Run refine on this one.")
    return manifest


def _mapped(path: Path) -> Any:
    return np.load(path, mmap_mode="r", allow_pickle=False)
