"""Read a SavedModel that clozemill exported."""

import hashlib
import json
from typing import Any

import numpy as np
import tensorflow as tf

from clozemill.model.conversion.tf_errors import as_os_errors
from clozemill.model.conversion.tf_variables import read_variables
from clozemill.model.conversion.tokenizer_json import TOKENIZER

EXTRA = "assets.extra"  # of files that TensorFlow ignores
ABOUT = (EXTRA, "clozemill.json")

_SEEDS = "seed_generator_state"  # suffix of the variables of dropout seeds, whose values are irrelevant


def _tokenizer(folder: str, sha256: str | None) -> bytes:
    """Return the contents of tokenizer.json, b"" if the checkpoint has none. Raises ValueError for another file."""
    if sha256 is None:
        return b""
    with as_os_errors(), tf.io.gfile.GFile(tf.io.gfile.join(folder, EXTRA, TOKENIZER), "rb") as file:
        found = file.read()
    if hashlib.sha256(found).hexdigest() != sha256:
        raise ValueError(f"{TOKENIZER} was changed after it was written")
    return found


def read(folder: str) -> tuple[dict[str, Any], dict[str, np.ndarray], tuple[str, ...], bytes]:
    """Return (checkpoint.json, weights by path within the model, tokens of the vocabulary, tokenizer.json) of a SavedModel.

    tokenizer.json: its contents, b"" if WordPiece tokenizes with the vocabulary.

    Loading a SavedModel could run foreign operations. So this only reads files of values, and loads no graph.

    Raises ValueError or OSError for any other folder.
    """
    with as_os_errors(), tf.io.gfile.GFile(tf.io.gfile.join(folder, *ABOUT), "r") as file:
        about = json.loads(file.read())
    try:
        keys = {f"variables/{number}/.ATTRIBUTES/VARIABLE_VALUE": path for number, path in enumerate(about["variables"])}
        wanted = {key: path for key, path in keys.items() if not path.endswith(_SEEDS)}
        found = read_variables(tf.io.gfile.join(folder, "variables", "variables"), lambda key: key in wanted)
        weights = {path: found[key] for key, path in wanted.items()}
        tokens, checkpoint = tuple(about["vocabulary"]), dict(about["checkpoint"])
        sha256 = (checkpoint.get("vocabulary") or {}).get("tokenizer")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from None
    if not all(isinstance(token, str) for token in tokens):
        raise ValueError("its vocabulary holds what isn't a text")
    return checkpoint, weights, tokens, _tokenizer(folder, sha256)
