"""Changes to training windows that keep their answers true."""

import dataclasses

import numpy as np
import torch

from crosswatch.examples.example import Example
from crosswatch.models.tokens import Tokens
from crosswatch.training.settings import AugmentConfig


def augmented(example: Example, config: AugmentConfig, random: np.random.Generator) -> Example:
    """Change each window or clip of the mini-batch independently."""
    if isinstance(example.inputs[0], Tokens):
        return without_streams(example, config.stream_drop_probability, random)
    count = len(example)
    which_B = torch.from_numpy(random.random(count) < config.flip_probability)
    example = flipped(example, which_B)
    if config.shift_px:
        by_B2 = random.integers(-config.shift_px, config.shift_px + 1, (count, 2))
        example = shifted(example, torch.from_numpy(by_B2))
    drop_B = torch.from_numpy(random.random(count) < config.signal_drop_probability)
    return without_signal(example, drop_B)


def flipped(example: Example, which_B: torch.Tensor) -> Example:
    """Mirror some windows left to right."""
    video, mask = example.inputs[0], example.target.mask_BHW
    if video is None or not which_B.any():
        return example
    video = torch.where(which_B[:, None, None, None, None], video.flip(3), video)
    if mask is not None:
        mask = torch.where(which_B[:, None, None], mask.flip(2), mask)
    return _with_pictures(example, video, mask)


def shifted(example: Example, by_B2: torch.Tensor) -> Example:
    """Move each window's pictures by (rows, columns); what is uncovered repeats the border."""
    video, mask = example.inputs[0], example.target.mask_BHW
    if video is None:
        return example
    height, width = video.shape[2:4]
    rows_BH = (torch.arange(height) - by_B2[:, :1]).clamp(0, height - 1)
    columns_BW = (torch.arange(width) - by_B2[:, 1:]).clamp(0, width - 1)
    window_B = torch.arange(len(video))
    video = video[window_B[:, None, None], :, rows_BH[:, :, None], columns_BW[:, None, :]]
    video = video.permute(0, 3, 1, 2, 4).contiguous()
    if mask is not None:
        mask = mask[window_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    return _with_pictures(example, video, mask)


def without_signal(example: Example, which_B: torch.Tensor) -> Example:
    """Put some windows' normalised signal to its mean, which is zero."""
    video, signal, *others = example.inputs
    if signal is None or not which_B.any():
        return example
    signal = torch.where(which_B[:, None, None], torch.zeros(()), signal)
    return dataclasses.replace(example, inputs=(video, signal, *others))


def without_streams(example: Example, probability: float, random: np.random.Generator) -> Example:
    """Take streams of features from some clips, but never all that a clip has."""
    there_SB = np.stack([tokens.valid_BL.any(1).numpy() for tokens in example.inputs])
    drop_SB = random.random(there_SB.shape) < probability
    drop_SB &= (there_SB & ~drop_SB).any(axis=0)
    inputs = tuple(
        Tokens(tokens.values_BLD, tokens.valid_BL & ~torch.from_numpy(drop_B)[:, None])
        for tokens, drop_B in zip(example.inputs, drop_SB, strict=True)
    )
    return dataclasses.replace(example, inputs=inputs)


def _with_pictures(
    example: Example, video_BTHWC: torch.Tensor, mask_BHW: torch.Tensor | None
) -> Example:
    return dataclasses.replace(
        example,
        inputs=(video_BTHWC, *example.inputs[1:]),
        target=example.target._replace(mask_BHW=mask_BHW),
    )
