"""L = BCE + alpha (align + beta diversity) (CMAF, as far as it is published)."""

import torch
from torch import Tensor
from torch.nn import functional

from crosswatch.models.cmaf_scores import CmafScores
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.tokens import Target


def cmaf_loss(scores: CmafScores, target: Target, config: CmafConfig) -> Tensor:
    """Binary cross-entropy, plus the loss of the fusion where there is one."""
    loss = functional.binary_cross_entropy_with_logits(
        scores.logit_B.float(), target.class_B.float()
    )
    if not config.use_cmaf or config.loss == "none":
        return loss
    if config.loss == "code":
        return loss + config.alpha * half_way(scores)
    return loss + config.alpha * (align(scores) + config.beta * diversity(scores, config))


def align(scores: CmafScores) -> Tensor:
    """1 - cosine of what both streams found, the mean over clips that have both."""
    assert scores.cosine_B is not None, "the fusion was left out"
    return _mean(1 - scores.cosine_B, scores.paired_B)


def half_way(scores: CmafScores) -> Tensor:
    """|cosine of frames and projected text - 0.5|, the mean over clips that have both.

    The released code detaches this term, so that nothing learns of it; here it has its gradient.
    """
    assert scores.text_BE is not None, "the fusion was left out"
    cosine_B = functional.cosine_similarity(scores.frames_BV.float(), scores.text_BE.float())
    return _mean((cosine_B - 0.5).abs(), scores.paired_B)


def diversity(scores: CmafScores, config: CmafConfig) -> Tensor:
    """How alike the attention heads are, or how narrow their mean map is: the mean over clips and
    directions. Of one key it is not defined, and 0 here; `CmafScores.explain` then gives NaN."""
    if config.diversity == "none":
        return scores.logit_B.new_zeros(())
    answers = scores.answers()
    if config.diversity == "head_decorrelation":
        return torch.stack([found.overlap() for found in answers]).mean()
    return -torch.stack([found.entropy() for found in answers]).mean()


def _mean(value_B: Tensor, counted_B: Tensor) -> Tensor:
    """The mean of those that count; zero where none does."""
    return value_B.where(counted_B, 0.0).sum() / counted_B.sum().clamp(min=1)
