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
CHANGING = ("input", "evaluation", "datasheet")  # what an update may change
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


def describe(job: Job, plan: Plan) -> dict[str, Any]:
    """The state of a run: the identity of its configuration, resolved, and digests of all that decides what it writes."""
    return {
        "config": identity(job.config),
        "vocabulary": hashlib.sha256(job.vocabulary).hexdigest(),
        "input": fingerprint(plan),
        "versions": versions(),
        "evaluation": job.evaluation,
        "datasheet": job.datasheet,
    }


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
    for name, value in now["datasheet"].items():
        if before.get("datasheet", {}).get(name, []) != value:
            raise UserError(f"{folder} was begun with other --{name}: give the same to go on, --update, or another --output")


def check(job: Job, now: dict[str, Any]) -> bool:
    """Whether the dataset is there already, whole. Raises UserError when the folder holds something else."""
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
            f"{job.folder} is in the middle of an update: give --update to finish it, with the input as it was before to undo "
            "it, or another --output"
        )
    elif filesystem.exists(job.work(STATE)):
        before = read_sealed(job.work(STATE), STATE)
        if before is None:
            raise UserError(f"{job.work(STATE)} is damaged: remove {job.folder}, or give another --output")
        if before == now:
            return False
        if updating:  # the input changed again in the middle of an update
            _compare(job.folder, before | {key: now[key] for key in CHANGING}, now)
        elif filesystem.holds_files(job.work("groups")) and not filesystem.exists(job.work(REFUSED)):
            _compare(job.folder, before, now)
        _clear(job, *(() if updating else ("train", "eval", "documents", "groups", "provenance")))
    elif updating:  # ended between the two steps of _reopen
        _clear(job)
    elif filesystem.holds_files(job.folder, (f"{WORK}/{run_lock.LOCK}", f"{WORK}/{run_lock.WORKERS_LOG}")):
        raise UserError(
            f"{job.folder} is there and holds other files, or a dataset without its {MANIFEST}: give a new folder as --output"
        )
    return False


def _made_of(job: Job) -> dict[str, Any]:
    """What a whole dataset was made of, as `describe` tells it; its input is told in run.json alone."""
    path = job.path(MANIFEST)
    there = manifest.loads(filesystem.read_bytes(path), path)
    config = {key: value for key, value in there["config"].items() if key != "input"}
    told = {"config": config, "vocabulary": there["vocabulary"]["sha256"], "datasheet": there["datasheet"]}
    told["evaluation"] = there["decontamination"]["sha256"] if "decontamination" in there else ""
    return told | (
        {"input": filesystem.read_json(job.path(RUN)).get("input")} if filesystem.exists(job.path(RUN)) else {"input": None}
    )


def _clear(job: Job, *names: str) -> None:
    """Removes all of a run but the dataset that it updates, and from the folder what the run would make, and the names."""
    for name in (*names, *(f"{WORK}/{part}" for part in ("groups", layout.STOPPED_AT)), "rejects"):
        filesystem.remove_tree(job.path(name))
    filesystem.remove_tree(job.spill, keep=run_lock.LOCK)
    for name in (clusters.NAME, layout.HTML, layout.MARKDOWN, f"{WORK}/{REFUSED}", f"{WORK}/{STATE}"):
        filesystem.remove(job.path(name))


def _reopen(job: Job) -> None:
    """Makes a whole dataset an unfinished one that other input may finish; its groups' shards and records stay.

    From the moment that dataset.json is gone until all is cleared there is no state, so that whoever goes on clears again.
    """
    filesystem.remove(job.work(STATE))
    filesystem.write_bytes(job.path(PREVIOUS), filesystem.read_bytes(job.path(MANIFEST)))
    filesystem.remove(job.path(MANIFEST))
    _clear(job)


def groups_of(folder: str) -> int:
    """The number of train groups of the dataset that is to be updated. Raises UserError when there is none."""
    for name in (MANIFEST, PREVIOUS):
        path = filesystem.join(folder, name)
        if filesystem.exists(path):
            return manifest.loads(filesystem.read_bytes(path), path)["config"]["num_groups"]
    raise UserError(f"--update: {folder} holds no dataset: leave out --update to make one")


def run_id(now: dict[str, Any]) -> str:
    """A hash of a run's state, which binds its intermediate files to it."""
    return hashlib.blake2b(json.dumps(now, sort_keys=True).encode(), digest_size=16).hexdigest()


@contextlib.contextmanager
def locked(job: Job) -> Iterator[None]:
    """Keeps a second run out: of a local folder; for a remote one, of this machine's spill files alone.

    The lock goes with the process and its workers. A complete dataset that nothing is left to do for isn't locked, so that it
    may lie in a folder that can't be written to.
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
