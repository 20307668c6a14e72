"""The folder of a dataset: what it contains, how a run takes it over, and how a run ends.

A run keeps its intermediate files in `.work/`, and there in state.json its identity: a run can't be resumed if anything
changed that affects the bytes. If no shard is finished yet, or the last run failed because of its input or filters, it starts
over.
"""

import contextlib
import enum
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from clozemill.pipelines.beam import run_lock
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import clusters, layout, manifest
from clozemill.pipelines.dataset.layout import MANIFEST, REJECTED, RUN, VOCAB, WORK
from clozemill.pipelines.dataset.manifest import Manifest
from clozemill.pipelines.files import filesystem, safe_paths
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from clozemill.pipelines.prepare.run_identity import RunIdentity
from clozemill.pipelines.quality.statistics import STATISTICS

_STATE = "state.json"  # the identity of the unfinished run
_FAILURE = "refused.txt"  # the last run reached the end, but its input, its filters or the gate made it fail
_PREVIOUS = "previous.json"  # the manifest of the dataset that is being updated
_OVERWRITING = "overwriting"  # everything of an earlier run is being removed; not yet, as long as dataset.json exists
# The files that clozemill writes to a dataset folder, in `.work/` all but the lock and the log, which are in use.
_SHARD = r"(train/copy-\d+|eval)/examples-\d+-of-\d+"
_NAMES = (MANIFEST, RUN, VOCAB, layout.HTML, layout.MARKDOWN, layout.INDEX, clusters.NAME, STATISTICS, "prepare.yaml")
_OURS = re.compile(
    rf"({_SHARD}\.tfrecord|provenance/{_SHARD}\.parquet|documents/(train|eval)-\d+\.parquet|groups/\d+\.json|rejects/([0-9a-f]+|unmatched-ids)\.jsonl"
    rf"|{'|'.join(map(re.escape, _NAMES))}"
    rf"|{re.escape(WORK)}/(?!({run_lock.LOCK}|{re.escape(run_lock.WORKERS_LOG)}|{_OVERWRITING})$).*)"
)


class Status(enum.Enum):
    """What a folder contains: nothing, an unfinished run, an unfinished update of a dataset, a dataset, or other files."""

    NEW = enum.auto()
    RESUMABLE = enum.auto()
    UPDATING = enum.auto()
    COMPLETE = enum.auto()
    FOREIGN = enum.auto()


@dataclass(frozen=True)
class DatasetFolder:
    """A dataset folder and the intermediate files of a run; workers receive it as part of their job.

    path: local or remote. spill: a local folder for the `files` shuffle, in `.work/` unless the dataset is remote.
    """

    path: str
    spill: str

    @classmethod
    def at(cls, path: str, input_digest: str) -> "DatasetFolder":
        """Return the folder; if it is remote, with a private spill folder in this machine's temporary folder."""
        if not filesystem.is_remote(path):
            return cls(path, filesystem.inside(path, f"{WORK}/spill"))
        name = hashlib.blake2b(f"{path} {input_digest}".encode(), digest_size=8).hexdigest()
        return cls(path, safe_paths.private_folder(os.path.join(tempfile.gettempdir(), f"clozemill-{os.getuid()}-{name}")))

    def file(self, name: str) -> str:
        """Return the path of a file of the dataset."""
        return filesystem.inside(self.path, name)

    def work_file(self, name: str = "") -> str:
        """Return the path of an intermediate file, or of the folder for them."""
        return self.file(f"{WORK}/{name}")

    def read_manifest(self) -> Manifest:
        """Return dataset.json. Raise UserError if it is damaged."""
        return manifest.loads(filesystem.read_bytes(self.file(MANIFEST)), self.file(MANIFEST))

    def previous_manifest(self) -> Manifest | None:
        """Return the manifest of the dataset that is being updated, if there is one."""
        path = self.work_file(_PREVIOUS)
        return manifest.loads(filesystem.read_bytes(path), path) if filesystem.exists(path) else None

    def num_groups(self) -> int:
        """Return the number of train groups of the dataset to update. Raise UserError if there is no dataset."""
        there = self.read_manifest() if filesystem.exists(self.file(MANIFEST)) else self.previous_manifest()
        if there is None:
            raise UserError(f"--update: {self.path} contains no dataset: remove --update to create one")
        return there["config"]["num_groups"]

    def status(self) -> Status:
        """Return what the folder contains."""
        for path, status in (
            (self.file(MANIFEST), Status.COMPLETE),
            (self.work_file(_PREVIOUS), Status.UPDATING),
            (self.work_file(_STATE), Status.RESUMABLE),
            (self.work_file(_OVERWRITING), Status.RESUMABLE),
        ):
            if filesystem.exists(path):
                return status
        own = (f"{WORK}/{run_lock.LOCK}", f"{WORK}/{run_lock.WORKERS_LOG}")
        return Status.FOREIGN if filesystem.holds_files(self.path, own) else Status.NEW

    @contextlib.contextmanager
    def lock(self, changes: bool) -> Iterator[None]:
        """Prevent a second run: on a local folder; for a remote one, only on this machine's spill files.

        The process and its workers hold the lock. A complete dataset that needs no work isn't locked, so that it may be in a
        read-only folder. changes: whether a complete dataset will be changed.
        """
        place = self.spill if filesystem.is_remote(self.path) else self.work_file()
        if filesystem.exists(self.file(MANIFEST)) and not changes and not os.path.lexists(place.rstrip("/")):
            yield
            return
        new = not os.path.lexists(self.path)
        try:
            with run_lock.locked_folder(place, f"another clozemill prepare is writing to {self.path}: wait for it to end"):
                yield
        finally:
            if new:  # and nothing was written
                with contextlib.suppress(OSError):
                    os.rmdir(self.path)

    def open(self, identity: RunIdentity, update: bool) -> bool:
        """Take the folder over for a run, and remove what it can't use. Return False if the dataset is complete already.

        Raises:
            UserError: the folder contains something else, or another dataset.
        """
        status = self._own_status()
        if update:
            self._refuse_forgotten(identity)
        if filesystem.exists(self.work_file(_OVERWRITING)):
            if status is Status.COMPLETE:  # interrupted before anything was removed
                filesystem.remove(self.work_file(_OVERWRITING))
            else:
                self.clear()
                status = Status.RESUMABLE
        if status is Status.COMPLETE:
            identity.refuse_changes(self._dataset_identity(versions=update), self.path, update)
            if not update:
                return False
            self.reopen()
        elif status is Status.UPDATING and not update:
            raise UserError(
                f"{self.path} has an unfinished update: give --update to finish it (or, with the original input, to undo it), "
                "or another --output"
            )
        elif filesystem.exists(self.work_file(_STATE)):
            self._resume(identity, status is Status.UPDATING)
        elif status is Status.UPDATING:  # interrupted between the two steps of reopen
            self._clear()
        filesystem.remove_tree(self.file(REJECTED))  # of an earlier run
        write_sealed(self.work_file(_STATE), asdict(identity), _STATE)
        filesystem.remove(self.work_file(_OVERWRITING))
        return True

    def _refuse_forgotten(self, identity: RunIdentity) -> None:
        """Raise UserError if an update would bring documents back because --exclude-ids or --decontaminate is missing."""
        before = self.read_manifest() if filesystem.exists(self.file(MANIFEST)) else self.previous_manifest()
        if before and "exclusion" in before and not identity.exclusion:
            raise UserError(
                f"{self.path} excludes documents by id: give --exclude-ids again (with an empty file, to bring them all back)"
            )
        if before and "decontamination" in before and not identity.evaluation:
            raise UserError(
                f"{self.path} leaves out documents with text of evaluation sets: give --decontaminate again, or --overwrite "
                "instead of --update to bring them back"
            )

    def _own_status(self) -> Status:
        """Return the status. Raise UserError if the folder contains something else."""
        if (status := self.status()) is Status.FOREIGN:
            raise UserError(
                f"{self.path} contains other files, or a dataset without its {MANIFEST}: give a new folder as --output"
            )
        return status

    def clear(self) -> None:
        """Remove a dataset or an unfinished run; files that clozemill didn't write stay. The caller holds the lock.

        dataset.json is removed first. An interrupted call is repeated by the next `open`: the mark that it leaves keeps a run
        from taking the remaining files for its own.

        Raises:
            UserError: the folder contains something else, or a file can't be removed.
        """
        if self._own_status() is Status.NEW:
            return
        filesystem.write_bytes(self.work_file(_OVERWRITING), b"")
        filesystem.remove(self.file(MANIFEST))
        filesystem.sync_files(self.path, ())  # after a power cut, a dataset must not be without some of its shards
        filesystem.remove(*self._own_files())
        filesystem.remove_tree(self.spill, keep=run_lock.LOCK)
        for place, _, _ in [] if filesystem.is_remote(self.path) else os.walk(self.path, topdown=False):
            with contextlib.suppress(OSError):  # not empty
                os.rmdir(place)
        if left := self._own_files():
            raise UserError(f"{left[0]} can't be removed: check the permissions, or give another --output")

    def _own_files(self) -> list[str]:
        """Return the files of the folder that a run writes, but for those in use."""
        return [self.file(name) for name in filesystem.names_below(self.path) if _OURS.fullmatch(name)]

    def _resume(self, identity: RunIdentity, updating: bool) -> None:
        """Keep the files of an unfinished run if it had the same identity; otherwise start over, or raise UserError."""
        state = read_sealed(self.work_file(_STATE), _STATE)
        if state is None:
            raise UserError(f"{self.work_file(_STATE)} is damaged: remove {self.path}, or give another --output")
        before = RunIdentity(**state)
        if before == identity:
            return
        finished = filesystem.holds_files(self.work_file("groups")) and not filesystem.exists(self.work_file(_FAILURE))
        if updating or finished:  # in an update, the input may have changed again
            identity.refuse_changes(before, self.path, updating)
        self._clear(*(() if updating else ("train", "eval", "documents", "groups", "provenance")))

    def reopen(self) -> None:
        """Turn a complete dataset into an unfinished one, to be finished with other input. Shards of groups are kept.

        From the removal of dataset.json until everything is cleared there is no state, so that an interrupted call is repeated.
        """
        filesystem.remove(self.work_file(_STATE))
        filesystem.write_bytes(self.work_file(_PREVIOUS), filesystem.read_bytes(self.file(MANIFEST)))
        filesystem.remove(self.file(MANIFEST))
        self._clear()

    def rejected(self) -> str:
        """Return the folder with the files of a dataset that the statistical gate rejected in this run, or ""."""
        return self.file(REJECTED) if filesystem.exists(self.file(f"{REJECTED}/{MANIFEST}")) else ""

    def mark_failed(self, error: UserError) -> None:
        """Record that the run can't succeed as it is, so that the next one may start over with other input or options."""
        filesystem.write_bytes(self.work_file(_FAILURE), str(error).encode("utf-8", "replace"))

    def finish(self, run: dict[str, Any]) -> None:
        """Write run.json, and remove the intermediate files."""
        filesystem.write_bytes(self.file(RUN), (json.dumps(run, indent=1) + "\n").encode())
        filesystem.remove_tree(self.work_file(), keep=run_lock.LOCK)
        filesystem.remove_tree(self.spill, keep=run_lock.LOCK)

    def _clear(self, *names: str) -> None:
        """Remove the intermediate files, except those of an update, and files and folders of the dataset by name."""
        for name in (*names, f"{WORK}/groups", REJECTED, "rejects"):
            filesystem.remove_tree(self.file(name))
        filesystem.remove_tree(self.spill, keep=run_lock.LOCK)
        for name in (clusters.NAME, layout.INDEX, layout.HTML, layout.MARKDOWN, f"{WORK}/{_FAILURE}", f"{WORK}/{_STATE}"):
            filesystem.remove(self.file(name))

    def _dataset_identity(self, versions: bool) -> RunIdentity:
        """Return the identity of a complete dataset. Only run.json records the input and the versions.

        versions: whether those matter, as they do to an update, which keeps shards and writes others.
        """
        there = self.read_manifest()
        run = filesystem.read_json(self.file(RUN)) if filesystem.exists(self.file(RUN)) else {}
        return RunIdentity(
            config={key: value for key, value in there["config"].items() if key != "input"},
            vocabulary=there["vocabulary"]["sha256"],
            input=run.get("input"),
            versions=run.get("versions") if versions else None,
            evaluation=there["decontamination"]["sha256"] if "decontamination" in there else "",
            datasheet=there["datasheet"],
            ids=there["ids"]["field"] if "ids" in there else "",
            exclusion=there["exclusion"]["sha256"] if "exclusion" in there else "",
        )
