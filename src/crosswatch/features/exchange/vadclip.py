"""The feature files of VadCLIP (Wu et al. 2024, arXiv:2308.11681), from and to a features artifact.

A list (CSV: path,label) names a file a video and crop, `VIDEO__CROP.npy`: (T, D), a vector for the
picture of each 16 frames. Beside the lists of tests lie gt.npy (1 where something happens, a number
a frame, video after video) and gt_segment, gt_label (where, and what). These were released as
arrays of Python objects, which are pickles; they are read, but written as JSON.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch import artifacts, progress
from crosswatch.artifacts import Draft
from crosswatch.data.adapters.finding import batch_id
from crosswatch.errors import UserError
from crosswatch.features.exchange import ground_truth
from crosswatch.features.exchange.ground_truth import SNIPPET_FRAMES, Segment
from crosswatch.features.exchange.imported import BESIDE, LABELS, Shape, digests_of, write_index
from crosswatch.features.exchange.unpickle import load_npy
from crosswatch.features.exchange.vadclip_list import CROPS, Video, read_videos
from crosswatch.features.schema import FEATURES

LAYOUT = "vadclip"
CLIP = "clip"


@dataclasses.dataclass(frozen=True, kw_only=True)
class VadclipConfig:
    """What the files themselves do not tell.

    Attributes:
        root: where the feature files lie; None: where the list says.
        annotations: UCF-Crime's or XD-Violence's text.
        segments: gt_segment, and segment_labels gt_label, in place of a text.
        frame_labels: gt.npy, which is only held against the rest: same length, same frames.
    """

    frame_rate_hz: float
    root: Path | None = None
    annotations: Path | None = None
    segments: Path | None = None
    segment_labels: Path | None = None
    frame_labels: Path | None = None
    split: str | None = None

    def __post_init__(self) -> None:
        if not 0 < self.frame_rate_hz < float("inf"):
            raise UserError(
                f"frame rate {self.frame_rate_hz} Hz; has to be above 0 (UCF-Crime has 30, "
                "XD-Violence 24)"
            )
        if (self.segments is None) != (self.segment_labels is None):
            raise UserError("segments and their labels belong together: give both or none")
        if self.annotations is not None and self.segments is not None:
            raise UserError("annotations and segments tell the same: give one of them")
        if self.frame_labels is not None and not self.is_annotated:
            raise UserError("frame labels are held against annotations or segments: give these too")

    @property
    def is_annotated(self) -> bool:
        return self.annotations is not None or self.segments is not None


def import_vadclip(listing: Path, out: Path, config: VadclipConfig) -> dict[str, int]:
    """Write the features artifact: a batch a video, modality `clip`, and labels.json.

    Lists with one crop a video give values (T, D); others (T, 10, D), where crops that are not
    listed are not valid. labels.json tells for each batch its name and label in the list, its
    classes, crops and frames, and what happens where (null without annotations).

    Returns:
        How many videos, files, snippets and segments there were.

    Raises:
        UserError: the list, a feature file or the annotations cannot be used.
    """
    videos = read_videos(listing, config.root)
    ids = _ids(videos)
    one_crop = all(len(video.crops) == 1 for video in videos)
    parents = digests_of(
        list=listing, annotations=config.annotations, segments=config.segments,
        segment_labels=config.segment_labels, frame_labels=config.frame_labels,
    )  # fmt: skip
    settings = {"layout": LAYOUT, "frame_rate_hz": config.frame_rate_hz, "split": config.split}
    with artifacts.create(out, kind=FEATURES, config=settings, parents=parents) as draft:
        snippets, widths = [], set()
        for video, name in progress.track(
            zip(videos, ids, strict=True), what="videos", total=len(videos)
        ):
            shape = _write_clip(draft.path / name, video, config.frame_rate_hz, one_crop=one_crop)
            snippets.append(shape[0])
            widths.add(shape[-1])
        if len(widths) != 1:
            raise UserError(
                f"{listing}: its features are {', '.join(map(str, sorted(widths)))} wide; expected "
                "one width. Give those of one model."
            )
        truth = _truth(videos, [SNIPPET_FRAMES * count for count in snippets], config, draft)
        records = {
            name: _record(video, count, truth[video.name] if truth else None, config.split)
            for name, video, count in zip(ids, videos, snippets, strict=True)
        }
        artifacts.write_json(draft / LABELS, records)
        shapes = {CLIP: Shape(width=widths.pop(), axes=2 if one_crop else 3)}
        write_index(draft, ids, shapes, layout=LAYOUT, module=__name__)
        counts = {
            "videos": len(videos),
            "files": sum(len(video.crops) for video in videos),
            "snippets": sum(snippets),
            "segments": sum(len(segments) for segments in (truth or {}).values()),
        }
        draft.counts.update(counts)
    return counts


def _ids(videos: Sequence[Video]) -> list[str]:
    names: dict[str, str] = {}
    for video in videos:
        name = batch_id(video.name)
        if name.lower() in BESIDE:
            raise UserError(f"video {name!r} has the name of a file of ours. Rename it.")
        if (other := names.setdefault(name.casefold(), video.name)) != video.name:
            raise UserError(
                f"videos {other[:80]!r} and {video.name[:80]!r} differ by case only. Rename one."
            )
    return [batch_id(video.name) for video in videos]


def _write_clip(
    folder: Path, video: Video, frame_rate_hz: float, *, one_crop: bool
) -> tuple[int, ...]:
    """One crop in memory at a time; the longest videos have a gigabyte of ten."""
    folder.mkdir(parents=True)
    values: npt.NDArray[np.float32] | None = None
    for crop, path in video.crops.items():
        given = _given(path)
        if values is None:
            shape = given.shape if one_crop else (len(given), CROPS, given.shape[1])
            values = np.lib.format.open_memmap(
                folder / f"{CLIP}.npy", mode="w+", dtype=np.float32, shape=shape
            )
        if given.shape != (values.shape[0], values.shape[-1]):
            raise UserError(
                f"{path}: has shape {given.shape}; other crops of {video.name[:80]!r} have "
                f"{(values.shape[0], values.shape[-1])}. Give crops of one extraction."
            )
        if one_crop:
            values[:] = given
        else:
            values[:, crop] = given
    assert values is not None, "a listed video has a file"
    valid = np.full(values.shape[:-1], one_crop)
    if not one_crop:
        valid[:, list(video.crops)] = True
    edges_s = np.arange(len(values) + 1) * (SNIPPET_FRAMES / frame_rate_hz)
    np.save(folder / f"{CLIP}_valid.npy", valid)
    np.save(folder / f"{CLIP}_spans.npy", np.stack([edges_s[:-1], edges_s[1:]], axis=1))
    return values.shape


def _given(path: Path) -> npt.NDArray[Any]:
    given = load_npy(path)
    if given.ndim != 2 or not given.size or given.dtype.kind != "f":
        raise UserError(
            f"{path}: has shape {given.shape} of {given.dtype}; expected (snippets, numbers a "
            "snippet) of floats. Extract it again."
        )
    with np.errstate(over="ignore"):
        given = np.asarray(given, np.float32)
    if wrong := int(np.count_nonzero(~np.isfinite(given).all(axis=1))):
        raise UserError(
            f"{path}: {wrong} of {len(given)} snippets hold NaN or infinity. Extract it again."
        )
    return given


def _truth(
    videos: Sequence[Video], frames: Sequence[int], config: VadclipConfig, draft: Draft
) -> dict[str, tuple[Segment, ...]] | None:
    labels = {video.name: video.label for video in videos}
    if config.segments is not None and config.segment_labels is not None:
        truth = ground_truth.read_truth(config.segments, config.segment_labels, labels, frames)
    elif config.annotations is not None:
        annotated = ground_truth.read_annotations(config.annotations)
        if unlisted := len(annotated.keys() - labels.keys()):
            draft.warnings.append(f"{unlisted} annotated videos are not in the list")
        truth = ground_truth.truth_of(annotated, labels, frames)
    else:
        return None
    if config.frame_labels is not None:
        differing = ground_truth.frames_that_differ(config.frame_labels, truth, frames)
        if differing:
            draft.warnings.append(f"{config.frame_labels.name} differs for {differing} frames")
    behind = sum(
        segment.start >= count
        for count, segments in zip(frames, truth.values(), strict=True)
        for segment in segments
    )
    if behind:
        draft.warnings.append(f"{behind} segments begin behind the last snippet of their video")
    for warning in draft.warnings:
        progress.warn(warning)
    return truth


def _record(
    video: Video, snippets: int, segments: Sequence[Segment] | None, split: str | None
) -> Mapping[str, Any]:
    told = segments is not None
    return {
        "name": video.name,
        "label": video.label,
        "labels": list(ground_truth.classes_of(video.label)),
        "crops": list(video.crops),
        "frames": SNIPPET_FRAMES * snippets,
        "segments": [[each.start, each.end] for each in segments or ()] if told else None,
        "segment_labels": [each.label for each in segments or ()] if told else None,
        "split": split,
    }
