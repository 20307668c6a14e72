"""Commands as child processes that Ctrl-C doesn't reach: what was begun in a cloud is seen to its end, then undone."""

import contextlib
import os
import signal
import subprocess
from dataclasses import dataclass

from clozemill.deploy.steps import Step, missing

_GRACE_SECONDS = 120.0


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit code, and what it wrote where that was kept."""

    code: int
    out: str = ""
    err: str = ""

    @property
    def reason(self) -> str:
        """The last of its complaints, in one line."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        told = next((line for line in lines if line.startswith("ERROR")), lines[-1] if lines else f"exit code {self.code}")
        return told[:300]


def run(step: Step, quiet: bool) -> Done:
    """Runs a step to its end. quiet: what it writes is kept instead of shown.

    On Ctrl-C a quiet command is waited for, since it is short and may be making something; another one is ended.
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
