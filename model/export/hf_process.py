"""Run hf_reference.py in a separate process, which loads transformers and torch but never TensorFlow.

The calling process has TensorFlow loaded, but never torch. A crash, from lack of memory or incompatible libraries, only ends
the child process, and is reported in one sentence.
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

PROGRAM = Path(__file__).with_name("hf_reference.py")
NEEDED = ("transformers", "torch")
TIMEOUT = 3600  # seconds; a base model takes about 20 of them on two cores
_TAIL = 4096  # bytes to read of the child process's messages


class ProcessDied(RuntimeError):
    """The child process returned no result. The message says how it ended."""


def missing() -> list[str]:
    """Return the required packages that aren't installed, without importing any."""
    return [name for name in NEEDED if importlib.util.find_spec(name) is None]


def outputs(folder: str, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of transformers, float32, with the names of base.answers.

    Args:
        folder: a Hugging Face folder. features: `input_ids`, `input_mask`, `segment_ids`, int32 [B, S].

    Raises ValueError if transformers can't load the folder as it was written, ProcessDied if the process returns no result.
    """
    with tempfile.TemporaryDirectory(prefix="clozemill-hf-") as scratch:
        place = Path(scratch)
        np.savez(place / "features.npz", **features)  # type: ignore[arg-type]  # a name could be allow_pickle
        with open(place / "messages", "w+b") as messages:
            code = _run([str(PROGRAM), folder, str(place / "features.npz"), scratch], messages)
            messages.seek(max(0, messages.seek(0, os.SEEK_END) - _TAIL))
            tail = messages.read().decode("utf-8", "replace")
        if code:
            raise ProcessDied(_end(code, tail))
        return _answers(place)


def _run(arguments: list[str], messages) -> int:
    """Run a Python program and return its exit code. The program always exits when this process does."""
    # -P: neither the program's folder nor the current one is searched for modules.
    command = [sys.executable, "-P", *arguments]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(  # in its own session: only this process gets Ctrl-C, and ends the child
        command, stdin=subprocess.PIPE, stdout=messages, stderr=messages, env=environment, start_new_session=True
    )
    try:
        return process.wait(TIMEOUT)
    except subprocess.TimeoutExpired:
        raise ProcessDied(f"gave no answer within {TIMEOUT // 60} minutes and was stopped") from None
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def _end(code: int, tail: str) -> str:
    """Describe how a failed process ended."""
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    said = f": {lines[-1][:300]}" if lines else ""
    if code > 0:
        return f"ended with exit code {code}{said}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    reason = ", perhaps because it ran out of memory" if name == "SIGKILL" else said
    return f"was killed by {name} (exit code {code}){reason}"


def _answers(place: Path) -> dict[str, np.ndarray]:
    """Return what the program wrote. Raises ValueError with its error message, ProcessDied if the output is invalid."""
    try:
        told = json.loads((place / "answers.json").read_text("utf-8"))
        if "error" in told:
            message = str(told["error"])
        else:
            message, found = "", {str(name): np.load(place / f"{name}.npy", allow_pickle=False) for name in told["outputs"]}
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise ProcessDied(f"left no readable answer ({' '.join(str(error).split())[:200]})") from None
    if message:
        raise ValueError(message)
    if wrong := [name for name, value in found.items() if value.dtype != np.float32]:
        raise ProcessDied(f"left an answer that isn't of float32: {', '.join(wrong)}")
    return found
