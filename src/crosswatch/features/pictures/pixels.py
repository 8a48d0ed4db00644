"""open_clip's preprocessing as operations on tensors: what of a picture a model sees.

torch resizes bytes with the same fixed-point arithmetic as Pillow, which open_clip's own transform
uses, in a tenth of the time and one grey level apart, two where a picture grows. They differ by
more only where sharp edges overshoot black or white and the picture loses its shape: torch always
resizes rows first, Pillow not always, and what overshoots is cut in between.

Pictures stay bytes until they are on the model's device, so that little travels.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError

Array = npt.NDArray[np.uint8]

INTERPOLATIONS = {"bicubic": "bicubic", "bilinear": "bilinear", "random": "bicubic"}
"""As open_clip names them; `random` is drawn in training only."""
RESIZE_MODES = ("shortest", "longest", "squash")
TEN_CROP_SHARE = 256 / 224
"""Of the shorter side to what is cropped from it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """`PreprocessCfg` of open_clip, checked.

    Attributes:
        resize_mode: shortest: the picture covers the size and is cut in the centre; longest: it
            fits into it, between borders of `fill`; squash: its shape is lost.
    """

    height_px: int
    width_px: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    resize_mode: str
    fill: int

    @classmethod
    def of(cls, told: Mapping[str, Any], *, where: str) -> "Preprocessing":
        """
        Args:
            told: size, mode, mean, std, interpolation, resize_mode and fill_color of open_clip.

        Raises:
            UserError: one of them is nothing that open_clip knows.
        """
        size = told["size"]
        try:
            height_px, width_px = (size, size) if isinstance(size, int) else map(int, size)
            mean, std = _per_channel(told["mean"]), _per_channel(told["std"])
            fill = int(told["fill_color"])
        except (TypeError, ValueError) as error:
            raise UserError(
                f"{where}: size, mean, std and fill_color are {size}, {told['mean']}, "
                f"{told['std']} and {told['fill_color']}; expected pixels, three numbers twice, "
                "and 0 to 255."
            ) from error
        if min(height_px, width_px) < 1 or len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UserError(
                f"{where}: size {size}, mean {mean}, std {std}; expected pixels above 0 and three "
                "numbers each, those of std above 0."
            )
        for name, allowed in (
            ("mode", ("RGB",)),
            ("interpolation", tuple(INTERPOLATIONS)),
            ("resize_mode", RESIZE_MODES),
        ):
            if told[name] not in allowed:
                raise UserError(f"{where}: {name} {told[name]!r}; allowed {', '.join(allowed)}.")
        return cls(
            height_px=height_px,
            width_px=width_px,
            mean=mean,
            std=std,
            interpolation=INTERPOLATIONS[told["interpolation"]],
            resize_mode=told["resize_mode"],
            fill=fill,
        )

    def shown(self, picture: Array) -> Array:
        """(3, Y, X): what open_clip's transform shows the model before it scales."""
        target = self.height_px, self.width_px
        if self.resize_mode == "squash":
            return _contiguous(_resized(picture, target, self.interpolation))
        if self.resize_mode == "longest":
            size = _within(picture.shape[:2], target)
            return _padded(_resized(picture, size, self.interpolation), target, self.fill)
        shrunk = self._covering(picture, target)
        return _contiguous(_cut(shrunk, target, *_centre(shrunk.shape[1:], target)))

    def ten_crops(self, picture: Array) -> Array:
        """(10, 3, Y, X): four corners and centre of the picture, and of its mirror image.

        Around a model's size there is an eighth of it to choose from, whatever its `resize_mode`.
        """
        target = self.height_px, self.width_px
        larger = round(target[0] * TEN_CROP_SHARE), round(target[1] * TEN_CROP_SHARE)
        shrunk = self._covering(picture, larger)
        height, width = shrunk.shape[1:]
        bottom, right = height - target[0], width - target[1]
        places = [(0, 0), (0, right), (bottom, 0), (bottom, right)]
        places.append(_centre((height, width), target))
        return np.stack(
            [
                _cut(side, target, top, left)
                for side in (shrunk, shrunk[:, :, ::-1])
                for top, left in places
            ]
        )

    def normalised(self, pixels: Any) -> Any:
        """float32 on the device of the bytes that are given."""
        import torch

        mean, std = (
            torch.tensor(values, dtype=torch.float32, device=pixels.device).view(3, 1, 1)
            for values in (self.mean, self.std)
        )
        return pixels.to(torch.float32).mul_(1 / (255 * std)).sub_(mean / std)

    def _covering(self, picture: Array, target: tuple[int, int]) -> Array:
        height, width = picture.shape[:2]
        if target[0] == target[1]:
            shorter = target[0]
            size = (
                (shorter, int(shorter * width / height))
                if height <= width
                else (int(shorter * height / width), shorter)
            )
            return _resized(picture, size, self.interpolation)
        ratio = min(height / target[0], width / target[1])
        size = round(height / ratio), round(width / ratio)
        return _resized(picture, size, "bicubic")  # open_clip asks nothing else here


def _resized(picture: Array, size: tuple[int, int], interpolation: str) -> Array:
    """(3, *size), as Pillow resizes; a view on it, of no particular order in memory."""
    import torch

    if picture.shape[:2] == size:
        return picture.transpose(2, 0, 1)
    owned = np.require(picture, np.uint8, ["C", "W"])
    told = torch.from_numpy(owned).permute(2, 0, 1)[None]  # no copy: channels last
    shrunk = torch.nn.functional.interpolate(told, size=size, mode=interpolation, antialias=True)
    return np.asarray(shrunk[0].numpy(), np.uint8)


def _within(size: tuple[int, ...], target: tuple[int, int]) -> tuple[int, int]:
    ratio = max(size[0] / target[0], size[1] / target[1])
    return max(1, round(size[0] / ratio)), max(1, round(size[1] / ratio))


def _centre(size: tuple[int, ...], target: tuple[int, int]) -> tuple[int, int]:
    """Top and left, rounded as torchvision does: halves to the even number."""
    return round((size[0] - target[0]) / 2), round((size[1] - target[1]) / 2)


def _cut(picture: Array, target: tuple[int, int], top: int, left: int) -> Array:
    return picture[:, top : top + target[0], left : left + target[1]]


def _padded(picture: Array, target: tuple[int, int], fill: int) -> Array:
    canvas = np.full((3, *target), fill, np.uint8)
    height, width = picture.shape[1:]
    top, left = (target[0] - height) // 2, (target[1] - width) // 2
    _cut(canvas, (height, width), top, left)[:] = picture
    return canvas


def _contiguous(pixels: Array) -> Array:
    return np.ascontiguousarray(pixels)


def _per_channel(told: Any) -> tuple[float, ...]:
    """open_clip takes one number for all."""
    return (float(told),) * 3 if isinstance(told, int | float) else tuple(map(float, told))
