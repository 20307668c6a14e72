"""Run commands in separate processes, with a fake object storage and metadata server (tests/fake_gcp.py)."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.fake_gcp import Faults, Server

CODE = "import sys, clozemill; sys.exit(clozemill.main())"
ROUGH = {"too_many": 101, "unavailable": 97, "dropped": 83, "cut": 89, "slow": 23, "seconds": 0.3}  # fields of Faults
ROUGH_FOR_TENSORFLOW = {
    "too_many": 151,
    "unavailable": 127,
    "dropped": 113,
    "cut": 97,
    "slow": 23,
    "seconds": 0.3,
}  # this client waits longer
PATIENCE = 300  # seconds; no command may hang


class Cloud(Server):
    """A fake cloud, and commands run against it."""

    def start(self, *words: str, environment: dict[str, str] | None = None) -> subprocess.Popen:
        """Starts a command."""
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        everything = os.environ | self.environment() | (environment or {})
        return subprocess.Popen([sys.executable, "-c", CODE, *words], env=everything, **pipe)

    def run(self, *words: str, code: int = 0, faults: dict | None = None) -> tuple[str, str]:
        """Run a command to completion, check its exit code, and return its output and errors."""
        self.faults, process = Faults(**(faults or {})), self.start(*words)
        try:
            told = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            hit, self.faults = self.faults.done, Faults()
        assert process.returncode == code, told
        assert set(hit) == {name for name in (faults or {}) if name not in ("seconds", "forbidden")}, hit
        return told

    def killed(self, moment: str, *words: str) -> None:
        """Run a command, and kill it with SIGKILL at its first request whose line in the log contains `moment`."""
        process, seen = self.start(*words), []

        def before(line: str) -> None:
            if moment in line:
                process.kill()
                seen.append(line)

        self.before = before
        try:
            told = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            self.before = lambda line: None
        assert seen and process.returncode == -signal.SIGKILL, told

    def download(self, folder: str, to: Path) -> Path:
        """Copies the objects below a "bucket/folder" into a local folder."""
        for name, data in self.storage.below(folder).items():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            (to / name).write_bytes(data)
        return to
