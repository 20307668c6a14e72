"""`clozemill verify DATASET`: every shard read back and held against dataset.json; a line per violation, exit code 1.

clozemill verify DATASET
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines import (
    checks,
    clusters,
    examples,
    features,
    filesystem,
    gate,
    manifest,
    probe,
    report,
    runners,
    seeds,
    statistics,
    tfrecord,
)
from pipelines.config import VerifyConfig
from pipelines.dataset import files_of, read_contract
from pipelines.dataset_warnings import dataset_warnings
from pipelines.options import require
from pipelines.provenance import documents_name, provenance_name, read_keys
from pipelines.schema import MANIFEST, VOCAB, UserError
from pipelines.wordpiece import Vocabulary

_FOLDERS = {"train", "eval", "documents", "groups", "provenance"}  # where nothing lies but what dataset.json lists


@dataclass
class Findings:
    """What reading one shard brought: violations, and the statistics of its records."""

    name: str
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sums: statistics.Sums = field(default_factory=dict)


def _rules(contract: dict[str, Any], vocabulary: Vocabulary) -> checks.Rules:
    config = contract["config"]
    return checks.Rules(vocabulary, config["pairs"], config["masking"], config["masked_lm_prob"], config["max_predictions"])


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
    rules, total = _rules(contract, vocabulary), 0
    settings = statistics.Settings.of(contract["config"])
    gatherer = statistics.Gatherer(settings, vocabulary, shard["split"], shard["copy"])
    sizes = contract["max_seq_length"], contract["max_predictions"]
    try:
        for columns in features.read(data, contract["config"]["compression"], *sizes):
            for indices, message in checks.broken(columns, rules):
                more = f" (and {len(indices) - 1} more records)" if len(indices) > 1 else ""
                found.violations.append(f"{shard['name']}: record {total + indices[0]}: {message}{more}")
            if not found.violations:
                manifest.add_counts(found.counts, examples.count(columns, vocabulary))
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
            right, _ = seeds.place(key, config["seed"], config["num_groups"], evals, config["eval_fraction"], side)
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
    for check in gate.judge(contract | {"splits": splits}, found, vocabulary):
        if not check.passed:
            yield check.sentence


class _Task:
    """check_shard with its constants, for worker processes: the contract travels once per process."""

    shared: tuple[str, dict[str, Any], Vocabulary] | None = None

    @classmethod
    def begin(cls, *shared: Any) -> None:
        cls.shared = shared

    @classmethod
    def run(cls, shard: dict[str, Any]) -> Findings:
        folder, contract, vocabulary = cls.shared
        return check_shard(folder, shard, contract, vocabulary)


def _map(config: VerifyConfig, contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[Findings]:
    count = min(config.num_workers or runners.cores(), len(contract["shards"]))
    shared = (config.dataset, contract, vocabulary)
    if count <= 1 or sum(shard["bytes"] for shard in contract["shards"]) < 8 << 20:
        _Task.begin(*shared)
        yield from map(_Task.run, contract["shards"])
        return
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as Beam's, may hang
    with ProcessPoolExecutor(count, spawn, initializer=_Task.begin, initargs=shared) as pool:
        try:
            yield from pool.map(_Task.run, contract["shards"])
        except BaseException:  # a signal, above all: leaving the pool would wait until the shards at hand are read
            for child in multiprocessing.active_children():
                child.kill()
            raise


def violations(config: VerifyConfig, contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """Everything that is wrong with a dataset, a line each; what `read_contract` gave goes in."""
    yield from check_contract(contract, vocabulary)
    sound, totals, counts = True, statistics.Totals(), {}
    bar = tqdm(
        _map(config, contract, vocabulary),
        total=len(contract["shards"]),
        desc="verifying",
        unit=" shards",
        disable=None if config.progress else True,
    )
    for shard, found in zip(contract["shards"], bar, strict=True):
        yield from found.violations
        sound = sound and not found.violations
        if sound:
            totals.add(shard, found.sums)
            manifest.add_counts(counts.setdefault((shard["split"], f"{shard['copy']:02d}"), {}), found.counts)
    yield from check_files(config.dataset, contract)
    yield from check_documents(config.dataset, contract)
    if sound:
        figures = {"splits": totals.splits(), "probe": probe.judge(totals.probe_rows(), contract["max_seq_length"])}
        yield from check_counts(contract, counts)
        yield from check_statistics(config.dataset, contract, figures)
        if config.gate or not contract["gate"]["overridden"]:
            yield from check_gate(contract, counts, figures, vocabulary)


def main(config: VerifyConfig, show: Callable[[str], None] = print) -> int:
    """Prints what is wrong; returns 1 if anything is, else 0."""
    require(config, "dataset")
    count, (contract, vocabulary) = 0, read_contract(config.dataset)
    for count, violation in enumerate(violations(config, contract, vocabulary), 1):
        if count <= config.max_lines:
            show(violation)
    for line in dataset_warnings(contract):
        show(f"warning: {line}")
    if contract["gate"]["overridden"]:
        asked = "; verify --no-gate passes over them" if config.gate else ""
        show(f"{config.dataset}: made with --no-gate, past checks of the statistical gate that fail{asked}")
    held = f"{sum(s['examples'] for s in contract['shards']):,} records in {len(contract['shards'])} shards"
    if count:
        show(
            f"{config.dataset}: {report.counted(count, 'violation')} in {held}"
            + (f", {config.max_lines} shown" if count > config.max_lines else "")
        )
        return 1
    show(f"{config.dataset}: {held} read back: whole and consistent; digest {contract['digest']}")
    return 0
