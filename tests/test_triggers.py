"""Pulses that two clocks saw: matched however many are missing, or refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crosswatch.data.sync.clocks import Finding
from crosswatch.data.sync.estimate import SyncConfig
from crosswatch.data.sync.triggers import match

CONFIG = SyncConfig(max_drift_ppm=300.0)
JITTER_S = 0.003


def pulses(rng: np.random.Generator, count: int, seconds: float) -> np.ndarray:
    """Uneven pulses, at least a second apart."""
    steps_s = 1.0 + rng.exponential(max(seconds / count - 1.0, 0.5), count)
    return np.cumsum(steps_s)


def seen(
    rng: np.random.Generator,
    true_s: np.ndarray,
    *,
    lost: float = 0.1,
    false: float = 0.1,
    kept: np.ndarray | None = None,
) -> np.ndarray:
    """What one clock saw of them: some not, some that were none, all with jitter."""
    kept = true_s[rng.random(true_s.size) >= lost] if kept is None else true_s[kept]
    extra = rng.uniform(true_s[0], true_s[-1], round(false * true_s.size))
    stamped = np.concatenate([kept, extra])
    return rng.permutation(stamped + rng.normal(0, JITTER_S, stamped.size).clip(-0.01, 0.01))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(25, 300),
    offset_s=st.floats(-60, 60),
    drift_ppm=st.floats(-290, 290),
    lost=st.floats(0, 0.3),
    false=st.floats(0, 0.3),
)
def test_any_offset_and_drift_is_found_among_missing_and_false_pulses(
    seed: int, count: int, offset_s: float, drift_ppm: float, lost: float, false: float
) -> None:
    rng = np.random.default_rng(seed)
    camera_s = pulses(rng, count, 600.0)
    t_mid_s = float(camera_s[-1]) / 2
    control_s = camera_s + offset_s + drift_ppm * 1e-6 * (camera_s - t_mid_s)
    kept = rng.random((2, count)) >= lost
    found = match(
        "video",
        seen(rng, camera_s, kept=kept[0], false=false),
        seen(rng, control_s, kept=kept[1], false=false),
        t_mid_s,
        CONFIG,
    )
    assert found.refusal == ""
    assert found.clock.offset_s == pytest.approx(offset_s, abs=5 * JITTER_S)
    end_s = 1e-6 * abs(found.clock.drift_ppm - drift_ppm) * t_mid_s
    assert end_s <= 10 * JITTER_S
    assert found.clock.pulses is not None
    assert found.clock.pulses >= 0.9 * kept.all(axis=0).sum()


def test_the_bound_holds_as_often_as_it_says() -> None:
    inside = narrow = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        camera_s = pulses(rng, 30, 400.0)
        found = match(
            "video",
            seen(rng, camera_s),
            seen(rng, camera_s + 0.4),
            float(camera_s[-1]) / 2,
            CONFIG,
        ).clock
        assert found.offset_low_s is not None
        assert found.offset_high_s is not None
        inside += found.offset_low_s <= 0.4 <= found.offset_high_s
        narrow += found.offset_high_s - found.offset_low_s < 0.01
    assert inside >= 180  # 190 are expected, fewer than 180 happen once in 500 times if so
    assert narrow >= 190


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10_000), shift_s=st.floats(-1e5, 1e5))
def test_shifting_the_cameras_pulses_shifts_the_offset(seed: int, shift_s: float) -> None:
    rng = np.random.default_rng(seed)
    camera_s = pulses(rng, 40, 500.0)
    control_s = seen(rng, camera_s + 0.7)
    here = match("video", camera_s, control_s, 250.0, CONFIG).clock
    there = match("video", camera_s + shift_s, control_s, 250.0 + shift_s, CONFIG).clock
    assert there.offset_s == pytest.approx(here.offset_s - shift_s, abs=1e-4)
    assert there.drift_ppm == pytest.approx(here.drift_ppm, abs=1.0)


def even(period_s: float, offset_s: float, config: SyncConfig) -> Finding:
    camera_s = np.arange(0, 300, period_s)
    return match("video", camera_s, camera_s + offset_s, 150.0, config)


def test_even_pulses_are_refused_where_several_periods_are_possible() -> None:
    found = even(1.0, 0.3, SyncConfig(max_offset_s=3.0))
    assert "the triggers fit at 6 offsets within 3 s nearly as well" in found.refusal
    assert "lower sync.max_offset_s below half their period" in found.refusal


def test_even_pulses_count_where_the_clocks_are_closer_than_their_period() -> None:
    found = even(5.0, 0.3, SyncConfig(max_offset_s=2.0))
    assert found.refusal == ""
    assert found.clock.offset_s == pytest.approx(0.3, abs=0.001)


def test_a_pulse_a_frame_is_no_evidence() -> None:
    assert "triggers come every 0.04 s" in even(0.04, 0.0, SyncConfig()).refusal


def test_pulses_of_another_batch_are_refused() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found = match("video", pulses(rng, 60, 400), pulses(rng, 60, 400), 200.0, CONFIG)
        assert found.refusal.startswith("sync outside limits: ")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_pulses_are_refused(count: int) -> None:
    few_s = np.array([3.0, 10.0, 31.0, 55.0])[:count]
    found = match("video", few_s, np.array([3.1, 10.1, 31.1, 55.1, 80.0]), 40.0, CONFIG)
    assert f"{count} of the video's triggers have a partner; 5 are needed" in found.refusal
