"""Times however they are written and broken: what is mended is mended exactly."""

import datetime
import zoneinfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.times.stamps import TimeEntry, read_stamps, rising_edges, spread, unwrap
from crosswatch.data.times.unfold import MOST_RESETS, late_s, unfold
from crosswatch.errors import BadBatchError, ResourceError, UserError

RATE_HZ = 25.0
START = datetime.datetime(2025, 1, 6, 6, tzinfo=datetime.UTC)
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kolkata",  # none
    "America/Santiago",  # at midnight
    "Africa/Casablanca",  # forward in autumn
)
ENOUGH = settings(max_examples=60, deadline=None)
rates_hz = st.sampled_from([0.1, 2.0, 25.0, 1000.0])


def rising(count: int, *, rate_hz: float = RATE_HZ, start_s: float = 0.0, seed: int = 0):
    """A clock that jitters by less than a quarter of a period."""
    jitter = np.random.default_rng(seed).uniform(-0.2, 0.2, count)
    return start_s + (np.arange(count) + jitter) / rate_hz


def entry_stamps(cells, entry: TimeEntry, *, rate_hz: float = RATE_HZ, started_at=START, **options):
    return read_stamps(
        cells, entry, rate_hz=rate_hz, started_at=started_at, name="t.csv", **options
    )


@ENOUGH
@given(
    count=st.integers(1, 400),
    rate_hz=rates_hz,
    start_s=st.floats(-1e6, 2e9),
    seed=st.integers(0, 99),
)
def test_a_clock_that_only_rises_is_left_as_it_is(count, rate_hz, start_s, seed) -> None:
    times_s = rising(count, rate_hz=rate_hz, start_s=start_s, seed=seed)
    times_s = np.sort(np.concatenate([times_s, times_s[::7]]))  # readings that came twice
    found = unfold(times_s, rate_hz=rate_hz, name="t.csv")
    assert found.times_s is times_s
    assert (found.resets, found.reordered) == (0, 0)
    np.testing.assert_array_equal(found.order, np.arange(times_s.size))


@ENOUGH
@given(
    bits=st.integers(8, 48),
    steps=st.lists(st.floats(0.0, 0.999), min_size=1, max_size=200),
    first=st.floats(0.0, 0.999),
)
def test_a_counter_that_rolls_over_is_unwrapped_exactly(bits, steps, first) -> None:
    half = 1 << (bits - 1)
    first_tick = int(first * 2 * half)
    truth = first_tick + np.cumsum([0, *(int(step * half) for step in steps)])
    whole, rollovers = unwrap(truth % (2 * half), bits=bits)
    np.testing.assert_array_equal(whole, truth)
    assert rollovers == truth[-1] >> bits


def test_a_late_row_at_a_rollover_is_late_and_no_rollover() -> None:
    truth = np.arange(65_000, 66_000, 40)
    late = np.insert(np.delete(truth, 12), 15, truth[12])  # the first after the rollover is 14th
    entry = TimeEntry(kind="ticks", tick_hz=1000.0, bits=16)
    found = entry_stamps(late % 65_536, entry, max_reordered_share=0.05)
    assert (found.rollovers, found.reordered, found.resets) == (1, 1, 0)
    np.testing.assert_array_equal(found.times_s[found.order], truth / 1000.0)


def shuffled_locally(times_s, *, rate_hz: float, blocks: int, seed: int):
    """Rows in some short stretches come in any order; none later than allowed."""
    rng = np.random.default_rng(seed)
    rows = np.arange(times_s.size)
    length = max(2, min(8, int(late_s(rate_hz) * rate_hz)))
    for start in rng.choice(times_s.size // length - 1, blocks, replace=False) * length:
        rows[start : start + length] = rng.permutation(rows[start : start + length])
    return times_s[rows]


def longest_rising(times_s: np.ndarray) -> int:
    longest = np.ones(times_s.size, int)
    for at in range(1, times_s.size):
        longest[at] += longest[:at][times_s[:at] <= times_s[at]].max(initial=0)
    return int(longest.max())


@ENOUGH
@given(rate_hz=rates_hz, blocks=st.integers(0, 6), seed=st.integers(0, 10_000))
def test_rows_out_of_order_are_sorted_and_counted(rate_hz, blocks, seed) -> None:
    truth = rising(400, rate_hz=rate_hz, seed=seed)
    times_s = shuffled_locally(truth, rate_hz=rate_hz, blocks=blocks, seed=seed)
    found = unfold(times_s, rate_hz=rate_hz, name="t.csv", max_reordered_share=0.2)
    np.testing.assert_array_equal(times_s[found.order], truth)
    assert (found.reordered, found.resets) == (400 - longest_rising(times_s), 0)
    np.testing.assert_array_equal(found.times_s, times_s)


@ENOUGH
@given(
    rate_hz=rates_hz,
    lengths=st.lists(st.integers(30, 200), min_size=2, max_size=5),
    back_share=st.lists(st.floats(0.15, 0.9), min_size=4, max_size=4),
    far=st.lists(st.booleans(), min_size=4, max_size=4),
    seed=st.integers(0, 99),
)
def test_resets_are_cut_where_they_happened(rate_hz, lengths, back_share, far, seed) -> None:
    """Into times that were there before, from eight rows on, or further than a row may be late."""
    parts = [rising(lengths[0], rate_hz=rate_hz, seed=seed)]
    for length, share, is_far in zip(lengths[1:], back_share, far, strict=False):
        back_s = max(8, share * len(parts[-1])) / rate_hz
        back_s += 100 * late_s(rate_hz) if is_far else 0.0
        start_s = parts[-1][-1] - back_s
        parts.append(rising(length, rate_hz=rate_hz, start_s=start_s, seed=seed))
    found = unfold(np.concatenate(parts), rate_hz=rate_hz, name="t.csv")
    expected = np.repeat(np.arange(len(lengths)), lengths)
    np.testing.assert_array_equal(found.pieces, expected)
    assert found.reordered == 0
    np.testing.assert_array_equal(found.order, np.arange(expected.size))


def test_late_rows_and_resets_are_told_apart_in_one_series() -> None:
    before, after = rising(500), rising(500, start_s=3.0, seed=1)
    before[[100, 102]] = before[[102, 100]]
    after[[10, 11]] = after[[11, 10]]
    found = unfold(np.concatenate([before, after]), rate_hz=RATE_HZ, name="t.csv")
    assert found.resets == 1
    assert np.flatnonzero(np.diff(found.pieces))[0] == 499
    assert found.reordered == 3
    np.testing.assert_array_equal(found.times_s[found.order[:500]], np.sort(before))
    np.testing.assert_array_equal(found.times_s[found.order[500:]], np.sort(after))


def test_a_civil_hour_set_back_is_a_reset_and_one_set_forward_a_gap() -> None:
    back = np.concatenate([rising(9000, start_s=3600.0), rising(9000, start_s=360.0)])
    assert unfold(back, rate_hz=RATE_HZ, name="t.csv").resets == 1
    forward = np.concatenate([rising(9000), rising(9000, start_s=3960.0)])
    assert unfold(forward, rate_hz=RATE_HZ, name="t.csv").resets == 0


def test_a_row_that_came_again_later_is_a_late_one() -> None:
    once = np.insert(rising(400), 50, rising(400)[45])
    found = unfold(once, rate_hz=RATE_HZ, name="t.csv")
    assert (found.resets, found.reordered) == (0, 1)


@pytest.mark.parametrize("value_s", [1.0, 900.0, -50.0])
def test_a_stray_stamp_is_refused_with_its_row(value_s: float) -> None:
    times_s = rising(400)
    times_s[200] = value_s
    row = 203 if value_s > 100 else 202  # after a jump forward it is the next that steps back
    with pytest.raises(BadBatchError, match=rf"t\.csv: time runs backwards at row {row}: "):
        unfold(times_s, rate_hz=RATE_HZ, name="t.csv")


def test_more_late_rows_than_allowed_are_refused() -> None:
    times_s = rising(1000)
    times_s = times_s.reshape(-1, 2)[:, ::-1].ravel()
    message = r"time runs backwards at row 3: .*; 500 of 1000 rows are out of order, 10 are allowed"
    with pytest.raises(BadBatchError, match=message):
        unfold(times_s, rate_hz=RATE_HZ, name="t.csv")


def test_a_clock_that_may_not_be_reset_or_is_reset_all_the_time_is_refused() -> None:
    twice = np.concatenate([rising(100), rising(100)])
    message = r"row 102: .* Split the delivery where the clock was reset"
    with pytest.raises(BadBatchError, match=message):
        unfold(twice, rate_hz=RATE_HZ, name="t.csv", with_resets=False)
    many = np.tile(rising(100), MOST_RESETS + 2)
    with pytest.raises(BadBatchError, match=rf"\({MOST_RESETS + 1} such places\)"):
        unfold(many, rate_hz=RATE_HZ, name="t.csv")


def test_a_time_that_is_missing_is_refused_with_its_row_and_column() -> None:
    times_s = rising(10)
    times_s[4] = np.nan
    with pytest.raises(BadBatchError, match=r"row 6: clock is no finite number \(1 such rows\)"):
        entry_stamps(times_s, TimeEntry(column="clock"))


@settings(max_examples=200, deadline=None)
@given(
    values=st.lists(
        st.one_of(
            st.floats(-5.0, 5.0), st.integers(0, 60).map(lambda n: n / 10), st.floats(-1e300, 1e300)
        ),
        min_size=1,
        max_size=60,
    ),
    rate_hz=st.sampled_from([1e-6, 0.1, 10.0, 1e6]),
)
def test_whatever_the_times_they_come_in_order_or_are_refused(values, rate_hz) -> None:
    try:
        found = unfold(np.array(values), rate_hz=rate_hz, name="t.csv", max_reordered_share=0.5)
    except BadBatchError:
        return
    np.testing.assert_array_equal(np.sort(found.order), np.arange(len(values)))
    for piece in range(found.resets + 1):
        rows = found.order[found.pieces == piece]
        assert np.all(found.pieces[rows] == piece)
        assert np.all(np.diff(found.times_s[rows]) >= 0)


def wall_clock(utc: list[datetime.datetime], zone: str) -> np.ndarray:
    found = zoneinfo.ZoneInfo(zone)
    return np.array(
        [each.astimezone(found).replace(tzinfo=None) for each in utc], "datetime64[us]"
    ).astype("datetime64[ns]")


def changes_of(zone: str, year: int) -> list[datetime.datetime]:
    """Hours before which the zone's offset changes."""
    found = zoneinfo.ZoneInfo(zone)
    hours = [
        datetime.datetime(year, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(minutes=30 * n)
        for n in range(2 * 8760)
    ]
    offsets = [hour.astimezone(found).utcoffset() for hour in hours]
    return [hours[at] for at in range(1, len(hours)) if offsets[at] != offsets[at - 1]]


CHANGES = [(zone, change) for zone in ZONES for change in changes_of(zone, 2025)[:2]]


@ENOUGH
@given(
    change=st.sampled_from(CHANGES),
    before_s=st.integers(-5000, 9000),
    period_s=st.sampled_from([0.5, 7.0, 60.0]),
    count=st.integers(2, 1500),
)
def test_civil_time_through_a_change_of_clocks_is_utc(change, before_s, period_s, count) -> None:
    zone, turn = change
    start = turn - datetime.timedelta(seconds=before_s)
    utc = [start + datetime.timedelta(seconds=period_s * n) for n in range(count)]
    found = entry_stamps(
        wall_clock(utc, zone),
        TimeEntry(kind="local", zone=zone),
        rate_hz=1 / period_s,
        started_at=start,
    )
    np.testing.assert_allclose(found.times_s, period_s * np.arange(count), atol=1e-9, rtol=0)
    assert (found.resets, found.reordered) == (0, 0)


@pytest.mark.parametrize("zone", ZONES)
def test_civil_time_over_a_whole_year_is_utc(zone: str) -> None:
    utc = [START + datetime.timedelta(minutes=7 * n) for n in range(75_000)]
    found = entry_stamps(
        wall_clock(utc, zone), TimeEntry(kind="local", zone=zone), rate_hz=1 / 420.0
    )
    np.testing.assert_array_equal(found.times_s, 420.0 * np.arange(75_000))


def at_berlin(*texts: str) -> np.ndarray:
    return np.array([f"2025-{text}" for text in texts], "datetime64[ns]")


BERLIN = TimeEntry(kind="local", zone="Europe/Berlin")


def test_a_doubled_hour_that_starts_alone_is_told_by_started_at() -> None:
    wall = at_berlin("10-26T02:30:00", "10-26T02:30:01")
    for hour in (0, 1):
        begun = datetime.datetime(2025, 10, 26, hour, 29, 58, tzinfo=datetime.UTC)
        found = entry_stamps(wall, BERLIN, rate_hz=1.0, started_at=begun)
        np.testing.assert_array_equal(found.times_s, [2.0, 3.0])


def test_an_outage_over_the_turn_of_the_clocks_is_a_gap() -> None:
    wall = at_berlin("10-26T02:40:00", "10-26T02:40:01", "10-26T02:20:00", "10-26T02:20:01")
    found = entry_stamps(wall, BERLIN, rate_hz=1.0)
    np.testing.assert_array_equal(np.diff(found.times_s), [1.0, 2399.0, 1.0])


def test_an_hour_that_never_was_is_refused_with_its_row() -> None:
    wall = at_berlin("03-30T01:59:59", "03-30T02:00:00", "03-30T03:00:01")
    message = (
        r"t\.csv: row 3: 2025-03-30 02:00:00 never was in Europe/Berlin: its clocks were set "
        r"forward from 2025-03-30 02:00:00 to 2025-03-30 03:00:00"
    )
    with pytest.raises(BadBatchError, match=message):
        entry_stamps(wall, BERLIN, rate_hz=1.0)


def test_a_doubled_hour_that_comes_once_is_another_zones_time() -> None:
    wall = np.arange(
        np.datetime64("2025-10-26T01:30:00", "ns"),
        np.datetime64("2025-10-26T03:30:00", "ns"),
        np.timedelta64(60, "s"),
    )
    with pytest.raises(BadBatchError, match=r"row 32: .* set back .* the rows show it once"):
        entry_stamps(wall, BERLIN, rate_hz=1 / 60)


def test_a_zone_that_is_unknown_is_refused_and_a_machine_without_zones_says_so(monkeypatch) -> None:
    wall = at_berlin("03-30T01:59:59")
    with pytest.raises(BadBatchError, match=r"'Europe/Berln' is no IANA .* mean 'Europe/Berlin'"):
        entry_stamps(wall, TimeEntry(kind="local", zone="Europe/Berln"))
    for zone in ("../../etc/passwd", "Europe", "\0", "x" * 5000):
        with pytest.raises(BadBatchError, match=r"is no IANA time zone"):
            entry_stamps(wall, TimeEntry(kind="local", zone=zone))
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ResourceError, match="Install the system's or Python's package tzdata"):
        entry_stamps(wall, TimeEntry(kind="local", zone="Mars/Olympus"))


@ENOUGH
@given(
    rate_hz=st.sampled_from([2.0, 25.0, 29.97]),
    phase=st.floats(0.0, 0.999),
    seconds=st.integers(4, 40),
    lost=st.integers(0, 3),
)
def test_coarse_stamps_are_spread_to_within_a_row_of_the_truth(
    rate_hz, phase, seconds, lost
) -> None:
    """A second holds a row more or less than the rate says, and rows lie where they fall in it."""
    truth = (np.arange(int(seconds * rate_hz)) + phase) / rate_hz
    truth = truth[(truth < 2) | (truth >= 2 + lost)]  # a gap of whole seconds
    found = entry_stamps(np.floor(truth), TimeEntry(resolution_s=1.0), rate_hz=rate_hz)
    assert np.all(np.diff(found.times_s) > 0)
    assert np.all(np.floor(found.times_s + 1e-9) == np.floor(truth))
    assert np.abs(found.times_s - truth).max() <= 1.001 / rate_hz


def test_late_rows_with_coarse_stamps_are_sorted_before_they_are_spread() -> None:
    coarse = np.repeat(np.arange(20.0), 25)
    swapped = coarse.copy()
    swapped[[249, 250]] = swapped[[250, 249]]
    entry = TimeEntry(resolution_s=1.0)
    found = entry_stamps(swapped, entry)
    whole = entry_stamps(coarse, entry)
    assert found.reordered == 1
    np.testing.assert_array_equal(found.times_s[found.order], whole.times_s)


def test_a_stamp_that_is_finer_than_declared_is_refused() -> None:
    with pytest.raises(BadBatchError, match=r"row 4: its stamp is 1\.500 s, not a whole number"):
        entry_stamps(np.array([0.0, 0.0, 1.5, 2.0]), TimeEntry(resolution_s=1.0))


def test_a_trigger_is_where_its_column_rises() -> None:
    levels = np.array([1, 1, 0, 1, 1, np.nan, 0, 0, 1, 0, np.nan, 1.0])
    stamps = unfold(np.arange(12.0), rate_hz=1.0, name="t.csv")
    found = rising_edges(levels, stamps, name="t.csv", column="flash")
    np.testing.assert_array_equal(found, [3.0, 8.0, 11.0])
    stamps = unfold(np.concatenate([np.arange(8.0), np.arange(4.0)]), rate_hz=1.0, name="t.csv")
    assert stamps.resets == 1
    found = rising_edges(levels, stamps, name="t.csv", column="flash")
    np.testing.assert_array_equal(found, [3.0, 3.0])  # a rise over a reset is at no known time
    levels[6] = 0.5
    with pytest.raises(BadBatchError, match=r"row 8, column flash: 0\.5 is neither 0 nor 1"):
        rising_edges(levels, stamps, name="t.csv", column="flash")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tick_hz": 1e3}, "tick_hz belongs to kind ticks; kind is seconds"),
        ({"kind": "utc", "zone": "Europe/Berlin"}, "zone belongs to kind local; kind is utc"),
        ({"kind": "ticks"}, "tick_hz is None"),
        ({"kind": "ticks", "tick_hz": float("nan")}, "tick_hz is nan"),
        ({"kind": "ticks", "tick_hz": 1e3, "bits": 64}, "counters of 4 to 48 bits"),
        ({"kind": "local"}, "needs a zone"),
        ({"resolution_s": 0.0}, "resolution_s is 0.0"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(values, message) -> None:
    with pytest.raises(UserError, match=message):
        TimeEntry(**values)


def test_a_reading_beyond_its_counter_is_refused() -> None:
    entry = TimeEntry(kind="ticks", tick_hz=10.0, bits=8)
    with pytest.raises(BadBatchError, match=r"row 3, column time_s: 256 is no reading"):
        entry_stamps(np.array([255, 256]), entry)


def test_spread_is_exact_where_seconds_are_full() -> None:
    stamps_s = np.repeat(np.arange(5.0), 4)
    found = spread(stamps_s, rate_hz=4.0, resolution_s=1.0, name="t", rows=np.arange(20))
    np.testing.assert_array_equal(found, np.arange(20) / 4)
