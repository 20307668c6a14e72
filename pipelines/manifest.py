"""dataset.json: the contract between the mill and whoever reads its shards. Imports neither Beam nor TensorFlow."""

import hashlib
import json
from typing import Any

from pipelines.schema import FEATURES, FORMAT_VERSION, UserError

Manifest = dict[str, Any]
_KEYS = (
    "digest",
    "config",
    "vocabulary",
    "max_seq_length",
    "max_predictions",
    "num_eval_groups",
    "documents",
    "splits",
    "shards",
)


def dataset_digest(shards: list[dict[str, Any]]) -> str:
    """SHA-256 over the shards' names and SHA-256 digests, in the order of their names."""
    ordered = sorted(shards, key=lambda shard: shard["name"])
    return hashlib.sha256("".join(f"{shard['sha256']}  {shard['name']}\n" for shard in ordered).encode()).hexdigest()


def add_counts(total: dict[str, int], counts: dict[str, int]) -> dict[str, int]:
    """Adds counts to a total in place."""
    for name, value in counts.items():
        total[name] = total.get(name, 0) + value
    return total


def build(
    config: dict[str, Any],
    vocabulary: dict[str, Any],
    documents: dict[str, Any],
    groups: list[dict[str, Any]],
    num_eval_groups: int,
) -> Manifest:
    """The manifest from the groups' summaries, in any order.

    Args:
        config: the options that decide the bytes, `num_groups` resolved.
        vocabulary: sha256, size, cased.
        documents: what became of the input's documents, by count.
        groups: a row per group: split, documents, duplicates, and its shards.
        num_eval_groups: shards of the eval split, as `config.num_groups` is of the train split.
    """
    shards = sorted((shard for group in groups for shard in group["shards"]), key=lambda shard: shard["name"])
    splits: dict[str, Any] = {}
    for group in groups:
        split = splits.setdefault(group["split"], {"documents": 0, "examples": 0, "copies": {}})
        split["documents"] += group["documents"]
        for shard in group["shards"]:
            split["examples"] += shard["examples"]
            add_counts(split["copies"].setdefault(f"{shard['copy']:02d}", {}), shard["counts"])
    duplicates = sum(group["duplicates"] for group in groups)
    return {
        "format_version": FORMAT_VERSION,
        "digest": dataset_digest(shards),
        "config": config,
        "vocabulary": vocabulary,
        "max_seq_length": config["max_seq_length"],
        "max_predictions": config["max_predictions"],
        "num_eval_groups": num_eval_groups,
        "features": {name: dtype for name, (dtype, _) in FEATURES.items()},
        "documents": documents | {"duplicates": duplicates},
        "splits": {
            name: splits[name] | {"copies": dict(sorted(splits[name]["copies"].items()))}
            for name in sorted(splits, reverse=True)
        },
        "shards": [{key: value for key, value in shard.items() if key != "counts"} for shard in shards],
    }


def dumps(manifest: Manifest) -> bytes:
    """The file's bytes."""
    return (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def loads(data: bytes, name: str) -> Manifest:
    """Reads dataset.json's bytes. Raises UserError when it isn't one, or of a format this version doesn't know."""
    try:
        manifest = json.loads(data)
        version = manifest["format_version"]
        if missing := [key for key in _KEYS if version == FORMAT_VERSION and key not in manifest]:
            raise UserError(f"{name} lacks {missing[0]!r}: it was changed by hand or cut short; make the dataset anew")
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{name} is not a dataset's manifest: give the folder that clozemill prepare wrote") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{name} has format version {version}, not {FORMAT_VERSION}: use the clozemill that wrote it")
    return manifest
