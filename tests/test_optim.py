"""The learning rate of every step."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosswatch import config
from crosswatch.errors import UserError
from crosswatch.training.settings import OptimConfig

VADCLIP = OptimConfig(
    learning_rate=2e-5, warmup_share=0.0, schedule="steps", drops=(0.4, 0.8), drop_factor=0.1
)


def test_steps_drop_behind_the_epochs_that_were_published() -> None:
    """VadCLIP on UCF-Crime: ten epochs, a tenth after the fourth and after the eighth."""
    per_epoch = 125
    rates = [VADCLIP.rate_at(step, 10 * per_epoch) for step in range(10 * per_epoch)]
    assert rates[: 4 * per_epoch] == pytest.approx([2e-5] * 4 * per_epoch)
    assert rates[4 * per_epoch : 8 * per_epoch] == pytest.approx([2e-6] * 4 * per_epoch)
    assert rates[8 * per_epoch :] == pytest.approx([2e-7] * 2 * per_epoch)


@given(
    steps=st.integers(1, 200),
    warmup=st.floats(0, 0.5),
    drops=st.lists(st.floats(0.01, 0.99), max_size=4).map(tuple),
    factor=st.floats(0.01, 1),
)
def test_behind_the_warm_up_the_rate_never_rises(
    steps: int, warmup: float, drops: tuple[float, ...], factor: float
) -> None:
    optim = OptimConfig(warmup_share=warmup, schedule="steps", drops=drops, drop_factor=factor)
    rates = [optim.rate_at(step, steps) for step in range(steps)]
    first = max(0, round(warmup * steps) - 1)
    assert all(0 < rate <= optim.learning_rate for rate in rates)
    assert rates[first:] == sorted(rates[first:], reverse=True)


def test_without_drops_the_rate_is_constant() -> None:
    optim = OptimConfig(schedule="steps", warmup_share=0.0)
    assert {optim.rate_at(step, 50) for step in range(50)} == {optim.learning_rate}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"drops": [0.5]}, r"drops \[0.5\] are of schedule: steps, and schedule is cosine"),
        ({"schedule": "steps", "drops": [1.0]}, "shares of all steps between 0 and 1"),
        ({"schedule": "steps", "drop_factor": 0.0}, "drop_factor is 0.0, allowed above 0"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.build(OptimConfig, values, where="optim")
