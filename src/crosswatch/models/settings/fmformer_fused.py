"""What of two fused FmFormers can be set."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

from crosswatch.models.settings.common import Task
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.fmformer_fused import FusedLogits


@dataclass(frozen=True, kw_only=True)
class FusedConfig:
    """A visual and a current FmFormer, trained apart, whose logits are summed (Table IV)."""

    task: ClassVar[Task] = "instants"
    name: Literal["fmformer_fused"] = "fmformer_fused"
    visual: FmFormerConfig = field(default_factory=lambda: FmFormerConfig(modality="visual"))
    current: FmFormerConfig = field(
        default_factory=lambda: FmFormerConfig(modality="current", pixel_head=False)
    )

    @property
    def streams(self) -> tuple[str, ...]:
        return self.visual.streams + self.current.streams

    @property
    def normalises(self) -> bool:
        return self.current.normalises

    @property
    def pixel_head(self) -> bool:
        return self.visual.pixel_head

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that one of the two cannot take."""
        self.visual.refuse_shape(shape)
        self.current.refuse_shape(shape)

    def build(self, shape: InputShape) -> "FusedLogits":
        """Both models; their weights come from two trained ones (`visual.*`, `current.*`)."""
        from crosswatch.models.fmformer_fused import FusedLogits

        return FusedLogits(self.visual.build(shape), self.current.build(shape))
