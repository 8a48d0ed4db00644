"""One vector a chosen frame: from CLIP's image tower, or from appearance without weights."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.features.encoder import (
    Encoded,
    Failed,
    Identity,
    Input,
    Rows,
    Spans,
    Values,
    Vector,
)
from crosswatch.features.pictures import appearance
from crosswatch.features.pictures.clip import ClipTower
from crosswatch.features.pictures.frames import PIXELS, picture_inputs
from crosswatch.features.pictures.selection import choose_frames, spans_of
from crosswatch.features.pictures.thumbnails import Bytes, Thumbnails
from crosswatch.features.settings import ClipConfig, ImageConfig
from crosswatch.features.source import Source
from crosswatch.features.versions import version_of

NAME = "image"
PACKAGES = ("opencv-contrib-python-headless", "av", "numpy")

Embed = Callable[[Sequence[Bytes]], npt.NDArray[np.float32]]
"""Prepared pictures to (N, D)."""


@dataclasses.dataclass(frozen=True)
class ImageEncoder:
    """Modality "image": (512,) a chosen frame, or as wide as the CLIP model's embedding."""

    config: ImageConfig
    clip: ClipConfig
    precision: str

    @functools.cached_property
    def tower(self) -> ClipTower:
        return ClipTower(self.clip, self.precision, instead="features.image.source=appearance")

    @property
    def identity(self) -> Identity:
        chosen = dataclasses.asdict(self.config)
        if self.config.source == "clip":
            return self.tower.identity(NAME, __name__, **chosen)
        version = version_of(__name__, packages=PACKAGES)
        return Identity(name=NAME, weights="", preprocessing=chosen, version=version)

    def spans_s(self, source: Source) -> Spans:
        """A frame holds until the next chosen one, or the end of its recording."""
        return spans_of(source, choose_frames(source, self.config.frames))

    def inputs(self, source: Source, rows: Rows) -> Iterator[Input | Failed]:
        frames = choose_frames(source, self.config.frames)
        return picture_inputs(source, rows, frames[rows], self._prepare())

    def load(self, device: str) -> "ImageModel":
        """Appearance is computed on the CPU whatever the device."""
        return ImageModel(self.tower.load(device) if self.config.source == "clip" else _describe)

    def _prepare(self) -> Callable[[Any], Bytes]:
        if self.config.source == "clip":
            return self.tower.prepare
        return Thumbnails("rgb24", longer_px=appearance.LONGER_PX)


class ImageModel:
    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    def __call__(self, inputs: Sequence[Values]) -> list[Encoded | Exception]:
        vectors = self._embed([values[PIXELS] for values in inputs])
        return [
            {NAME: Vector(values=vector, valid=np.ones((), np.bool_))}
            if np.isfinite(vector).all()
            else ArithmeticError("the model gives no finite vector; fp16 may be too small for it")
            for vector in vectors
        ]


def _describe(pictures: Sequence[Bytes]) -> npt.NDArray[np.float32]:
    return np.stack([appearance.describe(picture) for picture in pictures])
