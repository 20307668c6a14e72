"""A generator advanced by a thread: order, errors, how far ahead, and that the thread ends when nobody reads on."""

import threading
import time
from collections.abc import Callable, Generator

import pytest

from clozemill.trainers.data.read_ahead import read_ahead


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Wait until a condition holds, at most some seconds, and return whether it does."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.002)
    return condition()


def running() -> int:
    return sum(thread.name == "read ahead" for thread in threading.enumerate())


def test_elements_come_in_their_order() -> None:
    assert list(read_ahead((number for number in range(1000)), 3)) == list(range(1000))
    assert until(lambda: not running())


def test_an_error_comes_after_the_elements_before_it() -> None:
    def failing() -> Generator[int]:
        yield from range(5)
        raise ValueError("record 5")

    stream = read_ahead(failing(), 2)
    assert [next(stream) for _ in range(5)] == list(range(5))
    with pytest.raises(ValueError, match="record 5"):
        next(stream)
    assert until(lambda: not running())


@pytest.mark.parametrize("size", [1, 4])
def test_it_is_advanced_so_far_and_no_further(size: int) -> None:
    made: list[int] = []

    def counting() -> Generator[int]:
        while True:
            made.append(len(made))
            yield made[-1]

    stream = read_ahead(counting(), size)
    assert not made  # nothing before it is asked for
    for number in range(3):
        assert next(stream) == number
        assert until(lambda: len(made) == number + 2 + size)  # noqa: B023
        time.sleep(0.01)
        assert len(made) == number + 2 + size
    stream.close()
    assert until(lambda: not running())


@pytest.mark.parametrize("how", ["closed", "dropped", "interrupted"])
def test_the_generator_is_closed_and_its_thread_ends(how: str) -> None:
    closed: list[str] = []

    def endless() -> Generator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(threading.current_thread().name)

    stream = read_ahead(endless(), 2)
    next(stream)
    assert running() == 1
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            stream.throw(KeyboardInterrupt)
    elif how == "closed":
        stream.close()
    del stream
    assert until(lambda: not running()) and closed == ["read ahead"]
