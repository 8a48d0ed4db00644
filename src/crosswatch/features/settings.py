"""What of captions and features can be set: apart from the encoders, so that a command starts
without torch."""

import dataclasses
from typing import Literal

from crosswatch.errors import UserError
from crosswatch.records import WeightsConfig

EncoderName = Literal[
    "clip", "image", "motion", "audio", "mel", "distilbert", "hashed", "word2vec", "imported"
]


def _at_least(section: object, **least: float) -> None:
    for name, bound in least.items():
        value = getattr(section, name)
        if value < bound:
            raise UserError(f"{name} is {value}; allowed {bound} and above")


def _share(section: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(section, name) <= 1:
            raise UserError(f"{name} is {getattr(section, name)}; allowed 0 to 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the work is done; only `precision` may change a result."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batch_size: int = 32
    workers: int = 0  # 0: in this process; else as many actors of Ray Data, one model each
    address: str = "local"  # of the Ray cluster; local starts one for the stage
    shard_rows: int = 128  # finished rows are kept in pieces of this size, should the run be killed
    max_failed_share: float = 0.01  # of a batch, and at least one row; more leaves it out; 0: none

    def __post_init__(self) -> None:
        _at_least(self, batch_size=1, workers=0, shard_rows=1)
        _share(self, "max_failed_share")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which frames are looked at."""

    by: Literal["uniform", "keyframe", "scene"] = "uniform"
    every_s: float = 2.0  # uniform: one in so many seconds; otherwise at least so far apart
    scene_change: float = 0.25  # scene: a new one where so much of the colour histogram moves
    duplicate: float = 0.01  # frames that differ less from the last chosen are left out; 0: none

    def __post_init__(self) -> None:
        if self.every_s <= 0:
            raise UserError(f"every_s is {self.every_s}; has to be above 0")
        _share(self, "scene_change", "duplicate")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlipConfig:
    """BLIP's image captioning (Li et al. 2022, arXiv:2201.12086)."""

    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    prompt: str = ""
    max_length: int = 25  # tokens, with those that begin: [DEC] and the prompt's
    beams: int = 1  # 1: greedy

    def __post_init__(self) -> None:
        _at_least(self, max_length=2, beams=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuppliedConfig:
    """A table of sentences that people wrote: transcripts, notes of a shift."""

    table: str = "captions.csv"  # beside or in each delivery; an absolute path: one for all
    batch: str = "batch"  # column: id or file of the batch; may be missing in a delivery's folder
    time_s: str = "time_s"  # column; missing or empty: from the beginning of the batch
    until_s: str = "until_s"  # column; missing or empty: until the next sentence
    caption: str = "caption"  # column
    clock: Literal["control", "camera", "audio"] = "control"  # whose time the table tells


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedCaptionConfig:
    """Sentences that came with imported features (MSR-VTT)."""

    # of each clip: the one that it is evaluated by, the first of the others, or that one and then
    # all others, each for the whole clip
    take: Literal["evaluation", "first", "all"] = "evaluation"


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionConfig:
    """Where sentences come from; template needs no weights."""

    source: Literal["template", "blip", "supplied", "imported", "none"] = "template"
    frames: SelectionConfig = dataclasses.field(default_factory=SelectionConfig)
    explain_s: float = 10.0  # an explanation also names the last other caption, if so recent
    shuffle_seed: int | None = None  # a control: each row gets another row's sentence, of any batch
    blip: BlipConfig = dataclasses.field(default_factory=BlipConfig)
    supplied: SuppliedConfig = dataclasses.field(default_factory=SuppliedConfig)
    imported: ImportedCaptionConfig = dataclasses.field(default_factory=ImportedCaptionConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        _at_least(self, explain_s=0)
        if self.shuffle_seed is None:
            return
        _at_least(self, shuffle_seed=0)
        if self.source == "none":
            raise UserError(
                f"shuffle_seed is {self.shuffle_seed}, and source is none, which leaves nothing to "
                "shuffle. Choose another source, or leave shuffle_seed out."
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
    """Any image tower of open_clip."""

    model: str = "ViT-B-16"  # a name of open_clip; a folder of weights may say it itself
    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    take: Literal["frames", "snippets", "ten_crops"] = "snippets"
    snippet_frames: int = 16  # snippets and ten_crops look at the first frame of each

    def __post_init__(self) -> None:
        _at_least(self, snippet_frames=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """One vector a chosen frame: from CLIP (features.clip), or from appearance without weights."""

    source: Literal["appearance", "clip"] = "appearance"
    frames: SelectionConfig = dataclasses.field(default_factory=SelectionConfig)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MotionConfig:
    snippet_frames: int = 16
    size_px: int = 128  # longer side of the pictures that flow is computed on

    def __post_init__(self) -> None:
        _at_least(self, snippet_frames=2, size_px=32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MelConfig:
    """Statistics of 40 log-mel bands, without weights."""

    window_s: float = 1.0
    hop_s: float = 0.5
    silence_dbfs: float = -70.0  # a window whose peak stays below is no sound

    def __post_init__(self) -> None:
        for name in ("window_s", "hop_s"):
            if getattr(self, name) < 0.025:
                raise UserError(f"{name} is {getattr(self, name)}; allowed 0.025 and above")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AudioConfig:
    """log_mel: 40 bands, 100 columns a second; the others: states of a speech or sound model."""

    source: Literal["log_mel", "wav2vec2", "ast"] = "log_mel"
    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    pool: bool = True  # one vector a window; false: one a step in time (log_mel: always)
    window_s: float = 10.0
    silence_dbfs: float = -70.0

    def __post_init__(self) -> None:
        _at_least(self, window_s=1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DistilbertConfig:
    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    text: Literal["caption", "explanation", "both"] = "caption"
    max_length: int = 128  # tokens
    pool: Literal["cls", "mean"] = "cls"  # a sentence: the state of [CLS], or the mean of them all
    tokens: bool = True  # the states of all tokens beside the sentence's vector

    def __post_init__(self) -> None:
        _at_least(self, max_length=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HashedConfig:
    """Hashed n-grams of words (Weinberger et al. 2009, arXiv:0902.2206), without weights."""

    text: Literal["caption", "explanation", "both"] = "caption"
    width: int = 512
    words: int = 2  # longest n-gram
    tokens: bool = True  # a vector a word beside that of the sentence
    max_length: int = 30  # words

    def __post_init__(self) -> None:
        _at_least(self, width=8, words=1, max_length=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Word2vecConfig:
    """Vectors of words (Mikolov et al. 2013, arXiv:1310.4546) from a file as word2vec writes it."""

    weights: WeightsConfig = dataclasses.field(default_factory=WeightsConfig)
    text: Literal["caption", "explanation", "both"] = "caption"
    max_length: int = 30  # words that the file knows

    def __post_init__(self) -> None:
        _at_least(self, max_length=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportedFeaturesConfig:
    """Arrays that came with imported features, as they are."""

    made_with: str = ""  # which encoder, in words; a model takes no features of other words


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Which encoders look at a batch; motion, mel and hashed need no weights."""

    encoders: tuple[EncoderName, ...] = ("motion", "mel", "hashed")
    clip: ClipConfig = dataclasses.field(default_factory=ClipConfig)
    image: ImageConfig = dataclasses.field(default_factory=ImageConfig)
    motion: MotionConfig = dataclasses.field(default_factory=MotionConfig)
    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    mel: MelConfig = dataclasses.field(default_factory=MelConfig)
    distilbert: DistilbertConfig = dataclasses.field(default_factory=DistilbertConfig)
    hashed: HashedConfig = dataclasses.field(default_factory=HashedConfig)
    word2vec: Word2vecConfig = dataclasses.field(default_factory=Word2vecConfig)
    imported: ImportedFeaturesConfig = dataclasses.field(default_factory=ImportedFeaturesConfig)
    compute: ComputeConfig = dataclasses.field(default_factory=ComputeConfig)

    def __post_init__(self) -> None:
        if len(set(self.encoders)) != len(self.encoders):
            raise UserError(f"encoders {list(self.encoders)} names one twice")
