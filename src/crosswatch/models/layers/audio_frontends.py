"""Columns of a log-mel spectrogram to tokens, learned from scratch.

Padding is exact: a clip gives the same tokens however long the batch is, in training too.

Shape letters: B batch, L columns or tokens, F bands, C channels, R valid places of the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from crosswatch.models.tokens import Tokens

KERNEL = 9  # columns
DAVENET_CHANNELS, DAVENET_BLOCKS = (128, 256, 512, 1024, 2048, 4096), (2, 2, 1, 1, 1, 1)
SMALL_CHANNELS, SMALL_BLOCKS = (32, 64, 128, 256), (1, 1, 1, 1)


class ConvolutionalFrontend(nn.Module):
    """One 1 x 1 convolution of all bands, then residual stages that each halve the columns.

    With DAVENET_CHANNELS and DAVENET_BLOCKS it is the residual DAVEnet (Harwath, Hsu and Glass
    2020) as released with CAAM: 5120 columns become 80 tokens of 4096. The released one owns a
    batch norm of its one input channel, 2 parameters, that it never uses; it is left out. With
    SMALL_CHANNELS and SMALL_BLOCKS a token of 256 stands for 16 columns, 0.16 s.
    """

    def __init__(self, bands: int, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        self.out_width = channels[-1]
        self.collapse = nn.Conv1d(bands, channels[0], 1, bias=False)
        self.norm = ValidBatchNorm(channels[0])
        self.blocks = nn.ModuleList()
        before = channels[0]
        for width, count in zip(channels, blocks, strict=True):
            self.blocks.append(ResidualBlock(before, width, stride=2))
            self.blocks.extend(ResidualBlock(width, width, stride=1) for _ in range(count - 1))
            before = width

    def forward(self, columns: Tokens) -> Tokens:
        valid_BL = columns.valid_BL
        x_BCL = self.norm(self.collapse(columns.cleared().mT), valid_BL).relu()
        for block in self.blocks:
            x_BCL, valid_BL = block(x_BCL, valid_BL)
        return Tokens(x_BCL.mT, valid_BL)


class ResidualBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, plus the input (projected where the stride is 2), ReLU."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        half = KERNEL // 2
        self.stride = stride
        self.conv1 = nn.Conv1d(channels, width, KERNEL, stride, half, bias=False)
        self.norm1 = ValidBatchNorm(width)
        self.conv2 = nn.Conv1d(width, width, KERNEL, 1, half, bias=False)
        self.norm2 = ValidBatchNorm(width)
        self.project: nn.Conv1d | None = None
        if stride > 1:
            self.project = nn.Conv1d(channels, width, 1, stride, bias=False)
            self.norm_projected = ValidBatchNorm(width)

    def forward(self, x_BCL: Tensor, valid_BL: Tensor) -> tuple[Tensor, Tensor]:
        valid_BL = halved(valid_BL) if self.stride > 1 else valid_BL
        found_BCL = self.norm1(self.conv1(x_BCL), valid_BL).relu()
        found_BCL = self.norm2(self.conv2(found_BCL), valid_BL)
        if self.project is not None:
            x_BCL = self.norm_projected(self.project(x_BCL), valid_BL)
        return (x_BCL + found_BCL).relu(), valid_BL


def halved(valid_BL: Tensor) -> Tensor:
    """A place is valid where one of the two that it stands for is: n columns become ceil(n / 2)."""
    even_BL = functional.pad(valid_BL, (0, valid_BL.shape[1] % 2))
    return even_BL[:, ::2] | even_BL[:, 1::2]


class ValidBatchNorm(nn.BatchNorm1d):
    """Batch norm of valid places, with statistics of those alone; the other places become zero.

    So what padding holds reaches neither the next convolution nor the running statistics. A batch
    with fewer than two valid places is normalised by the running statistics, and leaves them.
    """

    def forward(self, x_BCL: Tensor, valid_BL: Tensor) -> Tensor:  # type: ignore[override]
        x_RC = x_BCL.mT[valid_BL]
        if len(x_RC) > 1 or not self.training:
            x_RC = super().forward(x_RC)
        else:
            x_RC = functional.batch_norm(
                x_RC, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        x_BLC = x_RC.new_zeros(*valid_BL.shape, x_RC.shape[1])
        x_BLC[valid_BL] = x_RC
        return x_BLC.mT


class GruFrontend(nn.Module):
    """One bidirectional GRU layer over the columns: a token for each."""

    def __init__(self, bands: int, width: int) -> None:
        super().__init__()
        self.out_width = 2 * width
        self.gru = nn.GRU(bands, width, batch_first=True, bidirectional=True)

    def forward(self, columns: Tokens) -> Tokens:
        """Each clip is read from its last valid column back; a column before that is zero where it
        is not valid."""
        length = columns.valid_BL.shape[1]
        place_L = torch.arange(1, length + 1, device=columns.valid_BL.device)
        last_B = (columns.valid_BL * place_L).amax(1).clamp(min=1).cpu()
        packed = pack_padded_sequence(
            columns.cleared(), last_B, batch_first=True, enforce_sorted=False
        )
        states, _ = self.gru(packed)
        states_BLC, _ = pad_packed_sequence(states, batch_first=True, total_length=length)
        return Tokens(states_BLC, columns.valid_BL)


class RowsAsTokens(nn.Module):
    """Rows that are tokens already."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.out_width = features

    def forward(self, rows: Tokens) -> Tokens:
        return Tokens(rows.cleared(), rows.valid_BL)


AudioFrontend = ConvolutionalFrontend | GruFrontend | RowsAsTokens


def audio_frontend(name: str, bands: int, *, gru_width: int) -> AudioFrontend:
    if name == "davenet_v2":
        return ConvolutionalFrontend(bands, DAVENET_CHANNELS, DAVENET_BLOCKS)
    if name == "small":
        return ConvolutionalFrontend(bands, SMALL_CHANNELS, SMALL_BLOCKS)
    if name == "gru":
        return GruFrontend(bands, gru_width)
    assert name == "none", name
    return RowsAsTokens(bands)
