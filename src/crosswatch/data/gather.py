"""Windows of a whole batch set, gathered from the memory-mapped arrays when they are needed."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch, BatchSet
from crosswatch.data.windows import WindowConfig, WindowTable, block_of, window_table
from crosswatch.records import Block


@dataclasses.dataclass(frozen=True, kw_only=True)
class WindowSet:
    """N windows of one block, over all batches in order.

    Attributes:
        batches: the batches, and `tables` the windows of each.
        batch_N: which batch a window belongs to.
        row_N: its row in that batch's table.
    """

    batches: tuple[Batch, ...]
    tables: tuple[WindowTable, ...]
    batch_N: npt.NDArray[np.int64]  # noqa: N815
    row_N: npt.NDArray[np.int64]  # noqa: N815

    def __len__(self) -> int:
        return len(self.batch_N)

    def gather(
        self,
        rows: npt.NDArray[np.int64],
        pick: Callable[[int, npt.NDArray[np.int64]], npt.NDArray[Any]],
    ) -> npt.NDArray[Any]:
        """Stack what `pick(batch number, rows of its table)` finds, in the order of `rows`."""
        parts: npt.NDArray[Any] | None = None
        for number in np.unique(self.batch_N[rows]):
            mine = np.flatnonzero(self.batch_N[rows] == number)
            found = pick(int(number), self.row_N[rows[mine]])
            if parts is None:
                parts = np.empty((len(rows), *found.shape[1:]), found.dtype)
            parts[mine] = found
        assert parts is not None, "a mini-batch holds at least one window"
        return parts

    def video(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Frames (B, T, H, W, 3), raw 0..255."""

        def pick(number: int, of_table: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
            frames = self.batches[number].frames
            assert frames is not None
            return frames[self.tables[number].frames[of_table]]

        return self.gather(rows, pick).astype(np.uint8, copy=False)

    def signal(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Samples (B, S, C) in the signal's own unit."""

        def pick(number: int, of_table: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            signal, table = self.batches[number].signal, self.tables[number]
            assert signal is not None
            samples: npt.NDArray[np.float32] = signal[table.sample_rows(of_table)]
            return samples

        return self.gather(rows, pick).astype(np.float32, copy=False)

    def signal_valid(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which of these samples (B, S) there are."""
        return self.gather(rows, lambda number, of: self.tables[number].sample_valid(of))


def windows_of(batch_set: BatchSet, windows: WindowConfig, block: Block) -> WindowSet:
    """Every window of one block of the split."""
    tables = tuple(
        block_of(window_table(batch, windows), batch_set, batch, block)
        for batch in batch_set.batches
    )
    numbers = [np.full(len(table), at, np.int64) for at, table in enumerate(tables)]
    rows = [np.arange(len(table)) for table in tables]
    return WindowSet(
        batches=batch_set.batches,
        tables=tables,
        batch_N=np.concatenate(numbers),
        row_N=np.concatenate(rows),
    )
