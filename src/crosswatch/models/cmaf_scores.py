"""What CMAF gives: a logit, and what it rests on.

Shape letters: B clips, Q tokens that ask, K tokens that answer, H heads, V width of a frame's
vector, E hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Answer(NamedTuple):
    """What the tokens of one stream found in the other.

    Attributes:
        values_BE: the mean over the tokens that asked; zero where none did.
        map_BHQK: how much each looked at each of the other's, summing to 1 over K; 0 where either
            is not valid. None where both were pooled into one: the map is constant.
        asked_BQ, answered_BK: which tokens are valid.
    """

    values_BE: Tensor
    map_BHQK: Tensor | None
    asked_BQ: Tensor
    answered_BK: Tensor

    def informs(self) -> Tensor:
        """Whether the map (B) says something: there is a choice, and somebody to choose."""
        return self.asked_BQ.any(1) & (self.answered_BK.sum(1) > 1)

    def looks(self) -> Tensor:
        """Where each head (B, H, K) looked, the mean over the tokens that asked."""
        assert self.map_BHQK is not None, "pooled streams have no map"
        asked_B11 = self.asked_BQ.sum(1).clamp(min=1)[:, None, None]
        return self.map_BHQK.float().sum(2) / asked_B11

    def overlap(self) -> Tensor:
        """||P P' - I||^2 / H^2 (B) of the heads' maps P (H, K), each row put to length 1: 0 where
        no two heads look at the same place, 1 - 1/H where all do; 0 also where undefined."""
        if self.map_BHQK is None:
            return self.values_BE.new_zeros(len(self.values_BE))
        unit_BHK = functional.normalize(self.looks(), dim=-1)
        gram_BHH = unit_BHK @ unit_BHK.mT
        heads = gram_BHH.shape[-1]
        identity_HH = torch.eye(heads, device=gram_BHH.device)
        overlap_B = (gram_BHH - identity_HH).square().sum((1, 2)) / heads**2
        return overlap_B.where(self.informs(), 0.0)

    def entropy(self) -> Tensor:
        """Entropy in nats (B) of the heads' mean map, the mean over the tokens that asked."""
        if self.map_BHQK is None:
            return self.values_BE.new_zeros(len(self.values_BE))
        share_BQK = self.map_BHQK.float().mean(1)
        # Not 0 log 0, whose gradient is infinite.
        entropy_BQ = -(share_BQK * share_BQK.clamp(min=1e-12).log()).sum(-1)
        return entropy_BQ.sum(1) / self.asked_BQ.sum(1).clamp(min=1)


class CmafScores(NamedTuple):
    """
    Attributes:
        logit_B: above 0, anomalous is more probable.
        frames_BV: mean of the frames' vectors, each of length 1.
        paired_B: which clips have both frames and text.
        text_BE: mean of the projected text. This and what follows is None without the fusion.
        gate: share of what the frames found, (B, E), or (B, 1) for all dimensions.
        visual_asked, text_asked: what each found in the other; None if it did not ask.
        cosine_B: between what both found; with one direction, between what was found and what
            asked.
    """

    logit_B: Tensor
    frames_BV: Tensor
    paired_B: Tensor
    text_BE: Tensor | None = None
    gate: Tensor | None = None
    visual_asked: Answer | None = None
    text_asked: Answer | None = None
    cosine_B: Tensor | None = None

    def probability_BK(self) -> Tensor:  # noqa: N802
        logit_B = self.logit_B.float()
        return torch.stack((-logit_B, logit_B), dim=-1).sigmoid()

    def branches(self) -> Mapping[str, Tensor]:
        return {}

    def answers(self) -> tuple[Answer, ...]:
        return tuple(found for found in (self.visual_asked, self.text_asked) if found is not None)

    def explain(self) -> Mapping[str, Tensor]:
        """What the score of each clip rests on, float32; NaN where undefined.

        gate (B): share of what the frames found; cosine (B); with sequences also text_attention
        (B, K) over text tokens, frame_attention (B, K) over frames, means over heads and over what
        asked, and head_overlap (B), 0 to 1: how far the heads look at the same places.
        """
        if self.gate is None or self.cosine_B is None:
            return {}
        facts = {
            "gate": self.gate.float().mean(1),
            "cosine": self.cosine_B.float().where(self.paired_B, torch.nan),
        }
        asked = {"text_attention": self.visual_asked, "frame_attention": self.text_asked}
        with_map = {k: v for k, v in asked.items() if v is not None and v.map_BHQK is not None}
        facts |= {name: found.looks().mean(1) for name, found in with_map.items()}
        if with_map:
            overlap = [f.overlap().where(f.informs(), torch.nan) for f in with_map.values()]
            facts["head_overlap"] = torch.stack(overlap).nanmean(0)
        return facts
