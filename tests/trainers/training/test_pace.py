"""The time left, from the pace of steady steps."""

import numpy as np
import pytest

from clozemill.trainers.training.pace import Pace


def test_nothing_is_known_before_the_first_steady_step() -> None:
    assert Pace().time_for(10) is None


def test_an_even_pace() -> None:
    pace = Pace()
    for _ in range(50):
        pace.add(5.0, 20)
    assert pace.time_for(100) == pytest.approx(25.0)


def test_after_a_minute_an_older_pace_counts_half() -> None:
    pace = Pace()
    pace.add(1.0, 100)
    pace.add(60.0, 50)
    assert pace.time_for(1) == pytest.approx((0.5 * 1.0 + 60.0) / (0.5 * 100 + 50))


def test_a_pace_that_changes_is_followed_within_minutes() -> None:
    """From 1 s per step to 4: after ten minutes of it the estimate is within a fiftieth."""
    pace = Pace()
    for _ in range(360):
        pace.add(10.0, 10)
    before = [pace.time_for(1)]
    for _ in range(150):
        pace.add(4.0, 1)
        before.append(pace.time_for(1))
    assert np.all(np.diff(before) > 0) and before[-1] == pytest.approx(4.0, rel=0.02)
