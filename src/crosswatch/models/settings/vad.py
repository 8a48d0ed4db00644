"""What of ClipFusionVAD, and of VadCLIP, on which it is built, can be set."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from crosswatch.errors import UserError
from crosswatch.models.settings.common import Stream, Task, at_least
from crosswatch.records import InputShape, WeightsConfig

if TYPE_CHECKING:
    from crosswatch.models.clipfusion_vad import ClipFusionVad
    from crosswatch.models.layers.class_text import TextTower

Gam = Literal["none", "channel", "spatial", "both"]
LEAST_WIDTH = 4  # global attention narrows it to a quarter


class Additions(NamedTuple):
    """What ClipFusionVAD adds to VadCLIP."""

    gam: Gam = "none"
    aggregator: bool = False
    product: bool = False


ADDITIONS = {"vadclip": Additions(), "clipfusion": Additions("both", True, True)}


@dataclass(frozen=True, kw_only=True)
class VadLossWeights:
    """
    Attributes:
        binary: of whether a video is normal, by its highest snippets.
        align: of which classes it has, by the snippets that are most like each.
        separation: of the mean |cosine| between the texts of the normal and of another class.
            0.1 for UCF-Crime; XD-Violence took 1e-4.
    """

    binary: float = 1.0
    align: float = 1.0
    separation: float = 0.1

    def __post_init__(self) -> None:
        at_least(self, binary=0, align=0, separation=0)
        if not self.binary + self.align:
            raise UserError("binary and align are both 0; nothing would be learned from a label")


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
    """CLIP's text transformer, which class_text: clip is trained with; it should be of the model
    that made the features.

    Attributes:
        model: a name of open_clip; a folder of weights may say it itself.
    """

    model: str = "ViT-B-16"
    weights: WeightsConfig = field(default_factory=WeightsConfig)


@dataclass(frozen=True, kw_only=True)
class VadConfig:
    """Which moments of a video are abnormal and what happens, learned from whole videos' classes.

    Sizes are those for UCF-Crime. XD-Violence took window 64 with 1 layer (vadclip) or 3
    (clipfusion).

    Attributes:
        visual: one feature a snippet, as wide as the model becomes.
        standardise: every feature gets mean 0 and deviation 1 over the training clips first.
        model: which additions there are, where the three that follow do not say it.
        gam: global attention over channels, over moments ("spatial"), or both.
        aggregator: the visual prompt comes from a projection of its own, and texts have length 1.
        product: classes are compared with a projection of its own.
        length: positions. Longer videos are pooled to it in training and split in evaluation.
        layers: of the transformer within windows; 0: none.
        window: snippets; the last window of a video may be shorter.
        similarity_graph, distance_graph: which graphs relate snippets; without both, none do.
        compat_graph: as released, snippets that are not alike enter the similarity graph's
            softmax with 0, and the distance graph owns a parameter that nothing reads. Otherwise
            they do not enter, and it does not.
        score_branch: the anomaly score also rests on an MLP.
        visual_prompt: class texts are moved by what the video shows where it is abnormal.
        class_text: `learned` is one free vector a class; `clip` is CLIP's text transformer over
            `prompts` and learned context.
        text: the weights of that transformer.
        prompts: the text of each class, the normal one first.
        prompt_len: learned places before and as many behind the text.
        masks: false lets padding take part, as released.
        snippets_per_pick: a video is judged by one in so many of its snippets, and one more.
    """

    task: ClassVar[Task] = "moments"
    name: Literal["clipfusion_vad"] = "clipfusion_vad"
    visual: tuple[str, ...] = ("motion",)
    standardise: bool = False
    model: Literal["vadclip", "clipfusion"] = "clipfusion"
    gam: Gam | None = None
    aggregator: bool | None = None
    product: bool | None = None
    length: int = 256
    layers: int = 2
    window: int = 8
    heads: int = 1
    similarity_graph: bool = True
    distance_graph: bool = True
    compat_graph: bool = True
    score_branch: bool = True
    visual_prompt: bool = True
    class_text: Literal["clip", "learned"] = "learned"
    text: ClipTextConfig = field(default_factory=ClipTextConfig)
    prompts: tuple[str, ...] = ()
    prompt_len: int = 10
    masks: bool = True
    snippets_per_pick: int = 16
    losses: VadLossWeights = field(default_factory=VadLossWeights)

    def __post_init__(self) -> None:
        at_least(self, length=1, layers=0, window=2, heads=1, prompt_len=0, snippets_per_pick=1)
        if not self.visual:
            raise UserError("visual names no features; name one or more")
        self._refuse_additions_to_vadclip()
        if self.additions.aggregator and not self.visual_prompt:
            raise UserError(
                "aggregator is on and visual_prompt is false, but the aggregator makes the visual "
                "prompt. Set aggregator: false too, or leave visual_prompt on."
            )
        self._refuse_bad_prompts()

    @property
    def additions(self) -> Additions:
        usual = ADDITIONS[self.model]
        return Additions(
            gam=usual.gam if self.gam is None else self.gam,
            aggregator=usual.aggregator if self.aggregator is None else self.aggregator,
            product=usual.product if self.product is None else self.product,
        )

    @property
    def streams(self) -> tuple[Stream, ...]:
        return (Stream(name="visual", modalities=self.visual, most=self.length, shorten="pool"),)

    def build(self, shape: InputShape, text_tower: "TextTower | None" = None) -> "ClipFusionVad":
        """A model for inputs of this shape.

        Args:
            text_tower: CLIP's, which class_text: clip is trained with. Without it such a model can
                only be given weights, with which it keeps the vectors of its classes.

        Raises:
            UserError: the shape, the prompts or the tower do not fit the configuration.
        """
        from crosswatch.models.clipfusion_vad import ClipFusionVad

        self.refuse_shape(shape)
        return ClipFusionVad(self, shape, text_tower)

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        assert len(shape.widths) == 1, "a width for each stream"
        (width,) = shape.widths
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
        if width < LEAST_WIDTH:
            raise UserError(
                f"features {'+'.join(self.visual)} are {width} wide; at least {LEAST_WIDTH} needed."
            )
        if self.layers and width % self.heads:
            raise UserError(
                f"heads is {self.heads}, and features {'+'.join(self.visual)} are {width} wide; "
                "it has to divide that."
            )
        if self.class_text == "clip" and len(self.prompts) != shape.classes:
            raise UserError(
                f"class_text: clip needs a text for each of {shape.classes} classes, the normal "
                f"one first; prompts has {len(self.prompts)}."
            )

    def _refuse_additions_to_vadclip(self) -> None:
        if self.model == "vadclip" and self.additions != ADDITIONS["vadclip"]:
            raise UserError(
                f"model: vadclip has gam none, aggregator false and product false; got gam "
                f"{self.additions.gam}, aggregator {str(self.additions.aggregator).lower()} and "
                f"product {str(self.additions.product).lower()}. Set model: clipfusion."
            )

    def _refuse_bad_prompts(self) -> None:
        if self.class_text == "learned" and self.prompts:
            raise UserError(
                "prompts are given and class_text is learned, which reads none. Set class_text: "
                "clip, or prompts: []."
            )
        for text in self.prompts:
            if not text.strip():
                raise UserError(f"prompts {list(self.prompts)}: one is empty")
