"""Files of word vectors, read once from the first byte to the last, keeping what is wanted.

    .bin        WORDS WIDTH, then of each word its name, a space, and float32 (little-endian)
    .vec, .txt  WORDS WIDTH (GloVe's have no such line), then a line a word: its name, and numbers

Either may be compressed (.gz). GoogleNews has 3 million words of 300 numbers: 3.6 GB.
"""

import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from crosswatch.errors import UserError

Floats = npt.NDArray[np.float32]
Stream = io.BufferedReader | gzip.GzipFile
Found = tuple[bytes, Floats]

PIECE = 4 << 20  # bytes that are read at once
LONGEST = 4096  # bytes of a word
WIDEST = 10_000
AGAIN = "Fetch it again."


class _DamagedError(ValueError):
    """What is wrong with the file, without its name."""


def read_vectors(path: Path, words: Collection[str]) -> tuple[dict[str, Floats], int]:
    """Vectors of those words that the file knows, and how wide all are; the first counts of a word
    that comes twice.

    Raises:
        UserError: the file is of another kind, truncated or damaged.
    """
    compressed = path.suffix == ".gz"
    kind = Path(path.stem).suffix if compressed else path.suffix
    if kind not in READERS:
        raise UserError(
            f"{path}: is no file of word vectors by its name; known are {', '.join(READERS)}, each "
            "also with .gz behind it. Rename it."
        )
    wanted = {word.encode(): word for word in words}
    vectors: dict[str, Floats] = {}
    try:
        with path.open("rb") as file, gzip.open(file) if compressed else file as stream:
            width, found = READERS[kind](stream, wanted.keys())
            for name, vector in found:
                if not np.isfinite(vector).all():
                    raise _DamagedError(f"the vector of {name!r:.60} holds NaN or infinity")
                vectors.setdefault(wanted[name], vector)
    except (_DamagedError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: is damaged, or no {kind}: {error}. {AGAIN}") from error
    return vectors, width


def _sizes(line: bytes) -> tuple[int, int]:
    """Of the first line."""
    parts = line.split()
    if not line.endswith(b"\n") or len(parts) != 2 or not all(part.isdigit() for part in parts):
        raise _DamagedError(
            f"it begins with {line[:40]!r}; expected the numbers of words and of floats"
        )
    count, width = map(int, parts)
    if not count or not 0 < width <= WIDEST:
        raise _DamagedError(f"it tells of {count} words of {width} numbers")
    return count, width


def _binary(stream: Stream, wanted: Collection[bytes]) -> tuple[int, Iterator[Found]]:
    count, width = _sizes(stream.readline(LONGEST))
    return width, _of_binary(stream, wanted, count, width)


def _of_binary(
    stream: Stream, wanted: Collection[bytes], count: int, width: int
) -> Iterator[Found]:
    size = 4 * width
    held, at = b"", 0
    for number in range(count):
        space = held.find(b" ", at, at + LONGEST)
        if space < 0 or len(held) - space <= size:
            held, at = held[at:] + stream.read(PIECE), 0
            space = held.find(b" ", 0, LONGEST)
            if space < 0 and len(held) >= LONGEST:
                raise _DamagedError(f"word {number + 1} is longer than {LONGEST} bytes")
            if space < 0 or len(held) - space <= size:
                raise _DamagedError(f"it ends behind {number} of {count} words")
        name = held[at:space].lstrip(b"\n")  # some writers end a vector with one
        at = space + 1 + size
        if name in wanted:
            yield name, np.frombuffer(held, "<f4", width, space + 1).astype(np.float32)
    if (held[at:] + stream.read(PIECE)).strip():
        raise _DamagedError(f"it goes on behind its {count} words")


def _text(stream: Stream, wanted: Collection[bytes]) -> tuple[int, Iterator[Found]]:
    first = stream.readline(LONGEST + 32 * WIDEST)
    cells = first.split()
    if len(cells) == 2:
        count, width = _sizes(first)
        return width, _of_lines(stream, wanted, width, count)
    if len(cells) < 2:
        raise _DamagedError(f"it begins with {first[:40]!r}; expected a word and its numbers")
    width = len(cells) - 1
    return width, _of_lines(itertools.chain([first], stream), wanted, width, None)


def _of_lines(
    lines: Iterator[bytes], wanted: Collection[bytes], width: int, count: int | None
) -> Iterator[Found]:
    number = 0
    for number, line in enumerate(lines, start=1):
        if line.rstrip().count(b" ") < width:
            raise _DamagedError(
                f"word {number} has {len(line.split()) - 1} numbers; expected {width}"
            )
        if line.partition(b" ")[0] not in wanted:
            continue
        name, *cells = line.rstrip().rsplit(b" ", width)
        if name in wanted:
            try:
                yield name, np.array(cells, np.float32)
            except ValueError as error:
                raise _DamagedError(f"word {number}: {error}") from error
    if count is not None and number != count:
        raise _DamagedError(f"it holds {number} words; its first line says {count}")


READERS: dict[str, Callable[[Stream, Collection[bytes]], tuple[int, Iterator[Found]]]] = {
    ".bin": _binary,
    ".vec": _text,
    ".txt": _text,
}
