"""What of CAAM can be set, and which modality asks which."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from crosswatch.errors import UserError
from crosswatch.models.settings.common import Stream, Task, at_least, divisible
from crosswatch.records import InputShape

if TYPE_CHECKING:
    from crosswatch.models.caam import Caam

Modality = Literal["video", "audio", "text"]
Topology = Literal["ca3", "fixed_key", "alternating", "stacked_alternating"]
Frontend = Literal["davenet_v2", "small", "gru", "none"]
Vote = Literal["soft", "probability", "hard"]
VIDEO: Modality = "video"
AUDIO: Modality = "audio"
TEXT: Modality = "text"
MODALITIES = (VIDEO, AUDIO, TEXT)
PAIRS = {"va": (VIDEO, AUDIO), "at": (AUDIO, TEXT), "tv": (TEXT, VIDEO)}
ENCODER_HEADS = 8


class Directed(NamedTuple):
    """One attention: tokens of `query` ask those of `key`."""

    key: Modality
    query: Modality

    @property
    def name(self) -> str:
        return f"{self.query}_asks_{self.key}"


@dataclass(frozen=True, kw_only=True)
class CaamConfig:
    """Video, audio and text ask each other, every pair in both roles.

    Attributes:
        modalities: of two, only their pair is left; of one, its mean token and a head.
        standardise: every feature gets mean 0 and deviation 1 over the training clips first.
        unit_video: each of the joined video features has length 1 first.
        encoders: `released` has none but the audio front-end; `paper` a GRU over sound, a
            transformer over words, and frames for video. What follows overrules it.
        video_tokens: one mean token, or one a row; None: as the encoders have it.
        audio_frontend: `none` takes rows as tokens; None: as the encoders have it.
        audio_columns, video_frames, text_words: longest sequences, in rows.
        encoder_width, encoder_depth: of the GRU (each way) and of the transformer; its depth.
        topology: `stacked_alternating` applies blocks one after another, each to the pair that is
            next, with keys and queries exchanged in every second; the others all at once.
        depth: blocks that an attention passes, or that are stacked; None: 1, or stacked, every
            attention once.
        share_block: the same weights for all attentions, or stacked, for all blocks.
        softmax: false leaves scores as they are (linear attention).
        masks: false lets padding take part, as released.
        vote: of the groups: mean logits, mean probabilities, or most votes.
    """

    task: ClassVar[Task] = "clips"
    name: Literal["caam"] = "caam"
    video: tuple[str, ...] = ("motion",)
    audio: tuple[str, ...] = ("mel",)
    text: tuple[str, ...] = ("hashed_tokens",)
    modalities: tuple[Modality, ...] = MODALITIES
    standardise: bool = False
    unit_video: bool = True
    encoders: Literal["released", "paper"] = "released"
    video_tokens: Literal["pooled", "frames"] | None = None
    audio_frontend: Frontend | None = None
    audio_columns: int = 5120
    video_frames: int = 48
    text_words: int = 30
    encoder_width: int = 512
    encoder_depth: int = 2
    topology: Topology = "alternating"
    depth: int | None = None
    share_block: bool = True
    softmax: bool = True
    width: int = 1024
    heads: int = 64
    mlp_ratio: float = 1.0
    eps: float = 1e-6
    masks: bool = True
    vote: Vote = "soft"

    def __post_init__(self) -> None:
        sizes = ("audio_columns", "video_frames", "text_words", "encoder_width", "encoder_depth")
        at_least(self, **dict.fromkeys((*sizes, "width", "heads"), 1), eps=1e-12)
        divisible(self, "width", "heads")
        if self.depth is not None:
            at_least(self, depth=1)
        if self.hidden_width < 1:
            raise UserError(
                f"mlp_ratio is {self.mlp_ratio}, of width {self.width} no whole number; allowed "
                f"{1 / self.width:.2g} and above"
            )
        if self.encoders == "paper" and self.encoder_width % ENCODER_HEADS:
            raise UserError(
                f"encoder_width is {self.encoder_width}; encoders: paper needs a multiple of "
                f"{ENCODER_HEADS}"
            )
        self._refuse_bad_modalities()

    def _refuse_bad_modalities(self) -> None:
        if not self.modalities or len(set(self.modalities)) < len(self.modalities):
            raise UserError(
                f"modalities are {list(self.modalities)}; name one or more of "
                f"{', '.join(MODALITIES)}, each once"
            )
        for modality in self.modalities:
            if not getattr(self, modality):
                raise UserError(
                    f"{modality} names no features. Name some, or leave {modality} out of "
                    "modalities"
                )

    @property
    def used(self) -> tuple[Modality, ...]:
        """In the order of forward's parameters."""
        return tuple(modality for modality in MODALITIES if modality in self.modalities)

    @property
    def streams(self) -> tuple[Stream, ...]:
        """Video that is too long is pooled; sound and text are cut, as released."""
        every = {
            VIDEO: Stream(
                name=VIDEO,
                modalities=self.video,
                most=self.video_frames,
                shorten="pool",
                unit=self.unit_video,
            ),
            AUDIO: Stream(name=AUDIO, modalities=self.audio, most=self.audio_columns),
            TEXT: Stream(name=TEXT, modalities=self.text, most=self.text_words),
        }
        return tuple(every[modality] for modality in self.used)

    @property
    def frames(self) -> bool:
        """Whether every row of video is a token."""
        if self.video_tokens is None:
            return self.encoders == "paper"
        return self.video_tokens == "frames"

    @property
    def frontend(self) -> Frontend:
        if self.audio_frontend is None:
            return "gru" if self.encoders == "paper" else "davenet_v2"
        return self.audio_frontend

    @property
    def hidden_width(self) -> int:
        return int(self.mlp_ratio * self.width)

    @property
    def groups(self) -> dict[str, tuple[Directed, ...]]:
        """The attentions that each logit vector rests on; none with a single modality."""
        if len(self.used) == 1:
            return {self.used[0]: ()}
        pairs = {name: pair for name, pair in PAIRS.items() if set(pair) <= set(self.used)}
        if self.topology == "ca3":
            return {name: (Directed(first, second),) for name, (first, second) in pairs.items()}
        if self.topology == "fixed_key":
            return {
                key: tuple(Directed(key, query) for query in self.used if query != key)
                for key in self.used
            }
        return {
            name: (Directed(first, second), Directed(second, first))
            for name, (first, second) in pairs.items()
        }

    @property
    def stack(self) -> tuple[Directed, ...]:
        """Of stacked_alternating, block by block: pair l mod pairs, roles by the parity of l.

        Of two modalities the roles are exchanged in every block, of three with every pair too.
        """
        groups = tuple(self.groups.values())
        depth = 2 * len(groups) if self.depth is None else self.depth
        return tuple(groups[at % len(groups)][at % 2] for at in range(depth))

    def build(self, shape: InputShape) -> "Caam":
        """A model for inputs of this shape.

        Raises:
            UserError: there are no two classes, or a stream has no features.
        """
        from crosswatch.models.caam import Caam

        self.refuse_shape(shape)
        return Caam(self, shape)

    def refuse_shape(self, shape: InputShape) -> None:
        """Raise UserError for inputs that no such model can take."""
        assert len(shape.widths) == len(self.streams), "a width for each stream"
        if shape.classes < 2:
            raise UserError(f"classes: {shape.classes}, but at least 2 needed.")
        for stream, width in zip(self.streams, shape.widths, strict=True):
            if width < 1:
                raise UserError(
                    f"{stream.name}: {', '.join(stream.modalities)} have no features. Name others, "
                    f"or leave {stream.name} out of modalities."
                )
