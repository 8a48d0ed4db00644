"""Tokens of a video clip and of a signal window: a class token, then patches or samples.

Shape letters: B batch, T frames, S signal samples, H W pixels, C colours or signal channels,
N tokens, P values of a patch, D model width.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from crosswatch.models.settings.fmformer import DILATION

COLOURS = 3


def cut_patches(video_BTHWC: Tensor, frames: int, px: int) -> Tensor:
    """Tokens ordered (time, row, column); within a patch (row, column, frame, colour)."""
    batch, time, height, width, _ = video_BTHWC.shape
    boxes = video_BTHWC.reshape(
        batch, time // frames, frames, height // px, px, width // px, px, -1
    )
    return boxes.permute(0, 1, 3, 5, 4, 6, 2, 7).flatten(4).flatten(1, 3)


class PatchEmbedding(nn.Sequential):
    """The first norm removes a patch's brightness and contrast, and with them the 0..255 scale."""

    def __init__(self, patch_values: int, width: int) -> None:
        super().__init__(
            nn.LayerNorm(patch_values), nn.Linear(patch_values, width), nn.LayerNorm(width)
        )


class VideoTokens(nn.Module):
    """[class, regular, dilated]: a dilated patch sees twice as far, by every second pixel."""

    def __init__(
        self,
        *,
        width: int,
        frames: int,
        frame_px: int,
        patch_frames: int,
        patch_px: int,
        dilated: bool,
    ) -> None:
        super().__init__()
        self.patch_frames, self.patch_px = patch_frames, patch_px
        patch_values = patch_px * patch_px * patch_frames * COLOURS
        times, cells = frames // patch_frames, frame_px // patch_px
        self.grid = (times, cells, cells)
        self.class_token_11D = nn.Parameter(torch.randn(1, 1, width))
        self.position_1ND = nn.Parameter(torch.randn(1, 1 + times * cells**2, width))
        self.embed = PatchEmbedding(patch_values, width)
        self.dilated = dilated
        if dilated:
            dilated_cells = cells // DILATION
            self.dilated_grid = (times, dilated_cells, dilated_cells)
            self.dilated_position_1ND = nn.Parameter(
                torch.randn(1, times * dilated_cells**2, width)
            )
            self.embed_dilated = PatchEmbedding(patch_values, width)

    def forward(self, video_BTHWC: Tensor) -> Tensor:
        pixels_BTHWC = video_BTHWC.float()
        class_B1D = self.class_token_11D.expand(len(video_BTHWC), -1, -1)
        regular_BND = self.embed(self._cut(pixels_BTHWC))
        tokens_BND = torch.cat((class_B1D, regular_BND), dim=1) + self.position_1ND
        if not self.dilated:
            return tokens_BND
        every_second_BTHWC = pixels_BTHWC[:, :, ::DILATION, ::DILATION]
        dilated_BND = self.embed_dilated(self._cut(every_second_BTHWC)) + self.dilated_position_1ND
        return torch.cat((tokens_BND, dilated_BND), dim=1)

    def _cut(self, video_BTHWC: Tensor) -> Tensor:
        return cut_patches(video_BTHWC, self.patch_frames, self.patch_px)

    def grids(self, tokens_BND: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patch tokens back in (time, row, column), without the class token."""
        times, rows, columns = self.grid
        dilated_from = 1 + times * rows * columns
        regular_BTHWD = _in_grid(tokens_BND[:, 1:dilated_from], self.grid)
        if not self.dilated:
            return regular_BTHWD, None
        return regular_BTHWD, _in_grid(tokens_BND[:, dilated_from:], self.dilated_grid)


def _in_grid(tokens_BND: Tensor, grid: tuple[int, int, int]) -> Tensor:
    return tokens_BND.reshape(len(tokens_BND), *grid, -1)


def embed_samples(kind: Literal["linear", "released"], channels: int, width: int) -> nn.Module:
    """`released` norms across the phases of a sample: only the direction of imbalance survives."""
    linear = nn.Linear(channels, width)
    if kind == "linear":
        return linear
    return nn.Sequential(nn.LayerNorm(channels), linear, nn.LayerNorm(width))


class SignalTokens(nn.Module):
    """[class, one token a sample]."""

    def __init__(
        self, *, width: int, samples: int, channels: int, embed: Literal["linear", "released"]
    ) -> None:
        super().__init__()
        self.class_token_11D = nn.Parameter(torch.randn(1, 1, width))
        self.position_1ND = nn.Parameter(torch.randn(1, 1 + samples, width))
        self.embed = embed_samples(embed, channels, width)

    def forward(self, signal_BSC: Tensor) -> Tensor:
        class_B1D = self.class_token_11D.expand(len(signal_BSC), -1, -1)
        return torch.cat((class_B1D, self.embed(signal_BSC)), dim=1) + self.position_1ND
