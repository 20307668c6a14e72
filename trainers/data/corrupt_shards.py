"""Finds the file and record of a shard that turns out to be corrupt during training.

TensorFlow reports neither, and a reader of blocks doesn't know the number of a record. So after an error, the shards are read
again from their beginning.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset import shard_index
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.dataset.manifest import records_of
from clozemill.pipelines.dataset.shard_records import check_rows, read_shard_records
from clozemill.pipelines.examples.columns import PackedColumns
from clozemill.pipelines.shards.blocks import offsets_of
from clozemill.pipelines.shards.tfrecord import CorruptRecord
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common import storage
from clozemill.trainers.data.prepared_dataset import PreparedDataset


def _damage() -> tuple[type[Exception], ...]:
    """Return the errors by which `numpy_reader` and, if TensorFlow is loaded, `graph_reader` report a corrupt shard."""
    if (tf := sys.modules.get("tensorflow")) is None:
        return (CorruptRecord,)
    return (
        CorruptRecord,
        tf.errors.DataLossError,
        tf.errors.NotFoundError,
        tf.errors.InvalidArgumentError,  # an example that lacks a feature, or a row with wrong example numbers
        tf.errors.FailedPreconditionError,  # a shard with fewer records than the manifest says
    )


def find(datasets: Sequence[PreparedDataset], likely: Iterable[str] = ()) -> Iterator[tuple[PreparedDataset, str]]:
    """Yield each corrupt shard: its dataset, and the problem as the start of a sentence. likely: paths to read first."""
    shards = {dataset.path(shard): (dataset, shard) for dataset in datasets for shard in dataset.manifest["shards"]}
    pad_id = Vocabulary.from_bytes(datasets[0].read_vocabulary(), VOCAB).pad_id
    for path in dict.fromkeys([path for path in likely if path in shards] + list(shards)):
        (dataset, shard), count = shards[path], 0
        try:
            with storage.open_to_read(path) as file:
                data = file.read()
            for records in read_shard_records(data, dataset.manifest):
                if isinstance(records, PackedColumns):
                    check_rows(records, dataset.manifest, pad_id, count)
                count += len(records)
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            yield dataset, f"{path} doesn't exist" if missing else f"{path} can't be read ({storage.cause(error)})"
            continue
        except (UserError, ValueError) as error:
            yield dataset, str(error) if isinstance(error, UserError) else f"{path}: {error}"
            continue
        if count != records_of(shard):
            yield dataset, f"{path} has {count} records, not {records_of(shard)}"
        elif dataset.index and (told := shard_index.mismatch(dataset.index[shard["name"]], offsets_of(data))):
            yield dataset, f"{path}: {told}"


@contextmanager
def report_corruption(*datasets: PreparedDataset, likely: Callable[[], Iterable[str]] = tuple) -> Iterator[None]:
    """Raise UserError with the file and record if a shard turns out to be corrupt in the block. `likely` is as in `find`."""
    try:
        yield
    except _damage() as error:
        if "{{node" in str(error) and "Iterator" not in str(error):
            raise
        unknown = datasets[0], f"{datasets[0].folder}: a shard can't be read ({storage.cause(error)})"
        dataset, problem = next(find(datasets, likely()), unknown)
        raise UserError(
            f"{problem}: restore it or rebuild the dataset; clozemill verify {dataset.folder} lists all corrupt files"
        ) from None
