"""Small FmFormers for the laws that all models obey."""

import dataclasses
from typing import Any

import torch
from model_case import Inputs, ModelCase, target_of

from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.tokens import Target
from crosswatch.records import InputShape

SIZES: dict[str, Any] = {"width": 24, "depth": 2, "head_width": 8, "feed_forward_width": 48}
SHAPE = InputShape(frame_px=32, frames=4, signal_samples=12)
END_OF_SIGNAL = ("layers.1.ask_each_other.signal_out", "layers.1.feed_forward.signal")
PAPER = {"encoder_ff": "both", "head": "mlp", "dense_unit": "paper", "embed_shared": True}


def windows(seed: int, count: int) -> Inputs:
    """Window b lacks its first b % 3 samples, and what stands there is garbage."""
    chance = torch.Generator().manual_seed(seed)
    frames, px = SHAPE.frames, SHAPE.frame_px
    video = torch.randint(0, 256, (count, frames, px, px, 3), generator=chance, dtype=torch.uint8)
    signal = torch.randn(count, SHAPE.signal_samples, SHAPE.signal_channels, generator=chance)
    valid = torch.arange(SHAPE.signal_samples) >= (torch.arange(count) % 3)[:, None]
    return video, torch.where(valid[..., None], signal, 1e3 * signal), valid


def visual_windows(seed: int, count: int) -> Inputs:
    return windows(seed, count)[0], None, None


def current_windows(seed: int, count: int) -> Inputs:
    return None, *windows(seed, count)[1:]


def pad(inputs: Inputs) -> Inputs:
    """Three more samples in front that no window holds; garbage."""
    video, signal, valid = inputs
    if signal is None:
        return inputs
    garbage = 1e3 * torch.randn(len(signal), 3, signal.shape[2])
    longer = torch.cat((torch.zeros(len(signal), 3, dtype=torch.bool), valid), dim=1)
    return video, torch.cat((garbage, signal), dim=1), longer


def without(inputs: Inputs, number: int, fill: float) -> Inputs:
    assert number == 1, "a window without video is none"
    video, signal, valid = inputs
    return video, torch.full_like(signal, fill), torch.zeros_like(valid)


def target(count: int) -> Target:
    mask = torch.zeros(count, SHAPE.frame_px, SHAPE.frame_px, dtype=torch.long)
    mask[1::2, 8:20, 12:24] = 1
    return target_of(count, 2)._replace(mask_BHW=mask)


CROSS_MODAL = ModelCase(
    config=FmFormerConfig(**SIZES),
    shape=SHAPE,
    inputs=windows,
    target=target,
    padded=pad,
    without=without,
    removable=(1,),
)


def case(config: dict[str, Any], **changes: Any) -> ModelCase:
    config = FmFormerConfig(**SIZES | config)  # type: ignore[assignment]
    return dataclasses.replace(CROSS_MODAL, config=config, **changes)


CASES = {
    "fmformer": CROSS_MODAL,
    "fmformer-visual": case(
        {"modality": "visual"}, inputs=visual_windows, removable=(), dead=("unread_score",)
    ),
    "fmformer-current": case({"modality": "current", "pixel_head": False}, inputs=current_windows),
    "fmformer-paper": case(PAPER),
    "fmformer-mhca": case({"mechanisms": "mhca", "pixel_head": False}),
    "fmformer-video-class": case(
        {"linear_fusion": False, "pixel_head": False},
        dead=(*END_OF_SIGNAL, "score_class.score.signal"),
    ),
    "fmformer-pixels": case({"class_head": False}, dead=END_OF_SIGNAL),
}
