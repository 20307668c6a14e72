"""`clozemill verify DATASET`: check all shards against dataset.json; one line per violation, exit code 1.

clozemill verify DATASET
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, ClassVar

from tqdm import tqdm

from clozemill.pipelines.common import formatting, runtime
from clozemill.pipelines.dataset import manifest, shard_index
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.dataset.layout import has_index
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.quality import dataset_checks, shortcut_probe, statistics
from clozemill.pipelines.quality.config import VerifyConfig
from clozemill.pipelines.quality.shard_checks import Findings, check_shard
from clozemill.pipelines.text.vocabulary import Vocabulary


class _Task:
    """check_shard with its constant arguments, for worker processes: the manifest is sent once per process."""

    shared: ClassVar[tuple[str, dict[str, Any], Vocabulary]]  # set by `begin`, once per process

    @classmethod
    def begin(cls, folder: str, contract: dict[str, Any], vocabulary: Vocabulary) -> None:
        cls.shared = folder, contract, vocabulary

    @classmethod
    def run(cls, shard: dict[str, Any]) -> Findings:
        folder, contract, vocabulary = cls.shared
        return check_shard(folder, shard, contract, vocabulary)


def _map(config: VerifyConfig, contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[Findings]:
    count = min(config.num_workers or runtime.cores(), len(contract["shards"]))
    shared = (config.dataset, contract, vocabulary)
    if count <= 1 or sum(shard["bytes"] for shard in contract["shards"]) < 8 << 20:
        _Task.begin(*shared)
        yield from map(_Task.run, contract["shards"])
        return
    spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads, such as Beam's, may deadlock
    with ProcessPoolExecutor(count, spawn, initializer=_Task.begin, initargs=shared) as pool:
        try:
            yield from pool.map(_Task.run, contract["shards"])
        except BaseException:  # for example a signal: leaving the pool would wait for the shards that are being read
            for child in multiprocessing.active_children():
                child.kill()
            raise


def violations(config: VerifyConfig, contract: dict[str, Any], vocabulary: Vocabulary) -> Iterator[str]:
    """Yield all violations in a dataset, one line each. Takes the result of `read_contract`."""
    yield from dataset_checks.check_contract(contract, vocabulary)
    sound, totals = True, statistics.StatisticsTotals()
    counts: dict[tuple[str, str], dict[str, int]] = {}
    blocks: shard_index.Index = {}
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
            blocks[shard["name"]] = found.blocks
            manifest.add_counts(counts.setdefault((shard["split"], f"{shard['copy']:02d}"), {}), found.counts)
    yield from dataset_checks.check_files(config.dataset, contract)
    yield from dataset_checks.check_documents(config.dataset, contract)
    if sound:
        found_statistics = {
            "splits": totals.splits(),
            "documents": dataset_checks.documents_of(config.dataset),
            "probe": shortcut_probe.evaluate_probe(totals.probe_rows(), contract["max_seq_length"]),
        }
        if has_index(contract):
            yield from dataset_checks.check_index(config.dataset, contract, blocks)
        yield from dataset_checks.check_counts(contract, counts)
        yield from dataset_checks.check_statistics(config.dataset, contract, found_statistics)
        if config.gate or not contract["gate"]["overridden"]:
            yield from dataset_checks.check_gate(contract, counts, found_statistics, vocabulary)


def main(config: VerifyConfig, show: Callable[[str], None] = print) -> int:
    """Print all violations; return 1 if there are any, else 0."""
    count, (contract, vocabulary) = 0, read_contract(config.dataset)
    if config.progress and not sys.stderr.isatty():  # where no progress bar is drawn
        size = sum(shard["bytes"] for shard in contract["shards"])
        listed = formatting.counted(len(contract["shards"]), "shard")
        print(f"verifying {config.dataset}: reading {listed} of {size / 1e6:,.1f} MB", file=sys.stderr, flush=True)
    for count, violation in enumerate(violations(config, contract, vocabulary), 1):
        if count <= config.max_lines:
            show(violation)
    for line in dataset_warnings(contract):
        show(f"warning: {line}")
    if contract["gate"]["overridden"]:
        hint = "; verify --no-gate ignores them" if config.gate else ""
        show(f"{config.dataset}: prepared with --no-gate despite failed checks of the statistical gate{hint}")
    shards, examples = contract["shards"], sum(shard["examples"] for shard in contract["shards"])
    content = formatting.counted(sum(map(manifest.records_of, shards)), "record")
    if manifest.is_packed(contract):
        content = f"{formatting.counted(examples, 'example')} in {content}"
    content += f" in {formatting.counted(len(shards), 'shard')}"
    if count:
        show(
            f"{config.dataset}: {formatting.counted(count, 'violation')} in {content}"
            + (f", {config.max_lines} shown" if count > config.max_lines else "")
        )
        return 1
    show(f"{config.dataset}: {content} read: complete and consistent; digest {contract['digest']}")
    return 0
