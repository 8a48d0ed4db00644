"""Learned position tables, resized for inputs of other lengths than the model was built for.

Shape letters: B batch, N positions, T steps in time, H W rows and columns, D model width.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from crosswatch.errors import UserError

Resize = Literal["interp", "end_crop", "slice"]


class Grid(NamedTuple):
    """Patches of a clip; tokens are ordered so."""

    times: int
    rows: int
    columns: int

    def __str__(self) -> str:
        return f"{self.times} x {self.rows} x {self.columns}"


def in_grid(tokens_BND: Tensor, grid: Grid) -> Tensor:
    """Tokens as (B, T, H, W, D)."""
    return tokens_BND.reshape(len(tokens_BND), *grid, -1)


def stretched(values_BT: Tensor, count: int) -> Tensor:
    """So many steps along dimension 1, by linear interpolation.

    Steps are as far apart as with align_corners=False, but the last keeps its place, because the
    end of a window is the instant that is judged. What then lies before the first is the first.
    """
    length = values_BT.shape[1]
    if length == count:
        return values_BT
    back = torch.arange(count - 1, -1, -1, device=values_BT.device) * (length / max(count, 1))
    at = (length - 1 - back).clamp(min=0)
    left = at.floor().long()
    right = (left + 1).clamp(max=length - 1)
    share = (at - left).to(values_BT.dtype).reshape(-1, *[1] * (values_BT.ndim - 2))
    return torch.lerp(values_BT[:, left], values_BT[:, right], share)


def resized_samples(table_1ND: Tensor, samples: int, how: Resize) -> Tensor:
    """Positions of so many samples."""
    if how == "interp":
        return stretched(table_1ND, samples)
    return _cropped(table_1ND, samples, how, "samples", "windows.signal_s")


def resized_grid(table_1ND: Tensor, built: Grid, given: Grid, how: Resize) -> Tensor:
    """Positions of a grid of patches, trilinear for `interp`; the others change its times alone."""
    if built == given:
        return table_1ND
    table_1THWD = in_grid(table_1ND, built)
    if how == "interp":
        table_1DTHW = table_1THWD.permute(0, 4, 1, 2, 3)
        resized_1DTHW = functional.interpolate(table_1DTHW, size=tuple(given), mode="trilinear")
        return resized_1DTHW.permute(0, 2, 3, 4, 1).flatten(1, 3)
    if given[1:] != built[1:]:
        raise UserError(
            f"a clip has patches {given} (times x rows x columns), and the model has positions for "
            f"{built}: pe_resize: {how} changes times alone. Use pe_resize: interp, or the "
            "ingest.frame_px that the model was trained with."
        )
    return _cropped(table_1THWD, given.times, how, "patch times", "windows.frames").flatten(1, 3)


def _cropped(table_1T: Tensor, count: int, how: Resize, what: str, setting: str) -> Tensor:
    length = table_1T.shape[1]
    if count > length:
        raise UserError(
            f"a window has {count} {what}, and the model has positions for {length}: pe_resize: "
            f"{how} cannot add any. Use pe_resize: interp, or shorten {setting}."
        )
    return table_1T[:, length - count :] if how == "end_crop" else table_1T[:, :count]
