"""The gate: whether a candidate replaces the champion, as a value with reasons."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from crosswatch.evaluation.bootstrap import Interval
from crosswatch.evaluation.settings import EvaluateConfig

GATE = "gate"  # the tag of a version that holds its gate
SELECTED_ON_EVALUATION = (
    "its epoch was picked on the evaluation set itself (train.select=test), so what is measured "
    "there compares with nothing; train with train.select=best"
)

Primary = Literal[
    "f1", "accuracy", "balanced_accuracy", "macro_f1", "auc", "ap", "auc2", "ap2", "miou"
]

if TYPE_CHECKING:
    from crosswatch.evaluation.predictions import Predictions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RegisterConfig:
    model_name: str = "fmformer-furnace"
    primary: Primary = "f1"  # the metric that decides; more is better
    min_gain: float = 0.0  # the candidate has to gain more than this
    tracking_uri: str | None = None  # an MLflow server; None: sqlite in the workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gate:
    """By what rule a version may become champion; kept with the version."""

    primary: Primary
    min_gain: float
    evaluate: EvaluateConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    promote: bool
    reasons: tuple[str, ...]
    metric: str
    evaluation_set: str
    candidate: float
    champion: float | None = None
    difference: Interval | None = None  # candidate - champion, paired

    def plain(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def judge(
    *,
    metric: str,
    evaluation_set: str,
    candidate: float,
    champion: float | None,
    difference: Interval | None,
    min_gain: float,
) -> Verdict:
    """Promote if there is no champion, or if the candidate gains more than `min_gain` on it.

    A candidate whose metric is undefined is never promoted; a champion whose metric is undefined
    gives way.

    Both numbers come from the same evaluation-set version; the paired interval is recorded, so
    that whoever reads the history sees how sure the gain is.
    """
    facts: Mapping[str, Any] = {
        "metric": metric,
        "evaluation_set": evaluation_set,
        "candidate": candidate,
    }
    if math.isnan(candidate):
        reason = f"{metric} is undefined on evaluation set {evaluation_set}"
        return Verdict(promote=False, reasons=(reason,), **facts)
    if champion is None or difference is None:
        return Verdict(promote=True, reasons=("there is no champion yet",), **facts)
    if math.isnan(champion):
        reason = f"the champion's {metric} is undefined on evaluation set {evaluation_set}"
        return Verdict(promote=True, reasons=(reason,), champion=champion, **facts)
    gain = candidate - champion
    better = gain > min_gain
    sign = ">" if better else "<="
    reason = (
        f"{metric} {candidate:.4f} against the champion's {champion:.4f} on evaluation set "
        f"{evaluation_set}: gain {gain:+.4f} {sign} {min_gain:g} "
        f"(95 % interval {difference.low:+.4f} to {difference.high:+.4f})"
    )
    return Verdict(
        promote=better, reasons=(reason,), champion=champion, difference=difference, **facts
    )


def weigh(
    candidate: Predictions, champion: Predictions | None, gate: Gate, evaluation_set: int | str
) -> Verdict:
    """Compare two sets of predictions on the instants that they share, and judge."""
    from crosswatch.evaluation.seeds import (
        compare,
    )  # with torch and pandas, which settings need not

    against = candidate if champion is None else champion
    mine, theirs, difference = compare(candidate, against, gate.primary, gate.evaluate)
    return judge(
        metric=gate.primary,
        evaluation_set=str(evaluation_set),
        candidate=mine,
        champion=None if champion is None else theirs,
        difference=None if champion is None else difference,
        min_gain=gate.min_gain,
    )


def unjudged(candidate: Predictions, gate: Gate, evaluation_set: int | str, why: str) -> Verdict:
    """A refusal because the two cannot be compared."""
    alone = weigh(candidate, None, gate, evaluation_set)
    return dataclasses.replace(alone, promote=False, reasons=(why,))
