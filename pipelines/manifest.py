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
    "manifest_sha256",
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


def _sha256(manifest: Manifest) -> str:
    """SHA-256 of a manifest without its own: of its canonical JSON, so that indentation and the order of keys don't count."""
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dumps(manifest: Manifest) -> bytes:
    """The file's bytes, signed: `manifest_sha256` is the digest of all else."""
    signed = manifest | {"manifest_sha256": _sha256(manifest)}
    return (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


def loads(data: bytes, name: str) -> Manifest:
    """Reads dataset.json's bytes; what comes back is what `dumps` was given.

    Raises UserError when it isn't one, of a format this version doesn't know, or changed since it was written.
    """
    try:
        manifest = json.loads(data)
        version = manifest["format_version"]
        if missing := [key for key in _KEYS if version == FORMAT_VERSION and key not in manifest]:
            raise UserError(
                f"{name} lacks {missing[0]!r}: it was changed by hand, cut short, or made by an older version; "
                "make the dataset anew"
            )
        whole = version != FORMAT_VERSION or manifest.pop("manifest_sha256") == _sha256(manifest)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{name} is not a dataset's manifest: give the folder that clozemill prepare wrote") from None
    if version != FORMAT_VERSION:
        raise UserError(f"{name} has format version {version!r:.50}, not {FORMAT_VERSION}: use the clozemill that wrote it")
    if not whole:
        raise UserError(
            f"{name} was changed after it was written (see its manifest_sha256): restore it, or make the dataset anew"
        )
    return manifest
