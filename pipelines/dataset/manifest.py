"""dataset.json, the manifest that prepare writes and readers of the shards use. Imports neither Beam nor TensorFlow."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import fastjsonschema

from clozemill.pipelines.command_line.options import value_of
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.dataset.layout import FORMAT_VERSION, READABLE_VERSIONS
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES

Manifest = dict[str, Any]
Number = TypeVar("Number", int, float)
_COUNTS = {field.name for field in dataclasses.fields(PrepareConfig) if field.type is int}
_SCHEMA = Path(__file__).parents[1] / "data" / "dataset.schema.json"


def dataset_digest(shards: list[dict[str, Any]]) -> str:
    """Return the SHA-256 over the names and SHA-256 digests of the shards, ordered by name."""
    ordered = sorted(shards, key=lambda shard: shard["name"])
    return hashlib.sha256("".join(f"{shard['sha256']}  {shard['name']}\n" for shard in ordered).encode()).hexdigest()


def add_counts(total: dict[str, Number], counts: dict[str, Number]) -> dict[str, Number]:
    """Add counts to a total in place."""
    for name, value in counts.items():
        total[name] = total.get(name, 0) + value
    return total


def shards_of(manifest: Manifest, split: str, copy: int = 0) -> list[dict[str, Any]]:
    """Return the shards of one copy of a split, in the order of their groups."""
    return [shard for shard in manifest["shards"] if (shard["split"], shard["copy"]) == (split, copy)]


def records_of(shard: dict[str, Any]) -> int:
    """Return the number of records of a shard: rows if its examples are packed, otherwise examples."""
    return shard.get("rows", shard["examples"])


def is_packed(manifest: Manifest) -> bool:
    """Return whether the records are rows of packed examples; datasets of format version 1 don't record it."""
    return manifest["config"].get("packing") == "on"


def unpacked_padding(manifest: Manifest, counts: dict[str, int]) -> int:
    """Return how many positions would be padding if each example of a copy had a record of its own."""
    return counts["examples"] * manifest["max_seq_length"] - counts["tokens"]


def copy_rows_of(manifest: Manifest, counts: dict[str, int]) -> int:
    """Return the number of records of a copy of a split, from its counts."""
    return (counts["padding"] + counts["tokens"]) // manifest["max_seq_length"]


def exact_duplicates(manifest: Manifest) -> int:
    """Return the number of exact duplicates removed. They are found within groups: their sentences and tokens were counted."""
    return manifest["documents"]["duplicates"] if manifest["config"]["dedup"] != "none" else 0


def kept_text(manifest: Manifest, name: str) -> int:
    """Return the number of "sentences" or "tokens" of the documents that were kept.

    Earlier versions recorded only the count with exact duplicates. Then these are taken to be as long as the other documents.
    """
    documents = manifest["documents"]
    every = max(documents["kept"] + exact_duplicates(manifest), 1)
    return documents.get(f"kept_{name}", documents[name] * documents["kept"] // every)


def unaccounted(manifest: Manifest) -> str:
    """Return which document counts don't add up, as the start of a sentence; "" if every document is accounted for."""
    documents, splits = manifest["documents"], manifest["splits"].values()
    in_groups = sum(split["documents"] for split in splits)
    if in_groups != documents["kept"]:
        return f"the groups contain {in_groups:,} documents, but {documents['kept']:,} were kept"
    left = sum(count for reason, count in documents["dropped"].items() if reason != "empty_file")  # a file isn't a record
    accounted = documents["kept"] + left + exact_duplicates(manifest)
    if accounted != documents["read"]:
        return f"{documents['read']:,} documents were read, but {accounted:,} are accounted for"
    return ""


def build(
    config: dict[str, Any],
    vocabulary: dict[str, Any],
    documents: dict[str, Any],
    groups: list[dict[str, Any]],
    num_eval_groups: int,
) -> Manifest:
    """Build the manifest from the summaries of the groups, in any order.

    Args:
        config: the options that determine the bytes, with `num_groups` resolved.
        vocabulary: sha256, size, cased.
        documents: counts of what happened to the documents of the input.
        groups: one row per group: split, documents, duplicates, its shards, and its other files with their SHA-256.
        num_eval_groups: number of shards of the eval split, as `config.num_groups` for the train split.
    """
    shards = sorted((shard for group in groups for shard in group["shards"]), key=lambda shard: shard["name"])
    packed = is_packed({"config": config})
    splits: dict[str, Any] = {}
    for group in groups:
        split = splits.setdefault(group["split"], {"documents": 0, "examples": 0, "copies": {}})
        split["documents"] += group["documents"]
        for shard in group["shards"]:
            split["examples"] += shard["examples"]
            add_counts(split["copies"].setdefault(f"{shard['copy']:02d}", {}), shard["counts"])
            if packed:
                split["rows"] = split.get("rows", 0) + shard["rows"]
    duplicates = sum(group["duplicates"] for group in groups)
    return {
        "format_version": FORMAT_VERSION,
        "digest": dataset_digest(shards),
        "config": config,
        "vocabulary": vocabulary,
        "max_seq_length": config["max_seq_length"],
        "max_predictions": config["max_predictions"],
        "num_eval_groups": num_eval_groups,
        "features": _dtypes(packed),
        **({"packing": _largest_rows(shards)} if packed else {}),
        "documents": documents | {"duplicates": duplicates},
        "splits": {
            name: splits[name] | {"copies": dict(sorted(splits[name]["copies"].items()))}
            for name in sorted(splits, reverse=True)
        },
        "shards": [{key: value for key, value in shard.items() if key not in ("counts", "blocks")} for shard in shards],
        "files": dict(sorted(item for group in groups for item in group["files"].items())),
    }


def _dtypes(packed: bool) -> dict[str, str]:
    """Return the type of each feature of a record."""
    return {name: dtype for name, (dtype, _) in (PACKED_FEATURES if packed else FEATURES).items()}


def _largest_rows(shards: list[dict[str, Any]]) -> dict[str, int]:
    """Return the largest number of examples, and of predictions, of any row, but at least 1: the shapes of a batch."""
    return {name: max([1, *(shard[name] for shard in shards)]) for name in ("max_examples", "max_predictions")}


def _sha256(manifest: Manifest) -> str:
    """Return the SHA-256 of a manifest's canonical JSON, without its own digest; independent of indentation and key order."""
    rest = {key: value for key, value in manifest.items() if key != "manifest_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dumps(manifest: Manifest) -> bytes:
    """Return the bytes of the file, signed: `manifest_sha256` is the digest of everything else."""
    signed = manifest | {"manifest_sha256": _sha256(manifest)}
    return (json.dumps(signed, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")


@lru_cache(maxsize=1)
def _schema() -> Callable[[Manifest], Manifest]:
    return fastjsonschema.compile(json.loads(_SCHEMA.read_text("utf-8")))


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _float_for_count(value: Any, place: str) -> str:
    """Return the place of a float that is used as a count (the schema accepts 1.0), or ""."""
    if isinstance(value, float):
        group, _, name = place.rpartition(".")
        return place if (name in _COUNTS if group.startswith("config") else name != "random_prob") else ""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return next((found for key, each in parts if (found := _float_for_count(each, f"{place}.{key}".lstrip(".")))), "")


def _check_packing(manifest: Manifest, name: str) -> None:
    """Raise UserError unless everything about packed rows is there if config.packing is on, and nothing if it is off."""
    packed, shards = is_packed(manifest), manifest["shards"]
    with_rows = ["rows" in part for part in (*manifest["splits"].values(), *shards)]
    if {packed, "packing" in manifest, *with_rows} != {packed}:
        how = "on, but packing or rows are missing" if packed else "off, but there are packing or rows"
        raise UserError(f"{name}: config.packing is {how}: rebuild the dataset with clozemill prepare")
    if manifest.get("features", _dtypes(packed)) != _dtypes(packed):
        raise UserError(f"{name}: features are not those of its records: rebuild the dataset with clozemill prepare")
    if packed and manifest["packing"] != _largest_rows(shards):
        raise UserError(f"{name}: packing doesn't match its shards: rebuild the dataset with clozemill prepare")
    for shard in shards:
        if not records_of(shard) <= shard["examples"] <= records_of(shard) * shard.get("max_examples", 1):
            raise UserError(f"{name}: {shard['name']} has {shard['examples']:,} examples, which can't be in {shard['rows']:,} "
                            "rows: rebuild the dataset with clozemill prepare")  # fmt: skip
    if packed and max(manifest["packing"].values()) > manifest["max_seq_length"]:  # readers allocate by these
        raise UserError(f"{name}: packing exceeds max_seq_length: rebuild the dataset with clozemill prepare")


def _check_form(manifest: Manifest, name: str) -> None:
    """Raise UserError if a field is missing or has the wrong type. (A valid signature doesn't prove clozemill wrote it.)"""
    try:
        _schema()(manifest)
    except fastjsonschema.JsonSchemaValueException as error:
        place, said = str(error.name).partition(".")[2], str(error).removeprefix(str(error.name))
        raise UserError(f"{name}: {place or 'it'}{said}: rebuild the dataset with clozemill prepare") from None
    config = manifest["config"]
    for field in dataclasses.fields(PrepareConfig):
        where, known = f"{name}: config.{field.name}", field.metadata["identity"] and field.name in config
        if known and field.name != "input" and value_of(field, config[field.name], where) != config[field.name]:
            raise UserError(f"{where} is a string: rebuild the dataset with clozemill prepare")
    for size in ("max_seq_length", "max_predictions"):  # readers allocate by these
        if manifest[size] != config[size]:
            raise UserError(f"{name}: its {size} values differ ({manifest[size]} and {config[size]}): rebuild the dataset")
    _check_packing(manifest, name)
    if place := _float_for_count(manifest, ""):
        raise UserError(f"{name}: {place} is a count, but has a decimal point: rebuild the dataset")
    copies = {(split, copy) for split, about in manifest["splits"].items() for copy in about["copies"]}
    if copies != {(shard["split"], f"{shard['copy']:02d}") for shard in manifest["shards"]}:
        raise UserError(f"{name} lists copies that don't match its shards: rebuild the dataset with clozemill prepare")
    wanted, listed = config["num_groups"] * config["dupe_factor"] + manifest["num_eval_groups"], len(manifest["shards"])
    if wanted != listed:
        raise UserError(f"{name} lists {listed:,} shards, but its config requires {wanted:,}: rebuild the dataset")


def loads(data: bytes, name: str) -> Manifest:
    """Read the bytes of dataset.json; the reverse of `dumps`.

    Raises UserError if they don't match data/dataset.schema.json, have an unknown format version, or were changed after
    writing.
    """
    try:
        manifest = json.loads(data, parse_constant=_refuse_constant)
        version = manifest["format_version"]
        known = version in READABLE_VERSIONS
        if known and "manifest_sha256" not in manifest:
            raise UserError(
                f"{name} has no 'manifest_sha256': it was edited, truncated, or written by an older version; "
                "rebuild the dataset"
            )
        whole = not known or manifest.pop("manifest_sha256") == _sha256(manifest)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(f"{name} is not a dataset's manifest: give the folder that clozemill prepare wrote") from None
    if not known:
        versions = " or ".join(map(str, READABLE_VERSIONS))
        raise UserError(
            f"{name} has format version {version!r:.50}, not {versions}: use the version of clozemill that wrote it"
        )
    if not whole:
        raise UserError(
            f"{name} was changed after it was written (see its manifest_sha256): restore it, or rebuild the dataset"
        )
    _check_form(manifest, name)
    return manifest
