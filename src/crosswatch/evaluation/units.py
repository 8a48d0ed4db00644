"""Which rows of predictions belong together: clips, units of the bootstrap, and the instants that
two of them share.

A million frames have a few hundred of these, so that rows are told apart by numbers, and only what
is distinct gets a name.

Shape letters: N rows, U units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import Units
from crosswatch.models.tokens import BINARY

if TYPE_CHECKING:
    import pandas as pd

    from crosswatch.evaluation.predictions import Predictions
    from crosswatch.evaluation.settings import EvaluateConfig

IntArray = npt.NDArray[np.int64]
TIME_DECIMALS = 4  # of s; two models reach the same instant by different sums


def units_of(predictions: Predictions, evaluate: EvaluateConfig) -> Units:
    """Batches; recordings where one is one decision; blocks of time for all else.

    Of frames of clips a clip is in one unit: its recording where each holds one clip, else the
    block of time in which it begins, because neighbouring clips of a recording are alike.
    """
    rows = predictions.rows
    if evaluate.unit == "batch":
        return named_units(rows["batch"])
    if evaluate.pool == "segment":
        return recordings_of(rows)
    if BINARY not in predictions.branches:
        return named_units(rows["batch"], (rows["end_s"] // evaluate.block_s).astype(int))
    clips = videos_of(rows)
    if clips.count == recordings_of(rows).count:
        return clips
    return named_units(rows["batch"], (rows["start_s"] // evaluate.block_s).astype(int))


def videos_of(rows: pd.DataFrame) -> Units:
    """Which clip a frame belongs to."""
    return named_units(rows["batch"], rows["segment"], rows["start_s"])


def recordings_of(rows: pd.DataFrame) -> Units:
    return named_units(rows["batch"], rows["segment"])


def named_units(*columns: pd.Series[Any]) -> Units:
    """Rows that agree in all columns, in the order of names like batch:segment, which gives each
    unit its share of the bootstrap's draws."""
    code_N = _codes(*columns)
    first_U = np.unique(code_N, return_index=True)[1]
    distinct = zip(*(column.iloc[first_U].tolist() for column in columns), strict=True)
    names = [":".join(map(str, each)) for each in distinct]
    place_U = np.empty(len(names), np.intp)
    place_U[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
    return Units(unit_N=place_U[code_N], count=len(names))


def shared_rows(first: Predictions, second: Predictions) -> tuple[IntArray, IntArray]:
    """The rows of both at the instants that both have, in the order of the first.

    Clips that overlap have instants in common: where both have clips, these have to agree, too.

    Raises:
        UserError: no shared instant, one that is there twice, or labels that differ.
    """
    import pandas as pd

    parts = [first.rows, second.rows]
    clip = ["start_s"] if all("start_s" in rows for rows in parts) else []
    key = pd.concat([rows[["batch", "segment", *clip, "end_s"]] for rows in parts])
    times = {name: key[name].round(TIME_DECIMALS) for name in (*clip, "end_s")}
    code_N = _codes(*(column for _, column in key.assign(**times).items()))
    mine, theirs = code_N[: len(first)], code_N[len(first) :]
    for codes, predictions in ((mine, first), (theirs, second)):
        _refuse_twice(codes, predictions.rows)
    row_of = np.full(int(code_N.max(initial=0)) + 1, -1)
    row_of[theirs] = np.arange(len(second))
    kept = np.flatnonzero(row_of[mine] >= 0)
    if not len(kept):
        raise UserError("the two were scored on no common instant")
    found = row_of[mine[kept]]
    labels = (rows["label"].to_numpy()[at] for rows, at in zip(parts, (kept, found), strict=True))
    if not np.array_equal(*labels):
        raise UserError("the two were scored against different labels")
    return kept, found


def _refuse_twice(code_N: IntArray, rows: pd.DataFrame) -> None:
    """Frames of overlapping clips against a model without clips."""
    twice = np.flatnonzero(np.bincount(code_N)[code_N] > 1)
    if len(twice):
        row = rows.iloc[twice[0]]
        raise UserError(
            f"{len(twice)} of {len(rows)} rows share their instant with another, such as batch "
            f"{row['batch']}, {row['end_s']:g} s; clips that overlap can only be compared with the "
            "same clips"
        )


def at_rows(predictions: Predictions, rows_M: IntArray) -> Predictions:
    """No copy where these are all rows as they are."""
    if np.array_equal(rows_M, np.arange(len(predictions))):
        return predictions
    return predictions.take(rows_M)


def _codes(*columns: pd.Series[Any]) -> IntArray:
    """Numbers from 0 on for the distinct rows (N,), in the order in which they come."""
    import pandas as pd

    code_N = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        part_N, seen = pd.factorize(column, use_na_sentinel=False)
        code_N = pd.factorize(code_N * len(seen) + part_N)[0]
    return code_N
