"""FmFormer: does a furnace's shell overheat now, and where? From video and arc current.

Wu et al., cross-modal transformer for the fused magnesium furnace benchmark.

Shape letters: B batch, T frames, H W pixels, C colours or signal channels, S signal samples,
N tokens of a stream (class token first), D model width, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from crosswatch.errors import UserError
from crosswatch.models.layers.attention import FeedForward, MutualAttention, SelfAttention
from crosswatch.models.layers.dense import PixelHead
from crosswatch.models.layers.tokens import DILATION, SignalTokens, VideoTokens
from crosswatch.records import InputShape

VIDEO, SIGNAL = "video", "signal"
STREAMS = {"cross_modal": (VIDEO, SIGNAL), "visual": (VIDEO,), "current": (SIGNAL,)}
Streams = dict[str, Tensor]


class Scores(NamedTuple):
    """Logits; a head that the variant lacks gives None."""

    class_BK: Tensor | None
    pixel_BKHW: Tensor | None


@dataclass(frozen=True, kw_only=True)
class FmFormerConfig:
    name: Literal["fmformer"] = "fmformer"
    modality: Literal["cross_modal", "visual", "current"] = "cross_modal"
    width: int = 96
    depth: int = 6
    heads: int = 3
    head_width: int = 32
    feed_forward_width: int = 384
    patch_px: int = 8
    patch_frames: int = 2
    dilated_tokens: bool = True
    current_embed: Literal["linear", "released"] = "linear"
    class_head: bool = True
    pixel_head: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._refuse_bad_sizes()
        self._refuse_bad_heads()

    @property
    def streams(self) -> tuple[str, ...]:
        return STREAMS[self.modality]

    @property
    def normalises(self) -> bool:
        """Whether the signal is to be normalised; the released embedding takes amperes."""
        return self.current_embed == "linear"

    def build(self, shape: InputShape) -> FmFormer:
        """A model for inputs of this shape.

        Raises:
            UserError: patches do not divide the frames, or a stream is missing.
        """
        self.refuse_shape(shape)
        return FmFormer(self, shape)

    def _refuse_bad_sizes(self) -> None:
        at_least = {"width": 2} | dict.fromkeys(
            ("depth", "heads", "head_width", "feed_forward_width", "patch_px", "patch_frames"), 1
        )
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{name}: {getattr(self, name)}, but at least {least} needed.")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout: {self.dropout}, but 0 or more and less than 1 allowed.")

    def _refuse_bad_heads(self) -> None:
        if not (self.class_head or self.pixel_head):
            raise UserError("class_head and pixel_head are both false; a model needs one of them.")
        if self.pixel_head and VIDEO not in self.streams:
            raise UserError(
                f"pixel_head needs video, which modality {self.modality!r} lacks. Set "
                "pixel_head: false, or modality to cross_modal or visual."
            )
        if self.pixel_head and self.patch_px != PixelHead.scale:
            raise UserError(
                f"patch_px: {self.patch_px}, but the pixel head enlarges patches "
                f"{PixelHead.scale} times; set patch_px: {PixelHead.scale} or pixel_head: false."
            )

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
        if VIDEO in self.streams:
            self._refuse_frames_that_do_not_divide(shape)
        if SIGNAL not in self.streams:
            return
        if shape.signal_samples < 1:
            raise UserError(
                f"modality {self.modality!r} needs a signal, and a window holds none. Set "
                "windows.signal_s above 0, or modality: visual."
            )
        if self.current_embed == "released" and shape.signal_channels < 2:
            raise UserError(
                "current_embed: released norms across the channels of a sample, and nothing is "
                f"left of {shape.signal_channels}; at least 2 needed. Use current_embed: linear."
            )

    def _refuse_frames_that_do_not_divide(self, shape: InputShape) -> None:
        cell_px = self.patch_px * (DILATION if self.dilated_tokens else 1)
        cell = f"patch_px {self.patch_px}" + (" x dilation 2" if self.dilated_tokens else "")
        frames_of = f"patch_frames {self.patch_frames}"
        for name, size, step, of in (
            ("ingest.frame_px", shape.frame_px, cell_px, cell),
            ("windows.frames", shape.frames, self.patch_frames, frames_of),
        ):
            if size % step or not size:
                allowed = sorted({max(step, size // step * step), size // step * step + step})
                raise UserError(
                    f"{name}: {size} is no positive multiple of {step} ({of}). "
                    f"Nearest allowed: {' and '.join(map(str, allowed))}."
                )


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
