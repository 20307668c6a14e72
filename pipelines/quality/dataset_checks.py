"""Every check of a finished dataset; `verify` runs them all."""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import clusters, manifest
from clozemill.pipelines.dataset.layout import MANIFEST, VOCAB, documents_name, files_of, provenance_name
from clozemill.pipelines.dataset.parquet import read_keys
from clozemill.pipelines.examples import assemble
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.quality import gate, invariants, statistics
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shuffle import keys as shuffle_keys
from clozemill.pipelines.text.vocabulary import Vocabulary

_FOLDERS = {"train", "eval", "documents", "groups", "provenance"}  # where nothing lies but what dataset.json lists


@dataclass
class Findings:
    """What reading one shard brought: violations, and the statistics of its records."""

    name: str
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sums: statistics.Sums = field(default_factory=dict)


def rules_of(contract: dict[str, Any], vocabulary: Vocabulary) -> invariants.Rules:
    config = contract["config"]
    return invariants.Rules(vocabulary, config["pairs"], config["masking"], config["masked_lm_prob"], config["max_predictions"])


def check_shard(folder: str, shard: dict[str, Any], contract: dict[str, Any], vocabulary: Vocabulary) -> Findings:
    """Reads one shard: bytes, frames, schema, and every record's rules."""
    found = Findings(shard["name"])
    path = filesystem.join(folder, shard["name"])
    if not filesystem.exists(path):
        found.violations.append(f"{shard['name']}: the file is missing")
        return found
    try:
        data = filesystem.read_bytes(path)
    except UserError as error:
        found.violations.append(str(error))
        return found
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        found.violations.append(f"{shard['name']}: its SHA-256 is not the one in {MANIFEST}")
    rules, total = rules_of(contract, vocabulary), 0
    settings = statistics.Settings.of(contract["config"])
    gatherer = statistics.StatisticsCollector(settings, vocabulary, shard["split"], shard["copy"])
    sizes = contract["max_seq_length"], contract["max_predictions"]
    try:
        for columns in tf_example.read(data, contract["config"]["compression"], *sizes):
            for indices, message in invariants.find_violations(columns, rules):
                more = f" (and {len(indices) - 1} more records)" if len(indices) > 1 else ""
                found.violations.append(f"{shard['name']}: record {total + indices[0]}: {message}{more}")
            if not found.violations:
                manifest.add_counts(found.counts, assemble.count_examples(columns, vocabulary))
                gatherer.add(columns)
            total += len(columns)
    except tfrecord.CorruptRecord as error:
        found.violations.append(f"{shard['name']}: {error}")
        return found
    if total != shard["examples"]:
        found.violations.append(f"{shard['name']}: it holds {total} records, not {shard['examples']}")
    if not found.violations:
        found.sums = gatherer.sums()
    return found


def check_contract(contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """dataset.json against itself and against the vocabulary."""
    if vocabulary.sha256 != contract["vocabulary"]["sha256"]:
        yield f"{VOCAB}: its SHA-256 is not the one in {MANIFEST}"
    if manifest.dataset_digest(contract["shards"]) != contract["digest"]:
        yield f"{MANIFEST}: its digest is not that of the shards it lists"
    for name, split in contract["splits"].items():
        listed = sum(shard["examples"] for shard in contract["shards"] if shard["split"] == name)
        if listed != split["examples"]:
            yield f"{MANIFEST}: {name} says {split['examples']} examples, its shards {listed}"
    if lost := manifest.unaccounted(contract):
        yield f"{MANIFEST}: {lost}"


def check_files(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """The files listed are those that the configuration asks for, the others are as written, none lies beside them."""
    listed, config = {shard["name"] for shard in contract["shards"]}, contract["config"]
    for wanted, told in zip(files_of(contract), (listed, set(contract["files"])), strict=True):
        for name in sorted(wanted ^ told):
            yield f"{MANIFEST}: it lists {name}, which is none of its files" if name in told else f"{MANIFEST}: it lacks {name}"
    for name in filesystem.names_below(folder):
        if name.split("/")[0] in _FOLDERS and name not in listed and name not in contract["files"]:
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
                yield f"{provenance_name(shard['name'])}: it holds {rows} rows, not {shard['examples']}"


def check_documents(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """Each document stands once, in the group and on the side that its key says: so none is in train and in eval.

    Where near-duplicates were told apart, one of each cluster stands there, or all stand on the side of their survivor.
    """
    config, evals, held = contract["config"], contract["num_eval_groups"], {"train": 0, "eval": 0}
    try:
        alike = clusters.read(filesystem.join(folder, clusters.NAME)) if clusters.NAME in contract["files"] else clusters.NONE
    except (UserError, pa.ArrowException, KeyError):
        yield f"{clusters.NAME}: which documents are nearly the same can't be read"
        return
    for group in range(config["num_groups"] + evals):
        split = "train" if group < config["num_groups"] else "eval"
        name = documents_name(split, group, config["num_groups"])
        try:
            (keys,) = read_keys(filesystem.join(folder, name), "key")
        except (UserError, pa.ArrowException, KeyError):
            yield f"{name}: the list of the group's documents can't be read"
            continue
        held[split] += len(keys)
        seen: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            side = alike.survivor(key)
            right, _ = shuffle_keys.assign_group(
                key, config["seed"], config["num_groups"], evals, config["eval_fraction"], side
            )
            if side != key and config["dedup"] == "near":
                yield f"{name}: row {row}: document {key.hex()} is nearly {side.hex()}, which stands for it"
            if right != group:
                yield f"{name}: row {row}: document {key.hex()} belongs to group {right}, not to {split} group {group}"
            if (other := seen.setdefault(key, row)) != row and config["dedup"] != "none":
                yield f"{name}: row {row}: document {key.hex()} stands in row {other} as well"
    for split, about in contract["splits"].items():
        if held[split] != about["documents"]:
            yield f"documents: {MANIFEST} says {about['documents']} of {split}, the lists hold {held[split]}"


def check_counts(contract: dict[str, Any], counts: dict[tuple[str, str], dict[str, int]]) -> Iterator[str]:
    """Counts of what was read against dataset.json's."""
    for (split, copy), found in counts.items():
        told = contract["splits"][split]["copies"][copy]
        for name, value in found.items():
            if told.get(name) != value:
                yield f"{split} copy {copy}: {MANIFEST} says {name} = {told.get(name)}, the shards hold {value}"


def check_statistics(folder: str, contract: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """statistics.json against dataset.json and against what was read."""
    try:
        data = filesystem.read_bytes(filesystem.join(folder, statistics.STATISTICS))
        told = statistics.loads(data, statistics.STATISTICS)
    except UserError as error:
        yield str(error)
        return
    if hashlib.sha256(data).hexdigest() != contract["statistics"]["sha256"]:
        yield f"{statistics.STATISTICS}: its SHA-256 is not the one in {MANIFEST}"
    for split, copies in found["splits"].items():
        for copy, figures in copies.items():
            before = told["splits"].get(split, {}).get(copy, {})
            for name in [name for name, value in figures.items() if before.get(name) != value]:
                yield f"{statistics.STATISTICS}: {split} copy {copy}: {name} is not what the shards hold"
    if found["probe"].get("judged") != told["probe"].get("judged"):
        yield f"{statistics.STATISTICS}: probe is not what the shards give"


def check_gate(contract: dict[str, Any], counts: dict, found: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """The statistical gate on what was read; a sentence per check that fails."""
    splits = {
        split: about | {"copies": {copy: told | counts.get((split, copy), {}) for copy, told in about["copies"].items()}}
        for split, about in contract["splits"].items()
    }
    for check in gate.run_checks(contract | {"splits": splits}, found, vocabulary):
        if not check.passed:
            yield check.sentence
