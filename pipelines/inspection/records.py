"""Some records of a shard, for `inspect` as text and as a page. Of a packed dataset, they are rows of several examples."""

from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.example_tokens import LABELS
from clozemill.pipelines.dataset.layout import provenance_name
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.dataset.parquet import read_parquet
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.dataset.shard_records import decode_shard_records, examples_of
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.inspection.config import InspectConfig
from clozemill.pipelines.shards import tfrecord
from clozemill.pipelines.text.vocabulary import Vocabulary


@dataclass(frozen=True, order=True)
class Place:
    """Where an example is: the number of its record in the shard, and if packed, its number in the record, from 1."""

    record: int
    example: int = 0

    def __str__(self) -> str:
        return f"record {self.record}, example {self.example}" if self.example else f"record {self.record}"


@dataclass(frozen=True)
class ShardRecords:
    """The examples of some records of one shard.

    places: one per example. origins: the provenance of each example by column, if the dataset has it.
    """

    contract: dict[str, Any]
    vocabulary: Vocabulary
    shard: dict[str, Any]
    columns: examples_columns.Columns
    places: list[Place]
    origins: list[dict[str, Any]] | None

    def meaning(self, row: int) -> str:
        """Return the meaning of the label."""
        return LABELS[self.contract["config"]["pairs"]][int(self.columns.next_sentence_labels[row])]

    def sizes(self, row: int) -> str:
        """Return the sizes of an example: '128 tokens, 19 to predict'."""
        masked = int(np.count_nonzero(self.columns.masked_lm_weights[row]))
        return f"{int(self.columns.input_mask[row].sum())} tokens, {masked} to predict"


def _provenance(folder: str, shard: str, places: list[Place]) -> list[dict[str, Any]] | None:
    path = filesystem.join(folder, provenance_name(shard))
    if not filesystem.exists(path):
        return None
    table = read_parquet(path)
    begins = np.arange(len(table))
    if "row" in table.column_names:
        rows = table["row"].to_numpy()
        begins = np.searchsorted(rows, np.arange(rows.max(initial=-1) + 1))
    indices = [int(begins[place.record]) + max(place.example - 1, 0) for place in places]
    return table.take(pa.array(indices, pa.int64())).to_pylist()


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
    numbers = range(config.offset, min(config.offset + config.limit, records_of(shard)))
    return read_shard(config.dataset, contract, vocabulary, shard, numbers)


def read_shard(
    folder: str,
    contract: dict[str, Any],
    vocabulary: Vocabulary,
    shard: dict[str, Any],
    numbers: Collection[int],
    only: Collection[Place] | None = None,
) -> ShardRecords:
    """Return the examples of the records with these numbers (in ascending order), or only those at some places.

    Raises UserError if they can't be read, or if the provenance isn't that of the shard.
    """
    data, first = filesystem.read_bytes(filesystem.join(folder, shard["name"])), min(numbers, default=0)
    try:
        records = islice(tfrecord.read(data, contract["config"]["compression"]), max(numbers, default=-1) + 1)
        wanted = [record for number, record in enumerate(records) if number in numbers]
        found = decode_shard_records(wanted, contract, first)
        columns = examples_of(found, contract, vocabulary.pad_id, first)
        places = list(map(Place, numbers))
        if isinstance(found, examples_columns.PackedColumns):
            sizes = zip(numbers, found.examples.tolist(), strict=True)
            places = [Place(number, example) for number, size in sizes for example in range(1, size + 1)]
        if only is not None:
            kept = [index for index, place in enumerate(places) if place in only]
            columns, places = columns.take(kept), [places[index] for index in kept]
        origins = _provenance(folder, shard["name"], places)
    except (ValueError, IndexError) as error:
        raise UserError(f"{shard['name']}: {error}: run clozemill verify {folder}") from None
    return ShardRecords(contract, vocabulary, shard, columns, places, origins)
