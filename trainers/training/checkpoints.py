"""Checkpoints: folders `step-00001000`, complete or ignored. Keeps the newest K and the best one; skips corrupt ones.

A checkpoint holds the weights and the optimizer's moments (safetensors files, variables by name), `vocab.txt`, of a model that
isn't tokenized by WordPiece also `tokenizer.json`, and `checkpoint.json`, written last: step, sizes of the files and, for local
ones, their SHA-256, the encoder's configuration, metrics, and a SHA-256 of all that. Everything else that a run needs to resume
(dropout seeds, position in the data) follows from the step. Works in local folders and on gs://.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.files import locks, safe_paths
from clozemill.trainers.common import storage
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.training import checkpoint_index, variable_files
from clozemill.trainers.training.checkpoint_index import INDEX
from clozemill.trainers.training.early_stopping import rank

FOLDER = "checkpoints"
_PREFIX = "step-"
_OF_FILES = ("format_version", "vocabulary", "files", "sha256_of_files")  # entries of checkpoint.json about the files


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder and the contents of its checkpoint.json."""

    folder: str
    index: dict[str, Any]

    @property
    def step(self) -> int:
        return self.index["step"]

    @property
    def version(self) -> int:
        return self.index["format_version"]

    @property
    def criterion(self) -> float:
        """Return the evaluated `criterion`, else the masked-LM loss; lower is better, infinity if there is none."""
        return rank(self.index.get("eval"))[0]


def tokenizer(one: Checkpoint) -> bytes:
    """Return the contents of a checkpoint's tokenizer.json; b"" if WordPiece tokenizes with its vocab.txt. Raises UserError."""
    own = (one.index.get("vocabulary") or {}).get("tokenizer")
    return storage.read(storage.join(one.folder, TOKENIZER), "give another checkpoint") if own else b""


def _all_folders(run: str) -> list[str]:
    """Return the folders of checkpoints, newest first, including incomplete ones."""
    there = storage.join(run, FOLDER)
    names = [name for name in reversed(storage.listed(there)) if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()]
    return [storage.join(there, name) for name in names]


def _folders(run: str) -> list[str]:
    """Return the folders of complete checkpoints, newest first; incomplete ones have no checkpoint.json."""
    return [folder for folder in _all_folders(run) if storage.exists(storage.join(folder, INDEX))]


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def saved(run: str) -> Iterator[Checkpoint]:
    """Yield a run's intact checkpoints, newest first; corrupt ones are skipped with a warning."""
    for folder in _folders(run):
        try:
            yield Checkpoint(folder, checkpoint_index.read(folder))
        except ValueError as error:
            _warn(f"{folder} is corrupt ({error}): skipped")


def best_of(whole: list[Checkpoint]) -> Checkpoint:
    """Return the checkpoint with the lowest criterion; ties are broken by dev loss, then by age (newest)."""
    return min(whole, key=lambda one: (rank(one.index.get("eval")), -one.step))


def _first(run: str) -> str:
    """Return at which step a run writes its first checkpoint, as the rest of a sentence; "" if that isn't known."""
    try:
        config = json.loads(storage.read(storage.join(run, "run.json"), "-"))["config"]
        steps = [config[name] for name in ("eval_steps", "checkpoint_steps")]
        at = min(step for step in steps if isinstance(step, int) and step > 0)
    except (UserError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return f"; the first is written at step {at:,}, or earlier after --checkpoint-minutes"


def find(path: str, which: str = "latest") -> Checkpoint:
    """Return a checkpoint by its folder, or the latest or best one of a run. Raises UserError if there is none."""
    if storage.exists(storage.join(path, INDEX)):
        try:
            return Checkpoint(path, checkpoint_index.read(path))
        except ValueError as error:
            raise UserError(f"{path} is corrupt ({error}): restore it, or give another checkpoint") from None
    found = list(saved(path))
    if not found and _folders(path):
        raise UserError(f"{storage.join(path, FOLDER)}: every checkpoint is corrupt: restore one, or give another run")
    if not found and storage.exists(storage.join(path, "run.json")):
        raise UserError(f"{path} has no checkpoint yet{_first(path)}: wait for it, or resume the run")
    if not found:
        raise UserError(f"{path} has no checkpoint: give the folder of a run, or one of its checkpoints/step-...")
    return best_of(found) if which == "best" else found[0]


def weights(one: Checkpoint) -> dict[str, np.ndarray]:
    """Return a checkpoint's weights by path within the model, such as `encoder/layer_0/attention/query/kernel`.

    Raises UserError if they are corrupt.
    """
    try:
        checkpoint_index.check_contents(one.folder, one.index)
    except ValueError as error:
        raise UserError(f"{one.folder} is corrupt ({error}): give another checkpoint") from None
    try:
        with variable_files.open_group(one.folder, "weights", one.version) as found:
            return dict(found)
    except ValueError as error:
        raise UserError(f"{one.folder}: the weights can't be read ({error}): give another checkpoint") from None


def digest(one: Checkpoint) -> str:
    """Return a SHA-256 of what a training that continues a checkpoint depends on.

    That is its checkpoint.json, which lists the SHA-256 of its files (of local ones), without what an evaluation adds.
    """
    left = checkpoint_index.OF_METRICS_FILE
    journal = {name: value for name, value in one.index.get("journal", {}).items() if name not in left}
    later = {"eval": None, "stopping": None, "journal": journal}
    return checkpoint_index.signature(one.index | later)


def load(one: Checkpoint, state: TrainState, surplus: tuple[str, ...] = ()) -> None:
    """Restore a checkpoint into a state. Raises ValueError if it is corrupt, or has other variables.

    surplus: prefixes of weights that it may have besides, with their moments.
    """
    checkpoint_index.check_contents(one.folder, one.index)
    groups = {"weights": state.weight_variables(), "moments": state.moment_variables()}
    for name, variables in groups.items():
        with variable_files.open_group(one.folder, name, one.version) as found:
            variable_files.assign(variables, found, surplus)


def restore(run: str, state: TrainState) -> dict[str, Any] | None:
    """Restore the newest intact checkpoint into a state. Returns its checkpoint.json, None if there is no checkpoint yet.

    Corrupt ones are skipped with a warning. Raises UserError if all are corrupt: a run must not silently start over.
    """
    for one in saved(run):
        try:
            load(one, state)
            return one.index
        except ValueError as error:
            _warn(f"{one.folder} is corrupt ({error}): skipped")
    if _folders(run):
        raise UserError(f"{storage.join(run, FOLDER)}: every checkpoint is corrupt: remove that folder to start over")
    return None


def step_folder(run: str, step: int) -> str:
    """Return the folder of a run's checkpoint."""
    return storage.join(run, FOLDER, f"{_PREFIX}{step:08d}")


def describe_again(folder: str, about: dict[str, Any]) -> bool:
    """Replace what checkpoint.json tells besides the files; return whether the checkpoint is there.

    Unlike `write`, it leaves the checkpoint complete at any time.
    """
    if not storage.exists(storage.join(folder, INDEX)):
        return False
    try:
        kept = {name: value for name, value in checkpoint_index.read(folder).items() if name in _OF_FILES}
    except ValueError:
        return False
    storage.write(storage.join(folder, INDEX), checkpoint_index.dumps(about | kept))
    return True


def write(
    folder: str, groups: dict[str, dict[str, Any]], vocabulary: bytes, about: dict[str, Any], tokenizer: bytes = b""
) -> None:
    """Write a checkpoint: a file of variables per group, vocab.txt, tokenizer.json if given, then checkpoint.json.

    Raises UserError and leaves nothing of the checkpoint then.
    """
    try:
        with storage.translate_errors(folder, "written"):
            _remove(folder)
            storage.make_folder(folder)
            for name, variables in groups.items():
                variable_files.write_variables(variables, storage.join(folder, f"{name}.safetensors"))
            storage.write(storage.join(folder, VOCAB), vocabulary)
            if tokenizer:
                storage.write(storage.join(folder, TOKENIZER), tokenizer)
            told = about.get("vocabulary")
            if isinstance(told, dict):  # the vocabulary of a SavedModel may have other line ends than that of the shards
                about = about | {"vocabulary": told | {"sha256": hashlib.sha256(vocabulary).hexdigest()}}
            index = {"format_version": checkpoint_index.FORMAT_VERSION, **about, **_described(folder)}
            storage.write(storage.join(folder, INDEX), checkpoint_index.dumps(index))
    except BaseException:
        with contextlib.suppress(UserError):
            _remove(folder)
        raise


def _described(folder: str) -> dict[str, Any]:
    """Return the entries of checkpoint.json for the files in a folder; local files are synced to disk."""
    names = [name for name in storage.listed(folder) if name != locks.FOLDER]
    sizes = {name: storage.size(storage.join(folder, name)) for name in names}
    if not storage.is_local(folder):
        return {"files": sizes}
    for name in names:
        storage.sync(storage.join(folder, name))
    return {"files": sizes, "sha256_of_files": {name: storage.sha256(storage.join(folder, name)) for name in names}}


def _remove(folder: str) -> None:
    """Remove a checkpoint, starting with checkpoint.json, so that a killed removal is ignored. Doesn't follow links."""
    index = storage.join(folder, INDEX)
    if storage.exists(index) and not (storage.is_local(folder) and os.path.islink(folder)):
        storage.remove(index)
    storage.remove_tree(folder)


def remove_all(run: str) -> None:
    """Remove all checkpoints of a run. Other files in their folder stay."""
    safe_paths.refuse_link(storage.join(run, FOLDER), run)
    for folder in _all_folders(run):
        _remove(folder)
    storage.remove_empty(storage.join(run, FOLDER))


def prune(run: str, keep: int, step: int, pinned: Collection[int | None] = ()) -> None:
    """Remove all checkpoints except the newest `keep` up to `step`, the best one and those of the steps `pinned`.

    Incomplete ones are removed too. On resume, corrupt checkpoints of later steps were skipped; if kept, they would be taken
    for the newest.
    """
    safe_paths.refuse_link(storage.join(run, FOLDER), run)
    whole = [one for one in saved(run) if one.step <= step]
    kept = {one.folder for one in whole[:keep]} | ({best_of(whole).folder} if whole else set())
    kept |= {one.folder for one in whole if one.step in pinned}
    for folder in _all_folders(run):
        if folder not in kept:
            _remove(folder)
