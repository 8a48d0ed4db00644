"""From patch tokens back to a score for every pixel.

Shape letters: B batch, T patch times, H W rows and columns, D model width, F features, K classes.
"""

from __future__ import annotations

import itertools
from typing import Literal

from torch import Tensor, nn

from crosswatch.models.layers.positions import stretched
from crosswatch.models.settings.fmformer import DECODER_FEATURES, PIXEL_HEAD_SCALE

Unit = Literal["released", "paper"]


class ReleasedUnit(nn.Module):
    """U = r + conv3x3(BN(r)), r = ReLU(x): the skip carries the rectified value."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(features)
        self.conv = nn.Conv2d(features, features, kernel_size=3, padding=1)

    def forward(self, x_BFHW: Tensor) -> Tensor:
        rectified_BFHW = x_BFHW.relu()
        smoothed_BFHW: Tensor = self.conv(self.norm(rectified_BFHW))
        return rectified_BFHW + smoothed_BFHW


class PaperUnit(ReleasedUnit):
    """U = ReLU(BN(conv3x3(x)))."""

    def forward(self, x_BFHW: Tensor) -> Tensor:
        normed_BFHW: Tensor = self.norm(self.conv(x_BFHW))
        return normed_BFHW.relu()


UNITS = {"released": ReleasedUnit, "paper": PaperUnit}


class Upsample(nn.Sequential):
    """Twice the rows and columns."""

    def __init__(self, features_in: int, features_out: int, unit: Unit) -> None:
        super().__init__(
            nn.ConvTranspose2d(features_in, features_out, kernel_size=2, stride=2),
            UNITS[unit](features_out),
        )


class MergeTimes(nn.Module):
    """A 1x1 convolution over all the patch times of a place, as the linear map it is.

    Its weights belong to times, the last of which is the mask's. A clip of another length is
    stretched to those times first.
    """

    def __init__(self, times: int, width: int) -> None:
        super().__init__()
        self.times = times
        self.project = nn.Linear(times * width, width)

    def forward(self, tokens_BTHWD: Tensor) -> Tensor:
        tokens_BTHWD = stretched(tokens_BTHWD, self.times)
        merged_BHWD: Tensor = self.project(tokens_BTHWD.permute(0, 2, 3, 1, 4).flatten(3))
        return merged_BHWD.permute(0, 3, 1, 2)


class PixelHead(nn.Module):
    """y = conv1x1(U(deconv(U(deconv(U(deconv(I_v + U(deconv(I_vd)))))))))."""

    scale = PIXEL_HEAD_SCALE

    def __init__(self, *, width: int, times: int, classes: int, dilated: bool, unit: Unit) -> None:
        super().__init__()
        self.merge = MergeTimes(times, width)
        if dilated:
            self.merge_dilated = MergeTimes(times, width)
            self.upsample_dilated = Upsample(width, width, unit)
        features = (width, *DECODER_FEATURES)
        self.decode = nn.Sequential(
            *(Upsample(*pair, unit) for pair in itertools.pairwise(features))
        )
        self.score = nn.Conv2d(features[-1], classes, kernel_size=1)

    def forward(self, regular_BTHWD: Tensor, dilated_BTHWD: Tensor | None) -> Tensor:
        image_BFHW: Tensor = self.merge(regular_BTHWD)
        if dilated_BTHWD is not None:
            image_BFHW = image_BFHW + self.upsample_dilated(self.merge_dilated(dilated_BTHWD))
        score_BKHW: Tensor = self.score(self.decode(image_BFHW))
        return score_BKHW
