"""CMAF: is this clip an anomaly? Its frames and its explanation ask each other.

The cross-modal attention fusion of ExVAD. Left out are its two modality weights and its
temperature: three learnable numbers that no output depends on.

Shape letters: B clips, L tokens, Q tokens that ask, K tokens that answer, H heads, V width of a
frame's vector, E hidden width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.models.cmaf_scores import Answer, CmafScores
from crosswatch.models.layers.cross_attention import Attention
from crosswatch.models.layers.fusion import GatedFusion
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape

HEAD_WIDTHS = (256, 128)


class Fused(NamedTuple):
    """What the fusion adds to the frames (B, V), and how it came about; see CmafScores."""

    values_BV: Tensor
    visual_BE: Tensor
    text_BE: Tensor
    gate: Tensor
    visual_asked: Answer | None
    text_asked: Answer | None

    def cosine(self) -> Tensor:
        # With one direction: between what was found and what asked.
        first = self.text_BE if self.visual_asked is None else self.visual_asked.values_BE
        second = self.visual_BE if self.text_asked is None else self.text_asked.values_BE
        return functional.cosine_similarity(first.float(), second.float())


class CrossModalFusion(nn.Module):
    """v, t: projected tokens; va = mean MHA(v, t, t), ta = mean MHA(t, v, v);
    out = W2 ReLU(LN(W1 (g va + (1 - g) ta)))."""

    def __init__(self, config: CmafConfig, visual_width: int, text_width: int) -> None:
        super().__init__()
        hidden, heads, dropout = config.hidden, config.heads, config.dropout
        self.project_visual = nn.Sequential(*projection(visual_width, hidden, dropout))
        self.project_text = nn.Sequential(*projection(text_width, hidden, dropout))
        self.visual_asks_text = self.text_asks_visual = None
        if config.direction != "text_to_visual":
            self.visual_asks_text = Attention(
                hidden, heads, dropout=dropout, name="cmaf's attention of frames to text"
            )
        if config.direction != "visual_to_text":
            self.text_asks_visual = Attention(
                hidden, heads, dropout=dropout, name="cmaf's attention of text to frames"
            )
        self.mix = None
        if config.direction == "both":
            self.mix = GatedFusion(hidden, gate=config.gate, fixed=config.fixed_gate)
        self.project_out = nn.Sequential(
            *projection(hidden, hidden, dropout), xavier(nn.Linear(hidden, visual_width))
        )
        self.pooled = config.token_mode == "pooled"

    def forward(self, frames: Tokens, text: Tokens) -> Fused:
        visual = Tokens(self.project_visual(frames.values_BLD), frames.valid_BL)
        text = Tokens(self.project_text(text.values_BLD), text.valid_BL)
        visual_asked = self._ask(self.visual_asks_text, visual, text)
        text_asked = self._ask(self.text_asks_visual, text, visual)
        mixed_BE, gate = self._mix(visual_asked, text_asked)
        return Fused(
            values_BV=self.project_out(mixed_BE),
            visual_BE=visual.mean(),
            text_BE=text.mean(),
            gate=gate,
            visual_asked=visual_asked,
            text_asked=text_asked,
        )

    def _ask(self, attention: Attention | None, asks: Tokens, answers: Tokens) -> Answer | None:
        if attention is None:
            return None
        found = attention(asks.values_BLD, answers.values_BLD, valid_BK=answers.valid_BL)
        values_BE = Tokens(found.values_BQD, asks.valid_BL).mean()
        map_BHQK = None
        if not self.pooled:
            map_BHQK = found.weight_BHQK.masked_fill(~asks.valid_BL[:, None, :, None], 0.0)
        return Answer(values_BE, map_BHQK, asks.valid_BL, answers.valid_BL)

    def _mix(self, visual_asked: Answer | None, text_asked: Answer | None) -> tuple[Tensor, Tensor]:
        if self.mix is not None:
            assert visual_asked is not None
            assert text_asked is not None
            return tuple(self.mix(visual_asked.values_BE, text_asked.values_BE))
        if visual_asked is not None:
            return visual_asked.values_BE, torch.ones_like(visual_asked.values_BE[:, :1])
        assert text_asked is not None, "one direction at least"
        return text_asked.values_BE, torch.zeros_like(text_asked.values_BE[:, :1])


class Cmaf(nn.Module):
    """score(frames + fusion(frames, text)), frames the mean of vectors of length 1."""

    def __init__(self, config: CmafConfig, shape: InputShape) -> None:
        super().__init__()
        self.config = config
        self.fuse = CrossModalFusion(config, *shape.widths) if config.use_cmaf else None
        make_head = enhanced_head if config.head == "enhanced" else plain_head
        self.score = make_head(shape.widths[0], config.dropout)

    def forward(self, visual: Tokens, text: Tokens | None = None) -> CmafScores:
        """Vectors of frames, of any length, and of words or sentences."""
        frames = Tokens(functional.normalize(visual.cleared(), dim=-1), visual.valid_BL)
        frames_BV, paired_B = frames.mean(), visual.valid_BL.any(1)
        if self.fuse is None:
            return CmafScores(self._logit(frames_BV), frames_BV, paired_B)
        assert text is not None, "the fusion needs text"
        paired_B = paired_B & text.valid_BL.any(1)
        text = Tokens(text.cleared(), text.valid_BL)
        if self.config.token_mode == "pooled":
            frames, text = one_token(frames), one_token(text)
        fused = self.fuse(frames, text)
        score_BV = frames_BV + fused.values_BV if self.config.residual else fused.values_BV
        return CmafScores(
            logit_B=self._logit(score_BV),
            frames_BV=frames_BV,
            paired_B=paired_B,
            text_BE=fused.text_BE,
            gate=fused.gate,
            visual_asked=fused.visual_asked,
            text_asked=fused.text_asked,
            cosine_B=fused.cosine(),
        )

    def _logit(self, clip_BV: Tensor) -> Tensor:
        logit_B: Tensor = self.score(clip_BV).squeeze(-1)
        return logit_B


def one_token(tokens: Tokens) -> Tokens:
    """The mean as the only token; of a missing stream a zero vector that counts, as released."""
    mean_B1D = tokens.mean()[:, None]
    return Tokens(mean_B1D, torch.ones_like(mean_B1D[..., 0], dtype=torch.bool))


def projection(width: int, hidden: int, dropout: float) -> tuple[nn.Module, ...]:
    return (
        xavier(nn.Linear(width, hidden)),
        nn.LayerNorm(hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


def xavier(linear: nn.Linear) -> nn.Linear:
    """As the released fusion begins: Xavier's uniform weights, no bias."""
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def enhanced_head(width: int, dropout: float) -> nn.Sequential:
    wide, narrow = HEAD_WIDTHS
    return nn.Sequential(
        nn.Linear(width, wide), nn.LayerNorm(wide), nn.ReLU(), nn.Dropout(2 * dropout),
        nn.Linear(wide, narrow), nn.LayerNorm(narrow), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(narrow, 1),
    )  # fmt: skip


def plain_head(width: int, dropout: float) -> nn.Sequential:
    wide, _ = HEAD_WIDTHS
    return nn.Sequential(nn.Linear(width, wide), nn.ReLU(), nn.Dropout(dropout), nn.Linear(wide, 1))
