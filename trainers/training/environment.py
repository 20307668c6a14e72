"""The environment of a run, for its page: versions, machine, device and command. Nothing of it enters a checkpoint."""

import datetime
import importlib.metadata
import os
import platform
import shlex
import sys
from typing import Any

from clozemill.pipelines.command_line import process
from clozemill.pipelines.common import runtime
from clozemill.trainers.engines.engine import Engine

_LIBRARIES = ("clozemill", "keras", "numpy")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def now() -> str:
    """Return the time in UTC: '2026-11-29 05:40:12 UTC'."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def command() -> str:
    """Return the command line of this process, with a relative program name."""
    if not process.PROGRAM:
        return "called from Python"
    return shlex.join([os.path.basename(process.PROGRAM[0]) or "clozemill", *sys.argv[1:]])


def describe(engine: Engine, precision: str) -> dict[str, Any]:
    """Return the environment by name, as text."""
    libraries = {name: _version(name) for name in _LIBRARIES}
    return {
        "command": command(),
        "device": f"{engine.replicas} x {engine.device_name}, {precision}",
        "machine": f"{platform.system()} {platform.machine()}, {runtime.cores()} cores",
        "versions": {"python": platform.python_version(), **libraries, engine.name: engine.version},
    }
