"""How rows of features become tokens: joined in time, brought to length 1, cut, pooled, chunked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswatch.examples import example
from crosswatch.examples.example import in_chunks
from crosswatch.examples.reading import Reading
from crosswatch.examples.streams import BatchStream
from crosswatch.features.schema import Feature
from crosswatch.models.detector import Scale
from crosswatch.models.settings.common import Stream


def rows_from(*starts_s: float, lasts_s: float = 1.0, width: int = 2) -> Feature:
    starts = np.array(starts_s)
    return Feature(
        values=np.repeat(starts[:, None] + 1, width, axis=1).astype(np.float32),
        valid=np.ones(len(starts), bool),
        spans_s=np.stack([starts, starts + lasts_s], axis=1),
    )


def joined(*parts: Feature) -> BatchStream:
    names = tuple(f"part{number}" for number in range(len(parts)))
    stream = Stream(name="visual", modalities=names, most=9)
    return BatchStream(stream=stream, parts=parts, widths=(2,) * len(parts))


def test_only_rows_near_in_time_are_joined() -> None:
    stream = joined(rows_from(*range(10)), rows_from(0, 8))
    values, valid = stream.tokens(stream.rows(0, 10))
    # A row lasts 1 s: what ended or begins no more than 1 s from its middle still tells of it.
    assert valid.tolist() == [True, True, False, False, False, False, False, True, True, True]
    assert values[:2, 2].tolist() == [1, 1]
    assert values[7:, 2].tolist() == [9, 9, 9]
    assert not values[2:7, 2:].any()
    np.testing.assert_array_equal(stream.valid(stream.rows(0, 10)), valid)


def test_a_part_without_any_row_leaves_none_valid() -> None:
    stream = joined(rows_from(*range(3)), rows_from())
    values, valid = stream.tokens(stream.rows(0, 3))
    assert values.shape == (3, 4)
    assert not valid.any()


def test_each_part_gets_length_1_before_pooling_and_scaling() -> None:
    stream = Stream(name="video", modalities=("a", "b"), most=1, shorten="pool", unit=True)
    scale = Scale(mean=(0.0, 0.0, 1.0), deviation=(1.0, 1.0, 2.0))
    reading = Reading(stream=stream, parts=(2, 1), scale=scale, pools=True)
    values = np.array([[3, 4, 7], [0, 5, 9]], np.float32)
    np.testing.assert_allclose(reading.read(values), [[0.3, 0.9, 0.0]], atol=1e-6)
    unpooled = Reading(stream=stream, parts=(2, 1), scale=None, pools=False)
    np.testing.assert_allclose(unpooled.read(values), [[0.6, 0.8, 1], [0, 1, 1]], atol=1e-6)
    assert unpooled.tokens([values, values[:0]]).valid_BL.tolist() == [[True] * 2, [False] * 2]


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 8), st.integers(1, 120))
def test_chunks_hold_every_row_in_order_and_no_more_places_than_allowed(
    lengths: list[int], size: int, places: int
) -> None:
    rows = np.arange(len(lengths)) + 7
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "PLACES", places)
        chunks = in_chunks(rows, size, lengths)
    assert [row for chunk in chunks for row in chunk] == rows.tolist()
    for chunk in chunks:
        longest = max(lengths[row - 7] for row in chunk)
        assert len(chunk) <= size
        assert len(chunk) == 1 or len(chunk) * longest <= places
