"""Checkpoints with random weights of every kind of model, for tests of readers of checkpoints."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.training import checkpoint_index, checkpoints
from tests.model import sources

VOCABULARY = "".join(f"{token}\n" for token in sources.TOKENS).encode()


def checkpoint(folder: Path, name: str, without: str = "-", **about: Any) -> Path:
    """Write a checkpoint of one of sources.INDEXES with `about` in checkpoint.json; omit weights that start with `without`."""
    source = sources.source(name, sources.INDEXES[name] | {key: about[key] for key in ("task",) if key in about})
    told = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": len(sources.TOKENS), "cased": False}
    weights = TrainState(source.model).weights()
    kept = {path: value for path, value in weights.items() if not path.startswith(without)}
    checkpoints.write(str(folder), {"weights": kept}, VOCABULARY, source.about | {"vocabulary": told} | about)
    return folder


def alter(folder: Path, change: Callable[[dict], None]) -> None:
    """Change a checkpoint.json and sign it again, so that it no longer matches the files."""
    index = json.loads((folder / checkpoint_index.INDEX).read_text("utf-8"))
    index.pop("sha256_of_files", None)
    change(index)
    (folder / checkpoint_index.INDEX).write_bytes(checkpoint_index.dumps(index))
