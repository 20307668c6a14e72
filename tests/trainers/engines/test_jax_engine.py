"""The share of a step's time that its devices wait for input; and which errors mean that a worker is lost."""

from concurrent.futures import Future

import pytest
from jax.errors import JaxRuntimeError

from clozemill.pipelines.common.errors import TemporaryError
from clozemill.trainers.engines import jax_engine
from clozemill.trainers.engines.jax_engine import JaxEngine, idle_seconds


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


class Shared(JaxEngine):
    """An engine of two processes."""

    processes = 2


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (JaxRuntimeError("UNAVAILABLE: Gloo all-reduce failed: Connection closed by peer"), TemporaryError),
        (ValueError("UNKNOWN: Gloo AllGather failed: Read error [127.0.0.1]:40863: Connection reset by peer"), TemporaryError),
        (JaxRuntimeError("DEADLINE_EXCEEDED: Barrier timed out"), TemporaryError),
        (JaxRuntimeError("INTERNAL: NCCL operation ncclAllReduce failed: unhandled system error"), TemporaryError),
        (JaxRuntimeError("INVALID_ARGUMENT: Mosaic failed to compile the kernel"), JaxRuntimeError),
        (JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 8 bytes"), JaxRuntimeError),
        (ValueError("shapes (2,) and (3,) differ"), ValueError),
    ],
)
def test_only_errors_of_communication_are_a_lost_worker(
    error: Exception, expected: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another failure would come again: exit code 75 would repeat it."""
    codes: list[int] = []  # with which the process ends at once, without waiting for the others
    monkeypatch.setattr(jax_engine.atexit, "register", lambda call, code: codes.append(code))
    engine = object.__new__(Shared)
    with pytest.raises(expected), engine.raise_if_worker_lost():
        raise error
    assert codes == [75 if expected is TemporaryError else 70]
