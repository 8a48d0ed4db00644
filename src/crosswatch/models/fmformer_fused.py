"""Two FmFormers that never met: their logits summed, without training ("Cross-modality + LF")."""

from __future__ import annotations

from torch import Tensor, nn

from crosswatch.errors import UserError
from crosswatch.models.fmformer import FmFormer, Scores
from crosswatch.models.layers.fusion import linear_fusion


class FusedLogits(nn.Module):
    """A visual and a current model, trained apart; the mask is the visual one's.

    Raises:
        UserError: the models are no such pair, or know different numbers of classes.
    """

    def __init__(self, visual: FmFormer, current: FmFormer) -> None:
        super().__init__()
        for model, modality in ((visual, "visual"), (current, "current")):
            if model.config.modality != modality or not model.config.class_head:
                raise UserError(
                    f"fusion needs a model of modality {modality!r} with class_head: true; "
                    f"found {model.config.modality!r} with class_head: "
                    f"{str(model.config.class_head).lower()}. Train one with modality: {modality}."
                )
        if visual.classes != current.classes:
            raise UserError(
                f"the visual model knows {visual.classes} classes, the current model "
                f"{current.classes}; fusion needs the same. Train both on the same labels."
            )
        self.visual, self.current = visual, current

    def forward(
        self, video_BTHWC: Tensor, signal_BSC: Tensor, valid_BS: Tensor | None = None
    ) -> Scores:
        seen: Scores = self.visual(video_BTHWC, None)
        measured: Scores = self.current(None, signal_BSC, valid_BS)
        assert seen.class_BK is not None
        assert measured.class_BK is not None
        return Scores(
            class_BK=linear_fusion((seen.class_BK, measured.class_BK)),
            pixel_BKHW=seen.pixel_BKHW,
            video_BK=seen.class_BK,
            signal_BK=measured.class_BK,
        )
