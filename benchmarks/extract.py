"""How close extraction comes to its own limits, and how far ahead of the plain loop it is.

`python benchmarks/extract.py` makes a video (1280x720, 25 Hz, H.264, 4 Mbit/s, as in
`benchmarks/ingest.py`), ingests it, and times in turns, each model loaded beforehand:

- ViT-B-32 on every frame of a shorter piece: the features of the stage against the encoder alone
  on tensors that are ready, and against the plain loop of open_clip's documentation (each picture
  as PIL image through the model's own transform, batches of 32);
- a tiny ViT on one frame of every 16: against a loop that only decodes, and the plain loop;
- the same tiny ViT on every frame, against the plain loop;
- motion on every frame, against a loop that only decodes;
- a small BLIP on a frame a second, of this video and of one whose camera rests: pictures answered
  for, in batches and without near-duplicates, against a loop that captions each on its own;
- the peak memory of the tiny ViT on one and on ten times the length, in processes of their own.

All weights are random: they cost the same as trained ones. `--quick` takes shorter pieces. The
last line is one JSON object; a ratio above 1 says that we are faster:

    encoder_limited      frames/s of ViT-B-32 end to end over those of the encoder alone
    against_loop_vit     end to end over the plain loop, ViT-B-32
    decode_limited       frames/s decoded by the tiny ViT's snippets over those of bare decoding
    against_loop_tiny    end to end over the plain loop, tiny ViT, snippets
    against_loop_frames  the same on every frame
    motion_share         frames/s of motion over those of bare decoding
    captions_ratio       pictures answered for per second over those of the loop, panning camera
    captions_still_ratio the same with the camera at rest
    memory_ratio         peak memory for ten times the length over that for one
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from ingest import RATE_HZ, decode_barely, encode_clip, join_clips

from crosswatch import config, stages
from crosswatch.data.batches import open_set
from crosswatch.data.store.settings import TransferConfig
from crosswatch.experiment import resolve
from crosswatch.features.captioning.blip import BlipCaptioner
from crosswatch.features.encoder import Encoder, Model
from crosswatch.features.pictures.clip import ClipEncoder
from crosswatch.features.pictures.motion import MotionEncoder
from crosswatch.features.running.runner import Job, Refused, run
from crosswatch.features.settings import (
    BlipConfig,
    ClipConfig,
    ComputeConfig,
    MotionConfig,
    SelectionConfig,
)
from crosswatch.features.source import Source, sources_of
from crosswatch.records import WeightsConfig

BATCH = 32
SNIPPET = 16
TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 1, "width": 32, "patch_size": 32, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 64, "width": 16, "heads": 1, "layers": 1},
}


class Loaded:
    """An encoder whose model stands ready, so that loading is not timed."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._model = encoder.load("cpu")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def load(self, device: str) -> Model:
        return self._model


def ingested(path: Path, folder: Path) -> Source:
    """A video as the stage `ingest` stores it."""
    over = {
        "ingest": {"adapter": "single", "frame_px": 32},
        "windows": {"frames": 4, "signal_s": 0.0},
        "model": {"modality": "visual", "pixel_head": False, "dilated_tokens": False},
    }
    values = config.plain(resolve("fmformer-furnace", over))
    stages.call("ingest", values=values, paths={"arrivals": path, "out": folder / "batches"})
    batches = folder / "batches"
    (source,) = sources_of(
        batches, open_set(batches), fetched=folder / "fetched", transfer=TransferConfig()
    )
    return source


def write_vit(name: str, folder: Path) -> Path:
    """Random weights of an open_clip model, in the file that a user would name."""
    from crosswatch.features.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = open_clip.create_model(name)
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, path)
    return path


def write_tiny(folder: Path) -> Path:
    """A folder as open_clip's `local-dir:` takes it."""
    from crosswatch.features.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir()
    told = {"model_cfg": TINY, "preprocess_cfg": {"size": 224, "mode": "RGB"}}
    (folder / "open_clip_config.json").write_text(json.dumps(told))
    model = open_clip.CLIP(**TINY)
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def extracted_hz(encoder: Encoder, source: Source, rows: int | None = None) -> float:
    """Rows a second through decoding, preprocessing and the model."""
    count = len(encoder.spans_s(source)) if rows is None else rows
    begun = time.perf_counter()
    job = Job(source=source, rows=np.arange(count))
    done = 0
    for found in run(encoder, [job], ComputeConfig(batch_size=BATCH, device="cpu")):
        assert not isinstance(found, Refused), found.reason
        done += 1
    assert done == count
    return count / (time.perf_counter() - begun)


def plain_loop_hz(weights: Path, model: str, path: Path, *, every: int, rows: int) -> float:
    """open_clip's documentation: PIL images through its transform, batches of 32."""
    import open_clip
    import torch

    if weights.is_dir():
        net, _, transform = open_clip.create_model_and_transforms(f"local-dir:{weights}")
    else:
        net, _, transform = open_clip.create_model_and_transforms(model, pretrained=str(weights))
    net.eval()
    begun = time.perf_counter()
    waiting: list[Any] = []
    done = 0
    with av.open(str(path)) as container, torch.inference_mode():
        container.streams.video[0].thread_type = "AUTO"
        for at, frame in enumerate(container.decode(video=0)):
            if at % every == 0 and done + len(waiting) < rows:
                waiting.append(transform(frame.to_image()))
            if len(waiting) == BATCH:
                done += len(net.encode_image(torch.stack(waiting)))
                waiting = []
            if done + len(waiting) >= rows and every == 1:
                break
        if waiting:
            done += len(net.encode_image(torch.stack(waiting)))
    assert done == rows
    return rows / (time.perf_counter() - begun)


def encoder_alone_hz(weights: Path, model: str, rows: int) -> float:
    import open_clip
    import torch

    net = open_clip.create_model(model, pretrained=str(weights))
    net.eval()
    images = torch.rand(BATCH, 3, 224, 224)
    begun = time.perf_counter()
    with torch.inference_mode():
        for _ in range(rows // BATCH):
            net.encode_image(images)
    return rows // BATCH * BATCH / (time.perf_counter() - begun)


class Turns:
    """Frames a second of several ways of doing a thing, in turns."""

    def __init__(self, turns: int, say: Callable[[str], None]) -> None:
        self._turns = turns
        self._say = say

    def ratio(
        self, name: str, ours: Callable[[], float], *peers: tuple[str, Callable[[], float]]
    ) -> dict[str, float]:
        """Ours over each peer: median, least and most over the turns."""
        ways = {name: ours, **dict(peers)}
        hz: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(self._turns):
            for way, timed in ways.items():
                hz[way].append(timed())
            told = ", ".join(f"{way} {found[-1]:.1f}/s" for way, found in hz.items())
            self._say(f"turn {turn + 1}: {told}")
        found = {f"{way}_hz": statistics.median(values) for way, values in hz.items()}
        for peer, _ in peers:
            ratios = [a / b for a, b in zip(hz[name], hz[peer], strict=True)]
            found[peer] = statistics.median(ratios)
            found[f"{peer}_low"], found[f"{peer}_high"] = min(ratios), max(ratios)
        return found


def measure_vit(
    source: Source, path: Path, folder: Path, *, rows: int, turns: Turns
) -> dict[str, float]:
    weights = write_vit("ViT-B-32", folder)
    told = ClipConfig(model="ViT-B-32", weights=WeightsConfig(source=str(weights)), take="frames")
    encoder = Loaded(ClipEncoder(told, "fp32"))
    return turns.ratio(
        "vit",
        lambda: extracted_hz(encoder, source, rows),
        ("encoder_limited", lambda: encoder_alone_hz(weights, "ViT-B-32", rows)),
        ("against_loop_vit", lambda: plain_loop_hz(weights, "ViT-B-32", path, every=1, rows=rows)),
    )


def tiny_encoder(weights: Path, take: Any) -> Encoder:
    return ClipEncoder(ClipConfig(weights=WeightsConfig(source=str(weights)), take=take), "fp32")


def measure_tiny(source: Source, path: Path, folder: Path, *, turns: Turns) -> dict[str, float]:
    weights = write_tiny(folder / "tiny")
    frames = len(source.batch.frame_times)
    snippets = len(tiny_encoder(weights, "snippets").spans_s(source))
    few, all_of = Loaded(tiny_encoder(weights, "snippets")), Loaded(tiny_encoder(weights, "frames"))

    def bare_hz() -> float:
        begun = time.perf_counter()
        return decode_barely(path) / (time.perf_counter() - begun)

    def loop_hz(every: int, rows: int) -> float:
        return plain_loop_hz(weights, "", path, every=every, rows=rows) * every

    found = turns.ratio(
        "tiny_snippets",
        lambda: extracted_hz(few, source) * frames / snippets,
        ("decode_limited", bare_hz),
        ("against_loop_tiny", lambda: loop_hz(SNIPPET, snippets)),
    )
    found |= turns.ratio(
        "tiny_frames",
        lambda: extracted_hz(all_of, source),
        ("against_loop_frames", lambda: loop_hz(1, frames)),
    )
    motion = MotionEncoder(MotionConfig())
    rows = len(motion.spans_s(source))
    found |= turns.ratio(
        "motion",
        lambda: extracted_hz(motion, source) * frames / rows,
        ("motion_share", bare_hz),
    )
    return found


BLIP = {
    "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768,
}  # fmt: skip


def write_blip(folder: Path) -> Path:
    """A captioner of a tenth of BLIP-base's size, whose sentences are as long as allowed."""
    from crosswatch.features.weights.torchvision_shim import ensure_torchvision

    ensure_torchvision()
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    words += [f"word{number}" for number in range(1000)]
    text = {
        **BLIP, "vocab_size": len(words), "encoder_hidden_size": 192, "bos_token_id": 5,
        "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {**BLIP, "image_size": 384, "patch_size": 16}
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision))
    model.save_pretrained(folder)
    tokenizer = BertTokenizer(vocab={word: at for at, word in enumerate(words)})
    BlipProcessor(BlipImageProcessor(), tokenizer).save_pretrained(folder)
    return folder


def measure_captions(
    sources: dict[str, tuple[Source, Path]], folder: Path, *, turns: Turns
) -> dict[str, float]:
    weights = write_blip(folder / "blip")
    told = BlipConfig(weights=WeightsConfig(source=str(weights)), max_length=10)
    captioner = Loaded(BlipCaptioner(told, SelectionConfig(every_s=1.0), "fp32"))
    found = {}
    for name, (source, path) in sources.items():
        seconds = int(source.batch.span_s[1])

        def ours_hz(source: Source = source, seconds: int = seconds) -> float:
            return extracted_hz(captioner, source) * seconds / len(captioner.spans_s(source))

        def loop_hz(path: Path = path, seconds: int = seconds) -> float:
            return caption_loop_hz(weights, path, seconds)

        found |= turns.ratio(f"{name}_ours", ours_hz, (f"{name}_ratio", loop_hz))
        found[f"{name}_share"] = len(captioner.spans_s(source)) / seconds
    return found


def caption_loop_hz(weights: Path, path: Path, seconds: int) -> float:
    """A frame a second, each as transformers' documentation captions it."""
    import torch
    from transformers import BlipForConditionalGeneration, BlipProcessor

    processor = BlipProcessor.from_pretrained(weights)
    model = BlipForConditionalGeneration.from_pretrained(weights).eval()
    begun = time.perf_counter()
    with av.open(str(path)) as container, torch.inference_mode():
        container.streams.video[0].thread_type = "AUTO"
        for at, frame in enumerate(container.decode(video=0)):
            if at % RATE_HZ == 0:
                inputs = processor(images=frame.to_image(), return_tensors="pt")
                model.generate(**inputs, max_length=10, num_beams=1, do_sample=False)
    return seconds / (time.perf_counter() - begun)


def measure_memory(folder: Path, *, seconds: int) -> dict[str, float]:
    """Peak of a process that reads a batch that stands ready and encodes every snippet of it."""
    clip = folder / "still.mp4"
    peaks = []
    for times in (1, 10):
        place = folder / f"long-{times}"
        place.mkdir()
        join_clips(clip, place / "long.mp4", times * seconds // 60)
        ingested(place / "long.mp4", place)
        command = [sys.executable, __file__, "--peak", str(place), str(folder / "tiny")]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks.append(float(done.stdout.splitlines()[-1]))
    return {"memory_ratio": peaks[1] / peaks[0], "peak_mib": peaks[0], "peak_10x_mib": peaks[1]}


def print_peak(place: str, weights: str) -> None:
    batches = Path(place) / "batches"
    (source,) = sources_of(
        batches,
        open_set(batches, verify=False),
        fetched=Path(place) / "fetched",
        transfer=TransferConfig(),
    )
    extracted_hz(tiny_encoder(Path(weights), "snippets"), source)
    status = Path("/proc/self/status").read_text()
    print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter pieces")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print the last line only")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.peak is not None:
        print_peak(*given.peak)
        return

    def say(text: str) -> None:
        if not given.json:
            print(text, flush=True)

    begun = time.perf_counter()
    seconds, rows = (60, 256) if given.quick else (300, 640)
    turns = Turns(given.turns, say)
    found: dict[str, float] = {"seconds_of_video": seconds, "vit_rows": rows}
    with tempfile.TemporaryDirectory(prefix="crosswatch-extract-") as name:
        folder = Path(name)
        encode_clip(folder / "clip.mp4", seconds=60)
        join_clips(folder / "clip.mp4", folder / "video.mp4", seconds // 60)
        say(f"ingesting {seconds} s of video at {RATE_HZ} Hz")
        source = ingested(folder / "video.mp4", folder)
        say("a tiny ViT, and motion")
        found |= measure_tiny(source, folder / "video.mp4", folder, turns=turns)
        say("ViT-B-32")
        found |= measure_vit(source, folder / "video.mp4", folder, rows=rows, turns=turns)
        say("captions")
        encode_clip(folder / "still.mp4", seconds=60, pans=False)
        still, panning = folder / "still", folder / "panning"
        sources = {
            "captions": (ingested(folder / "clip.mp4", panning), folder / "clip.mp4"),
            "captions_still": (ingested(folder / "still.mp4", still), folder / "still.mp4"),
        }
        found |= measure_captions(sources, folder, turns=turns)
        say("memory")
        found |= measure_memory(folder, seconds=seconds)
    found["seconds"] = time.perf_counter() - begun
    print(json.dumps({key: round(value, 3) for key, value in found.items()}))


if __name__ == "__main__":
    main(sys.argv[1:])
