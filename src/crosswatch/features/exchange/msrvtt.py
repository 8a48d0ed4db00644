"""MSR-VTT (Xu et al. 2016) as pickles of pre-computed features, converted once.

A pickle is a list with a dictionary a clip, as everything_at_once and AVLnet distribute them:
`id`; `2d` (t, 2048) of ResNet-152 and `3d` (t', 2048) of ResNeXt-101; `2d_pooled` and `3d_pooled`
(2048,); `audio` (40, n), log-mel, 100 columns a second; `caption`, a list of sentences;
`eval_caption`, one; and `category`, 0 to 19, unless the official videodatainfo.json tells it.
"""

import dataclasses
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts, progress
from crosswatch.data.sums import ID_PATTERN
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import FILE, Caption, write_captions
from crosswatch.features.captioning.explanation import explain
from crosswatch.features.encoder import Spans
from crosswatch.features.exchange.imported import BESIDE, LABELS, Shape, digests_of, write_index
from crosswatch.features.exchange.unpickle import load_pickle
from crosswatch.features.schema import FEATURES, Feature, write_feature

LAYOUT = "msrvtt"
CATEGORIES = (
    "music", "people", "gaming", "sports/actions", "news/events/politics", "education", "tv shows",
    "movie/comedy", "animation", "vehicles/autos", "howto", "travel", "science/technology",
    "animals/pets", "kids/family", "documentary", "food/drink", "cooking", "beauty/fashion",
    "advertisement",
)  # fmt: skip
SPLITS = (("train", range(6513)), ("validation", range(6513, 7010)), ("test", range(7010, 10000)))
KEYS = ("id", "2d", "3d", "2d_pooled", "3d_pooled", "audio", "caption", "eval_caption")
WIDTH, BANDS, COLUMNS_PER_S = 2048, 40, 100.0
AUDIO = "audio"
SHAPES = {
    "2d": Shape(width=WIDTH, axes=2),
    "3d": Shape(width=WIDTH, axes=2),
    "2d_pooled": Shape(width=WIDTH, axes=2),
    "3d_pooled": Shape(width=WIDTH, axes=2),
    AUDIO: Shape(width=BANDS, axes=3),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What videodatainfo.json says of a clip."""

    category: int
    duration_s: float | None


def import_msrvtt(source: Path, out: Path, infos: Sequence[Path] = ()) -> dict[str, int]:
    """Write the features artifact: a batch a clip, its captions.parquet, and labels.json.

    Rows of `2d` and `3d` are spread evenly over the clip, which is as long as its sound, or as
    videodatainfo.json says, or else a second a row; `audio` is one row (1, n, 40). A clip without
    sound (None, or no column) has no `audio`. The pickle is in memory as a whole.

    Returns:
        How many clips and captions there were, and how many clips without sound.

    Raises:
        UserError: the pickle asks for anything but arrays, or a clip is not as described.
    """
    clips, told = _clips(source), _told(infos)
    digests = digests_of(pickle=source, **{f"info{at}": path for at, path in enumerate(infos)})
    labels: dict[str, Mapping[str, Any]] = {}
    taken: set[str] = set()
    captions = silent = 0
    with artifacts.create(out, kind=FEATURES, config={"layout": LAYOUT}, parents=digests) as draft:
        for at in progress.track(range(len(clips)), what="clips", total=len(clips)):
            given, clips[at] = clips[at], None  # what is written is let go
            name, where = _id(given, f"{source}: clip {at}")
            if name.casefold() in taken:
                raise UserError(f"{where}: comes twice. Remove one.")
            taken.add(name.casefold())
            clip = _Clip.read(given, told.get(name), where)
            clip.write(draft.path / name, digests["pickle"])
            labels[name] = clip.labels(name)
            captions += len(clip.captions)
            silent += AUDIO not in clip.arrays
        artifacts.write_json(draft / LABELS, labels)
        shapes = {
            key: shape for key, shape in SHAPES.items() if key != AUDIO or silent < len(labels)
        }
        write_index(draft, list(labels), shapes, layout=LAYOUT, module=__name__)
        counts = {"clips": len(labels), "captions": captions, "silent": silent}
        draft.counts.update(counts)
    return counts


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Clip:
    arrays: Mapping[str, npt.NDArray[np.float32]]
    duration_s: float | None
    captions: tuple[str, ...]
    eval_caption: str
    category: int

    @classmethod
    def read(cls, given: Mapping[str, Any], told: Told | None, where: str) -> "_Clip":
        if missing := [key for key in KEYS if key not in given]:
            raise UserError(f"{where}: has no {', '.join(missing)}. Expected {', '.join(KEYS)}.")
        arrays = {key: _rows(given[key], f"{where}: {key}") for key in ("2d", "3d")}
        for key in ("2d_pooled", "3d_pooled"):
            arrays[key] = _numbers(given[key], (WIDTH,), f"{where}: {key}")[None]
        duration_s = told.duration_s if told is not None else None
        if given[AUDIO] is not None:
            bands = _numbers(given[AUDIO], (BANDS, None), f"{where}: {AUDIO}")
            if bands.shape[1]:
                arrays[AUDIO] = np.ascontiguousarray(bands.T)[None]
                duration_s = bands.shape[1] / COLUMNS_PER_S
        sentences = given["caption"]
        if not isinstance(sentences, list | tuple):
            raise UserError(f"{where}: caption is {sentences!r:.60}; expected a list of sentences.")
        return cls(
            arrays={key: array for key, array in arrays.items() if len(array)},
            duration_s=duration_s,
            captions=tuple(_text(each, f"{where}: caption") for each in sentences),
            eval_caption=_text(given["eval_caption"], f"{where}: eval_caption"),
            category=_category(given.get("category"), told, where),
        )

    def write(self, folder: Path, digest: str) -> None:
        folder.mkdir()
        rows = max(len(array) for array in self.arrays.values())
        length_s = float(rows) if self.duration_s is None else self.duration_s
        for key, values in self.arrays.items():
            feature = Feature(
                values=values,
                valid=np.ones(values.shape[:-1], np.bool_),
                spans_s=self._spans_s(key, len(values), length_s),
            )
            write_feature(folder, key, feature)
        if self.captions:
            write_captions(folder / FILE, [_said(text, length_s, digest) for text in self.captions])

    def labels(self, name: str) -> Mapping[str, Any]:
        return {
            "category": self.category,
            "class": CATEGORIES[self.category],
            "eval_caption": self.eval_caption,
            "split": _split(name),
        }

    def _spans_s(self, key: str, rows: int, length_s: float) -> Spans:
        by_index = self.duration_s is None and key in ("2d", "3d")
        edges_s = np.linspace(0.0, float(rows) if by_index else length_s, rows + 1)
        return np.stack([edges_s[:-1], edges_s[1:]], axis=1)


def _said(text: str, length_s: float, digest: str) -> Caption:
    return Caption(
        time_s=0.0, until_s=length_s, frame=-1, caption=text, explanation=explain(text),
        score=math.nan, source="supplied", digest=digest,
    )  # fmt: skip


def _clips(source: Path) -> list[Any]:
    clips = load_pickle(source)
    if not isinstance(clips, list) or not clips:
        raise UserError(f"{source}: holds {type(clips).__name__}; expected a list of clips.")
    return clips


def _id(given: Any, where: str) -> tuple[str, str]:
    if not isinstance(given, dict):
        raise UserError(f"{where}: is {type(given).__name__}; expected a dictionary.")
    name = given.get("id")
    if not isinstance(name, str) or not ID_PATTERN.fullmatch(name) or name.lower() in BESIDE:
        raise UserError(
            f"{where}: id is {name!r:.60}; expected up to 100 of A-Z a-z 0-9 . _ -, such as "
            "'video7010'."
        )
    return name, f"{where} ({name})"


def _split(name: str) -> str | None:
    match = re.fullmatch(r"video(\d{1,5})", name)
    return next((split for split, ids in SPLITS if match and int(match[1]) in ids), None)


def _rows(value: Any, where: str) -> npt.NDArray[np.float32]:
    return _numbers(value, (None, WIDTH), where)


def _numbers(value: Any, expected: tuple[int | None, ...], where: str) -> npt.NDArray[np.float32]:
    sizes = "(" + ", ".join("any" if size is None else str(size) for size in expected) + ")"
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fiu":
        raise UserError(f"{where}: is {type(value).__name__}; expected numbers {sizes}.")
    fits = value.ndim == len(expected) and all(
        size in (None, found) for size, found in zip(expected, value.shape, strict=True)
    )
    if not fits:
        raise UserError(f"{where}: has shape {value.shape}; expected {sizes}.")
    with np.errstate(over="ignore"):
        numbers = np.asarray(value, np.float32)
    if wrong := int(np.count_nonzero(~np.isfinite(numbers))):
        raise UserError(f"{where}: {wrong} of {numbers.size} numbers are NaN or infinite.")
    return numbers


def _text(value: Any, where: str) -> str:
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):
        raise UserError(f"{where}: {value!r:.60} is no text.") from None
    return str(value)


def _category(given: Any, told: Told | None, where: str) -> int:
    if given is None:
        if told is None:
            raise UserError(
                f"{where}: has no category. Name the official videodatainfo.json by --info."
            )
        return told.category
    whole = isinstance(given, int | np.integer) and not isinstance(given, bool)
    if not whole or not 0 <= given < len(CATEGORIES):
        raise UserError(f"{where}: category is {given!r:.60}; expected 0 to {len(CATEGORIES) - 1}.")
    if told is not None and told.category != given:
        raise UserError(
            f"{where}: category is {int(given)}; videodatainfo.json says {told.category}. Mend one."
        )
    return int(given)


def _told(infos: Sequence[Path]) -> dict[str, Told]:
    told: dict[str, Told] = {}
    for path in infos:
        try:
            videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
            found = {f"video{int(video['id'])}": _told_of(video) for video in videos}
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}.") from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"{path}: is no videodatainfo.json: {type(error).__name__} {error}. Expected "
                'videos with "id" and "category" 0 to 19.'
            ) from error
        told |= found
    return told


def _told_of(video: Mapping[str, Any]) -> Told:
    category, start_s, end_s = video["category"], video.get("start time"), video.get("end time")
    if category not in range(len(CATEGORIES)):
        raise ValueError(f"category {category!r}")
    duration_s = None if start_s is None or end_s is None else float(end_s) - float(start_s)
    if duration_s is not None and not 0 < duration_s < math.inf:
        raise ValueError(f"from {start_s} s to {end_s} s")
    return Told(category=int(category), duration_s=duration_s)
