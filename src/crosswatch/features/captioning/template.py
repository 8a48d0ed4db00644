"""Sentences made from statistics of the stored frames, without a neural network.

    a dim orange picture, brightest in the middle, strong movement on the left, getting darker

Brightness, colour and the brightest place are those of a chosen frame; movement and the change of
light are those of the last `every_s` seconds up to it, seen in a few looks evenly apart, so that
they do not depend on the frame rate. The first frame of a recording has no past to tell of.
Nothing that comes after a caption's time changes its words.

Shapes: C captions, L looks each, H by W pixels, P places (three by three).
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.features.captioning.captions import Caption, Captioned
from crosswatch.features.captioning.explanation import explained
from crosswatch.features.encoder import Identity, Rows
from crosswatch.features.pictures.selection import choose_frames, spans_of
from crosswatch.features.settings import SelectionConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

Floats = npt.NDArray[np.float32]

NAME = "template"
LOOKS = 9  # at the past of a caption
THIRD = 3  # of the looks: flicker is no change of light
BYTES = 8 << 20  # of pictures in memory at once
LUMA = np.array([0.299, 0.587, 0.114], np.float32) / 255

BRIGHTNESS = {0.06: "black", 0.25: "dark", 0.45: "dim", 0.8: "bright", math.inf: "glaring"}
"""Up to which mean brightness, 0 to 1."""
COLOURS = {
    15: "red", 45: "orange", 70: "yellow", 165: "green", 195: "cyan", 255: "blue", 345: "purple",
    360: "red",
}  # fmt: skip
"""Up to which hue in degrees."""
GREY = "grey"
COLOURFUL = 0.15  # a pixel whose brightest and darkest channel differ by so much has a colour
COLOURFUL_SHARE = 0.1  # of the pixels; with fewer a picture is grey
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
EVEN = 0.03  # the brightest place stands out from the mean by more
MOVEMENT = {
    0.008: "no movement",
    0.03: "little movement",
    0.08: "movement",
    math.inf: "strong movement",
}
"""Up to which mean change of brightness from look to look."""
LOCAL = 1.5  # movement has a place where that changes so many times as much as the mean
STEADY = 0.02  # change of the mean brightness


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Seen:
    """Statistics of the frames of C captions."""

    luma: Floats  # (C,) 0 to 1
    luma_at: Floats  # (C, P)
    colours: list[str]
    moved_at: Floats  # (C, P) mean change of brightness from look to look
    brightening: Floats  # (C,) from the first third of the looks to the last
    has_past: npt.NDArray[np.bool_]  # (C,)


def describe(source: Source, frames: SelectionConfig, *, explain_s: float) -> Captioned:
    """A caption for each chosen frame; none without video."""
    chosen = choose_frames(source, frames)
    spans_s = spans_of(source, chosen)
    digest = identity(frames).digest
    sentences = _sentences(source.batch, chosen, frames.every_s) if chosen.size else iter(())
    made = [
        Caption(
            time_s=float(from_s),
            until_s=float(until_s),
            frame=int(frame),
            caption=sentence,
            explanation="",
            score=math.nan,
            source=NAME,
            digest=digest,
        )
        for frame, (from_s, until_s), sentence in zip(chosen, spans_s, sentences, strict=True)
    ]
    captions = explained(made, recordings=source.batch.segments, within_s=explain_s)
    return Captioned(captions=captions)


def identity(frames: SelectionConfig) -> Identity:
    return Identity(
        name=NAME,
        weights="",
        preprocessing={"frames": dataclasses.asdict(frames)},
        version=version_of(__name__),
    )


def _sentences(batch: Batch, chosen: Rows, back_s: float) -> Iterator[str]:
    assert batch.frames is not None
    looks = _looks(batch, chosen, back_s)
    at_once = max(1, BYTES // (LOOKS * batch.frames[0].nbytes))
    for start in range(0, len(looks), at_once):
        seen = _see(batch.frames, looks[start : start + at_once])
        yield from (_sentence(seen, row) for row in range(len(seen.luma)))


def _looks(batch: Batch, chosen: Rows, back_s: float) -> Rows:
    """(C, L) frames up to each chosen one in its recording, evenly apart; some may repeat."""
    assert batch.frame_times is not None
    times_s = np.asarray(batch.frame_times)
    starts_s = np.array([start_s for start_s, _ in batch.segments])
    recording = np.searchsorted(starts_s, times_s[chosen], side="right") - 1
    from_s = np.maximum(times_s[chosen] - back_s, starts_s[recording])
    first = np.minimum(np.searchsorted(times_s, from_s), chosen)
    return np.rint(np.linspace(first, chosen, LOOKS, axis=1)).astype(np.int64)


def _see(frames: npt.NDArray[np.uint8], looks: Rows) -> _Seen:
    shown, where = np.unique(looks, return_inverse=True)
    pictures = np.asarray(frames[shown])
    where = where.reshape(looks.shape)
    luma = np.asarray(pictures @ LUMA, np.float32)[where]  # (C, L, H, W)
    is_step = np.diff(looks, axis=1) > 0
    steps = is_step.sum(axis=1).astype(np.float32)
    moved = np.abs(np.diff(luma, axis=1)).sum(axis=1)
    moved = np.asarray(moved / np.maximum(steps, 1)[:, None, None], np.float32)
    mean = luma.mean(axis=(2, 3))
    return _Seen(
        luma=mean[:, -1],
        luma_at=_places(luma[:, -1]),
        colours=[_colour(pictures[at]) for at in where[:, -1]],
        moved_at=_places(moved),
        brightening=mean[:, -THIRD:].mean(axis=1) - mean[:, :THIRD].mean(axis=1),
        has_past=steps > 0,
    )


def _places(values: Floats) -> Floats:
    """(C, P) means of three by three parts."""
    rows = np.array_split(values, 3, axis=1)
    parts = [part for row in rows for part in np.array_split(row, 3, axis=2)]
    return np.stack([part.mean(axis=(1, 2)) for part in parts], axis=1)


def _colour(picture: npt.NDArray[np.uint8]) -> str:
    """The hue that most of the colour has."""
    red, green, blue = np.moveaxis(picture.astype(np.float32) / 255, -1, 0)
    value = np.maximum(np.maximum(red, green), blue)
    chroma = value - np.minimum(np.minimum(red, green), blue)
    coloured = chroma > COLOURFUL
    if coloured.mean() < COLOURFUL_SHARE:
        return GREY
    red, green, blue, value, chroma = (a[coloured] for a in (red, green, blue, value, chroma))
    sixths = np.select(
        [value == red, value == green],
        [((green - blue) / chroma) % 6, (blue - red) / chroma + 2],
        (red - green) / chroma + 4,
    )
    bounds = np.array(list(COLOURS))
    found = np.searchsorted(bounds[:-1], 60 * sixths, side="right")
    weights = dict.fromkeys(COLOURS.values(), 0.0)
    for name, weight in zip(COLOURS.values(), np.bincount(found, chroma, len(bounds)), strict=True):
        weights[name] += float(weight)
    return max(weights, key=lambda name: weights[name])


def _sentence(seen: _Seen, row: int) -> str:
    brightness = _word(BRIGHTNESS, seen.luma[row])
    colour = "" if brightness == "black" else f" {seen.colours[row]}"
    parts = [f"a {brightness}{colour} picture", _brightest(seen.luma_at[row])]
    if seen.has_past[row]:
        parts += [_movement(seen.moved_at[row]), _change(seen.brightening[row])]
    return ", ".join(parts)


def _brightest(luma_at: Floats) -> str:
    at = int(np.argmax(luma_at))
    stands_out = luma_at[at] - luma_at.mean() > EVEN
    return f"brightest {PLACES[at]}" if stands_out else "evenly lit"


def _movement(moved_at: Floats) -> str:
    mean, at = float(moved_at.mean()), int(np.argmax(moved_at))
    amount = _word(MOVEMENT, mean)
    if amount == MOVEMENT[min(MOVEMENT)]:
        return amount
    return f"{amount} {PLACES[at] if moved_at[at] > LOCAL * mean else 'everywhere'}"


def _change(brightening: float) -> str:
    if abs(brightening) <= STEADY:
        return "steady light"
    return "getting brighter" if brightening > 0 else "getting darker"


def _word(words: dict[float, str], value: float) -> str:
    """The first whose bound is not passed."""
    return next(word for bound, word in words.items() if value <= bound)
