"""What an output folder holds: nothing yet, a run to go on with, a whole dataset, or something that is not ours.

A run leaves its state in `.work/`: configuration, vocabulary, input and the versions of what decides the bytes. Going on is
refused when one of them differs. As long as no group is finished, or where the run ended because the input or the filters
were wrong, nothing is lost by beginning anew with other ones.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from pipelines import filesystem, manifest
from pipelines.readers import Plan
from pipelines.schema import FORMAT_VERSION, MANIFEST, WORK, UserError
from pipelines.stages import REFUSED, Job

STATE, RUN = "state.json", "run.json"
_LIBRARIES = ("clozemill", "numpy", "sentencex")  # their results are part of a dataset's bytes


def versions() -> dict[str, str]:
    """What decides the bytes besides configuration and input: this program, its libraries, and Python's Unicode."""
    found = {"format": str(FORMAT_VERSION), "python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            found[name] = version(name)
    return found


def fingerprint(plan: Plan) -> str:
    """A digest of which files are read: their paths (real ones, if local), sizes and times."""
    names = {
        f"{split.path if filesystem.is_remote(split.path) else os.path.realpath(split.path)} {split.stamp}"
        for split in plan.splits
    }
    return hashlib.blake2b("\n".join(sorted(names)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def describe(config: dict[str, Any], vocabulary_sha256: str, plan: Plan) -> dict[str, Any]:
    """The state of a run. config: the identity of the configuration, `num_groups` and `max_predictions` resolved."""
    return {"config": config, "vocabulary": vocabulary_sha256, "input": fingerprint(plan), "versions": versions()}


def _compare(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UserError for the first difference."""
    if before.get("input", now["input"]) != now["input"]:
        raise UserError(
            f"{folder} was made from input files with other names, sizes or times: give another --output, or remove it first"
        )
    for part in ("config", "versions"):
        for key, value in now[part].items():
            was = before.get(part, now[part]).get(key)
            if was != value:
                raise UserError(
                    f"{folder} was begun with {key} = {was!r}, not {value!r}: go on with the same, or give another --output"
                )
    if before["vocabulary"] != now["vocabulary"]:
        raise UserError(f"{folder} was begun with another vocabulary: give the same --vocab to go on, or another --output")


def check(job: Job, now: dict[str, Any]) -> bool:
    """Whether the dataset is there already, whole. Raises UserError when the folder holds something else."""
    path = job.path(MANIFEST)
    if filesystem.exists(path):
        there = manifest.loads(filesystem.read_bytes(path), path)
        config = {key: value for key, value in there["config"].items() if key != "input"}
        before = {"config": config, "vocabulary": there["vocabulary"]["sha256"]}
        if filesystem.exists(job.path(RUN)):
            before["input"] = json.loads(filesystem.read_bytes(job.path(RUN)))["input"]
        _compare(job.folder, before, now)
        return True
    state = job.work(STATE)
    if filesystem.exists(state):
        before = json.loads(filesystem.read_bytes(state))
        if before == now:
            return False
        if filesystem.holds_files(job.work("groups")) and not filesystem.exists(job.work(REFUSED)):
            _compare(job.folder, before, now)
        for name in (f"{WORK}/", "rejects", "train", "eval", "documents", "provenance"):
            filesystem.remove_tree(job.path(name))
        filesystem.remove_tree(job.spill)
    elif filesystem.holds_files(job.folder):
        raise UserError(
            f"{job.folder} is there and holds other files, or a dataset without its {MANIFEST}: give a new folder as --output"
        )
    return False


@contextlib.contextmanager
def locked(job: Job) -> Iterator[None]:
    """Keeps a second run out of a local folder; the lock goes with the process."""
    if filesystem.is_remote(job.folder):
        yield
        return
    import fcntl

    with open(job.work("lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"another clozemill prepare is writing to {job.folder}: wait for it to end") from None
        yield
