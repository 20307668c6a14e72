"""The TFRecord container: literal bytes, every flipped bit and every truncation, gzip, and TensorFlow as the reference."""

import gzip
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.shards import tfrecord
from clozemill.pipelines.shards.tfrecord import CorruptRecord, masked_crc, read

RECORDS = [b"kite", b"", bytes(range(20))]


def frame(record: bytes) -> bytes:
    """Return one record in its frame, computed simply."""
    length = struct.pack("<Q", len(record))
    return length + struct.pack("<I", masked_crc(length)) + record + struct.pack("<I", masked_crc(record))


FILE = b"".join(map(frame, RECORDS))
BOUNDARIES = [0, 20, 36, len(FILE)]


def test_masked_crc_literally():
    """CRC32C of the standard check string is 0xE3069283; the mask rotates and adds."""
    crc = 0xE3069283
    assert masked_crc(b"123456789") == ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) % 2**32
    assert masked_crc(b"") == 0xA282EAD8


def test_read_returns_the_records():
    assert list(read(FILE)) == RECORDS
    assert list(read(b"")) == []


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.binary(max_size=300), max_size=12))
def test_fill_frames_equals_framing_one_by_one(records: list[bytes]):
    lengths = np.array([len(record) for record in records], np.int64)
    room = b"".join(b"\xff" * tfrecord.HEADER + record + b"\xff" * tfrecord.FOOTER for record in records)
    buffer = np.frombuffer(room, np.uint8).copy()
    starts = np.cumsum(lengths + tfrecord.HEADER + tfrecord.FOOTER) - lengths - tfrecord.HEADER - tfrecord.FOOTER
    tfrecord.fill_frames(buffer, starts, lengths)
    assert buffer.tobytes() == b"".join(map(frame, records))
    assert list(read(buffer.tobytes())) == records


@pytest.mark.parametrize("byte", range(len(FILE)))
def test_every_flipped_bit_is_found(byte: int):
    """The records before the damaged one are returned intact, then CorruptRecord names the damaged one."""
    number = sum(byte >= boundary for boundary in BOUNDARIES[1:])
    for bit in range(8):
        damaged = bytearray(FILE)
        damaged[byte] ^= 1 << bit
        found = []
        with pytest.raises(CorruptRecord, match=f"^record {number}: the CRC of its (length|data) is wrong"):
            for record in read(bytes(damaged)):
                found.append(record)
        assert found == RECORDS[:number]


@pytest.mark.parametrize("size", range(len(FILE)))
def test_every_truncation_within_a_record_is_found(size: int):
    """The container can't detect truncation at a boundary; the counts and digests in dataset.json do."""
    if size in BOUNDARIES:
        assert list(read(FILE[:size])) == RECORDS[: BOUNDARIES.index(size)]
        return
    with pytest.raises(CorruptRecord, match="truncated within"):
        list(read(FILE[:size]))


def test_a_huge_length_with_a_valid_crc_is_rejected():
    length = struct.pack("<Q", 2**40)
    bomb = length + struct.pack("<I", masked_crc(length)) + b"kite"
    for data, compression in ((bomb, "none"), (gzip.compress(bomb), "gzip")):
        with pytest.raises(CorruptRecord, match="record 0: its length of 1,099,511,627,776 bytes is more than any example"):
            list(read(data, compression))


def test_gzip_returns_the_records():
    packed = gzip.compress(FILE, mtime=0)
    assert list(read(packed, "gzip")) == RECORDS
    assert list(read(gzip.compress(FILE[:20]) + gzip.compress(FILE[20:]), "gzip")) == RECORDS
    assert list(read(gzip.compress(b""), "gzip")) == []
    with pytest.raises(CorruptRecord):
        list(read(packed))
    with pytest.raises(CorruptRecord, match="gzip"):
        list(read(FILE, "gzip"))


def test_gzip_finds_every_truncation():
    packed = gzip.compress(FILE, mtime=0)
    for size in range(len(packed)):
        with pytest.raises(CorruptRecord, match="gzip"):
            list(read(packed[:size], "gzip"))


def test_gzip_never_returns_other_records_for_a_flipped_bit():
    """The flags, time and system in the header and the padding bits of the last byte are ignored; all others are detected."""
    packed, unharmed = gzip.compress(FILE, mtime=0), set()
    for bit in range(8 * len(packed)):
        damaged = bytearray(packed)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            assert list(read(bytes(damaged), "gzip")) == RECORDS
            unharmed.add(bit // 8)
        except CorruptRecord:
            pass
    assert unharmed <= {*range(3, 10), len(packed) - 9}


def test_tensorflow_reads_and_writes_the_same(tmp_path):
    tf = pytest.importorskip("tensorflow")
    path = tmp_path / "file.tfrecord"
    path.write_bytes(FILE)
    assert [record.numpy() for record in tf.data.TFRecordDataset(str(path))] == RECORDS
    with tf.io.TFRecordWriter(str(path)) as writer:
        for record in RECORDS:
            writer.write(record)
    assert path.read_bytes() == FILE
