"""The records of a shard as arrays, whether the dataset is packed or not: by what its manifest says."""

from collections.abc import Iterator

from clozemill.pipelines.dataset.manifest import Manifest, is_packed
from clozemill.pipelines.examples.columns import Columns, PackedColumns
from clozemill.pipelines.examples.packing import unpack_examples
from clozemill.pipelines.examples.row_rules import find_row_violations
from clozemill.pipelines.shards import tf_example, tfrecord

_EXAMPLES = 4096  # of a batch, at most, so that memory is bounded


def read_shard_records(data: bytes, manifest: Manifest) -> Iterator[Columns | PackedColumns]:
    """Yield the records in the bytes of a shard, in batches. Raises tfrecord.CorruptRecord, as tf_example.read."""
    compression, length = manifest["config"]["compression"], manifest["max_seq_length"]
    if is_packed(manifest):
        packing = manifest["packing"]
        yield from tf_example.read_packed(data, compression, length, packing, max(_EXAMPLES // packing["max_examples"], 1))
    else:
        yield from tf_example.read(data, compression, length, manifest["max_predictions"], _EXAMPLES)


def decode_shard_records(records: list[bytes], manifest: Manifest, first: int = 0) -> Columns | PackedColumns:
    """Return serialized records as arrays. Raises tfrecord.CorruptRecord, as tf_example.decode."""
    if is_packed(manifest):
        return tf_example.decode_packed(records, manifest["max_seq_length"], manifest["packing"], first)
    return tf_example.decode(records, manifest["max_seq_length"], manifest["max_predictions"], first)


def check_rows(packed: PackedColumns, manifest: Manifest, pad_id: int, first: int = 0) -> None:
    """Raise tfrecord.CorruptRecord for the first row that can't be unpacked; the first one has the number `first`."""
    for rows, message in find_row_violations(packed, manifest["max_predictions"], pad_id):
        raise tfrecord.CorruptRecord(f"record {first + rows[0]}: {message}")


def examples_of(records: Columns | PackedColumns, manifest: Manifest, pad_id: int, first: int = 0) -> Columns:
    """Return the examples of some records, the first of which has the number `first`.

    Raises tfrecord.CorruptRecord for the first row that can't be unpacked.
    """
    if not isinstance(records, PackedColumns):
        return records
    check_rows(records, manifest, pad_id, first)
    return unpack_examples(records, manifest["max_predictions"], pad_id)
