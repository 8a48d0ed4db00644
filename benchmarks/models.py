"""How fast the models are at their published sizes, beside the public code and a plain peer.

python benchmarks/models.py [--quick] [--json] [--turns N] [--models NAME ...] times, in turns and
on all cores, in float32 and under bfloat16 autocast:

    step               forward, the model's own loss and backward, in training mode
    forward            without gradients, in evaluation; batch 1 is the latency
    forward_with_text  VadCLIP and ClipFusionVAD: without gradients, in training mode, in which the
                       text encoder runs; in evaluation its answers are kept

The public code was timed elsewhere, on two cores and in float32. Its seconds are scaled by the
float32 matrix rate that is measured here before and behind every turn, against that machine's; a
ratio above 1 says that we are faster. Where the rates around a model's turns differ by more than
15 %, or other processes kept a quarter of a core busy, the machine was not quiet, and the ratios
are not to be used.

The peer is VadCLIP and ClipFusionVAD written plainly, as published, with the same weights: its
scores are ours, which is checked. It is timed in the same turns. It is kinder than the public code
in what is not its computation: graphs and masks are made once, and its loss is ours.

All weights are random: they cost the same as trained ones. --quick: small batches, which the
public code was not timed with, fewer models and 2 turns.
"""

import argparse
import dataclasses
import functools
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional

from crosswatch.features.text.clip_text import ClipText
from crosswatch.features.weights.torchvision_shim import ensure_torchvision
from crosswatch.models import ModelConfig
from crosswatch.models.clipfusion_vad import VadScores
from crosswatch.models.settings.caam import CaamConfig
from crosswatch.models.settings.cmaf import CmafConfig
from crosswatch.models.settings.cross_modal_detector import CrossModalDetectorConfig
from crosswatch.models.settings.fmformer import FmFormerConfig
from crosswatch.models.settings.vad import VadConfig
from crosswatch.models.tokens import Target, Tokens
from crosswatch.records import InputShape
from crosswatch.training.losses import loss_of

# Medians in seconds of the public reference implementation, 2-vCPU EPYC, torch 2.13, float32,
# 2 threads, by what was timed and the batch. CMAF, CrossModalDetector and CAAM were not timed.
REFERENCE_GFLOPS = 182  # that machine's float32 matrix products
REFERENCE_S: dict[str, dict[tuple[str, int], float]] = {
    "fmformer_class": {
        ("step", 16): 1.1071, ("step", 64): 6.1165,
        ("forward", 16): 0.3432, ("forward", 64): 1.4177, ("forward", 1): 0.0386,
    },
    "fmformer_pixels": {
        ("step", 16): 1.0960, ("step", 64): 6.1184,
        ("forward", 16): 0.3687, ("forward", 64): 1.6168, ("forward", 1): 0.0301,
    },
    "fmformer_visual_class": {
        ("step", 16): 0.4403, ("step", 64): 1.9806,
        ("forward", 16): 0.1581, ("forward", 64): 0.6436, ("forward", 1): 0.0115,
    },
    "fmformer_visual_pixels": {
        ("step", 16): 0.5277, ("step", 64): 2.3089,
        ("forward", 16): 0.1902, ("forward", 64): 0.7554, ("forward", 1): 0.0143,
    },
    "fmformer_current": {
        ("step", 16): 0.2138, ("step", 64): 0.8582,
        ("forward", 16): 0.0661, ("forward", 64): 0.2764, ("forward", 1): 0.0075,
    },
    "vadclip": {
        ("step", 64): 9.9019, ("forward_with_text", 64): 3.2218,
        ("forward", 64): 2.7388, ("forward", 1): 0.0426,
    },
    "clipfusion_vad": {
        ("step", 64): 11.5685, ("forward_with_text", 64): 3.8629,
        ("forward", 64): 2.8376, ("forward", 1): 0.0484,
    },
}  # fmt: skip

ASKED = 1.5  # times the public code's speed, of:
ASKED_OF = [(m, w, 64) for m in ("vadclip", "clipfusion_vad") for w in ("step", "forward")]

MATRIX = 2048
UNQUIET_SHARE = 0.15  # by which matrix rates differ
UNQUIET_CORES = 0.25  # busy with other processes
SAME_SCORE = 1e-3
ONE_TIMING_S = 0.2  # what is shorter is repeated for so long in every turn
PRECISIONS = {"fp32": False, "bf16": True}
OURS, PEER = "ours", "peer"
UCF = (
    "normal", "abuse", "arrest", "arson", "assault", "burglary", "explosion", "fighting",
    "roadAccidents", "robbery", "shooting", "shoplifting", "stealing", "vandalism",
)  # fmt: skip
VIT_B_16: dict[str, Any] = {
    "embed_dim": 512,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 16},  # not used
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 512, "heads": 8, "layers": 12,
    },
}  # fmt: skip


class Way(NamedTuple):
    """One of the things that are timed; `who` is OURS or PEER."""

    who: str
    what: str
    batch: int
    precision: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """
    Attributes:
        inputs: what forward takes for so many examples.
        batches: that are timed, beside 1.
        text: CLIP's, where the model has it.
        peer: the same model, written plainly.
    """

    config: ModelConfig
    module: nn.Module
    inputs: Callable[[int], tuple[Any, ...]]
    classes: int
    batches: tuple[int, ...]
    text: "CountedText | None" = None
    peer: nn.Module | None = None

    def target(self, batch: int) -> Target:
        label = torch.arange(batch) % self.classes
        return Target(
            label,
            functional.one_hot(label, self.classes).float(),
            torch.randint(0, 2, (batch, 64, 64)),
        )

    def ways(self) -> list[Way]:
        """Our own and the peer's of a kind follow each other."""
        whats = ["step", "forward"] + ["forward_with_text"] * (self.text is not None)
        kinds = [(what, batch) for batch in self.batches for what in whats] + [("forward", 1)]
        who = [OURS] + [PEER] * (self.peer is not None)
        return [
            Way(each, what, batch, precision)
            for what, batch in kinds
            for precision in PRECISIONS
            for each in who
        ]


class CountedText(ClipText):
    """CLIP's text transformer of ViT-B/16, which counts how often it is run."""

    def __init__(self, tower: Any) -> None:
        super().__init__(tower, sha256="")
        self.runs = 0

    def answer(self, embedded_KND: Tensor, end_K: Tensor) -> Tensor:  # noqa: N803
        self.runs += 1
        return super().answer(embedded_KND, end_K)


# The plain peer. B videos, L snippets, D width, K classes.


class PlainMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.narrow(quick_gelu(self.widen(x)))


class PlainBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = PlainMlp(width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        normed = self.norm_attention(x)
        x = x + self.attention(normed, normed, normed, need_weights=False, attn_mask=mask)[0]
        return x + self.mlp(self.norm_mlp(x))


class PlainConvolution(nn.Module):
    """A h W + r(h)"""

    def __init__(self, width: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, width_out))
        changes = width != width_out
        self.residual = nn.Conv1d(width, width_out, 5, padding=2) if changes else None

    def forward(self, h: Tensor, graph: Tensor) -> Tensor:
        kept = h if self.residual is None else self.residual(h.mT).mT
        return graph @ (h @ self.weight) + kept


class PlainBranch(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = PlainConvolution(width, width // 2)
        self.second = PlainConvolution(width // 2, width // 2)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        return quick_gelu(self.second(quick_gelu(self.first(x, graph)), graph))


class PlainRelate(nn.Module):
    """Both graphs over all pairs of snippets, in float32."""

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.by_similarity, self.by_distance = PlainBranch(width), PlainBranch(width)
        self.join = nn.Linear(width, width)
        self.near = torch.exp(-(steps(length)[:, None] - steps(length)).abs() / math.e)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x = x.float()
            norm = x.norm(dim=-1, keepdim=True)
            cosine = x @ x.mT / (norm @ norm.mT + 1e-20)
            alike = functional.threshold(cosine, 0.7, 0.0).softmax(-1)
            found = (self.by_similarity(x, alike), self.by_distance(x, self.near))
        return self.join(torch.cat(found, dim=-1))


class PlainMomentGate(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.narrow = nn.Conv1d(width, width // 4, 7, padding=3)
        self.norm_narrow = nn.BatchNorm1d(width // 4)
        self.widen = nn.Conv1d(width // 4, width, 7, padding=3)
        self.norm_wide = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm_narrow(self.narrow(x.mT)).relu()
        return self.norm_wide(self.widen(hidden)).sigmoid().mT


class PlainAttend(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.channel = nn.Sequential(
            nn.Linear(width, width // 4), nn.ReLU(), nn.Linear(width // 4, width), nn.Sigmoid()
        )
        self.moment = PlainMomentGate(width)

    def forward(self, x: Tensor) -> Tensor:
        x = x * self.channel(x)
        return x * self.moment(x)


class PlainText(nn.Module):
    """All 77 places of every prompt: start, 10 learned, the words, 10 learned, end, learned."""

    def __init__(self, config: VadConfig, width: int, text: ClipText) -> None:
        super().__init__()
        self.context_ND = nn.Parameter(torch.empty(77, width))
        self.fixed = torch.zeros(len(config.prompts), 77, width)
        self.is_fixed = torch.zeros(len(config.prompts), 77, 1, dtype=torch.bool)
        words = [text.tokens(prompt) for prompt in config.prompts]
        first = config.prompt_len + 1
        self.end = torch.tensor([first + len(each) + config.prompt_len for each in words])
        for at, (each, end) in enumerate(zip(words, self.end.tolist(), strict=True)):
            places = [0, *range(first, first + len(each)), end]
            self.fixed[at, places] = text.embed((text.start, *each, text.end))
            self.is_fixed[at, places] = True
        self.text = text

    def forward(self) -> Tensor:
        prompts = torch.where(self.is_fixed, self.fixed, self.context_ND)
        return self.text.answer(prompts, self.end)


class PlainVad(nn.Module):
    """VadCLIP, or with `fuses` ClipFusionVAD, for videos of exactly the model's length."""

    def __init__(self, config: VadConfig, width: int, text: ClipText) -> None:
        super().__init__()
        self.fuses = config.model == "clipfusion"
        self.class_text = PlainText(config, width, text)
        self.kept_text: Tensor | None = None
        self.position_LD = nn.Parameter(torch.empty(config.length, width))
        window = steps(config.length) // config.window
        other = window[:, None] != window
        self.mask = torch.zeros(other.shape).masked_fill(other, -torch.inf)
        self.look_around = nn.Module()
        self.look_around.blocks = nn.ModuleList(
            PlainBlock(width, config.heads) for _ in range(config.layers)
        )
        self.relate = PlainRelate(width, config.length)
        if self.fuses:
            self.attend = PlainAttend(width)
            self.to_product, self.to_aggregate = nn.Linear(width, width), nn.Linear(width, width)
        self.branch, self.adapt_text = PlainMlp(width), PlainMlp(width)
        self.score = nn.Linear(width, 1)

    def forward(self, visual: Tokens) -> VadScores:
        text, again = self._texts()
        x = visual.values_BLD + self.position_LD
        for block in self.look_around.blocks:
            x = block(x, self.mask)
        f = self.relate(x)
        shown, asked, branch = f, f, f
        if self.fuses:
            f = self.attend(f)
            asked = functional.normalize(self.to_product(f), dim=-1)
            shown = functional.normalize(self.to_aggregate(f), dim=-1)
            branch, again = asked + shown, functional.normalize(again, dim=-1)
        anomaly = self.score(f + self.branch(branch))
        moved = again + functional.normalize(anomaly.mT @ shown, dim=-1)
        moved = moved + self.adapt_text(moved)
        asked, moved = functional.normalize(asked, dim=-1), functional.normalize(moved, dim=-1)
        likeness = asked @ moved.mT / 0.07
        return VadScores(anomaly[..., 0], likeness, text, visual.valid_BL)

    def _texts(self) -> tuple[Tensor, Tensor]:
        """As published, ClipFusionVAD runs the text encoder twice. In evaluation its answer is
        kept for good: weights do not change here."""
        if self.training:
            text = self.class_text()
            return text, self.class_text() if self.fuses else text
        if self.kept_text is None:
            with torch.no_grad(), torch.autocast("cpu", enabled=False):
                self.kept_text = self.class_text()
        return self.kept_text, self.kept_text


def steps(length: int) -> Tensor:
    return torch.arange(length)


def quick_gelu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


def peer_of(module: nn.Module, config: VadConfig, width: int, text: ClipText) -> PlainVad:
    """With the weights of our module."""
    ours, plain = module.state_dict(), {}
    for name, value in ours.items():
        if ".to_query." in name:
            packed = [ours[name.replace("to_query", f"to_{x}")] for x in ("query", "key", "value")]
            plain[name.replace("to_query.", "in_proj_")] = torch.cat(packed)
        elif name not in ("class_text.text_KD", "relate.sigma"):
            plain[name.replace("to_out", "out_proj")] = value
    peer = PlainVad(config, width, text)
    wanted = peer.state_dict()
    peer.load_state_dict({name: plain[name] for name in wanted})
    return peer


@torch.no_grad()
def largest_difference(subject: Subject, batch: int = 4) -> float:
    """Of the peer's scores and class texts to ours, in training and in evaluation."""
    assert subject.peer is not None
    inputs, found = subject.inputs(batch), []
    for training in (True, False):
        ours, theirs = (m.train(training)(*inputs) for m in (subject.module, subject.peer))
        found += [float((a - b).abs().max()) for a, b in zip(ours[:3], theirs[:3], strict=True)]
    assert max(found) <= SAME_SCORE, f"the peer's scores differ by {max(found)}"
    return max(found)


def text_runs(subject: Subject, count: int = 3) -> dict[str, list[int]]:
    """How often each of the first steps, with an optimiser, and the evaluations behind them run the
    text encoder."""
    optimizer = torch.optim.AdamW([p for p in subject.module.parameters() if p.requires_grad])
    found: dict[str, list[int]] = {"step": [], "forward": []}
    assert subject.text is not None
    for what, runs in found.items():
        for _ in range(count):
            subject.text.runs = 0
            seconds_of(subject, Way(OURS, what, 2, "fp32"), subject.inputs(2), subject.target(2))
            if what == "step":
                optimizer.step()
            runs.append(subject.text.runs)
    assert found["step"] == [1] * count, found
    assert found["forward"] == [1] + [0] * (count - 1), found
    return found


# The models, at their published sizes.


def fmformer(parameters: int, quick: bool, **settings: Any) -> Subject:
    config = FmFormerConfig(current_embed="released", **settings)
    shape = InputShape(frames=10, frame_px=64, signal_samples=240)

    def inputs(batch: int) -> tuple[Any, ...]:
        video = torch.randint(0, 256, (batch, 10, 64, 64, 3), dtype=torch.uint8)
        amperes = 3000 + 300 * torch.randn(batch, 240, 3)
        return (
            video if "video" in config.streams else None,
            amperes if "signal" in config.streams else None,
        )

    return Subject(
        config=config,
        module=built(config, shape, parameters),
        inputs=inputs,
        classes=2,
        batches=(4,) if quick else (16, 64),
    )


def vad(parameters: int, quick: bool, **settings: Any) -> Subject:
    width: int = VIT_B_16["embed_dim"]
    config = VadConfig(class_text="clip", prompts=UCF, **settings)
    shape, text = InputShape(classes=len(UCF), widths=(width,)), text_tower()
    module = built(config, shape, parameters, text_tower=text)

    def inputs(batch: int) -> tuple[Tokens]:
        """Neighbours are alike in part, so that the threshold of the graph divides them."""
        x = torch.randn(batch, 256, width).cumsum(1) / steps(256).add(1).sqrt()[:, None]
        return (Tokens(functional.normalize(x, dim=-1), torch.ones(batch, 256, dtype=torch.bool)),)

    return Subject(
        config=config,
        module=module,
        inputs=inputs,
        classes=len(UCF),
        batches=(4,) if quick else (64,),
        text=text,
        peer=peer_of(module, config, width, text),
    )


def of_features(
    parameters: int,
    quick: bool,
    *,
    config: Any,
    lengths: Sequence[int],
    shape: InputShape,
    batch: int,
) -> Subject:
    def inputs(count: int) -> tuple[Tokens, ...]:
        return tuple(
            Tokens(torch.randn(count, length, width), torch.ones(count, length, dtype=torch.bool))
            for length, width in zip(lengths, shape.widths, strict=True)
        )

    return Subject(
        config=config,
        module=built(config, shape, parameters),
        inputs=inputs,
        classes=shape.classes,
        batches=(min(batch, 4) if quick else batch,),
    )


def built(config: Any, shape: InputShape, parameters: int, **resources: Any) -> nn.Module:
    """Random, of the published number of parameters: then it is the published size."""
    torch.manual_seed(0)
    module: nn.Module = config.build(shape, **resources)
    count = sum(each.numel() for each in module.parameters())
    assert count == parameters, f"{config.name} has {count} parameters, published {parameters}"
    return module


@functools.cache
def text_tower() -> CountedText:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    return CountedText(open_clip.CustomTextCLIP(**VIT_B_16).text.eval().requires_grad_(False))


# CMAF's published parameters are 3 more, which nothing reads; CAAM's are those that learn.
MODELS: dict[str, Callable[[bool], Subject]] = {
    "fmformer_class": lambda quick: fmformer(1_923_466, quick, pixel_head=False),
    "fmformer_pixels": lambda quick: fmformer(2_419_848, quick, class_head=False),
    "fmformer_visual_class": lambda quick: fmformer(
        784_516, quick, modality="visual", pixel_head=False
    ),
    "fmformer_visual_pixels": lambda quick: fmformer(
        1_280_898, quick, modality="visual", class_head=False
    ),
    "fmformer_current": lambda quick: fmformer(
        693_512, quick, modality="current", pixel_head=False
    ),
    "vadclip": lambda quick: vad(12_642_306, quick, model="vadclip"),
    "clipfusion_vad": lambda quick: vad(14_218_754, quick, model="clipfusion"),
    "cmaf": lambda quick: of_features(
        3_975_937, quick, config=CmafConfig(token_mode="pooled"), lengths=(8, 1),
        shape=InputShape(widths=(512, 768)), batch=32,
    ),
    "cross_modal_detector": lambda quick: of_features(
        11_165_698, quick, config=CrossModalDetectorConfig(token_mode="pooled"),
        lengths=(1, 1, 1), shape=InputShape(widths=(512, 768, 512)), batch=64,
    ),
    "caam": lambda quick: of_features(
        334_539_452, quick, config=CaamConfig(), lengths=(1, 5120, 30),
        shape=InputShape(classes=20, widths=(4096, 40, 300)), batch=2,
    ),
}  # fmt: skip
QUICK = ("fmformer_class", "clipfusion_vad", "cmaf", "cross_modal_detector")


# Timing.


def seconds_of(subject: Subject, way: Way, inputs: tuple[Any, ...], target: Target) -> float:
    module = subject.module if way.who == OURS else subject.peer
    assert module is not None
    module.train(way.what != "forward")
    module.zero_grad(set_to_none=True)
    begun = time.perf_counter()
    with torch.set_grad_enabled(way.what == "step"):
        with torch.autocast("cpu", torch.bfloat16, enabled=PRECISIONS[way.precision]):
            scores = module(*inputs)
        if way.what == "step":
            loss_of(subject.config)(scores, target).backward()
    return time.perf_counter() - begun


def matrix_gflops(dtype: torch.dtype = torch.float32) -> float:
    a, b = (torch.randn(MATRIX, MATRIX).to(dtype) for _ in range(2))
    a @ b
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        a @ b
        seconds.append(time.perf_counter() - begun)
    return 2 * MATRIX**3 / statistics.median(seconds) / 1e9


class Turns(NamedTuple):
    """
    Attributes:
        seconds: of every way, by turn.
        gflops: float32 matrix rates before the turns and behind each.
        others_cores: that other processes kept busy meanwhile, on average.
    """

    seconds: dict[Way, list[float]]
    gflops: list[float]
    others_cores: float

    def scale(self) -> list[float]:
        """How much slower than the public code's machine this one was, by turn."""
        around = zip(self.gflops, self.gflops[1:], strict=False)
        return [REFERENCE_GFLOPS / ((before + behind) / 2) for before, behind in around]

    def quiet(self) -> bool:
        differ = max(self.gflops) - min(self.gflops)
        return differ <= UNQUIET_SHARE * max(self.gflops) and self.others_cores <= UNQUIET_CORES


def take_turns(subject: Subject, turns: int) -> Turns:
    ways = subject.ways()
    batches = {way.batch for way in ways}
    data = {batch: (subject.inputs(batch), subject.target(batch)) for batch in batches}
    seconds: dict[Way, list[float]] = {way: [] for way in ways}
    for way in ways:
        seconds_of(subject, way, *data[way.batch])
    begun, others_begun_s = time.perf_counter(), others_busy_s()
    gflops = [matrix_gflops()]
    for _ in range(turns):
        for way in ways:
            timings = [seconds_of(subject, way, *data[way.batch])]
            while sum(timings) < ONE_TIMING_S:
                timings.append(seconds_of(subject, way, *data[way.batch]))
            seconds[way].append(statistics.median(timings))
        gflops.append(matrix_gflops())
    others_s = others_busy_s() - others_begun_s
    return Turns(seconds, gflops, others_s / (time.perf_counter() - begun))


def others_busy_s() -> float:
    """Core seconds of all processes but this one since the machine started."""
    times = psutil.cpu_times()
    counted = ("user", "nice", "system", "irq", "softirq", "steal")
    return sum(getattr(times, kind, 0.0) for kind in counted) - time.process_time()


def rows_of(name: str, turns: Turns) -> list[dict[str, Any]]:
    """One for each way of ours, with what it is compared to."""
    rows = []
    for way, seconds in turns.seconds.items():
        if way.who == PEER:
            continue
        row = way._asdict() | summary("s", seconds, digits=5)
        del row["who"]
        reference_s = REFERENCE_S.get(name, {}).get((way.what, way.batch))
        if reference_s is not None:
            scaled = [reference_s * scale for scale in turns.scale()]
            row |= {"reference_s": reference_s} | summary("x_reference", over(scaled, seconds))
        if peer := turns.seconds.get(way._replace(who=PEER)):
            row |= summary("peer_s", peer, digits=5) | summary("x_peer", over(peer, seconds))
        rows.append(row)
    return rows


def over(theirs: Iterable[float], ours: Iterable[float]) -> list[float]:
    return [a / b for a, b in zip(theirs, ours, strict=True)]


def summary(name: str, values: Sequence[float], digits: int = 2) -> dict[str, Any]:
    """Median, least and most over the turns."""
    spread = [round(min(values), digits), round(max(values), digits)]
    return {name: round(statistics.median(values), digits), f"{name}_spread": spread}


def measure_model(name: str, quick: bool, turns: int) -> dict[str, Any]:
    subject = MODELS[name](quick)
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in subject.module.parameters())}
    if subject.text is not None:
        facts["text_encoder_runs"] = text_runs(MODELS[name](quick))
    if subject.peer is not None:
        facts["peer_largest_difference"] = largest_difference(subject)
    taken = take_turns(subject, turns)
    facts |= summary("matrix_gflops", taken.gflops, digits=1)
    facts |= {"others_cores": round(taken.others_cores, 2), "quiet": taken.quiet()}
    return facts | {"rows": rows_of(name, taken)}


def asked(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What of the speed that is asked for was measured, against the public code's float32."""
    found: dict[str, Any] = {"at_least": ASKED}
    for precision in PRECISIONS:
        ratios = {
            f"{name} {row['what']}": row["x_reference"]
            for name, facts in models.items()
            for row in facts["rows"]
            if (name, row["what"], row["batch"]) in ASKED_OF and row["precision"] == precision
        }
        complete = len(ratios) == len(ASKED_OF)
        found[precision] = ratios | {"met": min(ratios.values()) >= ASKED if complete else None}
    return found


def table(name: str, facts: dict[str, Any]) -> str:
    low, high = facts["matrix_gflops_spread"]
    lines = [f"{name}, {facts['parameters']:,} parameters, {low} to {high} GFLOP/s"]
    if not facts["quiet"]:
        lines[0] += f": NOT QUIET, {facts['others_cores']} cores busy with others; do not use"
    for row in facts["rows"]:
        line = f"  {row['what']:<18}{row['batch']:>3} {row['precision']}  {_spread(row, 's', 4)} s"
        for peer in ("reference", "peer"):
            if f"x_{peer}" in row:
                line += f"   {_spread(row, f'x_{peer}', 2)} x {peer}"
        lines.append(line)
    return "\n".join(lines)


def _spread(row: dict[str, Any], name: str, digits: int) -> str:
    low, high = row[f"{name}_spread"]
    return f"{row[name]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small batches, fewer models, 2 turns")
    parser.add_argument("--json", action="store_true", help="print nothing but the JSON object")
    parser.add_argument("--turns", type=int, metavar="N", help="default: 5, or 2 with --quick")
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="NAME", help="only these")
    options = parser.parse_args()
    turns = options.turns or (2 if options.quick else 5)
    cores = os.cpu_count() or 1
    torch.set_num_threads(cores)
    facts: dict[str, Any] = {
        "benchmark": "models",
        "quick": options.quick,
        "machine": f"{cores} cores, {platform.machine()}, {platform.system()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "turns": turns,
        "load_before": [round(load, 1) for load in os.getloadavg()],
        "matrix_bf16_gflops": round(matrix_gflops(torch.bfloat16), 1),
    }
    models = {}
    for name in options.models or (QUICK if options.quick else MODELS):
        models[name] = measure_model(name, options.quick, turns)
        if not options.json:
            print(table(name, models[name]), flush=True)
    facts["quiet"] = all(found["quiet"] for found in models.values())
    print(json.dumps(facts | {"models": models, "asked": asked(models)}))


if __name__ == "__main__":
    main()
