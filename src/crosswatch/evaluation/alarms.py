"""What an operator gets from scores over time: false alarms an hour, and how late alarms come.

An alarm is a run of instants of one recording whose score is at least the threshold. A gap of up
to `merge_s` between two alarms is closed; an alarm shorter than `least_s` is dropped. It is false
if none of its instants, those of closed gaps included, lies in a true event. An event is detected
if an alarm's instant lies in it; the delay is that of the first such instant from the onset. To
apply `least_s` one has to wait, so that in practice an alarm comes up to `least_s` later.

An event that no instant lies in is not counted. If nobody watched at an onset, the delay counts
from the first instant after it.

Shape letters: N instants, A alarms, E events, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from crosswatch.errors import UserError
from crosswatch.evaluation.bootstrap import FloatArray, Statistic
from crosswatch.evaluation.classification import ratio
from crosswatch.evaluation.timeline import HOLE_STEPS, SLACK_S, Series, refuse_not_finite

Events = Mapping[str, Sequence[tuple[float, float]]]
"""Onset and end, in s, of the true abnormal intervals of each recording; the end is outside."""

MERGE_S = 2.0  # nobody tells two alarms apart that are closer
LEAST_S = 0.0  # one instant is enough


def alarm_statistics(
    recording_N: ArrayLike,
    time_s_N: ArrayLike,
    score_N: ArrayLike,
    events: Events,
    *,
    threshold: float,
    merge_s: float = MERGE_S,
    least_s: float = LEAST_S,
) -> dict[str, Statistic]:
    """false_alarms_per_hour (of normal time watched), detection_delay_s (the median over detected
    events) and detected_share as functions of weights; nan where nothing is there to count on.

    An alarm or event counts as often as its first instant was drawn, so that `block_bootstrap`
    may take recordings or blocks of time as units.

    Raises:
        UserError: arrays, times or events that do not fit.
    """
    return _counts(recording_N, time_s_N, score_N, events, threshold, merge_s, least_s).statistics()


def best_threshold(
    label_N: ArrayLike, score_N: ArrayLike, *, by: Literal["f1", "balanced_accuracy"] = "f1"
) -> float | None:
    """The score from which on to call an instant abnormal; to be chosen on validation data.

    Of scores that are equally good the highest, which alarms least. None if there is only one
    class. Label 0 is normal, every other abnormal.
    """
    abnormal, score = np.asarray(label_N) != 0, np.asarray(score_N, dtype=np.float64)
    if abnormal.shape != score.shape or abnormal.ndim != 1:
        raise UserError(
            f"labels of shape {abnormal.shape}, scores of {score.shape}; one of each for every "
            "instant needed."
        )
    refuse_not_finite(score, "score")
    positives, negatives = int(abnormal.sum()), int((~abnormal).sum())
    if not positives or not negatives:
        return None
    order = np.argsort(-score, kind="stable")
    last = np.flatnonzero(np.diff(score[order], append=-np.inf))  # of each group of equal scores
    hits = abnormal[order].cumsum()[last]
    alarms = last + 1
    quality: NDArray[np.generic]
    if by == "f1":
        quality = 2 * hits / (alarms + positives)
    else:
        assert by == "balanced_accuracy"
        quality = hits * negatives - (alarms - hits) * positives  # whole: ties stay ties
    return float(score[order][last[quality.argmax()]])


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """What is counted, each by the row of its first instant, as the caller ordered the rows."""

    instants: int
    normal_h_N: FloatArray
    false_alarm_A: NDArray[np.intp]
    event_E: NDArray[np.intp]
    delay_s_E: FloatArray  # nan where not detected

    def statistics(self) -> dict[str, Statistic]:
        return {
            "false_alarms_per_hour": self._false_alarms_per_hour,
            "detection_delay_s": self._detection_delay_s,
            "detected_share": self._detected_share,
        }

    def _false_alarms_per_hour(self, weight_RN: FloatArray) -> FloatArray:
        return ratio(weight_RN[:, self.false_alarm_A].sum(-1), weight_RN @ self.normal_h_N)

    def _detected_share(self, weight_RN: FloatArray) -> FloatArray:
        weight_RE = weight_RN[:, self.event_E]
        return ratio(weight_RE @ np.isfinite(self.delay_s_E), weight_RE.sum(-1))

    def _detection_delay_s(self, weight_RN: FloatArray) -> FloatArray:
        detected = np.flatnonzero(np.isfinite(self.delay_s_E))
        if not len(detected):
            return np.full(len(weight_RN), np.nan)
        rising = detected[np.argsort(self.delay_s_E[detected])]
        share_RE = weight_RN[:, self.event_E[rising]].cumsum(-1)
        half_R1 = share_RE[:, -1:] / 2
        lower_R = self.delay_s_E[rising][(share_RE < half_R1).sum(-1)]
        upper_at_R = np.minimum((share_RE <= half_R1).sum(-1), len(rising) - 1)
        middle_R = (lower_R + self.delay_s_E[rising][upper_at_R]) / 2
        return np.where(half_R1[:, 0] > 0, middle_R, np.nan)


def _counts(
    recording_N: ArrayLike,
    time_s_N: ArrayLike,
    score_N: ArrayLike,
    events: Events,
    threshold: float,
    merge_s: float,
    least_s: float,
) -> _Counts:
    series = Series.of(recording_N, time_s_N)
    score = np.asarray(score_N, dtype=np.float64)
    if score.shape != series.order_N.shape:
        raise UserError(
            f"{score.size} scores of {len(series.order_N)} instants; one for each needed."
        )
    refuse_not_finite(score, "score")
    _refuse_settings(threshold, merge_s, least_s)
    spans = _watched(series, events)
    in_event_N = np.zeros(len(score), bool)
    for first, stop, _ in spans:
        in_event_N[first:stop] = True
    alarmed_N = np.zeros(len(score), bool)
    false_alarms = []
    for first, last in series.runs(score[series.order_N] >= threshold, merge_s=merge_s):
        lasts_s = series.time_s_N[last] + series.step_s_N[last] - series.time_s_N[first]
        if lasts_s + SLACK_S < least_s:
            continue
        alarmed_N[first : last + 1] = True
        if not in_event_N[first : last + 1].any():
            false_alarms.append(first)
    delays_s = []
    for first, stop, onset_s in spans:
        alarms = np.flatnonzero(alarmed_N[first:stop])
        late_s = series.time_s_N[first + alarms[:1]] - onset_s
        delays_s.append(max(0.0, float(late_s[0])) if len(alarms) else np.nan)
    normal_h = np.zeros(len(score))
    normal_h[series.order_N] = series.step_s_N * ~in_event_N / 3600
    return _Counts(
        instants=len(score),
        normal_h_N=normal_h,
        false_alarm_A=series.order_N[np.array(false_alarms, np.intp)],
        event_E=series.order_N[np.array([first for first, _, _ in spans], np.intp)],
        delay_s_E=np.array(delays_s, np.float64),
    )


def _watched(series: Series, events: Events) -> list[tuple[int, int, float]]:
    """First instant, the one after the last, and onset of each event that has an instant."""
    numbers = {str(name): k for k, name in enumerate(series.names)}
    spans = []
    for recording, of_recording in events.items():
        if str(recording) not in numbers:
            raise UserError(f"events of recording {recording}, which no instant belongs to.")
        number = numbers[str(recording)]
        low, high = np.searchsorted(series.recording_N, [number, number + 1])
        time_s = series.time_s_N[low:high]
        for onset_s, end_s in of_recording:
            if not onset_s < end_s:
                raise UserError(
                    f"recording {recording}: event from {onset_s:g} s to {end_s:g} s is empty."
                )
            first, stop = low + np.searchsorted(time_s, [onset_s - SLACK_S, end_s - SLACK_S])
            if first == stop:
                continue
            late_s = series.time_s_N[first] - onset_s
            watched = late_s <= HOLE_STEPS * series.step_s_N[first]
            spans.append((int(first), int(stop), float(onset_s if watched else onset_s + late_s)))
    return spans


def _refuse_settings(threshold: float, merge_s: float, least_s: float) -> None:
    if not np.isfinite(threshold):
        raise UserError(f"threshold {threshold}; a finite score needed.")
    if merge_s < 0 or least_s < 0:
        raise UserError(f"merge_s {merge_s}, least_s {least_s}; 0 s and more allowed.")
