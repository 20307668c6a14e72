"""The first examples of an eval split, as columns, taken out of their rows if they are packed."""

import numpy as np

from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns, PackedColumns
from clozemill.pipelines.examples.packing import unpack_examples
from clozemill.trainers.data.input_pipeline import EvalBatches, eval_rows
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.data.prepared_dataset import PreparedDataset


def eval_columns(dataset: PreparedDataset, limit: int, pad_id: int) -> Columns:
    """Return the first examples of the eval split, at most `limit`. pad_id: the id of [PAD]."""
    count = min(limit, sum(eval_rows(dataset)))
    found = next(batches_of(EvalBatches(dataset, count)))
    if not dataset.packed:
        return Columns(**{name: found[name] for name in FEATURES})
    columns = unpack_examples(ragged(found), dataset.max_predictions, pad_id)
    return columns.take(slice(limit))


def ragged(batch: dict[str, np.ndarray]) -> PackedColumns:
    """Return the rows of a batch of a packed dataset without what pads them to a static size."""
    used = {"max_examples": batch["example_weights"] > 0, "max_predictions": batch["masked_lm_weights"] > 0}
    values = {name: batch[name][used[length]] if length in used else batch[name]
              for name, (_, length) in PACKED_FEATURES.items()}  # fmt: skip
    return PackedColumns(**values, examples=used["max_examples"].sum(axis=1), predictions=used["max_predictions"].sum(axis=1))


def originals(columns: Columns) -> np.ndarray:
    """Return the tokens before masking, int [E, S]."""
    ids = np.array(columns.input_ids)
    for row, weights in enumerate(columns.masked_lm_weights):
        used = weights > 0
        ids[row, columns.masked_lm_positions[row][used]] = columns.masked_lm_ids[row][used]
    return ids
