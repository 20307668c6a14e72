"""Standard streams that may be closed or full, and signals, for clozemill as a process.

Used only if clozemill runs as a program. If called from Python, `clozemill.main` leaves streams and signals unchanged.
"""

import contextlib
import io
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

from clozemill.pipelines.common.errors import UserError

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
EXIT_SIGNALLED = 128  # plus the signal number, as in shells: 130 after Ctrl-C, 143 after SIGTERM


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM or SIGHUP wherever the program is, so that it cleans up as after Ctrl-C."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


class _Output(io.TextIOWrapper):
    """Standard output that raises UserError if it can't be written. A closed pipe still raises BrokenPipeError."""

    def write(self, text: str) -> int:
        with _reported():
            return super().write(text)

    def flush(self) -> None:
        with _reported():
            super().flush()


class _Errors(io.TextIOWrapper):
    """Standard error that drops what can't be written, because there is no other place to report it."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(
            f"standard output can't be written ({error.strerror}): free some space, or redirect the output elsewhere"
        ) from None


def open_streams() -> None:
    """Make standard output and standard error safe to print to, whatever state they were started in.

    A closed descriptor (`>&-`) becomes /dev/null. Otherwise the next opened file would get its number, and printed text would
    end up in that file. File names that are not valid UTF-8 are printed with escapes.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
    buffered = io.BufferedWriter(io.FileIO(1, "w", closefd=False))
    sys.stdout = sys.__stdout__ = _Output(  # type: ignore[misc]  # they are replaced for good
        buffered, errors="backslashreplace", line_buffering=os.isatty(1)
    )
    sys.stderr = sys.__stderr__ = error_stream(2)  # type: ignore[misc]


def error_stream(descriptor: int) -> io.TextIOWrapper:
    """Return a stream on a descriptor that drops what can't be written."""
    return _Errors(io.FileIO(descriptor, "w", closefd=False), errors="backslashreplace", write_through=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what libraries write to standard error in the block, such as TensorFlow's startup notes, unless it fails."""
    with tempfile.TemporaryFile() as dropped, contextlib.ExitStack() as stack:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(dropped.fileno(), 2)
        stack.callback(os.close, before)
        stack.callback(os.dup2, before, 2)
        try:
            yield
        except BaseException:
            dropped.seek(0)
            os.write(before, dropped.read())
            raise


def close_output() -> str:
    """Flush standard output; return the reason if that failed, or "". Nothing may be printed afterwards."""
    try:
        sys.stdout.flush()
        return ""
    except (UserError, BrokenPipeError) as error:
        drop_output()
        return "" if isinstance(error, BrokenPipeError) else str(error)


def drop_output() -> None:
    """Redirect pending output to /dev/null: Python flushes again at exit, which would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


PROGRAM: list[str] = []  # holds a name once this process is a command and nothing else, so that it may handle signals


@contextlib.contextmanager
def unwinding() -> Iterator[None]:
    """Raise exceptions for SIGINT, SIGTERM and SIGHUP within the block, so that the block can clean up.

    SIGINT raises KeyboardInterrupt, the others raise Terminated. A second signal doesn't interrupt the cleanup; a third one
    ends the process at once. Signals that are ignored, as under nohup, stay ignored.
    """
    count = 0

    def leave(number: int, frame) -> None:
        nonlocal count
        count += 1
        if count == 1:
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)
        if count > 2:
            os._exit(EXIT_SIGNALLED + number)

    taken = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, leave) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore further signals while the program prints its last message."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def noted(first: Callable[[str], None]) -> Iterator[None]:
    """Call `first` with the name of the first SIGINT, SIGTERM or SIGHUP within the block; a second one ends the process.

    This also works while the main thread is in a long library call, where Python runs no signal handlers: the interpreter
    writes the signal number to a pipe, and a thread reads it. `first` is called once, by the thread or by the handler,
    whichever comes first. Outside the main thread, where Python allows no handlers, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    unused = threading.Lock()

    def note(number: int) -> None:
        if unused.acquire(blocking=False):
            first(signal.Signals(number).name)

    source, sink = os.pipe()
    os.set_blocking(sink, False)
    # Under nohup, SIGHUP stays ignored. Shells ignore SIGINT for background jobs, but a SIGINT sent to one is intended.
    taken = [number for number in _ENDING if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
    thread = threading.Thread(target=_watch, args=(source, note), daemon=True)
    before = {number: signal.signal(number, lambda number, frame: note(number)) for number in taken}
    wakeup = signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(sink)  # ends the thread


def _watch(source: int, note: Callable[[int], None]) -> None:
    count = 0
    while data := os.read(source, 64):
        for number in data:
            count += 1
            if count > 1:
                os._exit(EXIT_SIGNALLED + number)
            note(number)
    os.close(source)
