"""Run commands as child processes that don't get Ctrl-C, so that changes in a cloud are completed, then undone."""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass

from clozemill.deploy.steps import Step, missing

_GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Done:
    """The result of a command: its exit code, and its output if captured."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def reason(self) -> str:
        """Return the last error message on one line."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        told = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else f"exit code {self.code}")
        return told[:300]


def run(step: Step, quiet: bool) -> Done:
    """Run a step to completion. quiet: capture the output instead of showing it.

    On Ctrl-C, a quiet command is awaited, since it is short and may be creating a resource; any other command is stopped.
    """
    kept = subprocess.PIPE if quiet else None
    try:
        child = subprocess.Popen(
            step.argv, stdin=subprocess.DEVNULL, stdout=kept, stderr=kept, text=True, start_new_session=True
        )
    except FileNotFoundError:
        raise missing(step.argv[0]) from None
    try:
        out, err = child.communicate()
    except KeyboardInterrupt:
        with contextlib.suppress(subprocess.TimeoutExpired, ProcessLookupError):
            if not quiet:
                os.killpg(child.pid, signal.SIGTERM)
            child.communicate(timeout=_GRACE_SECONDS)
        raise
    return Done(child.returncode, out or "", err or "")
