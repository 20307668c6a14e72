"""Checkpoints: folders `step-00001000` that are whole or ignored, the newest K and the best kept, damaged ones passed over.

A checkpoint holds the weights and the optimizer's moments (two TensorFlow checkpoints, variables by name), `vocab.txt`, and
`checkpoint.json`, written last: step, sizes of the files and, of local ones, their SHA-256, the encoder's configuration,
figures, and a SHA-256 of all that. Everything else that a run needs to resume, dropout's seeds and the place in the data,
follows from the step. Local folders and gs:// alike.
"""

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.conversion.tf_variables import read_variables
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.files import locks, safe_paths
from clozemill.trainers.common import storage
from clozemill.trainers.training.early_stopping import rank
from clozemill.trainers.training.train_state import TrainState

FORMAT_VERSION = 2
UNSIGNED = 1  # the version before checkpoint.json was signed: still read
INDEX = "checkpoint.json"
FOLDER = "checkpoints"
_PREFIX = "step-"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # how TensorFlow ends the name of a variable's value


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: its folder and what its checkpoint.json says."""

    folder: str
    index: dict[str, Any]

    @property
    def step(self) -> int:
        return self.index["step"]

    @property
    def criterion(self) -> float:
        """The lower the better: what was evaluated as `criterion`, else the masked-LM loss; infinity where there is none."""
        return rank(self.index.get("eval"))[0]


def _signature(index: dict[str, Any]) -> str:
    """SHA-256 of a checkpoint.json without its own, whatever its indentation and the order of its keys."""
    rest = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dumps(index: dict[str, Any]) -> bytes:
    """A checkpoint.json, signed: `sha256` is the digest of all else."""
    signed = {"format_version": FORMAT_VERSION, **index}
    return (json.dumps(signed | {"sha256": _signature(signed)}, indent=1) + "\n").encode()


def trained_length(index: dict[str, Any]) -> int:
    """The longest sequence that a checkpoint's model was trained on, by its checkpoint.json; what an import declares."""
    longest = index["encoder"]["max_position_embeddings"]
    found = index.get("trained_length")
    return min(found, longest) if isinstance(found, int) and found > 0 else longest


def _read_index(folder: str) -> dict[str, Any]:
    """checkpoint.json of a folder. Raises ValueError when it isn't one, or a file hasn't the size that it says."""
    try:
        index = json.loads(storage.read(storage.join(folder, INDEX), "-"))
        version, sizes, _ = index["format_version"], dict(index["files"]), index["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{INDEX} is not a checkpoint's") from None
    if version not in (FORMAT_VERSION, UNSIGNED):
        raise ValueError(f"its format version is {version}, not {FORMAT_VERSION}")
    if version != UNSIGNED and index.pop("sha256", None) != _signature(index):
        raise ValueError(f"{INDEX} was changed after it was written")
    for name, size in sizes.items():
        path = storage.join(folder, name)
        found = tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else -1
        if found != size:
            raise ValueError(f"{name} has {found} bytes, not {size}" if found >= 0 else f"{name} is missing")
    _check_vocabulary(folder, index)
    return index


def _check_contents(one: "Checkpoint") -> None:
    """Raises ValueError when a local file isn't the one that was written. Object stores check that themselves."""
    for name, digest in (one.index.get("sha256_of_files") or {}).items() if storage.is_local(one.folder) else ():
        if storage.sha256(storage.join(one.folder, name)) != digest:
            raise ValueError(f"{name} was changed after it was written")


def _check_vocabulary(folder: str, index: dict[str, Any]) -> None:
    """Raises ValueError unless vocab.txt is the one that the checkpoint was written with: with another, all ids mean others."""
    told = index.get("vocabulary")
    sha256 = told.get("sha256") if isinstance(told, dict) else None
    if sha256 is not None and hashlib.sha256(storage.read(storage.join(folder, VOCAB), "-")).hexdigest() != sha256:
        raise ValueError(f"{VOCAB} is not the vocabulary that it was written with: its SHA-256 differs from {INDEX}'s")


def _all_folders(run: str) -> list[str]:
    """Folders of checkpoints, newest first, those whose writing was cut short among them."""
    there = storage.join(run, FOLDER)
    names = [name for name in reversed(storage.listed(there)) if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()]
    return [storage.join(there, name) for name in names]


def _folders(run: str) -> list[str]:
    """Folders of finished checkpoints, newest first; those whose writing was cut short have no checkpoint.json."""
    return [folder for folder in _all_folders(run) if tf.io.gfile.exists(storage.join(folder, INDEX))]


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def saved(run: str) -> Iterator[Checkpoint]:
    """A run's whole checkpoints, newest first; a damaged one is passed over with a warning."""
    for folder in _folders(run):
        try:
            yield Checkpoint(folder, _read_index(folder))
        except ValueError as error:
            _warn(f"{folder} is damaged ({error}): passed over")


def _best(whole: list[Checkpoint]) -> Checkpoint:
    """The one of the lowest criterion, of equal ones that of the lowest dev loss, then the newest."""
    return min(whole, key=lambda one: (rank(one.index.get("eval")), -one.step))


def find(path: str, which: str = "latest") -> Checkpoint:
    """A checkpoint by its folder, or the latest or best one of a run. Raises UserError when there is none."""
    if tf.io.gfile.exists(storage.join(path, INDEX)):
        try:
            return Checkpoint(path, _read_index(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): restore it, or give another checkpoint") from None
    found = list(saved(path))
    if not found and _folders(path):
        raise UserError(f"{storage.join(path, FOLDER)}: every checkpoint is damaged: restore one, or give another run")
    if not found:
        raise UserError(f"{path} holds no checkpoint: give the folder of a run, or one of its checkpoints/step-...")
    return _best(found) if which == "best" else found[0]


def _write_variables(variables: dict[str, tf.Variable], prefix: str) -> None:
    tf.train.Checkpoint(**variables).write(prefix)


def _read_variables(variables: dict[str, tf.Variable], prefix: str) -> None:
    """Raises ValueError when the file doesn't hold exactly these variables, or is damaged."""
    try:
        tf.train.Checkpoint(**variables).read(prefix).assert_consumed()
    except (tf.errors.OpError, AssertionError, ValueError) as error:
        raise ValueError(" ".join(str(error).split())[:200]) from None


def weights(one: Checkpoint) -> dict[str, np.ndarray]:
    """A checkpoint's weights by their path within the model, such as `encoder/layer_0/attention/query/kernel`.

    Raises UserError when they are damaged.
    """
    try:
        _check_contents(one)
    except ValueError as error:
        raise UserError(f"{one.folder} is damaged ({error}): give another checkpoint") from None
    try:
        found = read_variables(storage.join(one.folder, "weights"), lambda key: key.endswith(_VALUE))
    except (tf.errors.OpError, ValueError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{one.folder}: the weights can't be read ({told}): give another checkpoint") from None
    names = {key: key.removesuffix(_VALUE).replace(".S", "/").replace("..", ".") for key in found}
    return {name.partition("/")[2]: found[key] for key, name in names.items()}


def restore(run: str, state: TrainState) -> dict[str, Any] | None:
    """Reads the newest checkpoint that can be read into a state; returns its checkpoint.json, None when there is none yet.

    A damaged one is passed over with a warning. Raises UserError when all are damaged: a run isn't begun anew in silence.
    """
    for one in saved(run):
        try:
            _check_contents(one)
            _read_variables(state.weights(), storage.join(one.folder, "weights"))
            _read_variables(state.moments(), storage.join(one.folder, "moments"))
            return one.index
        except ValueError as error:
            _warn(f"{one.folder} is damaged ({error}): passed over")
    if _folders(run):
        raise UserError(f"{storage.join(run, FOLDER)}: every checkpoint is damaged: remove that folder to begin anew")
    return None


def save(run: str, state: TrainState, step: int, vocabulary: bytes, about: dict[str, Any]) -> str:
    """Writes a run's checkpoint; returns its folder. `about` goes into checkpoint.json beside step and the files' sizes."""
    folder = storage.join(run, FOLDER, f"{_PREFIX}{step:08d}")
    write(folder, {"weights": state.weights(), "moments": state.moments()}, vocabulary, {"step": step, **about})
    return folder


def write(folder: str, groups: dict[str, dict[str, tf.Variable]], vocabulary: bytes, about: dict[str, Any]) -> None:
    """Writes a checkpoint: a file of variables per group, vocab.txt, then checkpoint.json.

    Raises UserError; nothing of the checkpoint is left then.
    """
    try:
        with storage.translate_errors(folder, "written", "fix that, then run the same command again"):
            _remove(folder)
            tf.io.gfile.makedirs(folder)
            for name, variables in groups.items():
                _write_variables(variables, storage.join(folder, name))
            storage.write(storage.join(folder, VOCAB), vocabulary)
            told = about.get("vocabulary")
            if isinstance(told, dict):  # of a SavedModel it may have other line ends than the shards'
                about = about | {"vocabulary": told | {"sha256": hashlib.sha256(vocabulary).hexdigest()}}
            index = {"format_version": FORMAT_VERSION, **about, **_described(folder)}
            storage.write(storage.join(folder, INDEX), dumps(index))
    except BaseException:
        with contextlib.suppress(UserError):
            _remove(folder)
        raise


def _described(folder: str) -> dict[str, Any]:
    """What checkpoint.json says of the files in a folder; local ones are on disk afterwards."""
    names = [name for name in storage.listed(folder) if name != locks.FOLDER]
    sizes = {name: tf.io.gfile.stat(storage.join(folder, name)).length for name in names}
    if not storage.is_local(folder):
        return {"files": sizes}
    for name in names:
        storage.sync(storage.join(folder, name))
    return {"files": sizes, "sha256_of_files": {name: storage.sha256(storage.join(folder, name)) for name in names}}


def _remove(folder: str) -> None:
    """Removes a checkpoint, its checkpoint.json first, so that what a kill leaves of it is ignored. Links aren't followed."""
    index = storage.join(folder, INDEX)
    if tf.io.gfile.exists(index) and not (storage.is_local(folder) and os.path.islink(folder)):
        tf.io.gfile.remove(index)
    storage.remove_tree(folder)


def prune(run: str, keep: int, step: int) -> None:
    """Removes all but the newest `keep` checkpoints up to `step` and the best of them, and what a kill left of unfinished ones.

    A run that goes on had passed over those of later steps as damaged: kept, they would count as the newest.
    """
    safe_paths.refuse_link(storage.join(run, FOLDER), run)
    whole = [one for one in saved(run) if one.step <= step]
    kept = {one.folder for one in whole[:keep]} | ({_best(whole).folder} if whole else set())
    for folder in _all_folders(run):
        if folder not in kept:
            _remove(folder)
