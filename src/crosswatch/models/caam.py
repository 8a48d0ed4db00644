"""CAAM: of which class is a clip? Video, audio and text ask each other; every pair votes.

The released model, without the parts of it that never learn, and the variants of its paper.

Shape letters: B clips, F what a group knows, G groups, K classes; in maps H heads, Q queries,
K keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.models.layers.audio_frontends import (
    AudioFrontend,
    RowsAsTokens,
    audio_frontend,
)
from crosswatch.models.layers.directed_fusion import fusion_of
from crosswatch.models.layers.gated_embedding import GatedEmbedding
from crosswatch.models.layers.word_encoder import WordEncoder
from crosswatch.models.settings.caam import (
    AUDIO,
    ENCODER_HEADS,
    TEXT,
    VIDEO,
    CaamConfig,
    Vote,
)
from crosswatch.models.settings.common import Stream
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape

HEAD_WIDTHS = (256, 128)
TIE_SHARE = 0.01


class CaamScores(NamedTuple):
    """
    Attributes:
        logits: (B, K) of each group.
        vote: how the groups decide.
        maps: (B, H, Q, K) of the last block of each attention, or of each of the stacked blocks;
            nothing is learned through them. Not softmaxed, they are the scores themselves.
    """

    logits: dict[str, Tensor]
    vote: Vote
    maps: dict[str, Tensor]

    def probability_BK(self) -> Tensor:  # noqa: N802
        logits_GBK = torch.stack([logits.float() for logits in self.logits.values()])
        if self.vote == "soft":
            return logits_GBK.mean(0).softmax(-1)
        if self.vote == "probability":
            return logits_GBK.softmax(-1).mean(0)
        return share_of_votes(logits_GBK)

    def branches(self) -> dict[str, Tensor]:
        return {name: logits.float().softmax(-1) for name, logits in self.logits.items()}


def share_of_votes(logits_GBK: Tensor) -> Tensor:
    """Share (B, K) of the groups whose first class it is.

    Of the classes with most votes the one with the highest mean logit comes first; for this, and
    to order classes without votes, the mean logits hold a hundredth of the share.
    """
    classes = logits_GBK.shape[-1]
    vote_BK = functional.one_hot(logits_GBK.argmax(-1), classes).float().mean(0)
    mean_BK = logits_GBK.mean(0)
    behind_BK = vote_BK < vote_BK.amax(-1, keepdim=True)
    first_B = mean_BK.masked_fill(behind_BK, -torch.inf).argmax(-1)
    tie_BK = (mean_BK.softmax(-1) + functional.one_hot(first_B, classes)) / 2
    return (1 - TIE_SHARE) * vote_BK + TIE_SHARE * tie_BK


class Caam(nn.Module):
    def __init__(self, config: CaamConfig, shape: InputShape) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.ModuleDict(
            {
                modality: StreamEmbedding(encoder_of(config, modality, width), config.width)
                for modality, width in zip(config.used, shape.widths, strict=True)
            }
        )
        self.fuse = fusion_of(config)
        self.score = nn.ModuleDict(
            {name: group_score(self.fuse.widths[name], shape.classes) for name in config.groups}
        )

    def forward(self, *streams: Tokens) -> CaamScores:
        """Video, audio and text, or what the modalities leave of them, in this order."""
        tokens: dict[str, Tokens] = {
            stream.name: self.embed[stream.name](self._seen(stream, given))
            for stream, given in zip(self.config.streams, streams, strict=True)
        }
        known = self.fuse(tokens)
        logits = {name: self.score[name](known_BF) for name, known_BF in known.groups.items()}
        return CaamScores(logits, self.config.vote, known.maps)

    def _seen(self, stream: Stream, given: Tokens) -> Tokens:
        """Video as one token where it is pooled; as released, zeros up to the longest sequence,
        of which nothing says that they are padding."""
        most = stream.most
        if stream.name == VIDEO and not self.config.frames:
            given, most = pooled(given), 1
        length = given.valid_BL.shape[1]
        if self.config.masks:
            return lengthened(given, max(length, 1))
        zeros = lengthened(given, most).cleared()
        return Tokens(zeros, torch.ones_like(zeros[..., 0], dtype=torch.bool))


def pooled(tokens: Tokens) -> Tokens:
    """The mean of what is valid, as one token."""
    return Tokens(tokens.mean()[:, None], tokens.valid_BL.any(1, keepdim=True))


def lengthened(tokens: Tokens, length: int) -> Tokens:
    """So many places: what is added is not valid, what is beyond is cut."""
    more = length - tokens.valid_BL.shape[1]
    return Tokens(
        functional.pad(tokens.values_BLD, (0, 0, 0, more)),
        functional.pad(tokens.valid_BL, (0, more)),
    )


Encoder = AudioFrontend | WordEncoder


class StreamEmbedding(nn.Module):
    """An encoder of the stream's own, then a gated embedding of every token."""

    def __init__(self, encoder: Encoder, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.gated = GatedEmbedding(encoder.out_width, width)

    def forward(self, stream: Tokens) -> Tokens:
        encoded = self.encoder(stream)
        return Tokens(self.gated(encoded.values_BLD), encoded.valid_BL)


def encoder_of(config: CaamConfig, modality: str, features: int) -> Encoder:
    if modality == AUDIO:
        return audio_frontend(config.frontend, features, gru_width=config.encoder_width)
    if modality == TEXT and config.encoders == "paper":
        return WordEncoder(
            features, config.encoder_width, heads=ENCODER_HEADS, depth=config.encoder_depth
        )
    return RowsAsTokens(features)


def group_score(features: int, classes: int) -> nn.Sequential:
    """The same for every topology, so that these compare."""
    first, second = HEAD_WIDTHS
    return nn.Sequential(
        nn.Linear(features, first),
        nn.ReLU(),
        nn.Linear(first, second),
        nn.ReLU(),
        nn.Linear(second, classes),
    )
