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
from clozemill.trainers.training.run_protocols import TrainingRun

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


def attention(engine: Engine, plan: TrainingRun) -> str:
    """Return how the engine computes attention in a run: "attention: plain, because ..."; "" if there is one way only."""
    found = engine.attention(plan.encoder, [phase.max_seq_length for phase in plan.phases], plan.config.precision)
    return f"attention: {found}" if found else ""


def describe(engine: Engine, plan: TrainingRun) -> dict[str, Any]:
    """Return the environment of a run by name, as text."""
    device = f"{engine.replicas} x {engine.device_name}, {plan.config.precision}"
    libraries = {name: _version(name) for name in _LIBRARIES}
    return {
        "command": command(),
        "device": "; ".join(filter(None, [device, attention(engine, plan)])),
        "machine": f"{platform.system()} {platform.machine()}, {runtime.cores()} cores",
        "versions": {"python": platform.python_version(), **libraries, engine.name: engine.version},
    }
