"""A shard that turns out to be damaged while steps read it: which file it is, and which record.

TensorFlow says neither. So when it stops, the shards are read once more, by the mill's own reader, which does.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.shards import tf_example
from clozemill.trainers.common import storage
from clozemill.trainers.data.prepared_dataset import PreparedDataset

_DAMAGE = (
    tf.errors.DataLossError,
    tf.errors.NotFoundError,
    tf.errors.InvalidArgumentError,  # an example that lacks a feature
    tf.errors.FailedPreconditionError,  # a shard that holds fewer records than it should
)


def find(dataset: PreparedDataset, likely: Iterable[str] = ()) -> Iterator[str]:
    """What is wrong with which shard, a sentence's beginning each. likely: paths that are looked into first."""
    shards = {dataset.path(shard): shard for shard in dataset.manifest["shards"]}
    for path in dict.fromkeys([path for path in likely if path in shards] + list(shards)):
        count, size = 0, (dataset.max_seq_length, dataset.max_predictions)
        try:
            for columns in tf_example.read(storage.read(path, "restore it"), dataset.compression, *size):
                count += len(columns)
        except (UserError, ValueError) as error:
            yield str(error) if isinstance(error, UserError) else f"{path}: {error}"
            continue
        if count != shards[path]["examples"]:
            yield f"{path}: it holds {count} records, not {shards[path]['examples']}"


@contextmanager
def report_corruption(dataset: PreparedDataset, likely: Callable[[], Iterable[str]] = tuple) -> Iterator[None]:
    """Raises UserError, naming file and record, when a shard turns out to be damaged in the block; `likely` gives `find`'s."""
    try:
        yield
    except _DAMAGE as error:
        if "{{node" in str(error) and "Iterator" not in str(error):
            raise
        found = next(find(dataset, likely()), None) or f"{dataset.folder}: a shard can't be read ({storage.cause(error)})"
        raise UserError(
            f"{found}: restore it or make the dataset anew; clozemill verify {dataset.folder} lists all damage"
        ) from None
