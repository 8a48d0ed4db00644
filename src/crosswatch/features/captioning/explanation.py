"""The sentence that ExVAD explains a video with, from what its captions say."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from crosswatch.features.captioning.captions import Caption

NOTHING = "no explanation"
"""What is said where there is no caption to explain with."""


def explain(caption: str, other: str = "") -> str:
    """The template of ExVAD; what is blank is left out of it."""
    if not caption.strip():
        return NOTHING
    also = f". Also visible: {other}" if other.strip() else ""
    return f"Video shows: {caption}{also}"


def explained(
    captions: Sequence[Caption],
    *,
    recordings: Sequence[tuple[float, float]],
    within_s: float,
) -> tuple[Caption, ...]:
    """Captions, in order of time, with their explanations.

    Each also names the last one before it that says something else, in the same recording, if that
    held less than `within_s` ago. What comes later never changes an explanation.
    """
    starts_s = np.array([start for start, _ in recordings], np.float64)
    made: list[Caption] = []
    other: Caption | None = None
    for at, caption in enumerate(captions):
        if at and captions[at - 1].caption != caption.caption:
            other = captions[at - 1]
        named = (
            other is not None
            and max(0.0, caption.time_s - other.until_s) < within_s
            and _recording(starts_s, other) == _recording(starts_s, caption)
        )
        text = explain(caption.caption, other.caption if other is not None and named else "")
        made.append(dataclasses.replace(caption, explanation=text))
    return tuple(made)


def _recording(starts_s: np.ndarray, caption: Caption) -> int:
    return int(np.searchsorted(starts_s, caption.time_s, side="right"))
