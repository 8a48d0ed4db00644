"""Tokens of a video clip and of a signal window: a class token, then patches or samples.

Shape letters: B batch, T frames, S signal samples, H W pixels, C colours or signal channels,
N tokens, P values of a patch, D model width.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.errors import UserError
from crosswatch.models.layers.positions import Grid, Resize, in_grid, resized_grid, resized_samples
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
    """[class, regular, dilated]: a dilated patch sees twice as far, by every second pixel.

    `shared`: one embedder for both, as in the paper; the released model has two.
    """

    def __init__(
        self,
        *,
        width: int,
        frames: int,
        frame_px: int,
        patch_frames: int,
        patch_px: int,
        dilated: bool,
        shared: bool,
        resize: Resize,
    ) -> None:
        super().__init__()
        self.patch_frames, self.patch_px, self.resize = patch_frames, patch_px, resize
        patch_values = patch_px * patch_px * patch_frames * COLOURS
        self.grid = Grid(frames // patch_frames, frame_px // patch_px, frame_px // patch_px)
        self.class_token_11D = nn.Parameter(torch.randn(1, 1, width))
        self.position_1ND = nn.Parameter(torch.randn(1, 1 + math.prod(self.grid), width))
        self.embed = PatchEmbedding(patch_values, width)
        self.dilated, self.shared = dilated, shared
        if dilated:
            count = math.prod(dilated_grid(self.grid))
            self.dilated_position_1ND = nn.Parameter(torch.randn(1, count, width))
            if not shared:
                self.embed_dilated = PatchEmbedding(patch_values, width)

    def forward(self, video_BTHWC: Tensor) -> Tensor:
        grid, pixels_BTHWC = self.grid_of(video_BTHWC), video_BTHWC.float()
        class_B1D = (self.class_token_11D + self.position_1ND[:, :1]).expand(
            len(video_BTHWC), -1, -1
        )
        regular_BND = self.embed(self._cut(pixels_BTHWC)) + self._positions(grid)
        if not self.dilated:
            return torch.cat((class_B1D, regular_BND), dim=1)
        every_second_BTHWC = pixels_BTHWC[:, :, ::DILATION, ::DILATION]
        embed = self.embed if self.shared else self.embed_dilated
        dilated_BND = embed(self._cut(every_second_BTHWC)) + self._dilated_positions(grid)
        return torch.cat((class_B1D, regular_BND, dilated_BND), dim=1)

    def _cut(self, video_BTHWC: Tensor) -> Tensor:
        return cut_patches(video_BTHWC, self.patch_frames, self.patch_px)

    def _positions(self, grid: Grid) -> Tensor:
        return resized_grid(self.position_1ND[:, 1:], self.grid, grid, self.resize)

    def _dilated_positions(self, grid: Grid) -> Tensor:
        built, given = dilated_grid(self.grid), dilated_grid(grid)
        return resized_grid(self.dilated_position_1ND, built, given, self.resize)

    def grid_of(self, video_BTHWC: Tensor) -> Grid:
        """The patches that a clip is cut into.

        Raises:
            UserError: patches do not divide it.
        """
        frames, *rows_columns_px = video_BTHWC.shape[1:4]
        cell_px = self.patch_px * (DILATION if self.dilated else 1)
        if frames < 1 or frames % self.patch_frames or any(px % cell_px for px in rows_columns_px):
            raise UserError(
                f"a clip has {frames} frames of {rows_columns_px[0]} x {rows_columns_px[1]} px; "
                f"allowed are multiples of {self.patch_frames} frames and {cell_px} px. Check "
                "windows.frames and ingest.frame_px."
            )
        rows, columns = (px // self.patch_px for px in rows_columns_px)
        return Grid(frames // self.patch_frames, rows, columns)

    def in_grids(self, tokens_BND: Tensor, grid: Grid) -> tuple[Tensor, Tensor | None]:
        """Patch tokens (B, T, H, W, D) of a clip cut so, regular and dilated."""
        dilated_from = 1 + math.prod(grid)
        regular_BTHWD = in_grid(tokens_BND[:, 1:dilated_from], grid)
        if not self.dilated:
            return regular_BTHWD, None
        return regular_BTHWD, in_grid(tokens_BND[:, dilated_from:], dilated_grid(grid))


def dilated_grid(grid: Grid) -> Grid:
    return Grid(grid.times, grid.rows // DILATION, grid.columns // DILATION)


def embed_samples(kind: Literal["linear", "released"], channels: int, width: int) -> nn.Module:
    """`released` norms across the phases of a sample: only the direction of imbalance survives."""
    linear = nn.Linear(channels, width)
    if kind == "linear":
        return linear
    return nn.Sequential(nn.LayerNorm(channels), linear, nn.LayerNorm(width))


class SignalTokens(nn.Module):
    """[class, one token a sample]."""

    def __init__(
        self,
        *,
        width: int,
        samples: int,
        channels: int,
        embed: Literal["linear", "released"],
        resize: Resize,
    ) -> None:
        super().__init__()
        self.samples, self.resize = samples, resize
        self.class_token_11D = nn.Parameter(torch.randn(1, 1, width))
        self.position_1ND = nn.Parameter(torch.randn(1, 1 + samples, width))
        self.embed = embed_samples(embed, channels, width)

    def forward(
        self, signal_BSC: Tensor, valid_BS: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, N, D), and which there are (B, N): of the class token there always is."""
        valid_BN = None
        if valid_BS is not None:
            signal_BSC, valid_BS = self._without_padding(signal_BSC, valid_BS)
            signal_BSC = signal_BSC.masked_fill(~valid_BS[..., None], 0.0)
            valid_BN = functional.pad(valid_BS, (1, 0), value=True)
        class_B1D = (self.class_token_11D + self.position_1ND[:, :1]).expand(
            len(signal_BSC), -1, -1
        )
        position_1ND = resized_samples(self.position_1ND[:, 1:], signal_BSC.shape[1], self.resize)
        return torch.cat((class_B1D, self.embed(signal_BSC) + position_1ND), dim=1), valid_BN

    def _without_padding(self, signal_BSC: Tensor, valid_BS: Tensor) -> tuple[Tensor, Tensor]:
        """Without what lies further back than the model's window and is in no example: else it
        would count as a longer window, whose positions are others."""
        extra = valid_BS.shape[1] - self.samples
        if extra <= 0:
            return signal_BSC, valid_BS
        held_S = valid_BS[:, :extra].any(0)
        cut = int(held_S.int().argmax()) if held_S.any() else extra
        return signal_BSC[:, cut:], valid_BS[:, cut:]
