"""checkpoint.json, written last, makes a folder a checkpoint: what it tells, and whether the files are as it says."""

import hashlib
import json
from typing import Any

from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.trainers.common import storage

FORMAT_VERSION = 3
UNSIGNED = 1  # the last version without a signature in checkpoint.json: still readable, as are all after it
INDEX = "checkpoint.json"
OF_METRICS_FILE = ("lines", "entries")  # what its `journal` says of metrics.jsonl; the rest is of steps after its last line


def signature(index: dict[str, Any]) -> str:
    """Return the SHA-256 of a checkpoint.json without its own `sha256`, independent of indentation and key order."""
    rest = {key: value for key, value in index.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dumps(index: dict[str, Any]) -> bytes:
    """Serialize a checkpoint.json with its signature: `sha256` is the digest of everything else."""
    signed = {"format_version": FORMAT_VERSION, **index}
    return (json.dumps(signed | {"sha256": signature(signed)}, indent=1) + "\n").encode()


def trained_length(index: dict[str, Any]) -> int:
    """Return the longest sequence that a checkpoint's model was trained on (for an import: the declared length)."""
    longest = index["encoder"]["max_position_embeddings"]
    found = index.get("trained_length")
    return min(found, longest) if isinstance(found, int) and found > 0 else longest


def cased(index: dict[str, Any]) -> bool:
    """Return whether a checkpoint's vocabulary is cased; True with a tokenizer.json, to which clozemill adds no rules."""
    told = index["vocabulary"]
    return bool(told["tokenizer"] if "tokenizer" in told else told["cased"])


def read(folder: str) -> dict[str, Any]:
    """Read checkpoint.json. Raises ValueError if it is invalid, or a file doesn't have the recorded size."""
    try:
        index = json.loads(storage.read(storage.join(folder, INDEX), "-"))
        version, sizes, _ = index["format_version"], dict(index["files"]), index["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{INDEX} is not that of a checkpoint") from None
    if version not in range(UNSIGNED, FORMAT_VERSION + 1):
        raise ValueError(f"its format version is {version}, not {FORMAT_VERSION}")
    if version != UNSIGNED and index.pop("sha256", None) != signature(index):
        raise ValueError(f"{INDEX} was changed after it was written")
    for name, size in sizes.items():
        path = storage.join(folder, name)
        with storage.translate_errors(path, "read"):
            found = storage.size(path) if storage.exists(path) else -1
        if found != size:
            raise ValueError(f"{name} has {found} bytes, not {size}" if found >= 0 else f"{name} is missing")
    _check_vocabulary(folder, index)
    return index


def check_contents(folder: str, index: dict[str, Any]) -> None:
    """Raise ValueError if a local file was changed. Object stores check that themselves."""
    for name, digest in (index.get("sha256_of_files") or {}).items() if storage.is_local(folder) else ():
        if storage.sha256(storage.join(folder, name)) != digest:
            raise ValueError(f"{name} was changed after it was written")


def _check_vocabulary(folder: str, index: dict[str, Any]) -> None:
    """Raise ValueError if vocab.txt or tokenizer.json isn't the one the checkpoint was written with: ids would change."""
    told = index.get("vocabulary")
    for name, key, what in ((VOCAB, "sha256", "vocabulary"), (TOKENIZER, "tokenizer", "tokenizer")):
        sha256 = told.get(key) if isinstance(told, dict) else None
        if sha256 is not None and hashlib.sha256(storage.read(storage.join(folder, name), "-")).hexdigest() != sha256:
            raise ValueError(f"{name} is not the {what} that it was written with: its SHA-256 differs from {INDEX}'s")
