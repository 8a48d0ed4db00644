"""What of FmFormer can be set.

A choice about a part that a variant lacks (a head, the dilated patches) has no effect on it. A
choice about how two streams meet is refused where there is one.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from crosswatch.errors import UserError
from crosswatch.models.settings.common import Task
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.fmformer import FmFormer

Step = Literal[
    "ask_itself",
    "ask_itself_again",
    "ask_each_other",
    "ask_each_other_again",
    "feed_forward_between",
    "feed_forward",
]
VIDEO, SIGNAL = "video", "signal"
STREAMS = {"cross_modal": (VIDEO, SIGNAL), "visual": (VIDEO,), "current": (SIGNAL,)}
# A layer's two attentions; one mechanism alone is repeated, which keeps the number of parameters.
ATTENTIONS: dict[str, tuple[Step, ...]] = {
    "both": ("ask_itself", "ask_each_other"),
    "mhsa": ("ask_itself", "ask_itself_again"),
    "mhca": ("ask_each_other", "ask_each_other_again"),
}
UNIMODAL: dict[str, tuple[Step, ...]] = {
    "released": ("ask_itself",),
    "matched": ("ask_itself", "ask_itself_again"),
}
DILATION = 2
DECODER_FEATURES = (128, 64, 32)
PIXEL_HEAD_SCALE = 2 ** len(DECODER_FEATURES)


@dataclass(frozen=True, kw_only=True)
class FmFormerConfig:
    """Paper and released code differ; the defaults are the released ones
    but for current_embed and pe_resize.

    Attributes:
        embed_shared: one patch embedder for regular and dilated patches (paper), not two.
        current_embed: released norms across the channels of each sample first.
        pe_resize: positions of inputs of other lengths than those trained with. interp: stretched
            (paper); end_crop: the last ones; slice: the first ones (released).
        encoder_ff: feed-forward behind a layer's cross-attention, or behind both attentions
            (paper).
        mechanisms: a layer's attentions of a cross-modal model: within streams, between them, or
            one of each.
        unimodal_depth: attentions of a model of one stream: one a layer, or as many as the
            cross-modal model has (paper).
        linear_fusion: the class from both streams; false: from the video's class token alone.
        head: the class from a linear map, or from one hidden layer (paper).
        dense_unit: ReLU, batch norm, convolution with a skip, or convolution, batch norm, ReLU
            (paper).
        alpha: weight of the class loss beside the pixel loss (not published).
        tau: the class is anomalous where the mask has more than so many anomalous pixels (paper:
            0.5); None: the class is the label's.
    """

    task: ClassVar[Task] = "instants"
    name: Literal["fmformer"] = "fmformer"
    modality: Literal["cross_modal", "visual", "current"] = "cross_modal"
    width: int = 96
    depth: int = 6
    heads: int = 3
    head_width: int = 32
    feed_forward_width: int = 384
    patch_px: int = 8
    patch_frames: int = 2
    dilated_tokens: bool = True
    embed_shared: bool = False
    current_embed: Literal["linear", "released"] = "linear"
    pe_resize: Literal["interp", "end_crop", "slice"] = "interp"
    encoder_ff: Literal["ca", "both"] = "ca"
    mechanisms: Literal["mhsa", "mhca", "both"] = "both"
    unimodal_depth: Literal["released", "matched"] = "released"
    class_head: bool = True
    linear_fusion: bool = True
    head: Literal["released", "mlp"] = "released"
    pixel_head: bool = True
    dense_unit: Literal["released", "paper"] = "released"
    alpha: float = 1.0
    tau: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._refuse_bad_sizes()
        self._refuse_bad_heads()
        self._refuse_one_stream_that_meets_another()
        self._refuse_a_signal_that_nothing_reads()

    @property
    def streams(self) -> tuple[str, ...]:
        return STREAMS[self.modality]

    @property
    def scored(self) -> tuple[str, ...]:
        """The streams whose class tokens say the class."""
        if not self.class_head:
            return ()
        return self.streams if self.linear_fusion else (VIDEO,)

    @property
    def layer_steps(self) -> tuple[Step, ...]:
        """What an encoder layer does, in this order."""
        alone = UNIMODAL[self.unimodal_depth]
        attentions = ATTENTIONS[self.mechanisms] if len(self.streams) == 2 else alone
        if self.encoder_ff == "ca":
            return (*attentions, "feed_forward")
        first, second = attentions
        return first, "feed_forward_between", second, "feed_forward"

    @property
    def normalises(self) -> bool:
        """Whether the signal is to be normalised; the released embedding takes amperes."""
        return self.current_embed == "linear"

    def build(self, shape: InputShape) -> "FmFormer":
        """A model for inputs of this shape.

        Raises:
            UserError: patches do not divide the frames, or a stream is missing.
        """
        from crosswatch.models.fmformer import FmFormer

        self.refuse_shape(shape)
        return FmFormer(self, shape)

    def _refuse_bad_sizes(self) -> None:
        at_least = {"width": 2} | dict.fromkeys(
            ("depth", "heads", "head_width", "feed_forward_width", "patch_px", "patch_frames"), 1
        )
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise UserError(f"{name}: {getattr(self, name)}, but at least {least} needed.")
        if not 0.0 <= self.dropout < 1.0:
            raise UserError(f"dropout: {self.dropout}, but 0 or more and less than 1 allowed.")
        if self.alpha < 0:
            raise UserError(f"alpha: {self.alpha}, but 0 or more allowed.")
        if self.tau is not None and not 0.0 <= self.tau < float("inf"):
            raise UserError(f"tau: {self.tau}, but 0 or more pixels allowed; the paper has 0.5.")

    def _refuse_bad_heads(self) -> None:
        if not (self.class_head or self.pixel_head):
            raise UserError("class_head and pixel_head are both false; a model needs one of them.")
        if self.pixel_head and VIDEO not in self.streams:
            raise UserError(
                f"pixel_head needs video, which modality {self.modality!r} lacks. Set "
                "pixel_head: false, or modality to cross_modal or visual."
            )
        if self.pixel_head and self.patch_px != PIXEL_HEAD_SCALE:
            raise UserError(
                f"patch_px: {self.patch_px}, but the pixel head enlarges patches "
                f"{PIXEL_HEAD_SCALE} times; set patch_px: {PIXEL_HEAD_SCALE} or pixel_head: false."
            )
        if self.tau is not None and not (self.class_head and self.pixel_head):
            raise UserError(
                f"tau: {self.tau} makes the class from the mask, which needs class_head and "
                "pixel_head; set both true, or tau: null."
            )

    def _refuse_one_stream_that_meets_another(self) -> None:
        if len(self.streams) == 2:
            return
        one = f"modality {self.modality!r} has one stream"
        if self.mechanisms != "both":
            raise UserError(
                f"mechanisms: {self.mechanisms} says how two streams attend, and {one}. Set "
                "mechanisms: both, and unimodal_depth for the number of its attentions."
            )
        if not self.linear_fusion:
            raise UserError(
                f"linear_fusion: false takes the class from one stream of two, and {one}. Set "
                "linear_fusion: true."
            )
        if self.encoder_ff == "both" and self.unimodal_depth == "released":
            raise UserError(
                f"encoder_ff: both needs two attentions a layer, and {one}, with one attention. "
                "Set unimodal_depth: matched or encoder_ff: ca."
            )

    def _refuse_a_signal_that_nothing_reads(self) -> None:
        if self.mechanisms == "mhsa" and SIGNAL in self.streams and SIGNAL not in self.scored:
            raise UserError(
                "mechanisms: mhsa keeps the streams apart, and the heads read the video alone: "
                "the signal would change nothing. Set linear_fusion and class_head: true, or "
                "modality: visual."
            )

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
        if self.tau is not None and shape.classes != 2:
            raise UserError(
                f"tau: {self.tau} tells normal from anomalous, and there are {shape.classes} "
                "classes; allowed 2. Set tau: null."
            )
        if VIDEO in self.streams:
            self._refuse_frames_that_do_not_divide(shape)
        if SIGNAL not in self.streams:
            return
        if shape.signal_samples < 1:
            raise UserError(
                f"modality {self.modality!r} needs a signal, and a window holds none. Set "
                "windows.signal_s above 0, or modality: visual."
            )
        if self.current_embed == "released" and shape.signal_channels < 2:
            raise UserError(
                "current_embed: released norms across the channels of a sample, and nothing is "
                f"left of {shape.signal_channels}; at least 2 needed. Use current_embed: linear."
            )

    def _refuse_frames_that_do_not_divide(self, shape: InputShape) -> None:
        cell_px = self.patch_px * (DILATION if self.dilated_tokens else 1)
        cell = f"patch_px {self.patch_px}" + (" x dilation 2" if self.dilated_tokens else "")
        frames_of = f"patch_frames {self.patch_frames}"
        for name, size, step, of in (
            ("ingest.frame_px", shape.frame_px, cell_px, cell),
            ("windows.frames", shape.frames, self.patch_frames, frames_of),
        ):
            if size % step or not size:
                allowed = sorted({max(step, size // step * step), size // step * step + step})
                raise UserError(
                    f"{name}: {size} is no positive multiple of {step} ({of}). "
                    f"Nearest allowed: {' and '.join(map(str, allowed))}."
                )
