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
from crosswatch.features.pictures.clip_weights import ClipWeights, find_clip, load_tower
from crosswatch.features.pictures.frames import PIXELS, picture_inputs
from crosswatch.features.pictures.snippets import Snippets, snippets_of
from crosswatch.features.settings import ClipConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

PACKAGES = ("open_clip_torch", "timm", "torch", "av", "numpy")
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

    def identity(self, name: str, module: str, **preprocessing: Any) -> Identity:
        """With `preprocessing` beside what all encoders over this tower depend on.

        Args:
            module: of the encoder.
        """
        own = {
            **self.weights.architecture,
            **dataclasses.asdict(self.weights.preprocessing),
            "precision": self.precision,
        }
        return Identity(
            name=name,
            weights=self.weights.sha256,
            preprocessing=own | preprocessing,
            version=version_of(module, packages=PACKAGES),
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
        return self.tower.identity("clip", __name__, take=take, **every)

    def spans_s(self, source: Source) -> Spans:
        return self._snippets(source.batch).spans_s

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        frames = self._snippets(source.batch).first
        crops = self.config.take == "ten_crops"
        prepare = self.tower.prepare_crops if crops else self.tower.prepare
        return picture_inputs(source, rows, frames[rows], prepare)

    def load(self, device: str) -> Model:
        encode = self.tower.load(device)
        return functools.partial(
            _encode_crops if self.config.take == "ten_crops" else _encode, encode
        )

    def _snippets(self, batch: Batch) -> Snippets:
        return snippets_of(batch, 1 if self.config.take == "frames" else self.config.snippet_frames)


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
