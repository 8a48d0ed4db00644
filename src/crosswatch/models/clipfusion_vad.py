"""ClipFusionVAD, and VadCLIP, which it is without its three additions.

VadCLIP: Wu et al. 2024, "VadCLIP: Adapting Vision-Language Models for Weakly Supervised Video
Anomaly Detection" (arXiv:2308.11681).

Shape letters: B videos, L snippets, D width, K classes, normal first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.models.layers.class_text import LearnedClasses, PromptedClasses, TextTower
from crosswatch.models.layers.global_attention import GlobalAttention
from crosswatch.models.layers.graph import Relate, cleared
from crosswatch.models.layers.lengths import chunks
from crosswatch.models.layers.mil import top_mean
from crosswatch.models.layers.quick_mlp import QuickMlp
from crosswatch.models.layers.windowed import WindowedTransformer
from crosswatch.models.settings.vad import VadConfig
from crosswatch.models.tokens import Tokens
from crosswatch.records import InputShape

TEMPERATURE = 0.07
UNDECIDED = 0.5  # of a video without a snippet


class VadScores(NamedTuple):
    """Logits of every snippet; those that are not valid may have any.

    Attributes:
        text_KD: what the classes are, before the video changes it.
        snippets_per_pick: a video is judged by one in so many snippets, and one more.
    """

    anomaly_logit_BL: Tensor
    class_logit_BLK: Tensor
    text_KD: Tensor
    valid_BL: Tensor
    snippets_per_pick: int = 16

    def anomaly_B(self) -> Tensor:  # noqa: N802
        """Mean probability of the highest snippets that something is not normal."""
        anomaly_BL1 = self.anomaly_logit_BL.float().sigmoid()[..., None]
        highest_B = self._of_video(anomaly_BL1)[:, 0]
        return highest_B.masked_fill(~self.valid_BL.any(1), UNDECIDED)

    def class_logit_BK(self) -> Tensor:  # noqa: N802
        """Mean of each class' highest snippets."""
        return self._of_video(self.class_logit_BLK.float())

    def probability_BK(self) -> Tensor:  # noqa: N802
        return self.class_logit_BK().softmax(1)

    def branches(self) -> Mapping[str, Tensor]:
        """binary (B, 2): that all is normal, and that not."""
        anomaly_B = self.anomaly_B()
        return {"binary": torch.stack((1 - anomaly_B, anomaly_B), dim=1)}

    def moments(self) -> tuple[Tensor, Tensor]:
        """Of every snippet that something is not normal (B, L), and its classes (B, L, K)."""
        return self.anomaly_logit_BL.float().sigmoid(), self.class_logit_BLK.float().softmax(-1)

    def _of_video(self, values_BLK: Tensor) -> Tensor:
        return top_mean(values_BLK, self.valid_BL, snippets_per_pick=self.snippets_per_pick)


class Places(NamedTuple):
    """Snippets at the positions of the model.

    Attributes:
        values_BLD: zeros where there is no snippet.
        valid_BL: where there is one; None: everywhere.
        seen_BL: what a snippet may look at; None: everything, as released even padding.
    """

    values_BLD: Tensor
    valid_BL: Tensor | None
    seen_BL: Tensor | None


class ClipFusionVad(nn.Module):
    def __init__(
        self, config: VadConfig, shape: InputShape, text_tower: TextTower | None = None
    ) -> None:
        super().__init__()
        self.config = config
        (width,) = shape.widths
        gam, aggregates, multiplies = config.additions
        self.class_text = class_text(config, shape.classes, width, text_tower)
        self.position_LD = nn.Parameter(0.01 * torch.randn(config.length, width))
        self.look_around = WindowedTransformer(
            width, layers=config.layers, window=config.window, heads=config.heads
        )
        self.relate = Relate(
            width,
            similarity=config.similarity_graph,
            distance=config.distance_graph,
            length=config.length,
            compat=config.compat_graph,
        )
        self.attend = None if gam == "none" else GlobalAttention(width, gam)
        self.to_product = nn.Linear(width, width) if multiplies else None
        self.to_aggregate = nn.Linear(width, width) if aggregates else None
        self.branch = QuickMlp(width, 4 * width) if config.score_branch else None
        self.adapt_text = QuickMlp(width, 4 * width)
        self.score = nn.Linear(width, 1)

    def forward(self, visual: Tokens) -> VadScores:
        """Valid snippets stand first. In evaluation a video may be of any length: it is scored in
        pieces of `length`, that do not know of each other."""
        text_KD = self.class_text()
        longest, most = longest_of(visual.valid_BL), self.config.length
        assert longest <= most or not self.training, f"training takes at most {most} snippets"
        score = self._score if longest <= most else self._score_pieces
        anomaly_BL, class_BLK = score(visual, text_KD)
        return VadScores(
            anomaly_logit_BL=as_long_as(visual, anomaly_BL),
            class_logit_BLK=as_long_as(visual, class_BLK),
            text_KD=text_KD,
            valid_BL=visual.valid_BL,
            snippets_per_pick=self.config.snippets_per_pick,
        )

    def _score(self, visual: Tokens, text_KD: Tensor) -> tuple[Tensor, Tensor]:
        """Logits that something is not normal (B, L'), and of what it is (B, L', K), where L' may
        be shorter or longer than what came."""
        values_BLD, valid_BL, seen_BL = self._placed(visual)
        local_BLD = self.look_around(values_BLD + self.position_LD[: values_BLD.shape[1]], seen_BL)
        video_BLD = self.relate(local_BLD, valid_BL=valid_BL, seen_BL=seen_BL)
        if self.attend is not None:
            video_BLD = self.attend(video_BLD, seen_BL)
        product_BLD = unit_of(self.to_product, video_BLD)
        aggregate_BLD = unit_of(self.to_aggregate, video_BLD)

        branch_BLD = self._branch_input(video_BLD, product_BLD, aggregate_BLD)
        anomaly_BL = self._anomaly(video_BLD, branch_BLD)
        text_BKD = self._video_text(anomaly_BL, either(aggregate_BLD, video_BLD), text_KD, seen_BL)
        return anomaly_BL, likeness(either(product_BLD, video_BLD), text_BKD)

    def _placed(self, visual: Tokens) -> Places:
        """Padding to all positions takes part as released, or is left away as far as it can be."""
        values_BLD, valid_BL = visual.cleared(), visual.valid_BL
        taken = max(longest_of(valid_BL), 1) if self.config.masks else self.config.length
        short = taken - values_BLD.shape[1]  # negative: cut
        values_BLD = functional.pad(values_BLD, (0, 0, 0, short))
        valid_BL = functional.pad(valid_BL, (0, short))
        if bool(valid_BL.all()):
            return Places(values_BLD, None, None)
        return Places(values_BLD, valid_BL, valid_BL if self.config.masks else None)

    def _branch_input(
        self, video_BLD: Tensor, product_BLD: Tensor | None, aggregate_BLD: Tensor | None
    ) -> Tensor:
        """The sum of the projections that there are."""
        if product_BLD is not None and aggregate_BLD is not None:
            return product_BLD + aggregate_BLD
        return either(product_BLD, either(aggregate_BLD, video_BLD))

    def _anomaly(self, video_BLD: Tensor, branch_BLD: Tensor) -> Tensor:
        """score(video + MLP(branch)), without making the MLP's answer."""
        anomaly_BL1 = self.score(video_BLD)
        if self.branch is not None:
            anomaly_BL1 = anomaly_BL1 + self.branch.read(branch_BLD, self.score.weight)
        anomaly_BL: Tensor = anomaly_BL1[..., 0]
        return anomaly_BL

    def _video_text(
        self, anomaly_BL: Tensor, video_BLD: Tensor, text_KD: Tensor, seen_BL: Tensor | None
    ) -> Tensor:
        """Class texts (B or 1, K, D), moved by what the video shows where it is abnormal."""
        if self.to_aggregate is not None:
            text_KD = unit(text_KD)
        text_BKD = text_KD[None]
        if self.config.visual_prompt:
            with torch.autocast(video_BLD.device.type, enabled=False):
                weight_BL1 = cleared(anomaly_BL[..., None].float(), seen_BL)
                prompt_B1D = unit(weight_BL1.mT @ video_BLD.float())
            text_BKD = text_BKD + prompt_B1D
        moved_BKD: Tensor = text_BKD + self.adapt_text(text_BKD)
        return moved_BKD

    def _score_pieces(self, visual: Tokens, text_KD: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        for piece in chunks(longest_of(visual.valid_BL), self.config.length):
            part = Tokens(visual.values_BLD[:, piece], visual.valid_BL[:, piece])
            reaching = part.valid_BL.any(1).nonzero()[:, 0]
            logits = self._score(Tokens(*(each[reaching] for each in part)), text_KD)
            found.append(
                [spread(as_long_as(part, each), reaching, len(part.valid_BL)) for each in logits]
            )
        anomaly_BL, class_BLK = (torch.cat(each, dim=1) for each in zip(*found, strict=True))
        return anomaly_BL, class_BLK


def class_text(
    config: VadConfig, classes: int, width: int, tower: TextTower | None
) -> LearnedClasses | PromptedClasses:
    if config.class_text == "learned":
        return LearnedClasses(classes, width)
    return PromptedClasses(config.prompts, width, learned=config.prompt_len, tower=tower)


def unit(x: Tensor) -> Tensor:
    return functional.normalize(x.float(), dim=-1)


def unit_of(project: nn.Linear | None, x_BLD: Tensor) -> Tensor | None:
    return None if project is None else unit(project(x_BLD))


def either(found: Tensor | None, otherwise: Tensor) -> Tensor:
    return otherwise if found is None else found


def likeness(video_BLD: Tensor, text_BKD: Tensor) -> Tensor:
    """Cosines (B, L, K), over the temperature."""
    with torch.autocast(video_BLD.device.type, enabled=False):
        video_BLD, text_BKD = video_BLD.float(), unit(text_BKD)
        length_BL1 = torch.linalg.vector_norm(video_BLD, dim=-1, keepdim=True).clamp(min=1e-12)
        cosine_BLK: Tensor = video_BLD @ text_BKD.mT / length_BL1
        return cosine_BLK / TEMPERATURE


def longest_of(valid_BL: Tensor) -> int:
    return int(valid_BL.sum(1).max()) if valid_BL.numel() else 0


def as_long_as(visual: Tokens, logit_BLX: Tensor) -> Tensor:
    """Cut, or with zeros behind."""
    missing = visual.valid_BL.shape[1] - logit_BLX.shape[1]
    rest = (0, 0) * (logit_BLX.ndim - 2)
    return functional.pad(logit_BLX, (*rest, 0, missing))


def spread(logit_BLX: Tensor, rows: Tensor, count: int) -> Tensor:
    """To these of `count` videos; zeros for the others."""
    return logit_BLX.new_zeros(count, *logit_BLX.shape[1:]).index_copy(0, rows, logit_BLX)
