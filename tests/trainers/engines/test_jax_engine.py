"""The share of a step's time that its devices wait for input."""

from concurrent.futures import Future

import pytest

from clozemill.trainers.engines.jax_engine import idle_seconds


def done(at: float) -> Future:
    found: Future = Future()
    found.set_result(at)
    return found


@pytest.mark.parametrize(
    ("previous", "seconds"),
    [
        (None, 3.0),  # the first step of a call
        (Future(), 0.0),  # it still runs: the fetch cost nothing
        (done(4.0), 3.0),
        (done(10.5), 2.5),  # half a second of the fetch was beside it
        (done(13.5), 0.0),  # just after the fetch
    ],
)
def test_only_the_time_without_a_step_counts(previous: Future | None, seconds: float) -> None:
    """A fetch from 10 to 13."""
    assert idle_seconds(10.0, 13.0, previous) == seconds
