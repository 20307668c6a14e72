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

from pipelines import clusters, datacard, filesystem, manifest
from pipelines.readers import Plan
from pipelines.schema import FORMAT_VERSION, MANIFEST, WORK, UserError
from pipelines.stages import REFUSED, Job

STATE, RUN = "state.json", "run.json"
PREVIOUS = "previous.json"  # in .work/: the manifest of the dataset that is being updated
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


def describe(config: dict[str, Any], vocabulary_sha256: str, plan: Plan, evaluation: str) -> dict[str, Any]:
    """The state of a run.

    config: the identity of the configuration, `num_groups` and `max_predictions` resolved. evaluation: a digest of the
    evaluation sets that are kept out, or "".
    """
    state = {"config": config, "vocabulary": vocabulary_sha256, "input": fingerprint(plan), "versions": versions()}
    return state | {"evaluation": evaluation}


def _compare(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises UserError for the first difference."""
    if before.get("input", now["input"]) != now["input"]:
        raise UserError(
            f"{folder} was made from input files with other names, sizes or times: give --update, or another --output"
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
    if before.get("evaluation", "") != now["evaluation"]:
        raise UserError(f"{folder} was begun with other --decontaminate files: give the same to go on, or another --output")


def check(job: Job, now: dict[str, Any]) -> bool:
    """Whether the dataset is there already, whole. Raises UserError when the folder holds something else."""
    path = job.path(MANIFEST)
    if filesystem.exists(path):
        there = manifest.loads(filesystem.read_bytes(path), path)
        config = {key: value for key, value in there["config"].items() if key != "input"}
        before = {"config": config, "vocabulary": there["vocabulary"]["sha256"]}
        if filesystem.exists(job.path(RUN)):
            run = json.loads(filesystem.read_bytes(job.path(RUN)))
            before |= {"input": run["input"], "evaluation": run.get("evaluation", "")}
        if job.config.update:
            _compare(job.folder, before | {"input": now["input"], "evaluation": now["evaluation"]}, now)
            _reopen(job, now)
            return False
        _compare(job.folder, before, now)
        return True
    state = job.work(STATE)
    if filesystem.exists(state):
        before = json.loads(filesystem.read_bytes(state))
        if before == now:
            return False
        if filesystem.exists(job.work(PREVIOUS)) and job.config.update:  # the input changed again in the middle of an update
            _compare(job.folder, before | {"input": now["input"], "evaluation": now["evaluation"]}, now)
            _clear(job, f"{WORK}/groups", "rejects")
            return False
        if filesystem.holds_files(job.work("groups")) and not filesystem.exists(job.work(REFUSED)):
            _compare(job.folder, before, now)
        _clear(job, f"{WORK}/", "rejects", "train", "eval", "documents", "groups", "provenance")
    elif filesystem.holds_files(job.folder):
        raise UserError(
            f"{job.folder} is there and holds other files, or a dataset without its {MANIFEST}: give a new folder as --output"
        )
    return False


def _clear(job: Job, *names: str) -> None:
    for name in names:
        filesystem.remove_tree(job.path(name))
    filesystem.remove_tree(job.spill)
    for name in (clusters.NAME, datacard.HTML, datacard.MARKDOWN):
        filesystem.remove(job.path(name))


def _reopen(job: Job, now: dict[str, Any]) -> None:
    """Makes a whole dataset an unfinished one that other input may finish; its groups' shards and records stay."""
    filesystem.write_bytes(job.work(PREVIOUS), filesystem.read_bytes(job.path(MANIFEST)))
    filesystem.write_bytes(job.work(STATE), json.dumps(now).encode())
    filesystem.remove(job.path(MANIFEST))
    _clear(job, "rejects")


def groups_of(folder: str) -> int:
    """The number of train groups of the dataset that is to be updated. Raises UserError when there is none."""
    for name in (MANIFEST, f"{WORK}/{PREVIOUS}"):
        path = filesystem.join(folder, name)
        if filesystem.exists(path):
            return manifest.loads(filesystem.read_bytes(path), path)["config"]["num_groups"]
    raise UserError(f"--update: {folder} holds no dataset: leave out --update to make one")


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
