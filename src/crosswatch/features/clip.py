"""CLIP (Radford et al. 2021, arXiv:2103.00020): a vector of what a picture shows.

Vectors are those of open_clip's `encode_image` without normalisation: a reader can normalise, none
could take it back. ExVAD's CMAF normalises each frame's, VadCLIP takes them as they are.
OpenAI's weights, which VadCLIP was trained on, are of the models named *-quickgelu.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.data.batches import Batch
from crosswatch.data.originals import rgb
from crosswatch.errors import UserError
from crosswatch.features.clip_weights import ClipWeights, find_clip, load_tower
from crosswatch.features.encoder import (
    Encoded,
    Failed,
    Identity,
    Input,
    Model,
    Rows,
    Spans,
    Values,
    Vector,
)
from crosswatch.features.settings import ClipConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

CODE = (
    __name__,
    "crosswatch.features.clip_weights",
    "crosswatch.features.pixels",
)
PACKAGES = ("open_clip_torch", "timm", "torch")
PIXELS = "pixels"
CROPS = 10

Pixels = npt.NDArray[np.uint8]
"""(3, Y, X): what the model sees, before it is scaled."""
Encode = Callable[[Sequence[Pixels]], npt.NDArray[np.float32]]
"""Pictures to (N, D)."""


@dataclasses.dataclass(frozen=True)
class ClipTower:
    """The image tower of CLIP, whichever frames are looked at.

    What `config` names is looked up once, and then travels along: other processes prepare pictures
    without open_clip.
    """

    config: ClipConfig
    precision: str  # fp32, bf16, or on an accelerator fp16
    instead: str = "features.encoders=[motion]"  # settings that need no weights, for errors

    @functools.cached_property
    def weights(self) -> ClipWeights:
        """
        Raises:
            UserError: they are missing, or not those that were asked for.
        """
        return find_clip(self.config, instead=self.instead)

    def identity(self, name: str, **preprocessing: Any) -> Identity:
        """With `preprocessing` beside what all encoders over this tower depend on."""
        own = {
            **self.weights.architecture,
            **dataclasses.asdict(self.weights.preprocessing),
            "precision": self.precision,
        }
        return Identity(
            name=name,
            weights=self.weights.sha256,
            preprocessing=own | preprocessing,
            version=version_of(*CODE, packages=PACKAGES),
        )

    def prepare(self, picture: Any) -> Pixels:
        """A decoded `av.VideoFrame`, or RGB (H, W, 3), as the model sees it."""
        return self.weights.preprocessing.shown(rgb(picture))

    def prepare_crops(self, picture: Any) -> Pixels:
        """(10, 3, Y, X)."""
        return self.weights.preprocessing.ten_crops(rgb(picture))

    def load(self, device: str) -> Encode:
        """
        Raises:
            UserError: the weights are of another architecture, or fp16 is asked of a CPU.
        """
        import torch

        kind = torch.device(device).type
        if self.precision == "fp16" and kind == "cpu":
            raise UserError(
                "features.compute.precision is fp16 and the device is cpu, which has no fast fp16. "
                "Use bf16 or fp32, or features.compute.device=cuda."
            )
        lower = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.precision)
        tower = load_tower(self.weights).to(device)
        # On a CPU autocast copies weights for every picture and is slower than fp32.
        whole = lower if kind == "cpu" and lower is not None else torch.float32
        tower.to(whole)
        autocast = lower is not None and whole == torch.float32
        preprocessing = self.weights.preprocessing

        def encode(pictures: Sequence[Pixels]) -> npt.NDArray[np.float32]:
            pixels = torch.from_numpy(np.stack(pictures)).to(device)
            with torch.inference_mode(), torch.autocast(kind, dtype=lower, enabled=autocast):
                seen = tower(preprocessing.normalised(pixels).to(whole))
            if isinstance(seen, tuple):  # CoCa's also tells of the picture's parts
                seen = seen[0]
            return np.asarray(seen.float().cpu().numpy(), np.float32)

        return encode


@dataclasses.dataclass(frozen=True)
class ClipEncoder:
    """CLIP over stored frames, decoded anew from the original in its full size."""

    config: ClipConfig
    precision: str

    @functools.cached_property
    def tower(self) -> ClipTower:
        return ClipTower(self.config, self.precision)

    @property
    def identity(self) -> Identity:
        take = self.config.take
        every = {} if take == "frames" else {"snippet_frames": self.config.snippet_frames}
        return self.tower.identity("clip", take=take, **every)

    def spans_s(self, source: Source) -> Spans:
        return self._looked_at(source.batch)[1]

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        frames, _ = self._looked_at(source.batch)
        crops = self.config.take == "ten_crops"
        prepare = self.tower.prepare_crops if crops else self.tower.prepare
        return picture_inputs(source, rows, frames[rows], prepare)

    def load(self, device: str) -> Model:
        encode = self.tower.load(device)
        return functools.partial(
            _encode_crops if self.config.take == "ten_crops" else _encode, encode
        )

    def _looked_at(self, batch: Batch) -> tuple[Rows, Spans]:
        step = 1 if self.config.take == "frames" else self.config.snippet_frames
        return first_frames(batch, every=step)


def first_frames(batch: Batch, *, every: int) -> tuple[Rows, Spans]:
    """The first of so many consecutive frames of each recording (N,), and when those are (N, 2).

    The last of a recording may stand for fewer; frames outside of recordings stand in none.
    """
    if batch.frame_times is None:
        return np.empty(0, np.int64), np.empty((0, 2))
    times_s = np.asarray(batch.frame_times)
    frames, spans = [np.empty(0, np.int64)], [np.empty((0, 2))]
    unused = 0  # a frame where two recordings meet belongs to the first
    for start_s, stop_s in sorted(batch.segments):
        inside = np.flatnonzero((times_s >= start_s) & (times_s <= stop_s))
        inside = inside[inside >= unused]
        if not inside.size:
            continue
        unused = int(inside[-1]) + 1
        begins_s = times_s[inside[::every]]
        end_s = times_s[inside[-1]] + 1 / batch.video_rate_hz
        frames.append(inside[::every])
        spans.append(np.column_stack([begins_s, np.append(begins_s[1:], end_s)]))
    return np.concatenate(frames), np.concatenate(spans)


def picture_inputs(
    source: Source, rows: Rows, frames: Rows, prepare: Callable[[Any], Any]
) -> Iterator[Input | Failed]:
    """The original's picture behind each row's stored frame, prepared.

    Args:
        frames: (N,) of each of `rows`.
        prepare: what of a picture (as `Original.pictures` converts) the model is given, under
            `PIXELS`.
    """
    sources = np.load(source.folder / "frame_sources.npy", mmap_mode="r", allow_pickle=False)
    positions = np.asarray(sources[frames])
    order = np.argsort(positions, kind="stable")
    wanted, starts = np.unique(positions[order], return_index=True)
    groups = zip(wanted.tolist(), np.split(rows[order], starts[1:]), strict=True)
    for position, prepared in source.original.pictures(wanted, convert=prepare):
        for expected, sharing in groups:
            if expected == position:
                values = {PIXELS: prepared}
                yield from (Input(row=int(row), values=values) for row in sharing)
                break
            yield from _missing(expected, sharing)
    for expected, sharing in groups:
        yield from _missing(expected, sharing)


def _missing(position: int, rows: Rows) -> Iterator[Failed]:
    for row in rows:
        yield Failed(row=int(row), reason=f"picture {position} cannot be decoded")


def _encode(encode: Encode, inputs: Sequence[Values]) -> list[Encoded | Exception]:
    return [_one(vector) for vector in encode([values[PIXELS] for values in inputs])]


def _encode_crops(encode: Encode, inputs: Sequence[Values]) -> list[Encoded | Exception]:
    """Crop by crop, so that what is in memory is the batch that was asked for."""
    by_crop = [encode([values[PIXELS][crop] for values in inputs]) for crop in range(CROPS)]
    return [_one(vectors) for vectors in np.stack(by_crop, axis=1)]


def _one(values: npt.NDArray[np.float32]) -> Encoded | Exception:
    if not np.isfinite(values).all():
        return ArithmeticError("CLIP gives no finite vector; fp16 may be too small for this model")
    return {"clip": Vector(values=values, valid=np.ones(values.shape[:-1], np.bool_))}
