"""FmFormer: does a furnace's shell overheat now, and where? From video and arc current.

Wu et al., cross-modal transformer for the fused magnesium furnace benchmark.

Shape letters: B batch, T frames, H W pixels, C colours or signal channels, S signal samples,
N tokens of a stream (class token first), D model width, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crosswatch.models.layers.dense import PixelHead
from crosswatch.models.layers.fusion import linear_fusion
from crosswatch.models.layers.streams import EncoderLayer, Streams
from crosswatch.models.layers.tokens import SignalTokens, VideoTokens
from crosswatch.models.settings.fmformer import SIGNAL, VIDEO, FmFormerConfig
from crosswatch.records import InputShape


class Scores(NamedTuple):
    """Logits; a head that the variant lacks gives None.

    With two streams, `video_BK` and `signal_BK` are what each says of the class; those that
    linear fusion sums are both there.
    """

    class_BK: Tensor | None
    pixel_BKHW: Tensor | None
    video_BK: Tensor | None = None
    signal_BK: Tensor | None = None

    def probability_BK(self) -> Tensor:  # noqa: N802
        """Without a class head, those of the pixel that is least likely to be normal."""
        if self.class_BK is not None:
            return self.class_BK.float().softmax(1)
        assert self.pixel_BKHW is not None, "a model has one head at least"
        return likeliest_anomaly(self.pixel_BKHW)

    def branches(self) -> Mapping[str, Tensor]:
        """By each stream's class token, and by the mask, where they are not all there is."""
        if self.class_BK is None:
            return {}
        streams = {VIDEO: self.video_BK, SIGNAL: self.signal_BK}
        found = {name: x.float().softmax(1) for name, x in streams.items() if x is not None}
        if self.pixel_BKHW is not None:
            found["pixels"] = likeliest_anomaly(self.pixel_BKHW)
        return found


def likeliest_anomaly(pixel_BKHW: Tensor) -> Tensor:
    """Class probabilities (B, K) of the pixel that is least likely to be of class 0, normal."""
    probability_BKP = pixel_BKHW.float().softmax(1).flatten(2)
    at_B = probability_BKP[:, 0].argmin(1)
    return probability_BKP[torch.arange(len(at_B), device=at_B.device), :, at_B]


class ClassHead(nn.Module):
    """Linear fusion: the logits of the streams' class tokens, summed (eq. 12).

    Without it the signal's part stays, unread, so that weights fit both ways. It starts at zero:
    summed in, it changes nothing until it is trained.
    """

    def __init__(self, config: FmFormerConfig, classes: int) -> None:
        super().__init__()
        self.scored = config.scored
        self.score = nn.ModuleDict({s: class_score(config, classes) for s in config.streams})
        for stream in config.streams:
            if stream not in self.scored:
                last = list(self.score[stream].modules())[-1]
                assert isinstance(last, nn.Linear)
                nn.init.zeros_(last.weight)
                nn.init.zeros_(last.bias)
                self.score[stream].requires_grad_(False)

    def forward(self, tokens: Streams) -> Streams:
        return {stream: self.score[stream](tokens[stream][:, 0]) for stream in self.scored}


class FmFormer(nn.Module):
    """Built for inputs of one shape; it takes others, with positions resized (pe_resize)."""

    def __init__(self, config: FmFormerConfig, shape: InputShape) -> None:
        super().__init__()
        self.config, self.classes = config, shape.classes
        self.embed_video = video_tokens(config, shape) if VIDEO in config.streams else None
        self.embed_signal = signal_tokens(config, shape) if SIGNAL in config.streams else None
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.depth))
        self.score_class = ClassHead(config, shape.classes) if config.class_head else None
        self.score_pixels = pixel_head(config, shape) if config.pixel_head else None
        if config.class_head and config.modality == "visual" and config.head == "released":
            # The released visual model owns a second class head that it never reads. It is kept,
            # frozen, so that released weights load one to one and counts compare.
            self.unread_score = class_score(config, shape.classes).requires_grad_(False)
        if config.modality == "cross_modal" and SIGNAL not in config.scored:
            last = self.layers[-1]
            assert isinstance(last, EncoderLayer)
            last.freeze_end_of_signal()

    def forward(
        self,
        video_BTHWC: Tensor | None,
        signal_BSC: Tensor | None,
        valid_BS: Tensor | None = None,
    ) -> Scores:
        """Frames raw 0..255; the signal normalised, or in amperes for the released embedding.

        `valid_BS` says which samples there are; the others may hold anything. Padding is in front,
        because a window's last sample belongs to its instant.
        """
        tokens, valid = self._embed(video_BTHWC, signal_BSC, valid_BS)
        for layer in self.layers:
            tokens = layer(tokens, valid)
        logits = {} if self.score_class is None else self.score_class(tokens)
        several = len(self.config.streams) > 1
        return Scores(
            class_BK=linear_fusion(logits.values()) if logits else None,
            pixel_BKHW=self._segment(tokens, video_BTHWC),
            video_BK=logits.get(VIDEO) if several else None,
            signal_BK=logits.get(SIGNAL) if several else None,
        )

    def _embed(
        self, video_BTHWC: Tensor | None, signal_BSC: Tensor | None, valid_BS: Tensor | None
    ) -> tuple[Streams, Streams]:
        """Tokens of each stream, and which there are where not all."""
        tokens: Streams = {}
        valid: Streams = {}
        if self.embed_video is not None:
            assert video_BTHWC is not None, f"a {self.config.modality} model needs video"
            tokens[VIDEO] = self.embed_video(video_BTHWC)
        if self.embed_signal is not None:
            assert signal_BSC is not None, f"a {self.config.modality} model needs a signal"
            tokens[SIGNAL], valid_BN = self.embed_signal(signal_BSC, valid_BS)
            if valid_BN is not None:
                valid[SIGNAL] = valid_BN
        return tokens, valid

    def _segment(self, tokens: Streams, video_BTHWC: Tensor | None) -> Tensor | None:
        if self.score_pixels is None or self.embed_video is None:
            return None
        assert video_BTHWC is not None
        grid = self.embed_video.grid_of(video_BTHWC)
        score_BKHW: Tensor = self.score_pixels(*self.embed_video.in_grids(tokens[VIDEO], grid))
        return score_BKHW


def video_tokens(config: FmFormerConfig, shape: InputShape) -> VideoTokens:
    return VideoTokens(
        width=config.width,
        frames=shape.frames,
        frame_px=shape.frame_px,
        patch_frames=config.patch_frames,
        patch_px=config.patch_px,
        dilated=config.dilated_tokens,
        shared=config.embed_shared,
        resize=config.pe_resize,
    )


def signal_tokens(config: FmFormerConfig, shape: InputShape) -> SignalTokens:
    return SignalTokens(
        width=config.width,
        samples=shape.signal_samples,
        channels=shape.signal_channels,
        embed=config.current_embed,
        resize=config.pe_resize,
    )


def class_score(config: FmFormerConfig, classes: int) -> nn.Module:
    """The paper's hidden layer is of no published width; here it is the model's."""
    width = config.width
    hidden = (nn.Linear(width, width), nn.GELU()) if config.head == "mlp" else ()
    return nn.Sequential(nn.LayerNorm(width), *hidden, nn.Linear(width, classes))


def pixel_head(config: FmFormerConfig, shape: InputShape) -> PixelHead:
    return PixelHead(
        width=config.width,
        times=shape.frames // config.patch_frames,
        classes=shape.classes,
        dilated=config.dilated_tokens,
        unit=config.dense_unit,
    )
