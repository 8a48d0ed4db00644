"""Scores with the answers beside them: what candidate and champion are compared by."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from crosswatch.models.tokens import BINARY
from crosswatch.records import TimeRange

Floats = npt.NDArray[np.float64]
ROUNDING_S = 1e-5  # of times in ranges, which are written with six decimals


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predictions:
    """One row an instant, a clip, or a frame of a clip.

    Attributes:
        rows: DataFrame with batch, end_s, segment and label; of clips and their frames also
            start_s, when the clip begins.
        probability_NK: class probabilities.
        pixels_NKK: confusion of the pixels of each window's mask; None without a pixel head.
        branches: class probabilities (N, K) of the parts of a model that vote, by their names;
            `binary` is (N, 2), normal and abnormal.
    """

    rows: pd.DataFrame
    probability_NK: Floats
    pixels_NKK: npt.NDArray[np.int64] | None = None
    branches: Mapping[str, Floats] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def anomaly_N(self) -> Floats:  # noqa: N802
        """How abnormal each row is, 0 to 1: by the binary branch, or 1 - P(normal)."""
        if BINARY in self.branches:
            return self.branches[BINARY][:, 1]
        found: Floats = 1.0 - self.probability_NK[:, 0]
        return found

    def save(self, path: Path) -> None:
        """As Parquet: the rows, p_0 .. p_K-1, branch_NAME_0 .., and the confusion's cells. Whole
        or not at all."""
        columns = {f"p_{k}": column for k, column in enumerate(self.probability_NK.T)}
        for name, values in self.branches.items():
            columns |= {f"branch_{name}_{k}": column for k, column in enumerate(values.T)}
        if self.pixels_NKK is not None:
            classes = self.pixels_NKK.shape[1]
            cells = enumerate(self.pixels_NKK.reshape(len(self), -1).T)
            columns |= {f"pixels_{at // classes}_{at % classes}": cell for at, cell in cells}
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        table = pd.concat([self.rows, pd.DataFrame(columns, index=self.rows.index)], axis=1)
        table.to_parquet(temporary, index=False)
        temporary.replace(path)

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        table = pd.read_parquet(path)
        names = [str(name) for name in table]
        chances = [name for name in names if name.startswith("p_")]
        cells = [name for name in names if name.startswith("pixels_")]
        of_branch: dict[str, list[str]] = {}
        for name in names:
            if name.startswith("branch_"):
                of_branch.setdefault(name.removeprefix("branch_").rpartition("_")[0], []).append(
                    name
                )
        beside = {*chances, *cells, *(name for told in of_branch.values() for name in told)}
        classes = len(chances)
        return cls(
            rows=table[[name for name in names if name not in beside]],
            probability_NK=table[chances].to_numpy(np.float64),
            pixels_NKK=table[cells].to_numpy().reshape(-1, classes, classes) if cells else None,
            branches={name: table[told].to_numpy(np.float64) for name, told in of_branch.items()},
        )

    def take(self, keep: npt.NDArray[np.int64]) -> "Predictions":
        return Predictions(
            rows=self.rows.iloc[keep].reset_index(drop=True),
            probability_NK=self.probability_NK[keep],
            pixels_NKK=None if self.pixels_NKK is None else self.pixels_NKK[keep],
            branches={name: values[keep] for name, values in self.branches.items()},
        )

    def outside(self, ranges: Sequence[TimeRange], digests: Mapping[str, str]) -> "Predictions":
        """Without the instants in `ranges`; `digests` names each batch's contents."""
        digest = self.rows["batch"].map(digests)
        keep = np.ones(len(self), bool)
        for span in ranges:
            inside = (digest == span.batch_digest) & self._touches(span)
            keep &= ~inside.to_numpy()
        return self.take(np.flatnonzero(keep))

    def _touches(self, span: TimeRange) -> "pd.Series[bool]":
        """Rows whose instant lies in the range; of clips, and frames of clips, those whose clip
        reaches into it by more than rounding."""
        end_s = self.rows["end_s"]
        if "start_s" not in self.rows:
            return (end_s >= span.start_s) & (end_s < span.stop_s)
        start_s = self.rows["start_s"]
        begins = (start_s >= span.start_s - ROUNDING_S) & (start_s < span.stop_s - ROUNDING_S)
        reaches = (start_s < span.start_s) & (end_s > span.start_s + ROUNDING_S)
        return begins | reaches

    def pooled(self, pool: Literal["window", "segment"]) -> "Predictions":
        """As it is, or one row a recording: the mean of its windows' probabilities, and abnormal
        if any window is, of the class that most of these have."""
        if pool == "window":
            return self
        keys = self.rows.groupby(["batch", "segment"], sort=True).indices
        groups = [np.asarray(rows, np.int64) for rows in keys.values()]

        def mean(values: Floats) -> Floats:
            return np.stack([values[rows].mean(0) for rows in groups])

        label = self.rows["label"].to_numpy()
        last = self.rows.iloc[[rows[-1] for rows in groups]].reset_index(drop=True)
        return Predictions(
            rows=last.assign(label=[_label_of(label[rows]) for rows in groups]),
            probability_NK=mean(self.probability_NK),
            branches={name: mean(values) for name, values in self.branches.items()},
        )


def _label_of(label_N: npt.NDArray[np.int64]) -> int:
    abnormal = label_N[label_N > 0]
    return int(np.bincount(abnormal).argmax()) if len(abnormal) else 0


def together(parts: Sequence[Predictions]) -> Predictions:
    """One after another; all of one model."""
    pixels = [part.pixels_NKK for part in parts if part.pixels_NKK is not None]
    return Predictions(
        rows=pd.concat([part.rows for part in parts], ignore_index=True),
        probability_NK=np.concatenate([part.probability_NK for part in parts]),
        pixels_NKK=np.concatenate(pixels) if pixels else None,
        branches={
            name: np.concatenate([part.branches[name] for part in parts])
            for name in parts[0].branches
        },
    )
