"""Checkpoints with random weights of every kind of model, for tests of what reads checkpoints."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clozemill.trainers.training import checkpoints
from clozemill.trainers.training.train_state import TrainState
from tests.model import sources

VOCABULARY = "".join(f"{token}\n" for token in sources.TOKENS).encode()


def checkpoint(folder: Path, name: str, without: str = "-", **about: Any) -> Path:
    """A checkpoint of one of sources.INDEXES; `about` goes into checkpoint.json, weights that begin with `without` don't."""
    source = sources.source(name, sources.INDEXES[name] | {key: about[key] for key in ("task",) if key in about})
    told = {"sha256": hashlib.sha256(VOCABULARY).hexdigest(), "size": len(sources.TOKENS), "cased": False}
    weights = TrainState(source.model).weights()
    kept = {path: value for path, value in weights.items() if not path.split("/", 1)[1].startswith(without)}
    checkpoints.write(str(folder), {"weights": kept}, VOCABULARY, source.about | {"vocabulary": told} | about)
    return folder


def alter(folder: Path, change: Callable[[dict], None]) -> None:
    """Changes what a checkpoint.json says, and signs it again; no longer with what the files are."""
    index = json.loads((folder / checkpoints.INDEX).read_text("utf-8"))
    index.pop("sha256_of_files", None)
    change(index)
    (folder / checkpoints.INDEX).write_bytes(checkpoints.dumps(index))
