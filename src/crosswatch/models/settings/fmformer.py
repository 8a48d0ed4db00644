"""What of FmFormer can be set."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from crosswatch.errors import UserError
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.fmformer import FmFormer

VIDEO, SIGNAL = "video", "signal"
STREAMS = {"cross_modal": (VIDEO, SIGNAL), "visual": (VIDEO,), "current": (SIGNAL,)}
DILATION = 2
DECODER_FEATURES = (128, 64, 32)
PIXEL_HEAD_SCALE = 2 ** len(DECODER_FEATURES)


@dataclass(frozen=True, kw_only=True)
class FmFormerConfig:
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
    current_embed: Literal["linear", "released"] = "linear"
    class_head: bool = True
    pixel_head: bool = True
    dropout: float = 0.0

    def __post_init__(self) -> None:
        self._refuse_bad_sizes()
        self._refuse_bad_heads()

    @property
    def streams(self) -> tuple[str, ...]:
        return STREAMS[self.modality]

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

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
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
