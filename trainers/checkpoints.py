"""Checkpoints: folders `step-00001000` that are whole or ignored, the newest K and the best kept, damaged ones passed over.

A checkpoint holds the weights and the optimizer's moments (two TensorFlow checkpoints, variables by name), `vocab.txt`, and
`checkpoint.json`, written last: step, sizes of the files, the encoder's configuration, figures. Everything else that a run
needs to go on, dropout's seeds and the place in the data, follows from the step. Local folders and gs:// alike.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from pipelines.schema import VOCAB, UserError
from trainers import files
from trainers.early_stopping import rank
from trainers.state import TrainState

FORMAT_VERSION = 1
INDEX = "checkpoint.json"
FOLDER = "checkpoints"
_PREFIX = "step-"
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # how TensorFlow ends the name of a variable's value


@dataclass(frozen=True)
class Saved:
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


def _read_index(folder: str) -> dict[str, Any]:
    """checkpoint.json of a folder. Raises ValueError when it isn't one, or a file hasn't the size that it says."""
    try:
        index = json.loads(files.read(files.join(folder, INDEX), "-"))
        version, sizes, _ = index["format_version"], dict(index["files"]), index["step"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{INDEX} is not a checkpoint's") from None
    if version != FORMAT_VERSION:
        raise ValueError(f"its format version is {version}, not {FORMAT_VERSION}")
    for name, size in sizes.items():
        path = files.join(folder, name)
        found = tf.io.gfile.stat(path).length if tf.io.gfile.exists(path) else -1
        if found != size:
            raise ValueError(f"{name} has {found} bytes, not {size}" if found >= 0 else f"{name} is missing")
    return index


def _all_folders(run: str) -> list[str]:
    """Folders of checkpoints, newest first, those whose writing was cut short among them."""
    there = files.join(run, FOLDER)
    names = [name for name in reversed(files.listed(there)) if name.startswith(_PREFIX) and name[len(_PREFIX) :].isdigit()]
    return [files.join(there, name) for name in names]


def _folders(run: str) -> list[str]:
    """Folders of finished checkpoints, newest first; those whose writing was cut short have no checkpoint.json."""
    return [folder for folder in _all_folders(run) if tf.io.gfile.exists(files.join(folder, INDEX))]


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)


def saved(run: str) -> Iterator[Saved]:
    """A run's whole checkpoints, newest first; a damaged one is passed over with a warning."""
    for folder in _folders(run):
        try:
            yield Saved(folder, _read_index(folder))
        except ValueError as error:
            _warn(f"{folder} is damaged ({error}): passed over")


def _best(whole: list[Saved]) -> Saved:
    """The one of the lowest criterion, of equal ones that of the lowest dev loss, then the newest."""
    return min(whole, key=lambda one: (rank(one.index.get("eval")), -one.step))


def find(path: str, which: str = "latest") -> Saved:
    """A checkpoint by its folder, or the latest or best one of a run. Raises UserError when there is none."""
    if tf.io.gfile.exists(files.join(path, INDEX)):
        try:
            return Saved(path, _read_index(path))
        except ValueError as error:
            raise UserError(f"{path} is damaged ({error}): give another checkpoint") from None
    found = list(saved(path))
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


def weights(one: Saved) -> dict[str, np.ndarray]:
    """A checkpoint's weights by their path within the model, such as `encoder/layer_0/attention/query/kernel`.

    Raises UserError when they are damaged.
    """
    try:
        reader = tf.train.load_checkpoint(files.join(one.folder, "weights"))
        keys = [key for key in reader.get_variable_to_shape_map() if key.endswith(_VALUE)]
        names = {key: key.removesuffix(_VALUE).replace(".S", "/").replace("..", ".") for key in sorted(keys)}
        return {name.split("/", 1)[1]: reader.get_tensor(key) for key, name in names.items()}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(f"{one.folder}: the weights can't be read ({told}): give another checkpoint") from None


def restore(run: str, state: TrainState) -> dict[str, Any] | None:
    """Reads the newest checkpoint that can be read into a state; returns its checkpoint.json, None when there is none yet.

    A damaged one is passed over with a warning. Raises UserError when all are damaged: a run isn't begun anew in silence.
    """
    for one in saved(run):
        try:
            _read_variables(state.weights(), files.join(one.folder, "weights"))
            _read_variables(state.moments(), files.join(one.folder, "moments"))
            return one.index
        except ValueError as error:
            _warn(f"{one.folder} is damaged ({error}): passed over")
    if _folders(run):
        raise UserError(f"{files.join(run, FOLDER)}: every checkpoint is damaged: remove that folder to begin anew")
    return None


def save(run: str, state: TrainState, step: int, vocabulary: bytes, about: dict[str, Any]) -> str:
    """Writes a run's checkpoint; returns its folder. `about` goes into checkpoint.json beside step and the files' sizes."""
    folder = files.join(run, FOLDER, f"{_PREFIX}{step:08d}")
    write(folder, {"weights": state.weights(), "moments": state.moments()}, vocabulary, {"step": step, **about})
    return folder


def write(folder: str, groups: dict[str, dict[str, tf.Variable]], vocabulary: bytes, about: dict[str, Any]) -> None:
    """Writes a checkpoint: a file of variables per group, vocab.txt, then checkpoint.json. Raises UserError."""
    try:
        _remove(folder)
        tf.io.gfile.makedirs(folder)
        for name, variables in groups.items():
            _write_variables(variables, files.join(folder, name))
    except (tf.errors.OpError, OSError) as error:
        told = files.cause(error) if isinstance(error, tf.errors.OpError) else error
        raise UserError(f"{folder} can't be written ({told}): mend that, then run the same command again") from None
    files.write(files.join(folder, VOCAB), vocabulary)
    sizes = {name: tf.io.gfile.stat(files.join(folder, name)).length for name in files.listed(folder)}
    files.write_json(files.join(folder, INDEX), {"format_version": FORMAT_VERSION, **about, "files": sizes})


def _remove(folder: str) -> None:
    """Removes a checkpoint, its checkpoint.json first, so that what a kill leaves of it is ignored."""
    if tf.io.gfile.exists(files.join(folder, INDEX)):
        tf.io.gfile.remove(files.join(folder, INDEX))
    if tf.io.gfile.isdir(folder):
        tf.io.gfile.rmtree(folder)


def prune(run: str, keep: int, step: int) -> None:
    """Removes all but the newest `keep` checkpoints up to `step` and the best of them, and what a kill left of unfinished ones.

    A run that goes on had passed over those of later steps as damaged: kept, they would count as the newest.
    """
    whole = [one for one in saved(run) if one.step <= step]
    kept = {one.folder for one in whole[:keep]} | ({_best(whole).folder} if whole else set())
    for folder in _all_folders(run):
        if folder not in kept:
            _remove(folder)
