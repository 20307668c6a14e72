"""The checks of one shard of a finished dataset: its bytes, its records, and its packing; `verify` runs them."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.dataset.layout import MANIFEST, provenance_name
from clozemill.pipelines.dataset.parquet import read_parquet
from clozemill.pipelines.dataset.shard_records import read_shard_records
from clozemill.pipelines.examples import assemble
from clozemill.pipelines.examples.columns import Columns, PackedColumns
from clozemill.pipelines.examples.packing import count_rows, unpack_examples
from clozemill.pipelines.examples.row_rules import find_row_violations
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.quality import invariants, statistics
from clozemill.pipelines.shards import tfrecord
from clozemill.pipelines.shards.blocks import offsets_of
from clozemill.pipelines.text.vocabulary import Vocabulary


@dataclass
class Findings:
    """The result of reading one shard: violations, and the statistics of its examples."""

    name: str
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sums: statistics.Sums = field(default_factory=dict)
    blocks: list[int] = field(default_factory=list)  # byte offsets, if there are no violations and no compression


class _Records:
    """Checks the records of a shard batch by batch; afterwards what they amount to."""

    def __init__(self, shard: dict[str, Any], contract: dict[str, Any], vocabulary: Vocabulary) -> None:
        self.shard, self.contract, self.vocabulary = shard, contract, vocabulary
        self.config = ExampleConfig.of(contract["config"])
        self.collector = statistics.StatisticsCollector(self.config, vocabulary, shard["split"], shard["copy"])
        self.found = Findings(shard["name"])
        self.total = 0
        self.examples = [np.zeros(0, np.int64)]  # of each row
        self.lengths = np.zeros(contract["max_seq_length"] + 1, np.int64)  # number of packed examples of each length
        self.most_predictions = 0

    def add(self, records: Columns | PackedColumns) -> None:
        """Check a batch, and count it if all is well so far."""
        first, self.total = self.total, self.total + len(records)
        columns = self._unpacked(records, first) if isinstance(records, PackedColumns) else records
        if columns is None:
            return
        for indices, message in invariants.find_violations(columns, self.config, self.vocabulary):
            if isinstance(records, PackedColumns):
                row = int(np.searchsorted(np.cumsum(records.examples), indices[0], side="right"))
                number = indices[0] - int(records.examples[:row].sum()) + 1
                self._report(f"record {first + row}: example {number}", message, len(indices) - 1, "examples")
            else:
                self._report(f"record {first + indices[0]}", message, len(indices) - 1, "records")
        if not self.found.violations:
            manifest.add_counts(self.found.counts, assemble.count_examples(columns, self.vocabulary))
            self.collector.add(columns)

    def _unpacked(self, packed: PackedColumns, first: int) -> Columns | None:
        """Return the examples of some rows, or None if a row violates a rule."""
        self.examples.append(packed.examples)
        self.most_predictions = max(self.most_predictions, int(packed.predictions.max()))
        limit, pad_id, sound = self.contract["max_predictions"], self.vocabulary.pad_id, True
        for rows, message in find_row_violations(packed, limit, pad_id):
            self._report(f"record {first + rows[0]}", message, len(rows) - 1, "records")
            sound = False
        if not sound:
            return None
        columns = unpack_examples(packed, limit, pad_id)
        self.lengths += np.bincount(columns.input_mask.sum(axis=1), minlength=len(self.lengths))
        return columns

    def _report(self, where: str, message: str, more: int, what: str) -> None:
        others = f" (and {more} more {what})" if more else ""
        self.found.violations.append(f"{self.shard['name']}: {where}: {message}{others}")

    def amounts(self) -> Iterator[str]:
        """Compare what the records amount to with the shard's entry in dataset.json."""
        shard = self.shard
        if self.total != manifest.records_of(shard):
            yield f"it contains {self.total} records, not {manifest.records_of(shard)}"
        if not manifest.is_packed(self.contract):
            return
        examples = np.concatenate(self.examples)
        known = {"examples": shard["examples"], **{name: shard[name] for name in ("max_examples", "max_predictions")}}
        real = int(examples.sum()), int(examples.max(initial=0)), self.most_predictions
        for (name, recorded), value in zip(known.items(), real, strict=True):
            if value != recorded:
                yield f"{name} of its rows is {value}, not {recorded}"
        rows = count_rows(self.lengths, self.config.max_seq_length)
        if self.lengths.sum() == examples.sum() and self.total != rows:
            yield f"its examples are in {self.total} rows, but prepare packs them into {rows}"


def _origins(folder: str, shard: dict[str, Any], examples: np.ndarray) -> Iterator[str]:
    """Check that the shard's provenance has the example that each row contains, in order."""
    name = provenance_name(shard["name"])
    try:
        table = read_parquet(filesystem.join(folder, name))
        found = [table[column].to_numpy() for column in ("row", "example")]
    except (UserError, pa.ArrowException):
        return  # check_files compares the file with its digest
    except KeyError:
        yield f"{name}: it lacks the columns row and example, although the dataset is packed"
        return
    row = np.repeat(np.arange(len(examples)), examples)
    wanted = row, np.arange(len(row)) - np.repeat(np.cumsum(examples) - examples, examples) + 1
    if not all(np.array_equal(have, want) for have, want in zip(found, wanted, strict=True)):
        yield f"{name}: its rows and examples are not those of the shard"


def check_shard(folder: str, shard: dict[str, Any], contract: dict[str, Any], vocabulary: Vocabulary) -> Findings:
    """Check one shard: bytes, frames, schema, and the rules for every record."""
    checked = _Records(shard, contract, vocabulary)
    found, name = checked.found, shard["name"]
    path = filesystem.join(folder, name)
    if not filesystem.exists(path):
        found.violations.append(f"{name}: the file is missing")
        return found
    try:
        data = filesystem.read_bytes(path)
    except UserError as error:
        found.violations.append(str(error))
        return found
    if hashlib.sha256(data).hexdigest() != shard["sha256"]:
        found.violations.append(f"{name}: its SHA-256 is not the one in {MANIFEST}")
    try:
        for records in read_shard_records(data, contract):
            checked.add(records)
    except tfrecord.CorruptRecord as error:
        found.violations.append(f"{name}: {error}")
        return found
    found.violations += [f"{name}: {message}" for message in checked.amounts()]
    if manifest.is_packed(contract):
        if checked.config.provenance:
            found.violations += _origins(folder, shard, np.concatenate(checked.examples))
        if found.counts:
            found.counts["padding"] = checked.total * checked.config.max_seq_length - found.counts["tokens"]
    if not found.violations:
        found.sums = checked.collector.sums()
        found.blocks = offsets_of(data) if checked.config.compression == "none" else []
    return found
