"""Signals that end a training run, and its exit codes."""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass

from clozemill.pipelines.command_line import process
from clozemill.pipelines.command_line.exit_codes import EXIT_AGAIN, EXIT_CHECK_FAILED, EXIT_OK
from clozemill.pipelines.common.formatting import counted

RESPONSE_SECONDS = 2.0  # maximum duration of a host call, so that signals are handled soon
EXIT_DONE, EXIT_DIVERGED, EXIT_STOPPED = EXIT_OK, EXIT_CHECK_FAILED, EXIT_AGAIN  # stopped by a signal, after saving


@dataclass
class Signals:
    """Records the first signal received, if any; a second one ends the process at once.

    If there is nothing to save, the first one does too: `unsaved` is the number of steps that would be lost, `stepping` is true
    while a host call or an evaluation runs, and `seconds` is the duration of a step, 0 while it is unknown. again: what resumes
    the run.
    """

    received: str = ""
    unsaved: int = 0
    stepping: bool = False
    seconds: float = 0.0
    again: str = "the same command"

    def _take(self, name: str) -> None:
        self.received = name
        if self.stepping and not self.unsaved:
            print(f"\n{name}: no new step to save; run {self.again} to resume", file=sys.stderr, flush=True)
            with contextlib.suppress(Exception):
                sys.stdout.flush()
            os._exit(EXIT_STOPPED)
        steps = f"in about {self.seconds:,.0f} s" if self.seconds > 2 * RESPONSE_SECONDS else "after the current steps"
        lost = f", and lose the last {counted(self.unsaved, 'step')}" if self.unsaved else ""
        print(f"\n{name}: saving {steps}; send it again to stop at once{lost}", file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def interruptible(self, alone: bool) -> Iterator[None]:
        """A context in which a signal ends the process at once if everything is saved.

        alone: whether this process trains alone. Others would hang if it exited: a signal is then handled afterwards.
        """
        self.stepping = alone
        try:
            yield
        finally:
            self.stepping = False

    def caught(self) -> AbstractContextManager[None]:
        """Return a context that records SIGTERM, SIGINT and SIGHUP, also while a step runs; not when called from Python."""
        return process.noted(self._take) if process.PROGRAM else contextlib.nullcontext()
