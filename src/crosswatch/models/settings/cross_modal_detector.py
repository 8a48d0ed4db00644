"""What of the CrossModalDetector can be set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crosswatch.errors import UserError
from crosswatch.models.settings.common import Stream, Task, at_least, divisible, share
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.cross_modal_detector import CrossModalDetector

STREAMS = ("image", "audio", "video")


@dataclass(frozen=True, kw_only=True)
class CrossModalDetectorConfig:
    """
    Attributes:
        image, audio, video: the features that are joined to the tokens of each stream.
        standardise: every dimension is put to mean 0 and deviation 1 first.
        most_tokens: longest sequence; more are pooled into so many.
        token_mode: pooled is the published model, of one vector each, whose attention maps are
            constant; sequence lets tokens ask tokens.
        pairs: paper has image ask audio and video, and audio ask video; full has each ask both.
        self_attn: per_modality lets each stream ask itself first, which the text announces and
            the code does not do.
        emb_std: deviation from which the embedding of the modality begins; 1 is large beside
            projected features, 0.02 is the usual choice.
    """

    name: Literal["cross_modal_detector"] = "cross_modal_detector"
    task: ClassVar[Task] = "clips"

    image: tuple[str, ...] = ("image",)
    audio: tuple[str, ...] = ("mel",)
    video: tuple[str, ...] = ("motion",)
    standardise: bool = False
    most_tokens: int = 256
    width: int = 512
    heads: int = 8
    dropout: float = 0.1
    classifier_dropout: float = 0.3
    token_mode: Literal["pooled", "sequence"] = "sequence"
    pairs: Literal["paper", "full"] = "paper"
    self_attn: Literal["none", "per_modality"] = "none"
    emb_std: float = 1.0

    def __post_init__(self) -> None:
        at_least(self, most_tokens=1, width=1, heads=1, emb_std=0)
        divisible(self, "width", "heads")
        share(self, "dropout", "classifier_dropout")
        for name in STREAMS:
            if not getattr(self, name):
                raise UserError(f"{name} names no features; at least one is needed")

    @property
    def streams(self) -> tuple[Stream, ...]:
        return tuple(
            Stream(name=name, modalities=getattr(self, name), most=self.most_tokens, shorten="pool")
            for name in STREAMS
        )

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
        assert len(shape.widths) == len(STREAMS), f"{shape.widths} of {STREAMS}"

    def build(self, shape: InputShape) -> "CrossModalDetector":
        """A model for inputs of this shape.

        Raises:
            UserError: fewer than two classes.
        """
        from crosswatch.models.cross_modal_detector import CrossModalDetector

        self.refuse_shape(shape)
        return CrossModalDetector(self, shape)
