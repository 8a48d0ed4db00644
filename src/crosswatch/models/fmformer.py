"""FmFormer: does a furnace's shell overheat now, and where? From video and arc current.

Wu et al., cross-modal transformer for the fused magnesium furnace benchmark.

Shape letters: B batch, T frames, H W pixels, C colours or signal channels, S signal samples,
N tokens of a stream (class token first), D model width, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from crosswatch.models.layers.attention import FeedForward, MutualAttention, SelfAttention
from crosswatch.models.layers.dense import PixelHead
from crosswatch.models.layers.tokens import SignalTokens, VideoTokens
from crosswatch.models.settings.fmformer import SIGNAL, VIDEO, FmFormerConfig
from crosswatch.records import InputShape

Streams = dict[str, Tensor]


class Scores(NamedTuple):
    """Logits; a head that the variant lacks gives None."""

    class_BK: Tensor | None
    pixel_BKHW: Tensor | None


class EncoderLayer(nn.Module):
    """z <- z + MHSA(z); with two streams z_f <- z_f + MHCA(z_f, z_other); z <- z + FF(z)."""

    def __init__(self, config: FmFormerConfig) -> None:
        super().__init__()
        shape = (config.width, config.heads, config.head_width, config.dropout)
        self.ask_itself = nn.ModuleDict({s: SelfAttention(*shape) for s in config.streams})
        self.ask_each_other = MutualAttention(*shape) if len(config.streams) == 2 else None
        self.feed_forward = nn.ModuleDict(
            {
                stream: FeedForward(config.width, config.feed_forward_width, config.dropout)
                for stream in config.streams
            }
        )

    def forward(self, tokens: Streams) -> Streams:
        tokens = {
            stream: z_BND + self.ask_itself[stream](z_BND) for stream, z_BND in tokens.items()
        }
        if self.ask_each_other is not None:
            answers = self.ask_each_other(tokens[VIDEO], tokens[SIGNAL])
            tokens = {VIDEO: tokens[VIDEO] + answers[0], SIGNAL: tokens[SIGNAL] + answers[1]}
        return {
            stream: z_BND + self.feed_forward[stream](z_BND) for stream, z_BND in tokens.items()
        }


class ClassHead(nn.Module):
    """Linear fusion: the logits of the streams' class tokens, summed (eq. 12)."""

    def __init__(self, config: FmFormerConfig, classes: int) -> None:
        super().__init__()
        width = config.width
        self.score = nn.ModuleDict({s: class_score(width, classes) for s in config.streams})

    def forward(self, tokens: Streams) -> Tensor:
        logits = [self.score[stream](z_BND[:, 0]) for stream, z_BND in tokens.items()]
        return torch.stack(logits).sum(dim=0)


class FmFormer(nn.Module):
    def __init__(self, config: FmFormerConfig, shape: InputShape) -> None:
        super().__init__()
        self.config = config
        self.embed_video = video_tokens(config, shape) if VIDEO in config.streams else None
        self.embed_signal = signal_tokens(config, shape) if SIGNAL in config.streams else None
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.score_class = ClassHead(config, shape.classes) if config.class_head else None
        self.score_pixels = pixel_head(config, shape) if config.pixel_head else None
        if config.class_head and config.modality == "visual":
            # The released visual model owns a second class head that it never reads. It is kept,
            # frozen, so that released weights load one to one and counts compare.
            self.unread_score = class_score(config.width, shape.classes).requires_grad_(False)

    def forward(self, video_BTHWC: Tensor | None, signal_BSC: Tensor | None) -> Scores:
        """Frames raw 0..255; the signal normalised, or in amperes for the released embedding."""
        tokens = self._embed(video_BTHWC, signal_BSC)
        for layer in self.layers:
            tokens = layer(tokens)
        return Scores(
            class_BK=None if self.score_class is None else self.score_class(tokens),
            pixel_BKHW=self._segment(tokens),
        )

    def _embed(self, video_BTHWC: Tensor | None, signal_BSC: Tensor | None) -> Streams:
        tokens: Streams = {}
        if self.embed_video is not None:
            assert video_BTHWC is not None, f"a {self.config.modality} model needs video"
            tokens[VIDEO] = self.embed_video(video_BTHWC)
        if self.embed_signal is not None:
            assert signal_BSC is not None, f"a {self.config.modality} model needs a signal"
            tokens[SIGNAL] = self.embed_signal(signal_BSC)
        return tokens

    def _segment(self, tokens: Streams) -> Tensor | None:
        if self.score_pixels is None or self.embed_video is None:
            return None
        score_BKHW: Tensor = self.score_pixels(*self.embed_video.grids(tokens[VIDEO]))
        return score_BKHW


def video_tokens(config: FmFormerConfig, shape: InputShape) -> VideoTokens:
    return VideoTokens(
        width=config.width,
        frames=shape.frames,
        frame_px=shape.frame_px,
        patch_frames=config.patch_frames,
        patch_px=config.patch_px,
        dilated=config.dilated_tokens,
    )


def signal_tokens(config: FmFormerConfig, shape: InputShape) -> SignalTokens:
    return SignalTokens(
        width=config.width,
        samples=shape.signal_samples,
        channels=shape.signal_channels,
        embed=config.current_embed,
    )


def class_score(width: int, classes: int) -> nn.Module:
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))


def pixel_head(config: FmFormerConfig, shape: InputShape) -> PixelHead:
    return PixelHead(
        width=config.width,
        times=shape.frames // config.patch_frames,
        classes=shape.classes,
        dilated=config.dilated_tokens,
    )
