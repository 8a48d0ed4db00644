"""Sentences become the vectors that the vendor's own call gives, or hashes that mean the same in
every process."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_bert import POSITIONS, WIDTH, claim_to_be, make_tiny_bert

from crosswatch.data.originals import OriginalPlace
from crosswatch.data.store.settings import TransferConfig
from crosswatch.errors import UserError
from crosswatch.features.captioning.captions import Caption, write_captions
from crosswatch.features.encoder import Encoded, Input
from crosswatch.features.settings import DistilbertConfig, HashedConfig
from crosswatch.features.source import Source
from crosswatch.features.text.distilbert import DistilbertEncoder
from crosswatch.features.text.hashed import HashedEncoder, words_of
from crosswatch.records import WeightsConfig

SENTENCES = (
    "the robot arm lifts a red box",
    "video",
    "a box. a box, a box: the arm moves; nothing else moves in this video at all, as it seems",
    "The robot's arm MOVES 3 boxes",
)
text = st.text(st.sampled_from("abc xyz'.") | st.characters(exclude_categories=["Cs"]), max_size=40)
quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_bert(tmp_path_factory.mktemp("weights") / "bert")


@pytest.fixture(scope="module")
def model(weights: Path) -> Any:
    return distilbert(weights).load("cpu")


def distilbert(weights: Path, precision: str = "fp32", **others: Any) -> DistilbertEncoder:
    config = DistilbertConfig(weights=WeightsConfig(source=str(weights)), **others)
    return DistilbertEncoder(config, precision)


def encode(model: Any, texts: Sequence[str]) -> list[Encoded]:
    return list(model([{"text": sentence} for sentence in texts]))


def cosines(some: Any, others: Any) -> np.ndarray:
    lengths = np.linalg.norm(some, axis=-1) * np.linalg.norm(others, axis=-1)
    return np.asarray((some * others).sum(axis=-1) / lengths)


def captions(*texts: str) -> list[Caption]:
    return [
        Caption(
            time_s=float(at),
            until_s=at + 1.0,
            frame=-1,
            caption=sentence,
            explanation=f"Video shows: {sentence}",
            score=float("nan"),
            source="supplied",
            digest="",
        )
        for at, sentence in enumerate(texts)
    ]


def source(folder: Path, *texts: str) -> Source:
    file = folder / "captions.parquet"
    write_captions(file, captions(*texts))
    place = OriginalPlace(ingest={}, fetched=folder, transfer=TransferConfig())
    return Source(batch_id="b", batch_digest="d", folder=folder, place=place, captions_file=file)


@pytest.fixture(params=["distilbert", "hashed"])
def encoder(request: pytest.FixtureRequest, weights: Path) -> Any:
    """Makes either encoder of sentences with what both can set."""
    if request.param == "distilbert":
        return functools.partial(distilbert, weights)
    return lambda **others: HashedEncoder(HashedConfig(**others))


def test_a_row_is_a_caption_and_holds_for_its_time(encoder: Any, tmp_path: Path) -> None:
    said = source(tmp_path, "a red box", "the arm")
    spans = encoder().spans_s(said)
    assert spans.tolist() == [[0.0, 1.0], [1.0, 2.0]]
    texts = {
        which: [(row.row, row.values["text"]) for row in rows_of(encoder(text=which), said)]
        for which in ("caption", "explanation", "both")
    }
    assert texts == {
        "caption": [(0, "a red box"), (1, "the arm")],
        "explanation": [(0, "Video shows: a red box"), (1, "Video shows: the arm")],
        "both": [
            (0, "Video shows: a red box. a red box"),
            (1, "Video shows: the arm. the arm"),
        ],
    }


def rows_of(encoder: Any, said: Source) -> list[Input]:
    return list(encoder.inputs(said, np.arange(len(said.captions))))


def test_a_batch_without_captions_has_no_rows(encoder: Any, tmp_path: Path) -> None:
    silent = dataclasses.replace(source(tmp_path), captions_file=None)
    for said in (silent, source(tmp_path)):
        assert encoder().spans_s(said).shape == (0, 2)
        assert rows_of(encoder(), said) == []


def test_what_changes_a_vector_changes_the_identity(encoder: Any) -> None:
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"text": "both"},
        {"max_length": 9},
        {"tokens": False},
    )
    digests = {encoder(**change).identity.digest for change in changes}
    assert len(digests) == len(changes)
    assert encoder().identity.digest == encoder().identity.digest


def test_a_row_without_a_word_is_not_valid(encoder: Any) -> None:
    for row, empty in zip(
        encode(encoder().load("cpu"), ["the arm", " ", ""]), (0, 1, 1), strict=True
    ):
        for vector in row.values():
            assert vector.valid.all() != bool(empty)
            assert vector.values.any() != bool(empty)
            assert vector.values.shape[:-1] == vector.valid.shape
            assert vector.values.dtype == np.float32


def test_tokens_may_be_left_out(encoder: Any) -> None:
    with_tokens, without = (
        encode(encoder(tokens=tokens).load("cpu"), SENTENCES) for tokens in (True, False)
    )
    for full, one in zip(with_tokens, without, strict=True):
        ((name, vector),) = one.items()
        assert set(full) == {name, f"{name}_tokens"}
        np.testing.assert_array_equal(vector.values, full[name].values)


def test_no_more_than_max_length_is_read(encoder: Any) -> None:
    rows = encode(encoder(max_length=5).load("cpu"), SENTENCES)
    lengths = [len(row[name].valid) for row in rows for name in row if name.endswith("_tokens")]
    assert max(lengths) == 5
    assert min(lengths) < 5


@pytest.mark.parametrize(("precision", "least"), [("fp32", 0.999), ("bf16", 0.99), ("fp16", 0.99)])
def test_states_are_those_of_transformers(weights: Path, precision: str, least: float) -> None:
    from transformers import AutoModel, AutoTokenizer

    direct = AutoModel.from_pretrained(weights, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    ours = encode(distilbert(weights, precision).load("cpu"), SENTENCES)
    for sentence, row in zip(SENTENCES, ours, strict=True):
        tokens = tokenizer(sentence, return_tensors="pt", max_length=POSITIONS, truncation=True)
        states = direct(**tokens).last_hidden_state[0].detach().numpy()
        assert row["distilbert"].values.shape == (WIDTH,)
        assert row["distilbert_tokens"].values.shape == states.shape
        assert cosines(row["distilbert"].values, states[0]) >= least
        assert cosines(row["distilbert_tokens"].values, states).min() >= least


def test_a_sentence_may_be_the_mean_of_its_tokens(weights: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    direct = AutoModel.from_pretrained(weights, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(weights, local_files_only=True)
    by_mean, by_cls = (distilbert(weights, pool=pool) for pool in ("mean", "cls"))
    assert by_mean.identity.digest != by_cls.identity.digest
    texts = [*SENTENCES, " "]
    found, states_only = (encode(each.load("cpu"), texts) for each in (by_mean, by_cls))
    for sentence, row, other in zip(SENTENCES, found, states_only, strict=False):
        tokens = tokenizer(sentence, return_tensors="pt", max_length=POSITIONS, truncation=True)
        expected = direct(**tokens).last_hidden_state[0].mean(dim=0).detach().numpy()
        # Together the sentences are padded; what is padding would move the mean.
        np.testing.assert_allclose(row["distilbert"].values, expected, atol=2e-4)
        assert not np.allclose(row["distilbert"].values, other["distilbert"].values, atol=0.01)
        np.testing.assert_array_equal(
            row["distilbert_tokens"].values, other["distilbert_tokens"].values
        )
    assert not found[-1]["distilbert"].valid
    assert not found[-1]["distilbert"].values.any()


@quick
@given(texts=st.lists(st.sampled_from(SENTENCES) | text, min_size=1, max_size=6), data=st.data())
def test_neighbours_change_no_state(model: Any, texts: list[str], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    together = encode(model, [texts[at] for at in order])
    for at, row in zip(order, together, strict=True):
        (alone,) = encode(model, [texts[at]])
        for name, vector in row.items():
            np.testing.assert_array_equal(vector.valid, alone[name].valid)
            # Matrices of other sizes round otherwise; what leaks in moves a state by 0.1 or more.
            np.testing.assert_allclose(vector.values, alone[name].values, atol=2e-4)


def test_more_tokens_than_positions_are_cut(weights: Path) -> None:
    (row,) = encode(distilbert(weights, max_length=512).load("cpu"), ["a " * 500])
    assert len(row["distilbert_tokens"].valid) == POSITIONS


def test_other_weights_are_another_identity(weights: Path, tmp_path: Path) -> None:
    same = shutil.copytree(weights, tmp_path / "same")
    other = make_tiny_bert(tmp_path / "other", seed=1)
    identity = distilbert(weights).identity
    assert distilbert(same).identity == identity
    assert distilbert(other).identity.weights != identity.weights
    assert distilbert(weights, "bf16").identity.digest != identity.digest


def test_older_formats_load_alike(model: Any, tmp_path: Path) -> None:
    older = distilbert(make_tiny_bert(tmp_path / "older", safetensors=False)).load("cpu")
    for row, same in zip(encode(older, SENTENCES), encode(model, SENTENCES), strict=True):
        np.testing.assert_array_equal(row["distilbert"].values, same["distilbert"].values)


def test_a_model_asks_for_no_gradient_and_drops_nothing(weights: Path) -> None:
    model = distilbert(weights).load("cpu")
    first, second = (encode(model, SENTENCES)[0]["distilbert"].values for _ in range(2))
    np.testing.assert_array_equal(first, second)


def remove_tensors(folder: Path) -> None:
    rewrite(folder, {name: None for name in tensors(folder) if ".layer.1." in name})


def reshape_a_tensor(folder: Path) -> None:
    rewrite(folder, {"transformer.layer.0.ffn.lin1.bias": np.zeros(3, np.float32)})


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(folder / "model.safetensors"))


def rewrite(folder: Path, changes: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    kept = {name: value for name, value in (tensors(folder) | changes).items() if value is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:4000])


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("was-run",)


def pickle_code(folder: Path) -> None:
    import torch

    (folder / "model.safetensors").unlink()
    torch.save({"weight": RunsCode()}, folder / "pytorch_model.bin")


def swap_tokenizer(folder: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text())
    words = described["model"]["vocab"]
    words.update({f"more{at}": len(words) + at for at in range(9)})
    (folder / "tokenizer.json").write_text(json.dumps(described))


FAULTS = {
    "another architecture": (
        functools.partial(claim_to_be, model_type="blip"),
        "is a blip; a dist",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
    "damaged config": (lambda folder: (folder / "config.json").write_text("{"), "is damaged"),
    "missing tensors": (remove_tensors, r"lacks transformer\.layer\.1.* and 13 more, so parts"),
    "another shape": (reshape_a_tensor, r"lin1\.bias \[3\] instead of \[64\]"),
    "cut short": (cut_short, "cannot be loaded: .*fetch it again"),
    "a pickle that runs code": (pickle_code, r"which could run code; it was not run"),
    "no tokenizer": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        "holds none of tokenizer",
    ),
    "another's tokenizer": (swap_tokenizer, r"tokenizer of \d+ tokens; the model knows \d+"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_weights_that_do_not_fit_are_refused(
    fault: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spoil, words = FAULTS[fault]
    folder = shutil.copytree(weights, tmp_path / "spoilt")
    spoil(folder)
    with pytest.raises(
        UserError, match=rf"features\.distilbert\.weights\.source: .*{words}"
    ) as told:
        distilbert(folder).load("cpu")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "was-run").exists()


def test_a_single_file_is_no_distilbert(weights: Path) -> None:
    with pytest.raises(UserError, match="is a file; a folder of a distilbert model"):
        distilbert(weights / "model.safetensors").load("cpu")


def test_no_weights_names_the_way_without() -> None:
    with pytest.raises(UserError, match=r"names no weights\. .*encoders=\[image, hashed\]"):
        _ = DistilbertEncoder(DistilbertConfig()).identity


def hashes(texts: Sequence[str], **config: Any) -> list[Encoded]:
    return encode(HashedEncoder(HashedConfig(**config)).load("cpu"), texts)


@quick
@given(texts=st.lists(text, min_size=1, max_size=5), width=st.integers(8, 600))
@example(texts=["\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}", "a'b", "'", "_"], width=8)
def test_what_is_hashed_has_length_one(texts: list[str], width: int) -> None:
    for sentence, row in zip(texts, hashes(texts, width=width), strict=True):
        assert row["hashed"].values.shape == (width,)
        for vector in row.values():
            lengths = np.linalg.norm(vector.values, axis=-1)
            np.testing.assert_allclose(lengths, vector.valid, atol=1e-6)
        assert len(row["hashed_tokens"].valid) == max(1, len(words_of(sentence)[:30]))


@quick
@given(texts=st.lists(text, min_size=1, max_size=5))
def test_neighbours_change_no_hash(texts: list[str]) -> None:
    for sentence, row in zip(texts, hashes(texts), strict=True):
        (alone,) = hashes([sentence])
        for name, vector in row.items():
            np.testing.assert_array_equal(vector.values, alone[name].values)


def test_hashes_are_the_same_in_every_process() -> None:
    script = (
        "import hashlib; from crosswatch.features.text.hashed import Hashed;"
        "from crosswatch.features.settings import HashedConfig;"
        f"rows = Hashed(HashedConfig())([{{'text': text}} for text in {SENTENCES!r}]);"
        "data = b''.join(v.values.tobytes() for row in rows for v in row.values());"
        "print(hashlib.sha256(data).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(digests) == 1


def test_order_matters_with_pairs_of_words_only() -> None:
    one_way, other_way = "the arm moves the box", "the box moves the arm"
    for words, alike in ((1, True), (2, False)):
        first, second = (row["hashed"].values for row in hashes([one_way, other_way], words=words))
        assert np.array_equal(first, second) == alike


def test_case_and_punctuation_do_not_matter() -> None:
    spellings = [
        "The robot's arm!",
        "the ROBOT\N{RIGHT SINGLE QUOTATION MARK}S arm",
        "the, robot's (arm)",
    ]
    first, *others = (row["hashed_tokens"].values for row in hashes(spellings))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_words_of_any_script_are_words() -> None:
    assert words_of("Cafe\N{COMBINING ACUTE ACCENT} \u043a\u043e\u0442, 42!") == [
        "caf\u00e9",
        "\u043a\u043e\u0442",
        "42",
    ]


def test_words_that_share_letters_are_near() -> None:
    ((row),) = hashes(["moving moved conveyor"])
    moving, moved, conveyor = row["hashed_tokens"].values
    assert moving @ moved > 0.2 > abs(moving @ conveyor)


def test_sentences_that_share_words_are_near() -> None:
    one, near, far = (
        row["hashed"].values
        for row in hashes(
            ["the arm lifts a red box", "the arm lifts a blue box", "smoke everywhere"]
        )
    )
    assert one @ near > 0.5 > abs(one @ far)
