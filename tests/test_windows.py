"""Laws of windows and splits: whole history, one instant at the end, no leak between blocks."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import batch

from crosswatch.data.batches import BatchSet
from crosswatch.data.gather import windows_of
from crosswatch.data.splits import SplitConfig, evaluation_set, split
from crosswatch.data.windows import WindowConfig, block_of, check_windows, window_table
from crosswatch.errors import BadBatchError, UserError
from crosswatch.records import BLOCKS

configs = st.builds(
    WindowConfig,
    frames=st.integers(1, 8),
    stride=st.integers(1, 5),
    signal_s=st.floats(0.5, 12.0),
    per_second=st.sampled_from([0.5, 1.0, 2.0]),
)


def set_of(*batches, windows: WindowConfig, config: SplitConfig | None = None) -> BatchSet:
    config = config or SplitConfig()
    ranges = tuple(r for b in batches for r in split(b, windows=windows, config=config))
    return BatchSet(
        digest="s",
        batches=batches,
        classes=("normal", "bad"),
        ranges=ranges,
        evaluation_set=evaluation_set(ranges),
    )


@settings(deadline=None, max_examples=60)
@given(windows=configs, seconds=st.floats(40.0, 90.0))
def test_a_window_ends_at_its_instant_and_has_its_whole_history(
    windows: WindowConfig, seconds: float
) -> None:
    made = batch(seconds=seconds)
    table = window_table(made, windows)
    assert len(table)
    last_frame = made.frame_times[table.last_frame]
    last_sample = made.signal_times[table.signal_stop - 1]
    assert np.abs(last_frame - table.end_s).max() <= 0.5 / made.video_rate_hz + 1e-9
    np.testing.assert_allclose(last_sample, table.end_s, atol=1e-9)
    assert table.samples == round(windows.signal_s * made.signal_rate_hz)
    assert (table.signal_stop - table.samples).min() >= 0
    steps = np.diff(made.frame_times[table.frames], axis=1)
    np.testing.assert_allclose(steps, windows.stride / made.video_rate_hz, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(windows=configs, seconds=st.floats(70.0, 120.0))
def test_no_window_of_a_block_reaches_into_an_earlier_block(
    windows: WindowConfig, seconds: float
) -> None:
    made = batch(seconds=seconds)
    batch_set = set_of(made, windows=windows)
    table = window_table(made, windows)
    blocks = [block_of(table, batch_set, made, block) for block in BLOCKS]
    for earlier, later in itertools.pairwise(blocks):
        first_sample = made.signal_times[later.signal_stop - later.samples]
        first_frame = made.frame_times[later.frames[:, 0]]
        assert first_sample.min() >= earlier.end_s.max() - 0.5 / made.signal_rate_hz
        assert first_frame.min() >= earlier.end_s.max() - 0.5 / made.video_rate_hz
    together = np.concatenate([block.end_s for block in blocks])
    spans = batch_set.ranges_of(made)
    outside = [any(span.start_s <= end < span.stop_s for span in spans) for end in table.end_s]
    assert len(np.unique(together)) == len(together) == sum(outside)


def test_blocks_have_the_stated_shares_behind_two_guards_of_the_longest_window() -> None:
    windows = WindowConfig(frames=4, stride=2, signal_s=6.0)
    made = batch(seconds=112.5)
    train, validation, evaluation = split(made, windows=windows, config=SplitConfig())
    usable = made.span_s[1] - made.span_s[0] - 2 * 6.0
    assert train.stop_s - train.start_s == pytest.approx(0.60 * usable, abs=1e-3)
    assert validation.stop_s - validation.start_s == pytest.approx(0.15 * usable, abs=1e-3)
    assert evaluation.stop_s - evaluation.start_s == pytest.approx(0.25 * usable, abs=1e-3)
    assert validation.start_s - train.stop_s == pytest.approx(6.0)
    assert evaluation.start_s - validation.stop_s == pytest.approx(6.0)


def test_a_window_over_a_hole_is_left_out() -> None:
    windows = WindowConfig(frames=4, stride=2, signal_s=2.0)
    whole, holed = batch(), batch(drop=slice(300, 320))
    missing = set(window_table(whole, windows).end_s) - set(window_table(holed, windows).end_s)
    assert missing
    assert all(30.0 < end < 33.0 for end in missing)


@settings(deadline=None, max_examples=60)
@given(windows=configs, seconds=st.floats(5.0, 60.0), cut=st.floats(2.0, 50.0))
def test_what_a_beginning_lacks_is_skipped_or_its_first_is_repeated(
    windows: WindowConfig, seconds: float, cut: float
) -> None:
    segments = ((0.0, min(cut, seconds) - 0.5), (min(cut, seconds), seconds))
    made = batch(seconds=seconds, segments=segments)
    clamped = window_table(made, dataclasses.replace(windows, early="clamp"))
    skipped = window_table(made, windows)
    assert set(skipped.end_s) <= set(clamped.end_s)
    both = np.isin(clamped.end_s, skipped.end_s)
    np.testing.assert_array_equal(clamped.frames[both], skipped.frames)
    rows = clamped.sample_rows(np.arange(len(clamped)))
    np.testing.assert_array_equal(rows[both], skipped.sample_rows(np.arange(len(skipped))))
    starts = np.array([start for start, _ in segments])[clamped.segment]
    assert (made.frame_times[clamped.frames] >= starts[:, None] - 0.06).all()
    assert (made.signal_times[rows] >= starts[:, None] - 0.25).all()
    assert (rows[:, -1] == clamped.signal_stop - 1).all()
    assert (np.diff(rows, axis=1) >= 0).all()
    assert (np.diff(clamped.frames, axis=1) >= 0).all()


def test_no_window_crosses_from_one_recording_into_the_next() -> None:
    segments = ((0.0, 19.5), (20.0, 39.5), (40.0, 59.5))
    windows = WindowConfig(frames=0, signal_s=5.0)
    made = batch(video_hz=0.0, segments=segments)
    table = window_table(made, windows)
    starts = made.signal_times[table.signal_stop - table.samples]
    for number, (start, stop) in enumerate(segments):
        mine = table.segment == number
        assert mine.sum() == 31
        assert starts[mine].min() >= start
        assert table.end_s[mine].max() <= stop


def test_split_by_batch_gives_whole_batches() -> None:
    windows = WindowConfig(frames=0, signal_s=5.0)
    made = [batch(video_hz=0.0, batch_id=f"b{n}") for n in range(3)]
    config = SplitConfig(by="batch", validation=("b1",), evaluation=("b2",))
    batch_set = set_of(*made, windows=windows, config=config)
    for block, name in zip(BLOCKS, ("b0", "b1", "b2"), strict=True):
        found = windows_of(batch_set, windows, block)
        assert {found.batches[n].id for n in found.batch_N} == {name}
        assert len(found) == len(window_table(made[0], windows))


def test_gathered_windows_are_the_frames_and_samples_of_their_rows() -> None:
    windows = WindowConfig(frames=3, stride=2, signal_s=2.0)
    made = (batch(), batch(batch_id="batch-2", seconds=70.0))
    found = windows_of(set_of(*made, windows=windows), windows, "train")
    rows = np.random.default_rng(0).permutation(len(found))[:7]
    video, signal = found.video(rows), found.signal(rows)
    assert video.shape == (7, 3, 16, 16, 3)
    assert signal.shape == (7, 4, 3)
    for at, row in enumerate(rows):
        table = found.tables[found.batch_N[row]]
        mine = found.row_N[row]
        np.testing.assert_array_equal(video[at, :, 0, 0, 0], table.frames[mine] % 256)
        stop = table.signal_stop[mine]
        np.testing.assert_array_equal(signal[at, :, 0], np.arange(stop - 4, stop))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BadBatchError, match=r"lasts 59.5 s, and two guards of 40.0 s"):
        split(batch(), windows=WindowConfig(frames=2, signal_s=40.0), config=SplitConfig())
    with pytest.raises(UserError, match=r"has no video, but windows.frames is 10"):
        window_table(batch(video_hz=0.0), WindowConfig())
    with pytest.raises(UserError, match=r"has no signal, but windows.signal_s is 60.0"):
        window_table(batch(signal_hz=0.0), WindowConfig())
    with pytest.raises(UserError, match="one has to be above 0"):
        WindowConfig(frames=0, signal_s=0.0)
    with pytest.raises(UserError, match="leave no evaluation block"):
        SplitConfig(train_share=0.8, validation_share=0.2)


def test_the_evaluation_set_changes_with_its_batches_and_only_with_them() -> None:
    windows = WindowConfig(frames=2, signal_s=4.0)
    one, two = batch(), batch(batch_id="batch-2")
    alone = set_of(one, windows=windows).evaluation_set["digest"]
    assert set_of(one, windows=windows).evaluation_set["digest"] == alone
    assert set_of(one, two, windows=windows).evaluation_set["digest"] != alone


def test_a_batch_without_a_window_is_told_why() -> None:
    check_windows(batch(seconds=70.0), WindowConfig(frames=2))
    with pytest.raises(UserError, match=r"needs 60\.0 s .*; the longest of its 1 stretches lasts"):
        check_windows(batch(seconds=40.0), WindowConfig(frames=2))
    with pytest.raises(UserError, match=r"has no video, but windows.frames is 2"):
        check_windows(batch(video_hz=0.0), WindowConfig(frames=2))
    made = batch(seconds=90.0)
    slow = dataclasses.replace(made, signal_times=made.signal_times * 1.05)
    with pytest.raises(
        UserError,
        match=r"60 s at the declared 2 Hz are 120 samples; by their times they span 63\.0 s, and "
        r"1 s of difference are allowed\. Correct the signal's rate_hz",
    ):
        check_windows(slow, WindowConfig(frames=2))
