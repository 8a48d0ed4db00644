"""Windows of frames and samples with their answers."""

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from crosswatch.annotation.labels import BatchLabels
from crosswatch.annotation.refine import UNKNOWN
from crosswatch.data.batches import BatchSet
from crosswatch.data.gather import WindowSet, windows_of
from crosswatch.errors import UserError
from crosswatch.examples.example import Example, Rows
from crosswatch.models.detector import DetectorFacts
from crosswatch.models.tokens import Target
from crosswatch.records import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowExamples:
    windows: WindowSet
    labels: tuple[BatchLabels, ...]
    class_N: npt.NDArray[np.int64]
    facts: DetectorFacts

    @classmethod
    def open(
        cls,
        batch_set: BatchSet,
        labels: tuple[BatchLabels, ...],
        facts: DetectorFacts,
        block: Block,
    ) -> "WindowExamples":
        """
        Raises:
            UserError: a stream that the windows need is absent from a batch.
        """
        windows = windows_of(batch_set, facts.windows, block)
        classes = [
            of_batch.class_of(table) for of_batch, table in zip(labels, windows.tables, strict=True)
        ]
        return cls(windows=windows, labels=labels, class_N=np.concatenate(classes), facts=facts)

    def __len__(self) -> int:
        return len(self.windows)

    def example(self, rows: Rows, share: float = 1.0) -> Example:
        label_B = torch.from_numpy(self.class_N[rows])
        classes_BK = torch.nn.functional.one_hot(label_B, self.facts.shape.classes).float()
        mask = torch.from_numpy(self.masks(rows)).long() if self.has_pixels else None
        return Example(
            inputs=self.facts.read_windows(self.windows, rows),
            target=Target(label_B, classes_BK, mask),
            share=share,
        )

    def chunks(self, rows: Rows, size: int) -> list[Rows]:
        """All windows are of one size."""
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    @property
    def has_pixels(self) -> bool:
        return bool(getattr(self.facts.model, "pixel_head", False))

    def masks(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Masks (B, H, W) of the windows' last frames; UNKNOWN where nobody said.

        Raises:
            UserError: a batch has none.
        """

        def pick(number: int, of_table: Rows) -> npt.NDArray[np.uint8]:
            masks = self.labels[number].masks
            if masks is None:
                raise UserError(
                    f"batch {self.windows.batches[number].id} has no masks to hold the pixel head "
                    "against. Run refine with refine.masks=window_ends."
                )
            return masks[self.labels[number].mask_row(self.windows.tables[number].take(of_table))]

        return self.windows.gather(rows, pick)

    def known_masks(self, rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Masks with normal for UNKNOWN, and which of them are known everywhere."""
        truth = self.masks(rows).astype(np.int64)
        return np.where(truth == UNKNOWN, 0, truth), (truth != UNKNOWN).all(axis=(1, 2))

    def table(self) -> pd.DataFrame:
        windows = self.windows
        parts: list[dict[str, Any]] = [
            {"batch": batch.id, "end_s": table.end_s, "segment": table.segment}
            for batch, table in zip(windows.batches, windows.tables, strict=True)
        ]
        rows = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)
        return rows.assign(label=self.class_N)
