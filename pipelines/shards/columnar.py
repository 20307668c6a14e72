"""Decode many examples at once, if they have the form in which `tf_example.encode` writes them; the trainer reads so.

In that form the parts of all records come in the same order, and only lengths differ. So the records are walked in step: a part
of all of them at a time, with a cursor for each. `tf_example.decode` reads any other form, with protocol buffers.

Shapes: R records, S sequence length, P predictions.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns, PackedColumns
from clozemill.pipelines.shards.tf_example import FIELD_1, FIELD_2, FIELD_3, MAX_VARINT

_SLACK = bytes(64)  # after the last record: the fixed bytes of a feature, which a damaged record may lack
_Feature = tuple[np.ndarray, np.ndarray]  # the values of all records joined; how many each record has


class _OtherForm(Exception):
    """Raised if a record isn't in the expected form."""


class _Walk:
    """Cursors into records, int64 [R], which move over the same parts of each."""

    def __init__(self, records: Sequence[bytes]) -> None:
        self._joined = b"".join([*records, _SLACK])
        self._ends = np.cumsum(np.fromiter(map(len, records), np.int64, len(records)))
        self._at = np.concatenate([[0], self._ends[:-1]])
        # The eight bytes from every byte on, as a little-endian number.
        self._words = np.ndarray(len(self._joined) - 7, "<u8", self._joined, strides=(1,))
        self._wrong = np.zeros(len(records), bool)

    def expect(self, part: bytes) -> None:
        """Move over bytes that all records must have."""
        for begin in range(0, len(part), 8):
            expected = int.from_bytes(part[begin : begin + 8], "little")
            unused = np.uint64(64 - 8 * len(part[begin : begin + 8]))
            self._wrong |= (self._words[self._at + begin] ^ np.uint64(expected)) << unused != 0
        self._at = self._at + len(part)

    def end_of(self, tag: int) -> np.ndarray:
        """Move over the tag and the length of a field, and return where it ends, int64 [R]."""
        word = self._words[self._at].view(np.int64)
        self._wrong |= word & 0xFF != tag
        size = word >> 8 & 0x7F
        if not (word & 0x8000).any():
            self._at = self._at + 2
            return self._at + size
        long = word >> 15 & 1
        longer = word >> 23 & long
        self._wrong |= word >> 31 & longer != 0  # more than 21 bits: no record of `encode` is that long
        self._at = self._at + 2 + long + longer
        return self._at + size + (word >> 16 & 0x7F) * long * 128 + (word >> 24 & 0x7F) * longer * 16384

    def check_inside(self, end: np.ndarray) -> None:
        """Check that a part ends within its record, so that the cursors can follow its lengths."""
        if (end > self._ends).any():
            raise _OtherForm

    def check_end(self, *ends: np.ndarray) -> None:
        """Note the records in which the cursor isn't at some place."""
        for end in ends:
            self._wrong |= self._at != end

    def check(self) -> None:
        """Check that all records ended where they should, and had what was expected."""
        self.check_end(self._ends)
        if self._wrong.any():
            raise _OtherForm

    def values_until(self, end: np.ndarray) -> _Feature:
        """Move to the end of a part, and return its bytes, uint8."""
        begin, self._at = self._at, end
        sizes = end - begin
        if (size := int(sizes[0])) > 0 and (sizes == size).all():
            parts = np.ndarray(len(self._joined) - size + 1, f"V{size}", self._joined, strides=(1,))
            return parts[begin].view(np.uint8), sizes
        if (sizes < 1).any():
            raise _OtherForm
        joined, spans = self._joined, zip(begin.tolist(), end.tolist(), strict=True)
        return np.frombuffer(b"".join([joined[low:high] for low, high in spans]), np.uint8), sizes


def _numbers(data: np.ndarray, sizes: np.ndarray) -> _Feature:
    """Return the varints in the bytes of all records, int32.

    A number's last byte is below 0x80 and has its highest bits: 0x96 0x01 is 0x16 | 0x01 << 7. Here each byte gets the number
    that would end with it, and the last bytes' are chosen.
    """
    if data.max() < 0x80:
        return data.astype(np.int32), sizes
    last, stops = np.flatnonzero(data < 0x80), np.cumsum(sizes)
    if (data[stops - 1] >= 0x80).any():
        raise _OtherForm
    padded = np.zeros(len(data) + MAX_VARINT, np.uint8)  # so that each byte has that many before it
    padded[MAX_VARINT:] = data
    found, going = data.astype(np.int32), np.ones(len(data), np.uint8)  # whether the number has a byte before, 0 or 1
    for back in range(1, MAX_VARINT + 1):
        before = padded[MAX_VARINT - back : -back]
        going &= before >> 7
        if not going.any():
            return found[last], np.diff(np.searchsorted(last, stops), prepend=0)
        found <<= np.multiply(going, 7, dtype=np.int32)
        found |= (before & 0x7F) * going
    raise _OtherForm


def _feature(walk: _Walk, name: str, dtype: str) -> _Feature:
    """Return the values of a feature, int32 or float32."""
    end = walk.end_of(FIELD_1)
    walk.check_inside(end)
    walk.expect(bytes([FIELD_1, len(name)]) + name.encode())
    floats = dtype == "float32"
    ends = [walk.end_of(tag) for tag in (FIELD_2, FIELD_2 if floats else FIELD_3, FIELD_1)]
    data, sizes = walk.values_until(end)
    walk.check_end(*ends)
    if not floats:
        return _numbers(data, sizes)
    if (sizes % 4).any():
        raise _OtherForm
    return data.view("<f4").astype(np.float32, copy=False), sizes // 4


def _decoded(records: Sequence[bytes], features: Mapping[str, tuple[str, str | None]]) -> dict[str, _Feature]:
    if not records:
        raise _OtherForm
    walk = _Walk(records)
    example = walk.end_of(FIELD_1)
    found = {name: _feature(walk, name, features[name][0]) for name in sorted(features)}
    walk.check_end(example)
    walk.check()
    return found


def _all_are(counts: Iterable[np.ndarray], size: int) -> None:
    if any((each != size).any() for each in counts):
        raise _OtherForm


def decode_examples(records: Sequence[bytes], max_seq_length: int, max_predictions: int) -> Columns | None:
    """Return the columns of serialized examples (int32, weights float32), as tf_example.decode does.

    Returns None if a record isn't in the form of tf_example.encode, or has other features, types or lengths.
    """
    sizes = {"max_seq_length": max_seq_length, "max_predictions": max_predictions, None: 1}
    try:
        found = _decoded(records, FEATURES)
        for name, (_, length) in FEATURES.items():
            _all_are([found[name][1]], sizes[length])
    except _OtherForm:
        return None
    arrays: dict[str, np.ndarray] = {name: values.reshape(len(records), -1) for name, (values, _) in found.items()}
    arrays["next_sentence_labels"] = arrays["next_sentence_labels"].reshape(-1)
    return Columns(**arrays)


def decode_rows(records: Sequence[bytes], max_seq_length: int, packing: Mapping[str, int]) -> PackedColumns | None:
    """Return rows of packed examples from serialized records (int32, weights float32), as tf_example.decode_packed does.

    packing: max_examples and max_predictions of `packing` in dataset.json. Returns None as `decode_examples` does.
    """
    try:
        found = _decoded(records, PACKED_FEATURES)
        counts: dict[str, np.ndarray] = {}
        for name, (_, length) in PACKED_FEATURES.items():
            own = found[name][1]
            if length == "max_seq_length":
                _all_are([own], max_seq_length)
            elif (own != counts.setdefault(str(length), own)).any() or own.max() > packing[str(length)]:
                return None
    except _OtherForm:
        return None
    arrays = {
        name: found[name][0].reshape(len(records), -1) if length == "max_seq_length" else found[name][0]
        for name, (_, length) in PACKED_FEATURES.items()
    }
    return PackedColumns(**arrays, examples=counts["max_examples"], predictions=counts["max_predictions"])
