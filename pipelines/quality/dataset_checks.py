"""The checks of a finished dataset as a whole; `verify` runs them, and those of each shard in shard_checks.py."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import clusters, manifest, shard_index
from clozemill.pipelines.dataset.layout import INDEX, MANIFEST, VOCAB, documents_name, files_of, provenance_name
from clozemill.pipelines.dataset.parquet import read_keys, with_ids
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.quality import gate, statistics
from clozemill.pipelines.shuffle import keys as shuffle_keys
from clozemill.pipelines.text.vocabulary import Vocabulary

_FOLDERS = {"train", "eval", "documents", "groups", "provenance"}  # folders with only the files that dataset.json lists


def check_contract(contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """Check that dataset.json is consistent with itself and with the vocabulary."""
    if vocabulary.sha256 != contract["vocabulary"]["sha256"]:
        yield f"{VOCAB}: its SHA-256 is not the one in {MANIFEST}"
    if manifest.dataset_digest(contract["shards"]) != contract["digest"]:
        yield f"{MANIFEST}: its digest doesn't match the shards it lists"
    for name, split in contract["splits"].items():
        listed = sum(shard["examples"] for shard in contract["shards"] if shard["split"] == name)
        if listed != split["examples"]:
            yield f"{MANIFEST}: {name} has {split['examples']} examples, but its shards have {listed}"
        rows = sum(shard.get("rows", 0) for shard in contract["shards"] if shard["split"] == name)
        if rows != split.get("rows", 0):
            yield f"{MANIFEST}: {name} has {split['rows']} rows, but its shards have {rows}"
    if difference := manifest.unaccounted(contract):
        yield f"{MANIFEST}: {difference}"


def check_files(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """Check that the listed files match the configuration, that the files match their digests, and that no others exist."""
    listed, config = {shard["name"] for shard in contract["shards"]}, contract["config"]
    for wanted, recorded in zip(files_of(contract), (listed, set(contract["files"])), strict=True):
        for name in sorted(wanted ^ recorded):
            yield (
                f"{MANIFEST}: it lists {name}, which doesn't belong to the dataset"
                if name in recorded
                else f"{MANIFEST}: it doesn't list {name}"
            )
    for name in filesystem.names_below(folder):
        ours = name in listed or name in contract["files"] or filesystem.is_temporary(name)
        if name.split("/")[0] in _FOLDERS and not ours:
            yield f"{name}: {MANIFEST} doesn't list this file"
    for name, sha256 in contract["files"].items():
        path = filesystem.join(folder, name)
        try:
            if not filesystem.exists(path):
                yield f"{name}: the file is missing"
            elif filesystem.sha256(path) != sha256:
                yield f"{name}: its SHA-256 is not the one in {MANIFEST}"
        except UserError as error:
            yield str(error)
    for shard in contract["shards"] if config["provenance"] else ():
        with suppress(UserError, pa.ArrowException):
            data = filesystem.read_bytes(filesystem.join(folder, provenance_name(shard["name"])))
            rows = pq.read_metadata(pa.BufferReader(data)).num_rows
            if rows != shard["examples"]:
                yield f"{provenance_name(shard['name'])}: it contains {rows} rows, not {shard['examples']}"


def check_documents(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """Check that each document occurs once, in the group and split that its key determines.

    So no document is in both train and eval. If near-duplicates were detected, one document of each cluster remains, or all
    are in the split of their survivor.
    """
    config, evals, counts, ids = contract["config"], contract["num_eval_groups"], {"train": 0, "eval": 0}, 0
    try:
        alike = clusters.read(filesystem.join(folder, clusters.NAME)) if clusters.NAME in contract["files"] else clusters.NONE
    except (UserError, pa.ArrowException, KeyError):
        yield f"{clusters.NAME}: the clusters of near-duplicates can't be read"
        return
    for group in range(config["num_groups"] + evals):
        split = "train" if group < config["num_groups"] else "eval"
        name = documents_name(split, group, config["num_groups"])
        try:
            (keys,) = read_keys(filesystem.join(folder, name), "key")
            ids += with_ids(filesystem.join(folder, name)) if "ids" in contract else 0
        except (UserError, pa.ArrowException, KeyError):
            yield f"{name}: the list of the group's documents can't be read"
            continue
        counts[split] += len(keys)
        seen: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            side = alike.survivor(key)
            right, _ = shuffle_keys.assign_group(
                key, config["seed"], config["num_groups"], evals, config["eval_fraction"], side
            )
            if side != key and config["dedup"] == "near":
                yield f"{name}: row {row}: document {key.hex()} is a near-duplicate of {side.hex()}, which is kept instead"
            if right != group:
                yield f"{name}: row {row}: document {key.hex()} belongs to group {right}, not to {split} group {group}"
            if (other := seen.setdefault(key, row)) != row and config["dedup"] != "none":
                yield f"{name}: row {row}: document {key.hex()} is also in row {other}"
    if "ids" in contract and ids != contract["ids"]["documents"]:
        yield f"documents: {MANIFEST} has {contract['ids']['documents']} documents with an id, but the lists contain {ids}"
    for split, about in contract["splits"].items():
        if counts[split] != about["documents"]:
            yield f"documents: {MANIFEST} has {about['documents']} documents in {split}, but the lists contain {counts[split]}"


def check_index(folder: str, contract: dict[str, Any], blocks: shard_index.Index) -> Iterator[str]:
    """Compare index.json with where the blocks of records begin in the shards."""
    try:
        found = shard_index.loads(filesystem.read_bytes(filesystem.join(folder, INDEX)), INDEX, contract["shards"])
    except UserError as error:
        yield str(error)
        return
    for name, real in blocks.items():
        if told := shard_index.mismatch(found[name], real):
            yield f"{name}: {told}"


def check_counts(contract: dict[str, Any], counts: dict[tuple[str, str], dict[str, int]]) -> Iterator[str]:
    """Compare the counts of the shards with those of dataset.json."""
    for (split, copy), found in counts.items():
        recorded = contract["splits"][split]["copies"][copy]
        for name, value in found.items():
            if recorded.get(name) != value:
                yield f"{split} copy {copy}: {MANIFEST} has {name} = {recorded.get(name)}, but the shards contain {value}"


def _recorded(folder: str) -> tuple[bytes, dict[str, Any]]:
    """Return statistics.json as bytes and as values. Raise UserError if it can't be read."""
    data = filesystem.read_bytes(filesystem.join(folder, statistics.STATISTICS))
    return data, statistics.loads(data, statistics.STATISTICS)


def documents_of(folder: str) -> dict[str, Any]:
    """Return "documents" of statistics.json; {} if it can't be read, which check_statistics says."""
    try:
        return _recorded(folder)[1].get("documents", {})
    except UserError:
        return {}


def check_statistics(folder: str, contract: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Compare statistics.json with dataset.json and with the statistics of the shards."""
    try:
        data, recorded = _recorded(folder)
    except UserError as error:
        yield str(error)
        return
    if hashlib.sha256(data).hexdigest() != contract["statistics"]["sha256"]:
        yield f"{statistics.STATISTICS}: its SHA-256 is not the one in {MANIFEST}"
    for split, copies in found["splits"].items():
        for copy, figures in copies.items():
            before = recorded["splits"].get(split, {}).get(copy, {})
            for name in [name for name, value in figures.items() if before.get(name) != value]:
                yield f"{statistics.STATISTICS}: {split} copy {copy}: {name} doesn't match the shards"
    if found["probe"].get("judged") != recorded["probe"].get("judged"):
        yield f"{statistics.STATISTICS}: probe doesn't match the shards"


def check_gate(contract: dict[str, Any], counts: dict, found: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """Run the statistical gate on the statistics of the shards; yield a sentence per failed check."""
    splits = {
        split: about
        | {"copies": {copy: recorded | counts.get((split, copy), {}) for copy, recorded in about["copies"].items()}}
        for split, about in contract["splits"].items()
    }
    for check in gate.run_checks(contract | {"splits": splits}, found, vocabulary):
        if not check.passed:
            yield check.sentence
