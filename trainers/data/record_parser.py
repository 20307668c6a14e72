"""Parses serialized records into the features of a dataset, as numpy arrays.

B batch, S sequence length, E examples per row.
"""

import numpy as np

from clozemill.pipelines.dataset.shard_records import decode_shard_records
from clozemill.pipelines.examples.columns import Columns, PackedColumns
from clozemill.pipelines.shards import columnar, tfrecord
from clozemill.trainers.data.prepared_dataset import PreparedDataset


def _columns(records: list[bytes], contract: PreparedDataset) -> Columns | PackedColumns:
    """Return the columns of records. Raises tfrecord.CorruptRecord for one that isn't an example of the dataset."""
    length = contract.max_seq_length
    found: Columns | PackedColumns | None
    if contract.packed:
        found = columnar.decode_rows(records, length, contract.manifest["packing"])
    else:
        found = columnar.decode_examples(records, length, contract.max_predictions)
    return found or decode_shard_records(records, contract.manifest)


def parse_records(records: list[bytes], contract: PreparedDataset) -> dict[str, np.ndarray]:
    """Return the features of serialized records, as of EvalBatches. Raises tfrecord.CorruptRecord."""
    columns = _columns(records, contract)
    if isinstance(columns, PackedColumns):
        found = columns.padded(contract.manifest["packing"])
        _check_numbers(found["example_ids"], found["example_weights"])
    else:
        found = vars(columns)
    return {name: np.asarray(value, np.float32 if dtype == "float32" else np.int32)
            for (name, (dtype, _)), value in ((each, found[each[0]]) for each in contract.features.items())}  # fmt: skip


def _check_numbers(ids_BS: np.ndarray, weights_BE: np.ndarray) -> None:
    """Raise unless each row numbers its examples 1, 2, …, in order: attention and positions would mix them up otherwise."""
    steps_BS = np.diff(ids_BS, axis=1)
    in_order_BS = (steps_BS == 0) | (steps_BS == 1) | (ids_BS[:, 1:] == 0)
    counts_B = np.count_nonzero(weights_BE, axis=1)
    complete_B = (ids_BS.max(axis=1) == counts_B) & (ids_BS[:, 0] == np.minimum(counts_B, 1))
    if not (in_order_BS.all() and complete_B.all()):
        raise tfrecord.CorruptRecord("example_ids are not consecutive")


def filler_rows(count: int, contract: PreparedDataset) -> dict[str, np.ndarray]:
    """Return rows that only fill up a batch, as of EvalBatches."""
    found = {
        name: np.zeros((count, contract.sizes[length]) if length else count, np.float32 if dtype == "float32" else np.int32)
        for name, (dtype, length) in contract.features.items()
    }
    found["input_mask"][:, 0] = 1
    return found
