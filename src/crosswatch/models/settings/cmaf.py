"""What of CMAF can be set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crosswatch.errors import UserError
from crosswatch.models.settings.common import Stream, Task, at_least, divisible
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.cmaf import Cmaf

VISUAL, TEXT = "visual", "text"


@dataclass(frozen=True, kw_only=True)
class CmafConfig:
    """
    Attributes:
        visual, text: the features that are joined to vectors of frames, and of words or sentences.
        standardise: every dimension is put to mean 0 and deviation 1 first.
        hidden: width in which the streams ask each other.
        dropout: of the fusion; the head's first layer drops twice as much.
        token_mode: pooled is the published model, of one vector each, whose attention maps are
            constant; sequence lets frames ask words and words ask frames.
        use_cmaf: false scores the frames alone; the text is not read.
        direction: which stream asks the other; with one direction there is nothing to gate.
        gate: the share of what the frames found: learned per dimension, learned per clip, or fixed.
        residual: adds the frames' mean to what the fusion gives.
        loss: beside the cross-entropy: paper aligns what both streams found, and pulls attention
            heads apart; code is |cosine - 0.5| of frames and projected text, as released, but with
            its gradient. Without the fusion there is no such loss.
        alpha: weight of that loss; beta: of the diversity in it.
    """

    name: Literal["cmaf"] = "cmaf"
    task: ClassVar[Task] = "clips"

    visual: tuple[str, ...] = ("image",)
    text: tuple[str, ...] = ("hashed_tokens",)
    standardise: bool = False
    most_frames: int = 256  # more are pooled into so many
    most_words: int = 128  # more are cut off
    hidden: int = 512
    heads: int = 8
    dropout: float = 0.1
    token_mode: Literal["pooled", "sequence"] = "sequence"
    use_cmaf: bool = True
    head: Literal["enhanced", "plain"] = "enhanced"
    direction: Literal["both", "visual_to_text", "text_to_visual"] = "both"
    gate: Literal["vector", "scalar", "fixed"] = "vector"
    fixed_gate: float = 0.5
    residual: bool = True
    loss: Literal["paper", "code", "none"] = "paper"
    alpha: float = 0.1
    beta: float = 1.0
    diversity: Literal["head_decorrelation", "entropy", "none"] = "head_decorrelation"

    def __post_init__(self) -> None:
        at_least(self, most_frames=1, most_words=1, hidden=1, heads=1, alpha=0, beta=0)
        divisible(self, "hidden", "heads")
        if not 0 <= self.dropout < 0.5:
            raise UserError(
                f"dropout is {self.dropout}; allowed 0 to 0.5, 0.5 excluded: the head's first "
                "layer drops twice as much"
            )
        if not 0 <= self.fixed_gate <= 1:
            raise UserError(f"fixed_gate is {self.fixed_gate}; allowed 0 to 1")
        for name in (VISUAL, TEXT):
            if not getattr(self, name):
                raise UserError(f"{name} names no features; at least one is needed")

    @property
    def streams(self) -> tuple[Stream, ...]:
        visual = Stream(name=VISUAL, modalities=self.visual, most=self.most_frames, shorten="pool")
        text = Stream(name=TEXT, modalities=self.text, most=self.most_words)
        return (visual, text) if self.use_cmaf else (visual,)

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        if shape.classes != 2:
            raise UserError(
                f"cmaf tells normal from anomalous, and the labels have {shape.classes} classes; "
                "allowed 2. Take a model of many classes, such as caam."
            )
        assert len(shape.widths) == len(self.streams), f"{shape.widths} of {len(self.streams)}"
        if self.use_cmaf and self.loss == "code" and self.hidden != shape.widths[0]:
            raise UserError(
                f"loss: code compares frames of width {shape.widths[0]} with text of width "
                f"{self.hidden} (hidden); allowed are equal widths. Set hidden: {shape.widths[0]} "
                "or loss: paper."
            )

    def build(self, shape: InputShape) -> "Cmaf":
        """A model for inputs of this shape.

        Raises:
            UserError: not two classes, or widths between which the loss is not defined.
        """
        from crosswatch.models.cmaf import Cmaf

        self.refuse_shape(shape)
        return Cmaf(self, shape)
