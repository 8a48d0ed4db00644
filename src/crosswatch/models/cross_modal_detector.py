"""CrossModalDetector: which class is this clip? Pictures ask sound and motion, sound asks motion.

Shape letters: B clips, L tokens, D model width, S streams, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from crosswatch.models.layers.cross_attention import Attended, AttentionBlock
from crosswatch.models.settings.cross_modal_detector import STREAMS, CrossModalDetectorConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape

CLASSIFIER_WIDTH = 512
PAIRS = {
    "paper": (("image", "audio"), ("image", "video"), ("audio", "video")),
    "full": tuple(permutations(STREAMS, 2)),
}
"""Who asks whom."""


class CrossModalScores(NamedTuple):
    """Logits of the classes."""

    class_BK: Tensor

    def probability_BK(self) -> Tensor:  # noqa: N802
        return self.class_BK.float().softmax(-1)

    def branches(self) -> Mapping[str, Tensor]:
        return {}


class CrossModalDetector(nn.Module):
    """Blocks are post-norm: x = LN1(q + MHA(q, k, k)), y = LN2(x + FF(x))."""

    def __init__(self, config: CrossModalDetectorConfig, shape: InputShape) -> None:
        super().__init__()
        self.config = config
        self.pairs = PAIRS[config.pairs]
        self.project = nn.ModuleDict(
            {
                stream: nn.Linear(width, config.width)
                for stream, width in zip(STREAMS, shape.widths, strict=True)
            }
        )
        self.modality_SD = nn.Parameter(config.emb_std * torch.randn(len(STREAMS), config.width))
        alone = STREAMS if config.self_attn == "per_modality" else ()
        self.ask_itself = nn.ModuleDict(
            {stream: block_of(config, stream, stream) for stream in alone}
        )
        self.ask = nn.ModuleDict({pair_name(*pair): block_of(config, *pair) for pair in self.pairs})
        self.classify = nn.Sequential(
            nn.Linear(len(STREAMS) * config.width, CLASSIFIER_WIDTH),
            nn.ReLU(),
            nn.Dropout(config.classifier_dropout),
            nn.Linear(CLASSIFIER_WIDTH, shape.classes),
        )

    def forward(self, image: Tokens, audio: Tokens, video: Tokens) -> CrossModalScores:
        """A clip that lacks a stream is asked in vain for it, and adds zeros for it."""
        tokens = self._embed((image, audio, video))
        for stream, block in self.ask_itself.items():
            own = tokens[stream]
            tokens[stream] = Tokens(answer(block, own, own), own.valid_BL)
        found_BD = [self._found(stream, tokens).mean() for stream in STREAMS]
        return CrossModalScores(self.classify(torch.cat(found_BD, dim=-1)))

    def _embed(self, streams: tuple[Tokens, ...]) -> dict[str, Tokens]:
        if self.config.token_mode == "pooled":
            streams = tuple(map(one_token, streams))
        return {
            name: Tokens(self.project[name](tokens.cleared()) + modality_D, tokens.valid_BL)
            for name, tokens, modality_D in zip(STREAMS, streams, self.modality_SD, strict=True)
        }

    def _found(self, asks: str, tokens: dict[str, Tokens]) -> Tokens:
        """What a stream found in those that it asks; itself, if it asks none."""
        own = tokens[asks]
        answers = [
            answer(self.ask[pair_name(asks, other)], own, tokens[other])
            for who, other in self.pairs
            if who == asks
        ]
        if not answers:
            return own
        found_BLD = torch.stack(answers)
        joined_BLD = found_BLD.sum(0) if self.config.pairs == "paper" else found_BLD.mean(0)
        return Tokens(joined_BLD, own.valid_BL)


def answer(block: nn.Module, asks: Tokens, answers: Tokens) -> Tensor:
    found: Attended = block(asks.values_BLD, answers.values_BLD, valid_BK=answers.valid_BL)
    return found.values_BQD


def one_token(tokens: Tokens) -> Tokens:
    """The mean as the only token; a missing stream has none."""
    return Tokens(tokens.mean()[:, None], tokens.valid_BL.any(1, keepdim=True))


def pair_name(asks: str, answers: str) -> str:
    return f"{asks}_asks_{answers}"


def block_of(config: CrossModalDetectorConfig, asks: str, answers: str) -> AttentionBlock:
    return AttentionBlock(
        config.width,
        config.heads,
        norm="post",
        hidden_width=4 * config.width,
        dropout=config.dropout,
        name=f"cross_modal_detector's attention of {asks} to {answers}",
    )
