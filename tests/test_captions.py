"""Captions from BLIP, from tables and from templates, and how they are explained."""

import dataclasses
import hashlib
import itertools
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from deliveries import deliver, encode
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from made import batch as made_batch
from tiny_blip import SIZE_PX, write_tiny_blip

from crosswatch.config import plain
from crosswatch.data.batches import Batch, open_set
from crosswatch.data.ingestion import IngestConfig
from crosswatch.data.originals import OriginalPlace
from crosswatch.data.splits import SplitConfig
from crosswatch.data.store.settings import TransferConfig
from crosswatch.data.sync.clocks import ClockMap
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.windows import WindowConfig
from crosswatch.errors import BadBatchError, UserError
from crosswatch.features.captioning import template
from crosswatch.features.captioning.blip import BlipCaptioner
from crosswatch.features.captioning.captioners import captioned, write_said
from crosswatch.features.captioning.captions import (
    FILE,
    Caption,
    Said,
    read_captions,
    write_captions,
)
from crosswatch.features.captioning.explanation import NOTHING, explain, explained
from crosswatch.features.captioning.shuffled import shuffled
from crosswatch.features.encoder import Failed, Input
from crosswatch.features.settings import BlipConfig, CaptionConfig, SelectionConfig, SuppliedConfig
from crosswatch.features.source import Source
from crosswatch.records import WeightsConfig
from crosswatch.stages.ingest import ingest

GRID = Path(__file__).parents[1].parent / "shared" / "data" / "grid_av_text"
RATE_HZ = 10.0
EVERY = SelectionConfig(every_s=0.5, duplicate=0.0)


def caption_directly(config: CaptionConfig, source: Source) -> tuple[Caption, ...]:
    return captioned(config, source).captions


def caption(
    time_s: float, text: str = "a flame", until_s: float = math.inf, **more: Any
) -> Caption:
    fields = {"frame": -1, "explanation": "", "score": math.nan, "source": "blip", "digest": "d"}
    return Caption(time_s=time_s, until_s=until_s, caption=text, **{**fields, **more})


def source_of(batch: Batch, place: Any = None) -> Source:
    source = Source(batch_id=batch.id, batch_digest=batch.digest, folder=batch.folder, place=place)
    vars(source)["batch"] = batch
    return source


def ingested(arrivals: Path, out: Path, adapter: str = "single") -> list[Source]:
    """What the stages would see of real files."""
    config = IngestConfig(adapter=adapter, frame_px=16)
    ingest(
        arrivals=arrivals,
        out=out,
        ingest=config,
        sync=SyncConfig(estimate="given", camera_lag_s=0.7),
        split=SplitConfig(),
        windows=WindowConfig(frames=2, stride=1, signal_s=0.0, per_second=5.0),
        transfer=TransferConfig(),
    )
    place = OriginalPlace(ingest=plain(config), fetched=out / "fetched", transfer=TransferConfig())
    return [
        Source(batch_id=each.id, batch_digest=each.digest, folder=each.folder, place=place)
        for each in open_set(out).batches
    ]


def patches(seed: int, count: int = 1) -> np.ndarray:
    """Pictures (T, 48, 64, 3) that a codec keeps apart."""
    cells = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 3))
    return np.kron(cells, np.ones((1, 16, 16, 1), np.int64)).astype(np.uint8)


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Three seconds whose picture changes twice a second."""
    folder = tmp_path_factory.mktemp("filmed")
    (folder / "arrivals").mkdir()
    pictures = np.repeat(patches(0, 6), 5, axis=0)
    encode(folder / "arrivals" / "film.mp4", pictures)
    (source,) = ingested(folder / "arrivals", folder / "batches")
    return source


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_blip(tmp_path_factory.mktemp("blip"))


# fmt: off
CASES = {
    "greedy": BlipConfig(max_length=9),
    "greedy with a prompt": BlipConfig(max_length=9, prompt="a picture of"),
    "beams": BlipConfig(max_length=9, beams=3),
    "beams with a prompt": BlipConfig(max_length=5, beams=2, prompt="the flame"),
}
# fmt: on


def blip(weights: Path, config: BlipConfig, precision: str = "fp32") -> BlipCaptioner:
    named = dataclasses.replace(config, weights=WeightsConfig(source=str(weights)))
    return BlipCaptioner(named, EVERY, precision)


def looked_at(captioner: BlipCaptioner, source: Source) -> list[dict[str, Any]]:
    rows = np.arange(len(captioner.spans_s(source)))
    found = list(captioner.inputs(source, rows))
    assert all(isinstance(each, Input) for each in found)
    assert sorted(each.row for each in found) == rows.tolist()
    return [each.values for each in sorted(found, key=lambda each: each.row)]


class Direct:
    """transformers as its documentation uses it, on the same checkpoint and pictures."""

    def __init__(self, weights: Path, source: Source) -> None:
        from PIL import Image
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.model = BlipForConditionalGeneration.from_pretrained(weights).eval()
        self.processor = BlipProcessor.from_pretrained(weights)
        positions = np.load(source.folder / "frame_sources.npy")[::5]
        shown = dict(source.original.pictures(positions))
        self.pictures = [Image.fromarray(shown[at]) for at in positions.tolist()]

    def generate(self, config: BlipConfig) -> list[list[int]]:
        """One picture after the other."""
        import torch

        found = []
        for picture in self.pictures:
            asked = self.processor(images=picture, text=config.prompt or None, return_tensors="pt")
            with torch.inference_mode():
                (tokens,) = self.model.generate(
                    **asked, max_length=config.max_length, num_beams=config.beams
                ).tolist()
            found.append(ended(tokens))
        return found

    def score(self, picture: Any, tokens: list[int], prompt: str) -> float:
        """Mean log-probability of what follows the prompt, by reading the sentence as a whole."""
        import torch

        told = len(self.processor.tokenizer(prompt)["input_ids"]) - 1 if prompt else 1
        pixels = self.processor(images=picture, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            seen = self.model.vision_model(pixels)[0]
            ids = torch.tensor([tokens])
            logits = self.model.text_decoder(ids, encoder_hidden_states=seen).logits[0]
        of_next = logits.log_softmax(-1)[torch.arange(len(tokens) - 1), ids[0, 1:]]
        return float(of_next[told - 1 :].mean())


def ended(tokens: list[int]) -> list[int]:
    """Up to the [SEP] that ends the sentence."""
    return tokens[: tokens.index(3) + 1] if 3 in tokens else tokens


@pytest.mark.parametrize("case", CASES)
def test_blip_says_what_generate_says_called_directly(
    filmed: Source, weights: Path, case: str
) -> None:
    config = CASES[case]
    captioner = blip(weights, config)
    model = captioner.load("cpu")
    inputs = looked_at(captioner, filmed)
    tokens, _ = model.generate(inputs)
    direct = Direct(weights, filmed)
    expected = direct.generate(config)
    assert [ended(row) for row in tokens] == expected
    assert len({tuple(row) for row in expected}) >= 5, "the pictures make a difference"
    assert len({len(row) for row in expected}) >= 2, "sentences end by themselves"
    said = model(inputs)
    texts = direct.processor.batch_decode(expected, skip_special_tokens=True)
    assert [each.text for each in said] == [text.strip() for text in texts]
    assert all(each.text.startswith(config.prompt) for each in said)
    for each, picture, row in zip(said, direct.pictures, expected, strict=True):
        assert each.score == pytest.approx(direct.score(picture, row, config.prompt), abs=1e-4)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_caption_does_not_depend_on_its_neighbours(
    filmed: Source, weights: Path, beams: int
) -> None:
    captioner = blip(weights, BlipConfig(max_length=9, beams=beams, prompt="a"))
    model, inputs = captioner.load("cpu"), looked_at(captioner, filmed)
    together = model(inputs)
    for size in (1, 4):
        parts = [model(inputs[at : at + size]) for at in range(0, len(inputs), size)]
        apart = [each for part in parts for each in part]
        assert [each.text for each in apart] == [each.text for each in together]
        np.testing.assert_allclose(
            [each.score for each in apart], [each.score for each in together], atol=1e-4
        )


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_scores_a_caption_much_the_same(
    filmed: Source, weights: Path, precision: str
) -> None:
    config = BlipConfig(max_length=2)
    exact, half = blip(weights, config), blip(weights, config, precision)
    inputs = looked_at(exact, filmed)
    wanted, found = exact.load("cpu")(inputs), half.load("cpu")(inputs)
    scores = [[each.score for each in said] for said in (wanted, found)]
    np.testing.assert_allclose(*scores, atol=0.3)
    assert exact.identity.digest != half.identity.digest


def test_small_pictures_travel_and_each_comes_once(filmed: Source, weights: Path) -> None:
    captioner = pickle.loads(pickle.dumps(blip(weights, BlipConfig())))
    rows = np.array([1, 4])
    found = list(captioner.inputs(filmed, rows))
    assert [each.row for each in found] == [1, 4]
    assert {(v.dtype.name, v.shape) for each in found for v in each.values.values()} == {
        ("uint8", (3, SIZE_PX, SIZE_PX))
    }


def test_a_picture_that_is_gone_is_a_failed_row(tmp_path: Path, weights: Path) -> None:
    (tmp_path / "arrivals").mkdir()
    encode(tmp_path / "arrivals" / "film.mp4", np.repeat(patches(0, 6), 5, axis=0))
    (source,) = ingested(tmp_path / "arrivals", tmp_path / "batches")
    original = source.original
    lost = np.load(source.folder / "frame_sources.npy")[10]

    class Damaged:
        def pictures(self, wanted: np.ndarray, *, convert: Callable[[Any], Any]) -> Any:
            for at, picture in original.pictures(wanted[wanted != lost]):
                yield at, convert(picture[:0] if at == lost + 5 else picture)

    vars(source)["original"] = Damaged()
    captioner = blip(weights, BlipConfig())
    found = {each.row: each for each in captioner.inputs(source, np.arange(6))}
    assert [isinstance(found[row], Failed) for row in range(6)] == [
        row in (2, 3) for row in range(6)
    ]
    assert found[2].reason == f"picture {lost} cannot be decoded"
    assert found[3].reason.startswith(f"picture {lost + 5}: ")


def test_nothing_said_and_scores_without_meaning_are_errors_of_their_row(
    filmed: Source, tmp_path: Path
) -> None:
    silent = blip(write_tiny_blip(tmp_path / "silent", ending=60.0), BlipConfig())
    answers = silent.load("cpu")(looked_at(silent, filmed))
    assert {str(each) for each in answers} == {"nothing was said"}
    model = silent.load("cpu")
    assert "its score is nan" in str(model._said([9, 10], math.nan))
    assert model._said([9, 10], -1.0).text


def test_the_token_that_begins_is_no_word_even_where_the_tokenizer_says_so(
    filmed: Source, weights: Path, tmp_path: Path
) -> None:
    plain_token = write_tiny_blip(tmp_path / "plain", decoder_is_special=False)
    said = [
        [each.text for each in captioner.load("cpu")(looked_at(captioner, filmed))]
        for captioner in (blip(folder, BlipConfig()) for folder in (weights, plain_token))
    ]
    assert said[0] == said[1]


def test_weights_are_named_whole_and_of_blip(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"caption\.blip\.weights\.source names no weights\. .*"
                       r"--set caption\.source=template"):  # fmt: skip
        _ = BlipCaptioner(BlipConfig(), EVERY).identity
    other = write_tiny_blip(tmp_path / "other")
    (other / "config.json").write_text(json.dumps({"model_type": "distilbert"}))
    with pytest.raises(UserError, match="is a distilbert; a blip is needed"):
        blip(other, BlipConfig()).load("cpu")
    larger = write_tiny_blip(tmp_path / "larger", processor_px=32)
    with pytest.raises(UserError, match=r"makes pictures of 32 x 32 pixels; its model takes 24"):
        blip(larger, BlipConfig()).load("cpu")
    assert blip(weights, BlipConfig()).identity != blip(weights, BlipConfig(beams=2)).identity


def test_what_blip_said_becomes_rows_and_what_failed_leaves_a_hole(
    filmed: Source, weights: Path, tmp_path: Path
) -> None:
    config = CaptionConfig(source="blip", frames=EVERY, blip=blip(weights, BlipConfig()).config)
    captioner = BlipCaptioner(config.blip, config.frames)
    spans_s = captioner.spans_s(filmed)
    answers: dict[int, Said | Failed] = {
        row: Said(text=f"picture {row}", score=-row) for row in range(len(spans_s))
    }
    answers[2] = Failed(row=2, reason="lost")
    write_said(config)(tmp_path, filmed, spans_s, lambda: iter(answers.items()))
    captions = read_captions(tmp_path / FILE)
    assert [each.frame for each in captions] == [0, 5, 15, 20, 25]
    assert [each.time_s for each in captions] == pytest.approx([0, 0.5, 1.5, 2.0, 2.5])
    assert captions[1].until_s == pytest.approx(1.0), "it does not stand in for what failed"
    assert captions[1].explanation == "Video shows: picture 1. Also visible: picture 0"
    assert {each.digest for each in captions} == {captioner.identity.digest}


TEXTS = st.sampled_from(["a flame", "smoke", "slag"])
GAPS_S = st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 1), TEXTS), min_size=1, max_size=12)


def in_a_row(parts: list[tuple[float, float, str]]) -> list[Caption]:
    """Captions that hold for some of the time until the next one."""
    starts_s = np.cumsum([gap_s for gap_s, _, _ in parts])
    ends_s = np.append(starts_s[1:], starts_s[-1] + 5)
    return [
        caption(float(start_s), text, float(start_s + share * (end_s - start_s)))
        for start_s, end_s, (_, share, text) in zip(starts_s, ends_s, parts, strict=True)
    ]


@given(GAPS_S, st.floats(0, 30), st.floats(0, 60))
def test_an_explanation_names_the_last_other_caption_if_it_is_recent(
    parts: list[tuple[float, float, str]], within_s: float, cut_s: float
) -> None:
    captions = in_a_row(parts)
    recordings = ((0.0, cut_s), (cut_s, 1000.0))
    found = explained(captions, recordings=recordings, within_s=within_s)
    assert [dataclasses.replace(each, explanation="") for each in found] == captions
    for at, each in enumerate(found):
        others = [c for c in captions[:at] if c.caption != each.caption]
        last = others[-1] if others else None
        near = (
            last is not None
            and max(0.0, each.time_s - last.until_s) < within_s
            and (last.time_s < cut_s) == (each.time_s < cut_s)
        )
        assert each.explanation == explain(each.caption, last.caption if near else "")
    for at in range(len(captions)):
        assert explained(captions[:at], recordings=recordings, within_s=within_s) == found[:at]


def test_the_words_are_those_of_exvad() -> None:
    assert explain("a man walks") == "Video shows: a man walks"
    assert explain("a man walks", "a car") == "Video shows: a man walks. Also visible: a car"
    assert explain("a man walks", " ") == "Video shows: a man walks"
    assert explain("", "a car") == explain(" ") == NOTHING == "no explanation"


@given(
    st.lists(
        st.builds(
            Caption,
            time_s=st.floats(0, 100),
            until_s=st.floats(0, 100),
            frame=st.integers(-1, 2**40),
            caption=st.text(st.characters(exclude_categories=["Cs"])),
            explanation=st.text(st.characters(exclude_categories=["Cs"])),
            score=st.floats(-9, 0) | st.just(math.nan),
            source=st.sampled_from(["template", "blip"]),
            digest=st.just("d"),
        ),
        max_size=4,
    )
)
@settings(max_examples=25, deadline=None)
def test_captions_are_read_as_they_were_written(tmp_path_factory: Any, rows: list[Caption]) -> None:
    path = tmp_path_factory.mktemp("rows") / FILE
    write_captions(path, rows)
    np.testing.assert_equal(
        [dataclasses.astuple(each) for each in read_captions(path)],
        [dataclasses.astuple(each) for each in rows],
    )
    kinds = pd.read_parquet(path).dtypes.astype(str).to_dict()
    assert kinds == {
        **dict.fromkeys(("caption", "explanation", "source", "digest"), "str"),
        **dict.fromkeys(("time_s", "until_s", "score"), "float64"),
        "frame": "int64",
    }


def shown(frames: np.ndarray, batch: Batch | None = None) -> Source:
    count = len(frames)
    made = batch or made_batch(seconds=count / RATE_HZ, size_px=8)
    return source_of(dataclasses.replace(made, frames=frames[: len(made.frames)]))


def told(frames: np.ndarray, config: SelectionConfig = EVERY) -> tuple[Caption, ...]:
    return caption_directly(CaptionConfig(frames=config), shown(frames))


FILMS = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(2, 40), st.integers(3, 9), st.integers(3, 9), st.just(3)),
    elements=st.integers(0, 255),
    fill=st.integers(0, 255),
)
WORDS = {
    word
    for phrase in (
        *template.BRIGHTNESS.values(), *template.COLOURS.values(), *template.PLACES,
        *template.MOVEMENT.values(), template.GREY, "everywhere", "steady light",
        "getting brighter", "getting darker", "evenly lit", "brightest", "a picture",
    )
    for word in phrase.split()
}  # fmt: skip


@given(FILMS)
@settings(deadline=None)
def test_a_template_always_makes_a_sentence_of_few_words(frames: np.ndarray) -> None:
    captions = told(frames)
    assert [each.frame for each in captions] == list(range(0, len(frames), 5))
    for each in captions:
        assert set(each.caption.replace(",", "").split()) <= WORDS
        assert (each.source, math.isnan(each.score)) == ("template", True)
        assert each.digest == template.identity(EVERY).digest
    assert [each.caption for each in told(frames)] == [each.caption for each in captions]
    assert "movement" not in captions[0].caption


@given(FILMS, st.data())
@settings(deadline=None)
def test_only_the_past_is_told(frames: np.ndarray, data: st.DataObject) -> None:
    known = data.draw(st.integers(1, len(frames)))
    changed = frames.copy()
    changed[known:] = data.draw(arrays.arrays(np.uint8, frames[known:].shape))
    selection = SelectionConfig(every_s=0.3, by=data.draw(st.sampled_from(["uniform", "scene"])))
    past = [
        [(c.frame, c.caption, c.explanation) for c in told(film, selection) if c.frame < known]
        for film in (frames, changed)
    ]
    assert past[0] == past[1]


def test_sentences_say_what_is_seen() -> None:
    dark = np.zeros((21, 12, 12, 3), np.uint8)
    assert told(dark)[-1].caption == "a black picture, evenly lit, no movement, steady light"
    assert told(dark)[0].caption == "a black picture, evenly lit"
    flame = dark + np.uint8(20)
    flame[:, 8:, :4] = (255, 120, 0)
    flame[::2, 8:, :4] //= 2
    assert told(flame)[-1].caption == (
        "a dark orange picture, brightest at the bottom left, movement at the bottom left, "
        "steady light"
    )
    dawn = np.broadcast_to(np.arange(0, 210, 10)[:, None, None, None], dark.shape).astype(np.uint8)
    assert told(dawn)[-1].caption == (
        "a bright grey picture, evenly lit, movement everywhere, getting brighter"
    )
    assert told(dawn[::-1])[-1].caption.endswith("getting darker")
    pure = {"red": (255, 0, 9), "yellow": (255, 255, 0), "green": (0, 255, 0)}
    pure |= {"cyan": (0, 255, 255), "blue": (0, 0, 255), "purple": (255, 0, 255)}
    for name, colour in pure.items():
        assert f" {name} picture" in told(np.full_like(dark, colour))[0].caption


def test_movement_does_not_depend_on_the_frame_rate_or_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drift = np.linspace(40, 120, 40)
    films = [
        np.broadcast_to(np.interp(np.arange(n) / n, np.arange(40) / 40, drift)[:, None, None, None],
                        (n, 8, 8, 3)).astype(np.uint8)
        for n in (40, 400)
    ]  # fmt: skip
    slow, fast = (
        caption_directly(
            CaptionConfig(frames=SelectionConfig(every_s=2.0, duplicate=0)),
            shown(film, made_batch(seconds=4.0, video_hz=hz, size_px=8)),
        )
        for film, hz in zip(films, (10.0, 100.0), strict=True)
    )
    assert [each.caption for each in slow] == [each.caption for each in fast]
    busy = patches(3, 40)[:, :12, :12]
    whole = told(busy)
    monkeypatch.setattr(template, "BYTES", 1)
    assert [each.caption for each in told(busy)] == [each.caption for each in whole]


def test_a_recording_knows_nothing_of_the_one_before() -> None:
    frames = patches(1, 40)[:, :12, :12]
    batch = made_batch(seconds=4.0, segments=((0.0, 1.9), (2.0, 4.0)))
    captions = caption_directly(CaptionConfig(frames=EVERY), shown(frames, batch))
    (second,) = [each for each in captions if each.frame == 20]
    assert "movement" not in second.caption
    assert "Also visible" not in second.explanation


def test_without_video_a_template_says_nothing() -> None:
    assert caption_directly(CaptionConfig(), source_of(made_batch(video_hz=0.0))) == ()
    assert caption_directly(CaptionConfig(source="none"), source_of(made_batch())) == ()
    with pytest.raises(UserError, match="whose captions a model computes"):
        caption_directly(CaptionConfig(source="blip"), source_of(made_batch()))


def some_captions(counts: list[int]) -> dict[str, tuple[Caption, ...]]:
    """So many of each batch, and no two that say the same."""
    return {
        f"batch-{number}": tuple(
            caption(
                float(row), f"{number}-{row}", row + 0.5, frame=row,
                explanation=f"Video shows: {number}-{row}", score=-float(row),
            )
            for row in range(count)
        )
        for number, count in enumerate(counts)
    }  # fmt: skip


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=5), seed=st.integers(0, 2**32))
def test_shuffled_sentences_move_and_times_stay(counts: list[int], seed: int) -> None:
    given_captions = some_captions(counts)
    found = shuffled(given_captions, seed=seed)
    assert found == shuffled(dict(reversed(given_captions.items())), seed=seed)
    assert {name: len(of_batch) for name, of_batch in found.items()} == {
        name: len(of_batch) for name, of_batch in given_captions.items()
    }
    pairs = [
        (new, old)
        for name in given_captions
        for new, old in zip(found[name], given_captions[name], strict=True)
    ]
    said = {old.caption: (old.explanation, old.score) for _, old in pairs}
    assert {new.caption: (new.explanation, new.score) for new, _ in pairs} == said
    for new, old in pairs:
        assert (new.time_s, new.until_s, new.frame) == (old.time_s, old.until_s, old.frame)
        assert (new.caption == old.caption) == (len(pairs) == 1)


def test_another_seed_shuffles_otherwise_and_sentences_leave_their_batch() -> None:
    given_captions = some_captions([1] * 20)
    one, two = (shuffled(given_captions, seed=seed) for seed in (0, 1))
    assert one != two
    with pytest.raises(UserError, match="shuffle_seed is 3, and source is none, which leaves noth"):
        CaptionConfig(source="none", shuffle_seed=3)
    with pytest.raises(UserError, match="shuffle_seed is -1; allowed 0 and above"):
        CaptionConfig(shuffle_seed=-1)


@dataclasses.dataclass(frozen=True)
class Delivered:
    path: Path


def supplied(
    folder: Path,
    text: str | bytes,
    *,
    name: str = "captions.csv",
    config: SuppliedConfig | None = None,
    batch: Batch | None = None,
) -> tuple[Caption, ...]:
    return counted(folder, text, name=name, config=config, batch=batch).captions


def counted(
    folder: Path,
    text: str | bytes,
    *,
    name: str = "captions.csv",
    config: SuppliedConfig | None = None,
    batch: Batch | None = None,
) -> Any:
    """A table in the folder of a delivery of 60 s."""
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    source = source_of(batch or made_batch())
    vars(source)["original"] = Delivered(folder)
    chosen = config or SuppliedConfig(table=name)
    return captioned(CaptionConfig(source="supplied", supplied=chosen), source)


def rows_of(captions: tuple[Caption, ...]) -> list[tuple[float, float, str]]:
    return [(each.time_s, each.until_s, each.caption) for each in captions]


def test_a_sentence_holds_until_the_next_one_or_until_it_ends(tmp_path: Path) -> None:
    text = (
        "time_s,until_s,caption\n"
        '10,,slag rises\n,5,"start, slowly"\n20,40,flame\n30,35," white\n  smoke "\n50,,end\n'
    )
    found = supplied(tmp_path, text)
    assert rows_of(found) == [
        (0.0, 5.0, "start, slowly"),
        (10.0, 20.0, "slag rises"),
        (20.0, 30.0, "flame"),
        (30.0, 35.0, "white smoke"),
        (50.0, 60.0, "end"),
    ]
    assert {each.digest for each in found} == {hashlib.sha256(text.encode()).hexdigest()}
    assert {(each.frame, each.source, math.isnan(each.score)) for each in found} == {
        (-1, "supplied", True)
    }
    assert found[2].explanation == "Video shows: flame. Also visible: slag rises"


def test_what_lies_outside_is_cut_or_left_out_and_counted(tmp_path: Path) -> None:
    text = "time_s,until_s,caption\n-5,3,early\n-9,-6,before\n58,70,late\n60,,behind\n90,99,far\n"
    found = counted(tmp_path, text)
    assert rows_of(found.captions) == [(0.0, 3.0, "early"), (58.0, 60.0, "late")]
    assert found.left_out == 3


def test_over_several_recordings_a_sentence_is_a_row_of_each(tmp_path: Path) -> None:
    batch = made_batch(segments=((0.0, 20.0), (25.0, 40.0)))
    whole = supplied(tmp_path, "caption\nshift two\n", batch=batch)
    assert rows_of(whole) == [(0.0, 20.0, "shift two"), (25.0, 40.0, "shift two")]
    text = "time_s,until_s,caption\n15,,slag\n22,,tap\n"
    assert rows_of(supplied(tmp_path, text, batch=batch)) == [
        (15.0, 20.0, "slag"),
        (25.0, 40.0, "tap"),
    ]


def test_sentences_that_begin_together_hold_together(tmp_path: Path) -> None:
    found = supplied(tmp_path, "caption\na man\na dog\n")
    assert rows_of(found) == [(0.0, 60.0, "a man"), (0.0, 60.0, "a dog")]


SPANS = st.lists(
    st.tuples(st.none() | st.floats(-20, 90), st.none() | st.floats(0.1, 50)), max_size=8
)


@given(SPANS)
@settings(deadline=None)
def test_rows_are_in_order_and_overlap_only_where_they_begin_together(
    tmp_path_factory: Any, spans: list[tuple[float | None, float | None]]
) -> None:
    lines = [
        json.dumps(
            {
                "caption": f"sentence {at}",
                "time_s": time_s,
                "until_s": None if lasts_s is None else (time_s or 0) + lasts_s,
            }
        )
        for at, (time_s, lasts_s) in enumerate(spans)
    ]
    recordings = ((2.0, 18.0), (25.0, 50.0))
    found = counted(
        tmp_path_factory.mktemp("lines"),
        "\n".join(lines) + "\n",
        name="notes.jsonl",
        batch=made_batch(segments=recordings),
    )
    times = [(each.time_s, each.until_s) for each in found.captions]
    assert times == sorted(times, key=lambda span: span[0])
    for (start_s, end_s), (next_s, _) in itertools.pairwise(times):
        assert end_s <= next_s or start_s == next_s
    for start_s, end_s in times:
        assert any(low <= start_s < end_s <= high for low, high in recordings)
    assert len({each.caption for each in found.captions}) + found.left_out == len(spans)


def test_times_of_other_clocks_are_moved(tmp_path: Path) -> None:
    clock = ClockMap(method="given", offset_s=4.0, drift_ppm=50_000, t_mid_s=10.0)
    batch = dataclasses.replace(made_batch(), sync={"streams": {"video": clock.described()}})
    text = "time_s,until_s,caption\n10,20,slag\n"
    for name, expected in {"camera": (14.0, 24.5), "control": (10.0, 20.0)}.items():
        config = SuppliedConfig(clock=name)
        (found,) = supplied(tmp_path, text, config=config, batch=batch)
        assert (found.time_s, found.until_s) == pytest.approx(expected)
    with pytest.raises(BadBatchError, match="clock is audio, and the batch has no audio"):
        supplied(tmp_path, text, config=SuppliedConfig(clock="audio"), batch=batch)
    reset = {**clock.described(), "pieces": [{}, {}]}
    batch = dataclasses.replace(made_batch(), sync={"streams": {"video": reset}})
    with pytest.raises(BadBatchError, match="which was reset 1 times"):
        supplied(tmp_path, text, config=SuppliedConfig(clock="camera"), batch=batch)
    untimed = supplied(tmp_path, "caption\na\n", config=SuppliedConfig(clock="camera"), batch=batch)
    assert len(untimed) == 1


def test_all_kinds_of_tables_say_the_same(tmp_path: Path) -> None:
    rows = [
        {"batch": "batch-1", "time_s": 1.5, "until_s": None, "caption": "Flamme über"},
        {"batch": "batch-2", "time_s": "x", "until_s": None, "caption": ""},
        {"batch": "batch-1.mp4", "time_s": 9, "until_s": 12, "caption": "slag"},
    ]
    frame = pd.DataFrame(rows)
    frame.astype({"time_s": str}).to_csv(tmp_path / "a.csv", index=False, encoding="utf-8-sig")
    frame["time_s"] = [1.5, 0.0, 9.0]
    frame.to_parquet(tmp_path / "a.parquet", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for name in ("a.csv", "a.parquet", "a.jsonl"):
        found = supplied(tmp_path, (tmp_path / name).read_bytes(), name=name)
        assert rows_of(found) == [(1.5, 9.0, "Flamme über"), (9.0, 12.0, "slag")], name


def test_a_table_for_all_says_whose_each_sentence_is(tmp_path: Path) -> None:
    table = tmp_path / "all.csv"
    config = CaptionConfig(source="supplied", supplied=SuppliedConfig(table=str(table)))
    source = source_of(made_batch())
    table.write_text("batch,caption\nbatch-1,mine\nother,theirs\n")
    assert [each.caption for each in caption_directly(config, source)] == ["mine"]
    table.write_text("batch,caption\nother,theirs\n")
    assert caption_directly(config, source) == ()
    table.write_text("caption\nwhose?\n")
    with pytest.raises(UserError, match="column 'batch' is missing") as caught:
        caption_directly(config, source)
    assert not isinstance(caught.value, BadBatchError), "it is no batch's fault"
    table.unlink()
    with pytest.raises(UserError, match=r"all\.csv: is missing in") as caught:
        caption_directly(config, source)
    assert not isinstance(caught.value, BadBatchError)


def parquet(**columns: list[Any]) -> bytes:
    return bytes(pd.DataFrame(columns).to_parquet(index=False))


BAD: dict[str, tuple[str, str | bytes, str]] = {
    "nothing": ("c.csv", "", r"c\.csv: is empty \(0 bytes\)"),
    "no caption": ("c.csv", "time_s,captions\n1,a\n", "'caption' is missing; .* mean 'captions'"),
    "other time": ("c.csv", "time,caption\n1,a\n", "'time_s' is missing; .* mean 'time'"),
    "doubled": ("c.csv", "caption,caption\na,b\n", "a column is there twice"),
    "no number": ("c.csv", "time_s,caption\nsoon,a\n", "row 2, column time_s: 'soon' is no time"),
    "nan": ("c.csv", "time_s,caption\nNaN,a\n", "'NaN' is no time"),
    "infinite": ("c.csv", "time_s,caption\n1e999,a\n", "'1e999' is no time"),
    "underscore": ("c.csv", "time_s,caption\n1_0,a\n", "'1_0' is no time"),
    "backwards": (
        "c.csv",
        "time_s,until_s,caption\n9,3,a\n",
        "row 2: ends at 3 s, and begins at 9",
    ),
    "no time": ("c.csv", "time_s,until_s,caption\n9,9,a\n", "it has to end later"),
    "blank": ("c.csv", "time_s,caption\n1,  \n", "row 2, column caption: '  ' is no sentence"),
    "long": ("c.csv", f"caption\n{'a' * 10_001}\n", "holds 10001 characters; 10000 are allowed"),
    "huge": ("c.csv", f"caption\n{'a' * 200_000}\n", "cannot be read as CSV: field larger than"),
    "open quote": ("c.csv", 'caption\n"a\n', "cannot be read as CSV: unexpected end of data"),
    "comma": ("c.csv", "time_s,caption\n1,a,b\n", "row 2: has 3 cells where the header has 2"),
    "latin": ("c.csv", "caption\nglüht\n".encode("latin-1"), "is not UTF-8 text"),
    "nul": ("c.csv", "caption\na\0b\n", r"holds U\+0000"),
    "no batch": ("c.csv", "batch,caption\n,a\n", "row 2: does not say which batch"),
    "kind": ("c.xlsx", "PK", r"c\.xlsx: is no table; known are \.csv, \.parquet"),
    "no parquet": ("c.parquet", "PAR1", "is no Parquet table"),
    "torn parquet": ("c.parquet", parquet(caption=["a"])[:-40], "is no Parquet table"),
    "nan parquet": ("c.parquet", parquet(time_s=["soon"], caption=["a"]), "'soon' is no time"),
    "number": ("c.parquet", parquet(caption=[1.0]), "1.0 is no sentence"),
    "no json": ("c.jsonl", "{caption}\n", "line 1: is no JSON"),
    "deep json": ("c.jsonl", "[" * 200_000, "line 1: is no JSON"),
    "list": ("c.jsonl", "[]\n", "line 1: is list; an object"),
    "long line": ("c.jsonl", "x" * (1 << 21), "line 1: is longer than the 1048576 bytes"),
    "true": ("c.jsonl", '{"time_s": true, "caption": "a"}', "'True' is no time"),
    "nan json": ("c.jsonl", '{"time_s": NaN, "caption": "a"}', "'nan' is no time"),
    "large": ("c.jsonl", f'{{"time_s": 1{"0" * 400}, "caption": "a"}}', "is no time"),
    "surrogate": ("c.jsonl", '{"caption": "\\ud800"}', r"holds U\+D800"),
    "latin json": ("c.jsonl", b'{"caption": "\xfc"}', "line 1: is not UTF-8 text"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_table_leaves_its_batch_out_with_the_reason(tmp_path: Path, case: str) -> None:
    name, text, reason = BAD[case]
    with pytest.raises(BadBatchError, match=reason) as caught:
        supplied(tmp_path, text, name=name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_tables_are_looked_for_in_the_delivery_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text("caption\nsecret\n")
    inside = tmp_path / "batch-1"
    inside.mkdir()
    (inside / "link.csv").symlink_to(tmp_path / "secret.csv")
    with pytest.raises(UserError, match=r"is '\.\./secret\.csv', which leads out of the delivery"):
        supplied(inside, "", config=SuppliedConfig(table="../secret.csv"))
    with pytest.raises(BadBatchError, match="is no file name inside the batch's folder"):
        supplied(inside, "", config=SuppliedConfig(table="link.csv"))
    with pytest.raises(BadBatchError, match=r"notes\.csv: is missing in .*batch-1\. Deliver it"):
        supplied(inside, "", config=SuppliedConfig(table="notes.csv"))
    with pytest.raises(BadBatchError, match=r"column 'text' is missing; found caption\. Set "):
        supplied(inside, "caption\na\n", config=SuppliedConfig(caption="text"))
    assert supplied(inside, "caption\n") == ()


def test_a_shift_s_notes_arrive_with_their_batch(tmp_path: Path) -> None:
    folder = deliver(tmp_path / "arrivals")
    (folder / "captions.csv").write_text("time_s,caption\n12,slag rises\n30,flame\n")
    (source,) = ingested(tmp_path / "arrivals", tmp_path / "batches", adapter="arrival")
    found = caption_directly(CaptionConfig(source="supplied"), source)
    assert [each.caption for each in found] == ["slag rises", "flame"]
    assert [each.time_s for each in found] == [12.0, 30.0]


@pytest.mark.skipif(not GRID.is_dir(), reason="../shared/data/grid_av_text is absent")
def test_transcripts_of_real_clips_are_supplied(tmp_path: Path) -> None:
    config = CaptionConfig(
        source="supplied",
        supplied=SuppliedConfig(table="transcripts.csv", batch="file", caption="text"),
    )
    found = {
        source.batch_id: caption_directly(config, source)
        for source in ingested(GRID, tmp_path / "batches")
    }
    assert len(found) == 10
    assert all(len(captions) == 1 for captions in found.values())
    (one,) = found["bbaf2n"]
    assert one.caption == "bin blue at f two now"
    assert one.time_s == pytest.approx(0.0, abs=0.1)
    assert one.until_s == pytest.approx(3.0, abs=0.1)
    assert one.digest == hashlib.sha256((GRID / "transcripts.csv").read_bytes()).hexdigest()
