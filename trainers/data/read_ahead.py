"""Advances an iterator in a background thread, so that the next elements are ready when a training step asks for them."""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Element = TypeVar("_Element")


@dataclass
class _Buffer(Generic[_Element]):
    """At most `size` elements between two threads, in their order."""

    size: int
    elements: deque[_Element] = field(default_factory=deque)
    changed: threading.Condition = field(default_factory=threading.Condition)
    closed: bool = False  # nobody wants more elements
    ended: bool = False  # there are no more
    error: BaseException | None = None

    def put(self, element: _Element) -> bool:
        """Add an element as soon as there is room. Returns whether more are wanted."""
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.elements) < self.size)
            self.elements.append(element)
            self.changed.notify_all()
            return not self.closed

    def end(self, error: BaseException | None) -> None:
        with self.changed:
            self.ended, self.error = True, error
            self.changed.notify_all()

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def __iter__(self) -> Iterator[_Element]:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.elements or self.ended)
                if not self.elements:
                    break
                element = self.elements.popleft()
                self.changed.notify_all()
            yield element
        if self.error:
            raise self.error


def _fill(buffer: _Buffer[_Element], elements: Generator[_Element]) -> None:
    """Put all elements into a buffer, in a thread of its own, and close their generator."""
    failed: BaseException | None = None
    try:
        with closing(elements):
            for element in elements:
                if not buffer.put(element):
                    break
    except BaseException as error:  # raised where the elements are taken
        failed = error
    buffer.end(failed)


def read_ahead(elements: Generator[_Element], size: int) -> Generator[_Element]:
    """Yield the elements of a generator, which a thread advances until `size` elements wait, and another one to be put.

    What the generator raises is raised here, after the elements before. If this generator is closed or dropped, that one is
    closed by its thread, which ends.
    """
    buffer = _Buffer[_Element](size)
    threading.Thread(target=_fill, args=(buffer, elements), name="read ahead", daemon=True).start()
    try:
        yield from buffer
    finally:
        buffer.close()
