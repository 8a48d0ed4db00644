"""Word vectors from files as word2vec writes them: what is wanted, once through, or a reason."""

import dataclasses
import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_text_encoders import source

from crosswatch import artifacts
from crosswatch.errors import UserError
from crosswatch.features.encoder import Vector
from crosswatch.features.settings import Word2vecConfig
from crosswatch.features.text import word_vectors
from crosswatch.features.text.word2vec import TOKENS, Word2vecEncoder, words_of
from crosswatch.features.text.word_vectors import read_vectors
from crosswatch.records import WeightsConfig

Vectors = Mapping[str, np.ndarray]
WORDS = ("</s>", "the", "The", "arm", "arm's", "box", "red", "New_York", "größe")
KINDS = (".bin", ".bin.gz", ".vec", ".txt", ".txt.gz")


def some_vectors(words: tuple[str, ...] = WORDS, width: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)
    return {word: rng.standard_normal(width).astype(np.float32) for word in words}


def as_binary(vectors: Vectors, *, ends: bytes = b"") -> bytes:
    width = len(next(iter(vectors.values())))
    entries = (word.encode() + b" " + vector.tobytes() + ends for word, vector in vectors.items())
    return f"{len(vectors)} {width}\n".encode() + b"".join(entries)


def as_text(vectors: Vectors, *, header: bool = True) -> bytes:
    width = len(next(iter(vectors.values())))
    lines = [f"{len(vectors)} {width}"] if header else []
    lines += [" ".join([word, *map(repr, vector.tolist())]) for word, vector in vectors.items()]
    return ("\n".join(lines) + "\n").encode()


def write(path: Path, vectors: Vectors) -> Path:
    data = as_binary(vectors) if ".bin" in path.name else as_text(vectors)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def encoder(weights: Path | str, *texts: str, folder: Path, **others: Any) -> Word2vecEncoder:
    config = Word2vecConfig(weights=WeightsConfig(source=str(weights)), **others)
    return Word2vecEncoder.of(config, [source(folder, *texts)])


def encoded(made: Word2vecEncoder, *texts: str) -> list[Vector]:
    return [row[TOKENS] for row in made.load("cpu")([{"text": text} for text in texts])]


words = st.text(st.sampled_from("abcdeé'_-"), min_size=1, max_size=6)


@settings(deadline=None, max_examples=60)
@given(
    words=st.lists(words, min_size=1, max_size=30, unique=True), width=st.integers(3, 9),
    data=st.data(), piece=st.integers(100, 400), ends=st.sampled_from([b"", b"\n"]),
)  # fmt: skip
def test_what_is_wanted_is_found_in_any_form_of_the_file(
    words: list[str],
    width: int,
    data: st.DataObject,
    piece: int,
    ends: bytes,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("vectors")
    vectors = some_vectors(tuple(words), width)
    wanted = set(data.draw(st.lists(st.sampled_from(words)))) | {"never-heard"}
    forms = {
        "a.bin": as_binary(vectors, ends=ends),
        "a.bin.gz": gzip.compress(as_binary(vectors, ends=ends)),
        "a.vec": as_text(vectors),
        "a.txt": as_text(vectors, header=False),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(word_vectors, "PIECE", piece)  # words lie across the pieces
        for name, contents in forms.items():
            (folder / name).write_bytes(contents)
            found, wide = read_vectors(folder / name, wanted)
            assert wide == width
            assert set(found) == wanted & set(words)
            for word, vector in found.items():
                np.testing.assert_array_equal(vector, vectors[word])
                assert vector.dtype == np.float32
                assert vector.flags.owndata, "nothing of the file is held"


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_is_its_known_words_as_they_are_written(tmp_path: Path, kind: str) -> None:
    vectors = some_vectors()
    weights = write(tmp_path / f"words{kind}", vectors)
    texts = ("The arm, the ARM! arm's red box?", "nothing known", "", "New_York größe")
    made = encoder(weights, *texts, folder=tmp_path)
    expected = (["The", "arm", "the", "arm's", "red", "box"], [], [], ["New_York", "größe"])
    for vector, known in zip(encoded(made, *texts), expected, strict=True):
        assert vector.valid.all() == bool(known)
        if known:
            np.testing.assert_array_equal(vector.values, [vectors[word] for word in known])
        assert vector.values.shape == (max(1, len(known)), 5)
        assert vector.valid.shape == vector.values.shape[:1]
        assert vector.values.any() == bool(known)


def test_words_of_is_the_released_rule() -> None:
    assert words_of("It's a dog's-life, isn't it? U.S. 3-D _x_") == [
        "It's", "a", "dog's", "life", "isn't", "it", "U", "S", "3", "D", "_x_"
    ]  # fmt: skip


def test_the_first_known_words_count_and_unknown_ones_take_no_place(tmp_path: Path) -> None:
    vectors = some_vectors()
    weights = write(tmp_path / "words.bin", vectors)
    text = "unheard of box unheard the red arm"
    (tokens,) = encoded(encoder(weights, text, folder=tmp_path, max_length=3), text)
    np.testing.assert_array_equal(tokens.values, [vectors[word] for word in ("box", "the", "red")])


def test_only_words_of_the_captions_are_kept(tmp_path: Path) -> None:
    weights = write(tmp_path / "words.bin", some_vectors())
    made = encoder(weights, "the box", folder=tmp_path)
    assert made.words == {"the", "box"}
    ((arm_and_box),) = encoded(made, "arm box")
    assert len(arm_and_box.values) == 1, "it was never told of the arm"
    explained = encoder(weights, "the box", folder=tmp_path, text="explanation")
    assert explained.words == {"Video", "shows", "the", "box"}


def test_what_changes_a_vector_changes_the_identity_and_captions_do_not(tmp_path: Path) -> None:
    weights = write(tmp_path / "words.bin", some_vectors())
    other = write(tmp_path / "other.bin", some_vectors(WORDS[:-1]))
    made = encoder(weights, "the box", folder=tmp_path)
    changed = [
        encoder(weights, "the box", folder=tmp_path, max_length=5),
        encoder(weights, "the box", folder=tmp_path, text="both"),
        encoder(other, "the box", folder=tmp_path),
    ]
    assert len({each.identity.digest for each in (made, *changed)}) == 4
    assert encoder(weights, "an arm", folder=tmp_path).identity == made.identity
    assert made.identity.weights == artifacts.sha256_of(weights)


def test_a_word_that_comes_twice_is_its_first(tmp_path: Path) -> None:
    one, two = np.ones(3, np.float32), np.full(3, 2, np.float32)
    data = b"2 3\n" + b"".join(b"arm " + vector.tobytes() for vector in (one, two))
    (tmp_path / "words.bin").write_bytes(data)
    found, _ = read_vectors(tmp_path / "words.bin", {"arm"})
    assert found["arm"].tolist() == [1, 1, 1]


WHOLE = as_binary(some_vectors())
NAN = as_binary(some_vectors() | {"arm": np.full(5, np.nan, np.float32)})
TEXT = as_text(some_vectors())


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.bin", b"", "begins with b''; expected the numbers of words"),
        ("a.bin", b"nine 5\n", "begins with b'nine 5"),
        ("a.bin", b"9 5", "begins with b'9 5'"),
        ("a.bin", b"0 5\n", "tells of 0 words of 5 numbers"),
        ("a.bin", b"9 20000\n", "tells of 9 words of 20000 numbers"),
        ("a.bin", WHOLE[:-1], "ends behind 8 of 9 words"),
        ("a.bin", WHOLE[:50], "ends behind 1 of 9 words"),
        ("a.bin", WHOLE + b"more", "goes on behind its 9 words"),
        ("a.bin", b"9 5\n" + b"x" * 5000, "word 1 is longer than 4096 bytes"),
        ("a.bin", NAN, r"vector of b'arm' holds NaN or infinity"),
        ("a.bin.gz", WHOLE, "Not a gzipped file"),
        ("a.bin.gz", gzip.compress(WHOLE)[:-9], "is damaged, or no .bin: Compressed file ended"),
        ("a.vec", b"", "begins with b''; expected a word and its numbers"),
        ("a.vec", b"9 five\n", "begins with b'9 five"),
        ("a.vec", TEXT[: TEXT.rindex(b"New_York")], "holds 7 words; its first line says 9"),
        ("a.vec", TEXT.replace(b"box ", b"box"), "word 6 has 4 numbers; expected 5"),
        ("a.vec", b"1 2\narm 1 one\n", "word 1: could not convert"),
        ("a.vec", b"1 2\narm 1 nan\n", "vector of b'arm' holds NaN"),
        ("a.kv", WHOLE, "no file of word vectors by its name; known are .bin, .vec, .txt, each"),
    ],
    ids=range(19),
)  # fmt: skip
def test_files_that_are_no_word_vectors_are_refused(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=words) as refused:
        read_vectors(tmp_path / name, {"arm"})
    assert "\n" not in str(refused.value)


def test_missing_weights_are_refused_with_how_to_get_them(tmp_path: Path) -> None:
    for weights, words in (
        ("", "features.word2vec.weights.source names no weights. Expected GoogleNews-vectors"),
        (str(tmp_path / "no.bin"), "there is no .*no.bin, nor is that a hub name .*code.google"),
    ):
        with pytest.raises(UserError, match=words):
            _ = encoder(weights, "the box", folder=tmp_path).identity
    (tmp_path / "folder").mkdir()
    write(tmp_path / "folder" / "model.bin", some_vectors())
    with pytest.raises(UserError, match=re.escape("folder is a folder. Name the file in it.")):
        _ = encoder(tmp_path / "folder", "the box", folder=tmp_path).identity
    weights = write(tmp_path / "words.bin", some_vectors())
    made = encoder(weights, "the box", folder=tmp_path)
    held = dataclasses.replace(made.config.weights, sha256="0" * 64)
    with pytest.raises(UserError, match="sha256 is 000"):
        _ = dataclasses.replace(
            made, config=dataclasses.replace(made.config, weights=held)
        ).identity
    with pytest.raises(UserError, match="max_length is 0; allowed 1 and above"):
        Word2vecConfig(max_length=0)
