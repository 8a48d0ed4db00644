"""Large pictures to small ones: a stored pixel is the mean of the area that it covers.

Decoding keeps every core busy, so whatever shrinking costs is lost. Pictures are therefore halved
as they are coded, brightness and colour apart, and only what is left becomes RGB.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import BadBatchError

Array = npt.NDArray[np.uint8]
Crop = tuple[int, ...] | None

GREY_PX = 160
"""The longer side of the grey picture that features of the video see."""
ENOUGH = 3
"""Pixels left for one stored pixel: halving further would blur what does not divide evenly."""
PLANAR = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
"""8 bits, a plane for each of brightness and two colours: what can be halved plane by plane."""


class Shrinker:
    """Shrinks the pictures of one video, holding on to its buffers."""

    def __init__(self, *, frame_px: int, crop_xywh_px: Crop, name: str) -> None:
        from av.video.reformatter import Interpolation, VideoReformatter

        self._frame_px = frame_px
        self._crop = crop_xywh_px
        self._name = name
        self._planar, self._rgb = VideoReformatter(), VideoReformatter()
        self._exactly = (
            Interpolation.AREA | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
        )
        self._made_for: tuple[str, int, int] | None = None
        self._smaller: list[Any] = []  # frames, each shrunk from the one before it

    def __call__(self, picture: Any, *, grey: bool) -> tuple[Array, Array | None]:
        """RGB (frame_px, frame_px, 3) of a picture, and the whole of it in grey.

        A picture is an RGB array (H, W, 3) or a decoded frame, whose grey is as it is coded.
        """
        if isinstance(picture, np.ndarray):
            return self._shown(picture, grey=grey)
        if picture.format.is_rgb:
            return self._shown(picture.to_ndarray(format="rgb24", threads=1), grey=grey)
        return self._coded(picture, grey=grey)

    def _coded(self, picture: Any, *, grey: bool) -> tuple[Array, Array | None]:
        import cv2

        if picture.format.name not in PLANAR:
            picture = self._planar.reformat(
                picture, format="yuv444p", interpolation=self._exactly, threads=1
            )
        self._prepare(picture)
        whole = _planes(picture)
        levels = [whole if self._crop is None else _cut(whole, self._crop)]
        for smaller in self._smaller:
            levels.append(_planes(smaller))
            for source, target in zip(levels[-2], levels[-1], strict=True):
                cv2.resize(source, target.shape[::-1], dst=target, interpolation=cv2.INTER_AREA)
            smaller.colorspace, smaller.color_range = picture.colorspace, picture.color_range
        small = self._rgb.reformat(
            self._smaller[-1] if self._smaller else picture,
            width=self._frame_px,
            height=self._frame_px,
            format="rgb24",
            interpolation=self._exactly,
            threads=1,
        )
        frame = np.asarray(small.to_ndarray(), np.uint8)
        if not grey:
            return frame, None
        lumas = [level[0] for level in levels] if self._crop is None else [whole[0]]
        large = [luma for luma in lumas if max(luma.shape) >= GREY_PX]
        return frame, small_grey(large[-1] if large else whole[0])

    def _shown(self, picture: Array, *, grey: bool) -> tuple[Array, Array | None]:
        import cv2

        height, width = picture.shape[:2]
        check_crop(self._crop, width, height, self._name)
        part = np.ascontiguousarray(picture if self._crop is None else cut(picture, self._crop))
        size = (self._frame_px, self._frame_px)
        frame = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
        if not grey:
            return frame, None
        luma = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
        return frame, small_grey(np.asarray(luma, np.uint8))

    def _prepare(self, picture: Any) -> None:
        """Buffers for pictures of this size; a video may change it on the way."""
        import av

        made_for = picture.format.name, picture.width, picture.height
        if made_for == self._made_for:
            return
        name, width, height = made_for
        check_crop(self._crop, width, height, self._name)
        if self._crop is not None:
            width, height = self._crop[2:]
        sizes = []
        while (
            width % 4 == height % 4 == 0  # colours are often stored at half the size
            and min(width, height) >= 2 * ENOUGH * self._frame_px
        ):
            width, height = width // 2, height // 2
            sizes.append((width, height))
        if self._crop is not None and not sizes:
            sizes.append((width, height))
        self._smaller = [av.VideoFrame(*size, name) for size in sizes]
        self._made_for = made_for


def small_grey(luma: Array) -> Array:
    """At most GREY_PX on the longer side; a copy."""
    import cv2

    height, width = luma.shape
    while max(height, width) >= 2 * GREY_PX and height % 2 == width % 2 == 0:
        height, width = height // 2, width // 2
        luma = np.asarray(cv2.resize(luma, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    scale = GREY_PX / max(height, width)
    if scale >= 1:
        return luma.copy()
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(luma, size, interpolation=cv2.INTER_AREA), np.uint8)


def check_crop(crop_xywh_px: Crop, width: int, height: int, name: str) -> None:
    """
    Raises:
        BadBatchError: the crop lies outside of the picture.
    """
    if crop_xywh_px is None:
        return
    x, y, wide, high = crop_xywh_px
    if x + wide > width or y + high > height:
        raise BadBatchError(
            f"{name}: ingest.crop_xywh_px {list(crop_xywh_px)} reaches {x + wide}x{y + high}; "
            f"the pictures are {width}x{height}. Choose a crop inside them."
        )


def cut(picture: Array, crop_xywh_px: Sequence[int]) -> Array:
    x, y, width, height = crop_xywh_px
    return picture[y : y + height, x : x + width]


def _planes(picture: Any) -> list[Array]:
    """Views of a frame's memory."""
    return [
        np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in picture.planes
    ]


def _cut(planes: list[Array], crop_xywh_px: Sequence[int]) -> list[Array]:
    """A crop that begins or ends within a pixel of the colours takes that pixel whole."""
    x, y, width, height = crop_xywh_px
    parts = []
    for plane in planes:
        down, across = (-(-a // b) for a, b in zip(planes[0].shape, plane.shape, strict=True))
        parts.append(cut(plane, (x // across, y // down, -(-width // across), -(-height // down))))
    return parts
