"""Checks what an output folder contains: nothing, a run to resume, a complete dataset, or something else.

A run stores its state in `.work/`: configuration, vocabulary, input, and the versions of everything that affects the bytes. A
run can't be resumed if any of these changed. If no shard is finished yet, or the last run failed because of its input or
filters, it starts over.
"""

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from clozemill.pipelines.beam import run_lock
from clozemill.pipelines.command_line.options import identity
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import clusters, layout, manifest
from clozemill.pipelines.dataset.layout import FORMAT_VERSION, MANIFEST, PREVIOUS, RUN, WORK
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.sealed_json import read_sealed
from clozemill.pipelines.prepare.job import REFUSED, Job
from clozemill.pipelines.readers.formats import Plan

STATE = "state.json"
CHANGING = ("input", "evaluation", "datasheet")  # keys that an update may change
_LIBRARIES = ("clozemill", "numpy", "sentencex")  # libraries whose results affect the bytes of a dataset


def versions() -> dict[str, str]:
    """Return everything besides configuration and input that affects the bytes: versions of libraries and of Unicode."""
    found = {"format": str(FORMAT_VERSION), "python": ".".join(platform.python_version_tuple()[:2])}
    for name in _LIBRARIES:
        with contextlib.suppress(ImportError):
            found[name] = version(name)
    return found


def fingerprint(plan: Plan) -> str:
    """Return a digest of the input files: their paths (resolved, if local), sizes and times."""
    names = {
        f"{split.path if filesystem.is_remote(split.path) else os.path.realpath(split.path)} {split.stamp}"
        for split in plan.splits
    }
    return hashlib.blake2b("\n".join(sorted(names)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def describe(job: Job, plan: Plan) -> dict[str, Any]:
    """Return the state of a run: its resolved configuration, and digests of everything that affects its output."""
    return {
        "config": identity(job.config),
        "vocabulary": hashlib.sha256(job.vocabulary).hexdigest(),
        "input": fingerprint(plan),
        "versions": versions(),
        "evaluation": job.evaluation,
        "datasheet": job.datasheet,
    }


def _compare(folder: str, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise UserError for the first difference between two states."""
    if before.get("input", now["input"]) != now["input"]:
        raise UserError(
            f"{folder} was built from input files with other names, sizes or times: give --update, or another --output"
        )
    for part in ("config", "versions"):
        for key, value in now[part].items():
            was = before.get(part, now[part]).get(key)
            if was != value:
                raise UserError(
                    f"{folder} was started with {key} = {was!r}, not {value!r}: use the same value, or give another --output"
                )
    if before["vocabulary"] != now["vocabulary"]:
        raise UserError(f"{folder} was started with another vocabulary: give the same --vocab to resume, or another --output")
    if before.get("evaluation", "") != now["evaluation"]:
        raise UserError(f"{folder} was started with other --decontaminate files: give the same to resume, or another --output")
    for name, value in now["datasheet"].items():
        if before.get("datasheet", {}).get(name, []) != value:
            raise UserError(f"{folder} was started with other --{name}: give the same to resume, --update, or another --output")


def check(job: Job, now: dict[str, Any]) -> bool:
    """Return whether the dataset is complete already. Raise UserError if the folder contains something else."""
    updating = filesystem.exists(job.path(PREVIOUS))
    if filesystem.exists(job.path(MANIFEST)):
        before = _made_of(job)
        if not job.config.update:
            _compare(job.folder, before, now)
            return True
        _compare(job.folder, before | {key: now[key] for key in CHANGING}, now)
        _reopen(job)
    elif updating and not job.config.update:
        raise UserError(
            f"{job.folder} has an unfinished update: give --update to finish it (or, with the original input, to undo it), "
            "or another --output"
        )
    elif filesystem.exists(job.work(STATE)):
        before = read_sealed(job.work(STATE), STATE)
        if before is None:
            raise UserError(f"{job.work(STATE)} is damaged: remove {job.folder}, or give another --output")
        if before == now:
            return False
        if updating:  # the input changed again during an update
            _compare(job.folder, before | {key: now[key] for key in CHANGING}, now)
        elif filesystem.holds_files(job.work("groups")) and not filesystem.exists(job.work(REFUSED)):
            _compare(job.folder, before, now)
        _clear(job, *(() if updating else ("train", "eval", "documents", "groups", "provenance")))
    elif updating:  # interrupted between the two steps of _reopen
        _clear(job)
    elif filesystem.holds_files(job.folder, (f"{WORK}/{run_lock.LOCK}", f"{WORK}/{run_lock.WORKERS_LOG}")):
        raise UserError(
            f"{job.folder} contains other files, or a dataset without its {MANIFEST}: give a new folder as --output"
        )
    return False


def _made_of(job: Job) -> dict[str, Any]:
    """Return the state of a complete dataset, in the form of `describe`. Only run.json records the input."""
    path = job.path(MANIFEST)
    there = manifest.loads(filesystem.read_bytes(path), path)
    config = {key: value for key, value in there["config"].items() if key != "input"}
    told = {"config": config, "vocabulary": there["vocabulary"]["sha256"], "datasheet": there["datasheet"]}
    told["evaluation"] = there["decontamination"]["sha256"] if "decontamination" in there else ""
    return told | (
        {"input": filesystem.read_json(job.path(RUN)).get("input")} if filesystem.exists(job.path(RUN)) else {"input": None}
    )


def _clear(job: Job, *names: str) -> None:
    """Remove all files of a run, except the dataset that it updates; also from the folder what the run would write."""
    for name in (*names, *(f"{WORK}/{part}" for part in ("groups", layout.STOPPED_AT)), "rejects"):
        filesystem.remove_tree(job.path(name))
    filesystem.remove_tree(job.spill, keep=run_lock.LOCK)
    for name in (clusters.NAME, layout.HTML, layout.MARKDOWN, f"{WORK}/{REFUSED}", f"{WORK}/{STATE}"):
        filesystem.remove(job.path(name))


def _reopen(job: Job) -> None:
    """Turn a complete dataset into an unfinished one, to be finished with other input. Shards of groups are kept.

    From the removal of dataset.json until everything is cleared there is no state, so that an interrupted call is repeated.
    """
    filesystem.remove(job.work(STATE))
    filesystem.write_bytes(job.path(PREVIOUS), filesystem.read_bytes(job.path(MANIFEST)))
    filesystem.remove(job.path(MANIFEST))
    _clear(job)


def groups_of(folder: str) -> int:
    """Return the number of train groups of the dataset to update. Raise UserError if there is no dataset."""
    for name in (MANIFEST, PREVIOUS):
        path = filesystem.join(folder, name)
        if filesystem.exists(path):
            return manifest.loads(filesystem.read_bytes(path), path)["config"]["num_groups"]
    raise UserError(f"--update: {folder} contains no dataset: remove --update to create one")


def run_id(now: dict[str, Any]) -> str:
    """Return a hash of a run's state, which its intermediate files carry."""
    return hashlib.blake2b(json.dumps(now, sort_keys=True).encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(job: Job) -> Iterator[None]:
    """Prevent a second run: on a local folder; for a remote one, only on this machine's spill files.

    The process and its workers hold the lock. A complete dataset that needs no work isn't locked, so that it may be in a
    read-only folder.
    """
    place = job.spill if filesystem.is_remote(job.folder) else job.work("")
    if filesystem.exists(job.path(MANIFEST)) and not job.config.update and not os.path.lexists(place.rstrip("/")):
        yield
        return
    new = not os.path.lexists(job.folder)
    try:
        with run_lock.locked_folder(place, f"another clozemill prepare is writing to {job.folder}: wait for it to end"):
            yield
    finally:
        if new:  # and nothing was written
            with contextlib.suppress(OSError):
                os.rmdir(job.folder)
