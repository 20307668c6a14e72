"""Fuzz every target, one after another, and print a line for each: `make fuzz SECONDS=600`.

python -m tests.faults.fuzz.run --seconds 600 --corpus FOLDER [--only NAME ...]

The exit code is 1 if there are findings. They are stored in FOLDER/NAME: finding-*.txt describes a finding, finding-*.bin is
its input; crash-*, timeout-* and oom-* are inputs that ended the process.
"""

import argparse
import importlib
import json
import re
import resource
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.fuzz import one

MAX_RESTARTS = 20  # for a target whose process a library crashes repeatedly


def names() -> list[str]:
    """All targets."""
    return [name for module in one.MODULES for name in importlib.import_module(module).TARGETS]


def _last(pattern: str, text: str, default: str = "?") -> str:
    return (re.findall(pattern, text) or [default])[-1]


def _cpu() -> float:
    """Return the CPU seconds of child processes that have exited."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def fuzz(name: str, seconds: int, folder: Path) -> tuple[str, int]:
    """Run one target; return (its line, its number of findings; a target that can't run counts as one)."""
    folder.mkdir(parents=True, exist_ok=True)
    end, begun, executed, restarts, log = time.monotonic() + seconds, _cpu(), 0, 0, ""
    while (left := round(end - time.monotonic())) > 0 and restarts <= MAX_RESTARTS:
        command = [sys.executable, "-m", "tests.faults.fuzz.one", name, str(left), str(folder)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        log = done.stdout.decode("utf-8", "replace")
        (folder / f"log-{restarts}.txt").write_text(log)
        executed += int(_last(r"number_of_executed_units: (\d+)", log, _last(r"#(\d+)\t", log, "0")))
        restarts += 1
    found = [path for path in folder.iterdir() if path.suffix == ".bin" or path.name.startswith(("crash-", "timeout-", "oom-"))]
    slowest = folder / "slowest.json"
    told = json.loads(slowest.read_text()) if slowest.exists() else {"seconds": 0.0, "input": ""}
    coverage, memory = _last(r"cov: (\d+)", log), _last(r"peak_rss_mb: +(\d+)", log)
    line = (
        f"{name:<12} {seconds:>5} s ({_cpu() - begun:.0f} s of CPU) {executed:>10,} inputs, coverage {coverage:>5}, corpus "
        f"{sum(1 for _ in folder.glob('corpus/*')):>5}, findings {len(found)}, slowest {told['seconds']:.2f} s of CPU "
        f"({len(told['input']) // 2} bytes), {memory} MB" + (f", process ended {restarts - 1} times" if restarts > 1 else "")
    )
    return line, len(found) + (not executed)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--only", nargs="+")
    arguments = parser.parse_args()
    found = 0
    for name in arguments.only or names():
        line, more = fuzz(name, arguments.seconds, arguments.corpus / name)
        found += more
        print(line, flush=True)
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
