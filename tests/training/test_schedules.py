import pytest
from hypothesis import given
from hypothesis import strategies as st

from minitl.errors import ValueRangeError
from minitl.training.schedules import constant, cosine
from minitl.training.settings import SCHEDULES, Settings


def test_constant_is_one():
    assert constant(0, 10) == constant(9, 10) == 1
    assert [constant(step, 10, warmup=3) for step in range(5)] == [0.25, 0.5, 0.75, 1, 1]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_that_can_be_asked_for_warms_up(schedule):
    factor = Settings(epochs=3, schedule=schedule, warmup=1.0).make_schedule(4)
    assert [factor(step, 12) for step in range(5)] == [0.2, 0.4, 0.6, 0.8, 1]


def test_cosine_falls_from_one_through_half_to_zero():
    assert cosine(0, 10) == 1
    assert cosine(5, 10) == pytest.approx(0.5)
    assert cosine(10, 10) == pytest.approx(0)


@given(steps=st.integers(1, 60), data=st.data())
def test_cosine_rises_during_warmup_and_falls_after_it(steps, data):
    warmup = data.draw(st.integers(0, steps - 1))
    factors = [cosine(step, steps, warmup) for step in range(steps + 1)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[warmup] == 1
    assert factors[: warmup + 1] == sorted(factors[: warmup + 1])
    assert factors[warmup:] == sorted(factors[warmup:], reverse=True)
    assert factors[0] > 0


def test_cosine_is_that_of_pytorch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=17)
    for step in range(17):
        assert cosine(step, 17) == pytest.approx(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("step", "steps", "warmup"), [(-1, 5, 0), (6, 5, 0), (0, 5, 5), (0, 5, -1), (0, 0, 0)])
def test_steps_outside_the_schedule_are_refused(step, steps, warmup):
    with pytest.raises(ValueRangeError, match="cosine"):
        cosine(step, steps, warmup)
