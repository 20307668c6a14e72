"""Encode examples given as arrays to TFRecord bytes, and decode them: google-research/bert's seven features, or packed rows.

`encode` returns the bytes of `tf.train.Example.SerializeToString(deterministic=True)`, without protocol buffers, for thousands
of examples at once. Each record is a row of a byte matrix in which every part has room for its longest form; then the unused
bytes are removed. `decode` uses protocol buffers, so that one checks the other; `columnar` does so faster.

Shapes: E examples or rows of packed examples, one record each; S sequence length, P predictions.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from typing import Any, TypeVar

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns, PackedColumns, pad_rows
from clozemill.pipelines.shards import tfrecord

MAX_VARINT = 3  # bytes, 21 bits: ids below 2,097,152
_Decoded = TypeVar("_Decoded", Columns, PackedColumns)


def _varints(values: np.ndarray, counts: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's values as varints, packed to the left: (bytes uint8 [E, room], number of valid bytes int64 [E]).

    counts: int64 [E], how many values each row has; None: all.

    First all values write their third byte, then all their second, then all their first. If a shorter value wrote too many
    bytes, the next value overwrites them.
    """
    count, length = values.shape
    room = MAX_VARINT * length + MAX_VARINT - 1
    long, longer = values > 0x7F, values > 0x3FFF
    sizes = 1 + long.view(np.uint8) + longer.view(np.uint8)
    ends = np.cumsum(sizes, axis=1, dtype=np.int32)
    at = (ends - sizes) + (np.arange(count) * room)[:, None]
    out = np.empty(count * room, np.uint8)
    out[at + 2] = (values >> 14).astype(np.uint8)
    out[at + 1] = (values >> 7 & 0x7F).astype(np.uint8) | longer.view(np.uint8) << 7
    out[at] = (values & 0x7F).astype(np.uint8) | long.view(np.uint8) << 7
    used = ends[:, -1] if counts is None else np.where(counts > 0, ends[np.arange(count), np.maximum(counts, 1) - 1], 0)
    return out.reshape(count, room), used.astype(np.int64)


class _Row:
    """The parts of a serialized feature, front to back, and its size so far, int64 [E].

    A part is (bytes [n] or [E, n], number of valid bytes: int64 [E], or None for all).
    """

    def __init__(self, count: int) -> None:
        self.count, self.size = count, np.zeros(count, np.int64)
        self.parts: list[tuple[np.ndarray, np.ndarray | None]] = []

    def constant(self, data: bytes) -> "_Row":
        self.parts.append((np.frombuffer(data, np.uint8), None))
        self.size += len(data)
        return self

    def fixed(self, data: np.ndarray, sizes: np.ndarray | None = None) -> "_Row":
        self.parts.append((data, sizes))
        self.size = self.size + (data.shape[1] if sizes is None else sizes)
        return self

    def varints(self, values: np.ndarray, counts: np.ndarray | None = None) -> "_Row":
        if not values.size or values.max() <= 0x7F:
            return self.fixed(values.astype(np.uint8), counts)
        return self.fixed(*_varints(values, counts))

    def wrapped(self, tag: int, optional: bool = False) -> "_Row":
        """Return this row as a length-delimited field. optional: leave the field out where it is empty."""
        there = (self.size > 0).astype(np.int64) if optional else None
        outer = _Row(self.count)
        if there is None:
            outer.constant(bytes([tag]))
        else:
            outer.fixed(np.full((self.count, 1), tag, np.uint8), there)
        return outer.varints(self.size[:, None], there).extended(self)

    def extended(self, other: "_Row") -> "_Row":
        self.parts += other.parts
        self.size = self.size + other.size
        return self

    def flattened(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (the bytes of all rows, concatenated; the start of each row)."""
        width = sum(part.shape[-1] for part, _ in self.parts)
        data, used, column = np.empty((self.count, width), np.uint8), np.ones((self.count, width), bool), 0
        for part, counting in self.parts:
            columns = slice(column, column := column + part.shape[-1])
            data[:, columns] = part
            if counting is not None:
                used[:, columns] = np.arange(part.shape[-1], dtype=np.int32) < counting.astype(np.int32)[:, None]
        return data[used], np.concatenate([[0], np.cumsum(self.size)[:-1]])


FIELD_1, FIELD_2, FIELD_3 = 0x0A, 0x12, 0x1A  # length-delimited fields: protocol buffers' wire type 2


def _feature(name: str, values: np.ndarray, counts: np.ndarray | None) -> _Row:
    """Return one entry of Features.feature: a key and an Int64List (field 3) or a FloatList (field 2), both packed.

    counts: int64 [E], how many values each row has; None: all those of the matrix `values`.
    """
    values = values.reshape(len(values), -1) if counts is None else pad_rows(values, counts, counts.max(initial=1))
    row = _Row(len(values))
    if values.dtype.kind == "f":
        data = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(len(values), -1)
        numbers, field = row.fixed(data, None if counts is None else 4 * counts), FIELD_2
    else:
        numbers, field = row.varints(values, counts), FIELD_3
    value = numbers.wrapped(FIELD_1, optional=counts is not None).wrapped(field)
    key = bytes([FIELD_1, len(name)]) + name.encode()
    return _Row(len(values)).constant(key).extended(value.wrapped(FIELD_2)).wrapped(FIELD_1)


def encode(columns: Columns | PackedColumns) -> np.ndarray:
    """Return the examples, or the rows of packed examples, as framed TFRecords, uint8 [bytes]; ids must be below 2**21."""
    return encode_sized(columns)[0]


def encode_sized(columns: Columns | PackedColumns) -> tuple[np.ndarray, np.ndarray]:
    """Return the bytes of `encode`, and the size of each record with its frame, int64 [R]."""
    if not len(columns):
        return np.zeros(0, np.uint8), np.zeros(0, np.int64)
    packed = isinstance(columns, PackedColumns)
    features = _Row(len(columns))
    for name in sorted(PACKED_FEATURES if packed else FEATURES):
        counts = columns.counts_of(name) if isinstance(columns, PackedColumns) else None
        features.extended(_feature(name, getattr(columns, name), counts))
    example = features.wrapped(FIELD_1)
    framed = _Row(len(columns)).constant(bytes(tfrecord.HEADER)).extended(example).constant(bytes(tfrecord.FOOTER))
    buffer, starts = framed.flattened()
    tfrecord.fill_frames(buffer, starts, framed.size - tfrecord.HEADER - tfrecord.FOOTER)
    return buffer, framed.size


def _example_class() -> type:
    """Return tf.train.Example's message class, from its public definition (tensorflow/core/example/*.proto)."""
    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="clozemill_example.proto", package="clozemill", syntax="proto3")

    def message(name: str, *fields: tuple[str, int, int, int, str], parent=file.message_type) -> None:
        made = parent.add(name=name)
        for field_name, number, kind, label, type_name in fields:
            made.field.add(name=field_name, number=number, type=kind, label=label, type_name=type_name or None)

    one, many = field.LABEL_OPTIONAL, field.LABEL_REPEATED
    message("BytesList", ("value", 1, field.TYPE_BYTES, many, ""))
    message("FloatList", ("value", 1, field.TYPE_FLOAT, many, ""))
    message("Int64List", ("value", 1, field.TYPE_INT64, many, ""))
    message(
        "Feature",
        *(
            (f"{kind.lower()}_list", number, field.TYPE_MESSAGE, one, f".clozemill.{kind}List")
            for number, kind in enumerate(("Bytes", "Float", "Int64"), 1)
        ),
    )
    message("Entry", ("key", 1, field.TYPE_STRING, one, ""), ("value", 2, field.TYPE_MESSAGE, one, ".clozemill.Feature"))
    message("Features", ("feature", 1, field.TYPE_MESSAGE, many, ".clozemill.Entry"))
    message("Example", ("features", 1, field.TYPE_MESSAGE, one, ".clozemill.Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("clozemill.Example"))


Example: Any = _example_class()  # made from a descriptor, so that its methods are known at run time only


def _batches(data: bytes, compression: str, batch: int, decoder: Callable[[list[bytes], int], _Decoded]) -> Iterator[_Decoded]:
    records, first = tfrecord.read(data, compression), 0
    while rows := list(islice(records, batch)):
        yield decoder(rows, first)
        first += len(rows)


def read(data: bytes, compression: str, max_seq_length: int, max_predictions: int, batch: int = 4096) -> Iterator[Columns]:
    """Yield the examples in the bytes of an unpacked shard, a few thousand at a time.

    Raises tfrecord.CorruptRecord with the number of the first record that has a damaged frame or isn't an example. All earlier
    batches are yielded before.
    """
    yield from _batches(data, compression, batch, lambda rows, first: decode(rows, max_seq_length, max_predictions, first))


def read_packed(
    data: bytes, compression: str, max_seq_length: int, packing: Mapping[str, int], batch: int = 1024
) -> Iterator[PackedColumns]:
    """Yield the rows in the bytes of a packed shard, as `read` does.

    packing: max_examples and max_predictions of `packing` in dataset.json.
    """
    yield from _batches(data, compression, batch, lambda rows, first: decode_packed(rows, max_seq_length, packing, first))


def decode(records: list[bytes], max_seq_length: int, max_predictions: int, first: int = 0) -> Columns:
    """Return the columns of serialized examples (int64, weights float32).

    Raises tfrecord.CorruptRecord with the record's number (that of the first one is `first`) if it isn't a tf.train.Example
    with exactly the seven features, their types and lengths.
    """
    sizes = {"max_seq_length": max_seq_length, "max_predictions": max_predictions, None: 1}
    found: dict[str, list] = {name: [] for name in FEATURES}
    for number, record in enumerate(records, first):
        for name, values in _values(record, number, FEATURES).items():
            dtype, length = FEATURES[name]
            if len(values) != sizes[length]:
                raise tfrecord.CorruptRecord(f"record {number}: {name} has {len(values)} {dtype} values, not {sizes[length]}")
            found[name].append(values)
    arrays: dict[str, np.ndarray] = {
        name: np.array(found[name], dtype).reshape(len(records), sizes[length]) for name, (dtype, length) in FEATURES.items()
    }
    arrays["next_sentence_labels"] = arrays["next_sentence_labels"].reshape(-1)
    return Columns(**arrays)


def decode_packed(records: list[bytes], max_seq_length: int, packing: Mapping[str, int], first: int = 0) -> PackedColumns:
    """Return rows of packed examples from serialized records (int64, weights float32).

    packing: max_examples and max_predictions of `packing` in dataset.json.

    Raises tfrecord.CorruptRecord, as `decode` does, also if features of one length disagree, or have more values than `packing`
    allows.
    """
    found: dict[str, list] = {name: [] for name in PACKED_FEATURES}
    counts: dict[str, list[int]] = {"max_examples": [], "max_predictions": []}
    for number, record in enumerate(records, first):
        sizes = {"max_seq_length": max_seq_length}
        for name, values in _values(record, number, PACKED_FEATURES).items():
            dtype, length = PACKED_FEATURES[name]
            said = f"record {number}: {name} has {len(values)} {dtype} values"
            if len(values) != sizes.setdefault(length, len(values)):
                raise tfrecord.CorruptRecord(f"{said}, not {sizes[length]}")
            if len(values) > packing.get(length, max_seq_length):
                raise tfrecord.CorruptRecord(f"{said}, more than {length}, {packing[length]}")
            found[name].append(values)
        for length, many in counts.items():
            many.append(sizes[length])
    arrays: dict[str, np.ndarray] = {}
    for name, (dtype, length) in PACKED_FEATURES.items():
        shape = (len(records), max_seq_length) if length == "max_seq_length" else -1
        arrays[name] = np.fromiter(chain.from_iterable(found[name]), dtype).reshape(shape)
    examples, predictions = (np.array(many, np.int64) for many in counts.values())
    return PackedColumns(**arrays, examples=examples, predictions=predictions)


def _values(record: bytes, number: int, features: Mapping[str, tuple[str, Any]]) -> dict[str, Any]:
    """Return the values of each feature of a serialized example, in the order of `features`. Raises tfrecord.CorruptRecord."""
    try:
        example = Example.FromString(record)
    except DecodeError:
        raise tfrecord.CorruptRecord(f"record {number}: not a tf.train.Example") from None
    entries = {entry.key: entry.value for entry in example.features.feature}
    if entries.keys() != features.keys():
        raise tfrecord.CorruptRecord(f"record {number}: its features are {sorted(entries)}, not {sorted(features)}")
    return {
        name: (entries[name].float_list if dtype == "float32" else entries[name].int64_list).value
        for name, (dtype, _) in features.items()
    }
