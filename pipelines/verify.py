"""`clozemill verify DATASET`: every shard read back and held against dataset.json; a line per violation, exit code 1.

clozemill verify DATASET
"""

import hashlib
import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from pipelines import checks, examples, features, filesystem, manifest, masking, report, runners, seeds, tfrecord
from pipelines.config import VerifyConfig
from pipelines.options import require
from pipelines.provenance import documents_name, provenance_name, read_parquet
from pipelines.schema import MANIFEST, VOCAB, UserError, shard_name
from pipelines.wordpiece import Vocabulary


@dataclass
class Findings:
    """What reading one shard brought: violations, and the statistics of its records."""

    name: str
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    clusters: int = 0  # sum of squared sizes of runs of masked positions, for the interval of the 80/10/10 shares


def read_contract(folder: str) -> tuple[dict[str, Any], Vocabulary]:
    """dataset.json and the vocabulary of a dataset. Raises UserError when there is none."""
    name = filesystem.join(folder, MANIFEST)
    if not filesystem.exists(name):
        raise UserError(f"{folder} holds no {MANIFEST}: it is no dataset, or clozemill prepare has not finished it")
    contract = manifest.loads(filesystem.read_bytes(name), name)
    vocab = filesystem.join(folder, VOCAB)
    return contract, Vocabulary.from_bytes(filesystem.read_bytes(vocab), vocab)


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
    data = filesystem.read_bytes(path)
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        found.violations.append(f"{shard['name']}: its SHA-256 is not the one in {MANIFEST}")
    rules, total = _rules(contract, vocabulary), 0
    sizes = contract["max_seq_length"], contract["max_predictions"]
    try:
        for columns in features.read(data, contract["config"]["compression"], *sizes):
            for indices, message in checks.broken(columns, rules):
                more = f" (and {len(indices) - 1} more records)" if len(indices) > 1 else ""
                found.violations.append(f"{shard['name']}: record {total + indices[0]}: {message}{more}")
            if not found.violations:
                manifest.add_counts(found.counts, examples.count(columns, vocabulary))
                found.clusters += _clusters(columns)
            total += len(columns)
    except tfrecord.CorruptRecord as error:
        found.violations.append(f"{shard['name']}: {error}")
        return found
    if total != shard["examples"]:
        found.violations.append(f"{shard['name']}: it holds {total} records, not {shard['examples']}")
    return found


def _clusters(columns: features.Columns) -> int:
    """Sum of squared lengths of runs of adjacent masked positions: what shares one action at most."""
    used = columns.masked_lm_weights > 0
    joined = np.zeros(used.shape, bool)
    joined[:, 1:] = (np.diff(columns.masked_lm_positions, axis=1) == 1) & used[:, 1:]
    run = np.cumsum((used & ~joined).ravel())[used.ravel()]
    return int((np.bincount(run).astype(np.int64) ** 2).sum())


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


def check_files(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """The shards listed are those that the configuration asks for, no other shard lies beside them, provenance is whole."""
    config, evals = contract["config"], contract["num_eval_groups"]
    groups, copies = config["num_groups"], range(config["dupe_factor"])
    wanted = {shard_name(group, groups, evals, copy) for group in range(groups) for copy in copies}
    wanted |= {shard_name(group, groups, evals, 0) for group in range(groups, groups + evals)}
    listed = {shard["name"] for shard in contract["shards"]}
    for name in sorted(wanted ^ listed):
        yield f"{MANIFEST}: it lists {name}, which is none of its shards" if name in listed else f"{MANIFEST}: it lacks {name}"
    for name in filesystem.names_below(folder):
        if name.startswith(("train/", "eval/")) and name not in listed:
            yield f"{name}: {MANIFEST} doesn't list this file"
    if config["provenance"]:
        for shard in contract["shards"]:
            yield from _check_provenance(folder, shard)


def _check_provenance(folder: str, shard: dict[str, Any]) -> Iterator[str]:
    name = provenance_name(shard["name"])
    try:
        data = filesystem.read_bytes(filesystem.join(folder, name))
        rows = pq.read_metadata(pa.BufferReader(data)).num_rows
    except (UserError, pa.ArrowException):
        yield f"{name}: it can't be read"
        return
    if rows != shard["examples"]:
        yield f"{name}: it holds {rows} rows, not {shard['examples']}"


def check_documents(folder: str, contract: dict[str, Any]) -> Iterator[str]:
    """Each document stands once, in the group and on the side that its key says: so none is in train and in eval."""
    config, evals = contract["config"], contract["num_eval_groups"]
    for group in range(config["num_groups"] + evals):
        split = "train" if group < config["num_groups"] else "eval"
        name = documents_name(split, group, config["num_groups"])
        try:
            keys = read_parquet(filesystem.join(folder, name))["key"].to_pylist()
        except (UserError, pa.ArrowException, KeyError):
            yield f"{name}: the list of the group's documents can't be read"
            continue
        seen: dict[bytes, int] = {}
        for row, key in enumerate(keys):
            right, _ = seeds.place(key, config["seed"], config["num_groups"], evals, config["eval_fraction"])
            if right != group:
                yield f"{name}: row {row}: document {key.hex()} belongs to group {right}, not to {split} group {group}"
            if (other := seen.setdefault(key, row)) != row:
                yield f"{name}: row {row}: document {key.hex()} stands in row {other} as well"


def check_proportions(contract: dict[str, Any], findings: list[Findings], vocabulary: Vocabulary) -> Iterator[str]:
    """Counts against dataset.json's, and shares against their expectation within five standard deviations."""
    copies: dict[tuple[str, str], list[tuple[dict[str, Any], Findings]]] = {}
    for shard, found in zip(contract["shards"], findings, strict=True):
        copies.setdefault((shard["split"], f"{shard['copy']:02d}"), []).append((shard, found))
    for (split, copy), parts in copies.items():
        where, told = f"{split} copy {copy}", contract["splits"][split]["copies"][copy]
        counts: dict[str, int] = {}
        for _, found in parts:
            manifest.add_counts(counts, found.counts)
        for name, value in counts.items():
            if told.get(name) != value:
                yield f"{where}: {MANIFEST} says {name} = {told.get(name)}, the shards hold {value}"
        clusters = sum(found.clusters for _, found in parts)
        yield from _actions(where, counts, clusters if contract["config"]["masking"] == "span" else 0, vocabulary)
        yield from _labels(where, counts, [shard for shard, _ in parts])


def _actions(where: str, counts: dict[str, int], clusters: int, vocabulary: Vocabulary) -> Iterator[str]:
    """The 80/10/10 shares; `clusters`, where actions are shared, is the sum of the squared sizes of what may share one."""
    if not (masked := counts.get("masked", 0)):
        return
    drawn_alike = 1 / len(vocabulary.random_ids)  # a random token may be the one that was there
    shares = {"mask": masking.MASK_SHARE, "random": masking.RANDOM_SHARE * (1 - drawn_alike)}
    shares["kept"] = 1 - sum(shares.values())
    for name, share in shares.items():
        off = checks.bound(share * (1 - share) * (clusters or masked)) / masked
        found = counts[f"masked_as_{name}"] / masked
        if abs(found - share) > off:
            interval = f"{100 * share:.2f} +- {100 * off:.2f} %"
            yield f"{where}: {100 * found:.2f} % of masked positions are {name}, not {interval}"


def _labels(where: str, counts: dict[str, int], shards: list[dict[str, Any]]) -> Iterator[str]:
    """The share of labels 1: those forced, and of those drawn as many as each group's probability says."""
    if not (count := counts.get("examples", 0)):
        return
    expected = sum(shard["labels_forced"] + shard["labels_drawn"] * shard["random_prob"] for shard in shards)
    variance = sum(shard["labels_drawn"] * shard["random_prob"] * (1 - shard["random_prob"]) for shard in shards)
    if abs(counts["labels_random"] - expected) > checks.bound(variance):
        low, high = (max(0.0, (expected + sign * checks.bound(variance)) / count) for sign in (-1, 1))
        interval = f"{100 * low:.2f} to {100 * high:.2f} %"
        yield f"{where}: {100 * counts['labels_random'] / count:.2f} % of next_sentence_labels are 1, not within {interval}"


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
        yield from pool.map(_Task.run, contract["shards"])


def violations(config: VerifyConfig, contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """Everything that is wrong with a dataset, a line each; what `read_contract` gave goes in."""
    yield from check_contract(contract, vocabulary)
    findings = []
    bar = tqdm(
        _map(config, contract, vocabulary),
        total=len(contract["shards"]),
        desc="verifying",
        unit=" shards",
        disable=None if config.progress else True,
    )
    for found in bar:
        findings.append(found)
        yield from found.violations
    yield from check_files(config.dataset, contract)
    yield from check_documents(config.dataset, contract)
    if not any(found.violations for found in findings):
        yield from check_proportions(contract, findings, vocabulary)


def main(config: VerifyConfig, show: Callable[[str], None] = print) -> int:
    """Prints what is wrong; returns 1 if anything is, else 0."""
    require(config, "dataset")
    count, (contract, vocabulary) = 0, read_contract(config.dataset)
    for count, violation in enumerate(violations(config, contract, vocabulary), 1):
        if count <= config.max_lines:
            show(violation)
    held = f"{sum(s['examples'] for s in contract['shards']):,} records in {len(contract['shards'])} shards"
    if count:
        show(
            f"{config.dataset}: {report.counted(count, 'violation')} in {held}"
            + (f", {config.max_lines} shown" if count > config.max_lines else "")
        )
        return 1
    show(f"{config.dataset}: {held} read back: whole and consistent; digest {contract['digest']}")
    return 0
