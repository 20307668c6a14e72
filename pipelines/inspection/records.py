"""Some records of a shard, for `inspect` as text and as a page."""

from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InspectConfig
from clozemill.pipelines.dataset.example_tokens import LABELS
from clozemill.pipelines.dataset.layout import provenance_name
from clozemill.pipelines.dataset.parquet import read_parquet
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class ShardRecords:
    """Some records of one shard.

    numbers: of the records in the shard. origins: provenance of all its records by column, if the dataset has it.
    """

    contract: dict[str, Any]
    vocabulary: Vocabulary
    shard: dict[str, Any]
    columns: examples_columns.Columns
    numbers: list[int]
    origins: dict[str, list[Any]] | None

    def meaning(self, row: int) -> str:
        """Return the meaning of the label."""
        return LABELS[self.contract["config"]["pairs"]][int(self.columns.next_sentence_labels[row])]

    def sizes(self, row: int) -> str:
        """Return the sizes of a record: '128 tokens, 19 to predict'."""
        masked = int(np.count_nonzero(self.columns.masked_lm_weights[row]))
        return f"{int(self.columns.input_mask[row].sum())} tokens, {masked} to predict"


def _provenance(folder: str, shard: str) -> dict[str, list[Any]] | None:
    path = filesystem.join(folder, provenance_name(shard))
    if not filesystem.exists(path):
        return None
    return read_parquet(path).to_pydict()


def read_records(config: InspectConfig) -> ShardRecords:
    """Return the requested records. Raise UserError."""
    contract, vocabulary = read_contract(config.dataset)
    shards = [shard for shard in contract["shards"] if shard["split"] == config.split]
    chosen = [shard for shard in shards if shard["copy"] == config.copy]
    if config.group >= len(chosen):
        copies = {shard["copy"] for shard in shards}
        have = f"copies 0 to {len(copies) - 1}, groups 0 to {len(shards) // len(copies) - 1}" if copies else "none"
        raise UserError(f"{config.dataset} has no {config.split} copy {config.copy} group {config.group}: choose from {have}")
    shard = chosen[config.group]
    numbers = range(config.offset, min(config.offset + config.limit, shard["examples"]))
    return read_shard(config.dataset, contract, vocabulary, shard, list(numbers))


def read_shard(
    folder: str, contract: dict[str, Any], vocabulary: Vocabulary, shard: dict[str, Any], numbers: list[int]
) -> ShardRecords:
    """Return the records of a shard with these numbers, in ascending order. Raise UserError if they can't be read."""
    data, wanted = filesystem.read_bytes(filesystem.join(folder, shard["name"])), set(numbers)
    try:
        first = islice(tfrecord.read(data, contract["config"]["compression"]), max(numbers, default=-1) + 1)
        records = [record for number, record in enumerate(first) if number in wanted]
        sizes = contract["max_seq_length"], contract["max_predictions"]
        columns = tf_example.decode(records, *sizes, min(numbers, default=0))
    except ValueError as error:
        raise UserError(f"{shard['name']}: {error}: run clozemill verify {folder}") from None
    return ShardRecords(contract, vocabulary, shard, columns, numbers[: len(records)], _provenance(folder, shard["name"]))
