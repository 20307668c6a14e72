"""Decompression in chunks of bounded size, splits of plain and bz2 files, errors that name damaged files."""

import bz2
import gzip
import os
from unittest import mock

import pytest
import zstandard

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import decompression
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers.input_split import InputSplit

DATA = bytes(range(256)) * 400
ZST = zstandard.ZstdCompressor().compress
CHECKED = zstandard.ZstdCompressor(write_checksum=True).compress(b"some text " * 100)
SKIPPABLE = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"
BZ2_OF_DATA = len(bz2.compress(DATA))


def split(path, compression: str, start: int = 0, end: int | None = None) -> InputSplit:
    size = os.path.getsize(path)
    return InputSplit(str(path), "document", compression, start, size if end is None else end, size)


def read(path, compression: str, **where) -> bytes:
    return b"".join(piece for piece, _ in readers_compression.pieces(split(path, compression, **where)))


@pytest.mark.parametrize("chunk", [16, 1000, 1 << 20])
@pytest.mark.parametrize(
    ("compression", "stored", "expected"),
    [
        ("none", DATA, DATA),
        ("none", b"", b""),
        ("gzip", gzip.compress(DATA, mtime=0), DATA),
        ("gzip", gzip.compress(b"a", mtime=0) + gzip.compress(b"", mtime=0) + gzip.compress(DATA, mtime=0), b"a" + DATA),
        ("gzip", gzip.compress(DATA, mtime=0) + b"\0" * 2000, DATA),
        ("bz2", bz2.compress(DATA), DATA),
        ("bz2", bz2.compress(b"a") + bz2.compress(b"") + bz2.compress(DATA), b"a" + DATA),
        ("bz2", bz2.compress(DATA) + b"\0" * 2000, DATA),
        ("zst", ZST(DATA), DATA),
        ("zst", ZST(b"a") + SKIPPABLE + ZST(b"") + ZST(DATA), b"a" + DATA),
    ],
)
def test_chunks_decompress(tmp_path, compression, stored, expected, chunk):
    (tmp_path / "a").write_bytes(stored)
    with mock.patch.object(readers_compression, "CHUNK_BYTES", chunk), mock.patch.object(decompression, "CHUNK_BYTES", chunk):
        assert read(tmp_path / "a", compression) == expected


def test_highly_compressed_data_is_yielded_in_chunks(tmp_path):
    for name, compression, data in (("a", "gzip", gzip.compress(bytes(40 << 20))), ("b", "bz2", bz2.compress(bytes(40 << 20)))):
        (tmp_path / name).write_bytes(data)
        pieces = [len(piece) for piece, _ in readers_compression.pieces(split(tmp_path / name, compression))]
        assert sum(pieces) == 40 << 20
        assert max(pieces) <= 4 * readers_compression.CHUNK_BYTES


@pytest.mark.parametrize(
    ("compression", "stored", "why"),
    [
        ("gzip", gzip.compress(DATA, mtime=0)[:-9], "it is truncated"),
        ("gzip", gzip.compress(DATA, mtime=0)[:-3], "it is truncated"),
        ("gzip", gzip.compress(b"a", mtime=0) + gzip.compress(DATA, mtime=0)[:20], "it is truncated"),
        ("gzip", b"", "it is truncated"),
        ("gzip", b"plain text, not gzip", "incorrect header check"),
        ("gzip", gzip.compress(b"a", mtime=0) + b"garbage", "incorrect header check"),
        ("gzip", gzip.compress(DATA, mtime=0)[:-8] + b"12345678", "incorrect data check"),
        ("bz2", bz2.compress(DATA)[:-4], "it is truncated in the stream that starts at byte 0"),
        ("bz2", bz2.compress(DATA) + bz2.compress(DATA)[:99], f"the stream that starts at byte {BZ2_OF_DATA}"),
        ("bz2", b"", "it is empty"),
        ("bz2", b"plain text, not bz2", "from byte 0: Invalid data stream"),
        ("bz2", bz2.compress(b"a") + b"garbage", "Invalid data stream"),
        ("zst", ZST(DATA)[:-4], "it is truncated"),
        ("zst", ZST(b"a") + ZST(DATA)[:20], "it is truncated"),
        ("zst", b"", "it is truncated"),
        ("zst", CHECKED[:-1] + bytes([CHECKED[-1] ^ 1]), "doesn't match checksum"),
        ("zst", b"plain text, not zstd", "Unknown frame descriptor"),
        ("zst", ZST(b"a") + b"garbage", "Unknown frame descriptor"),
    ],
)
def test_errors_name_the_damaged_file(tmp_path, compression, stored, why):
    path = tmp_path / "corpus.x"
    path.write_bytes(stored)
    with pytest.raises(UserError) as caught:
        read(path, compression)
    assert str(caught.value).startswith(f"{path} is not an intact ")
    assert why in str(caught.value)
    assert str(caught.value).endswith("download it again or remove it from the input")


@pytest.mark.parametrize(("log", "fits"), [(27, True), (28, False), (31, False)])
def test_a_zstd_window_is_bounded(tmp_path, log, fits):
    """A frame header with a window of 2 ** log bytes, and one raw block."""
    frame = b"\x28\xb5\x2f\xfd\x00" + bytes([(log - 10) << 3]) + (len(DATA) << 3 | 1).to_bytes(3, "little") + DATA
    (tmp_path / "a.zst").write_bytes(frame)
    if fits:
        assert read(tmp_path / "a.zst", "zst") == DATA
        return
    with pytest.raises(UserError, match=r"a\.zst was compressed with a window of more than 128 MB, .*: compress it again"):
        read(tmp_path / "a.zst", "zst")


def test_damage_in_a_stream_is_reported_by_its_split(tmp_path):
    """Each stream of a multistream .bz2 has its own checksums."""
    first, second = bz2.compress(b"one " * 99), bz2.compress(b"two " * 99)
    damaged = second[:10] + bytes([second[10] ^ 1]) + second[11:]  # part of the CRC of the block
    (tmp_path / "a").write_bytes(first + damaged)
    own = readers_compression.pieces(split(tmp_path / "a", "bz2", 0, len(first)))
    assert next(own) == (b"one " * 99, True)
    with pytest.raises(UserError, match="Invalid data stream"):
        list(readers_compression.pieces(split(tmp_path / "a", "bz2", len(first), len(first + damaged))))


def test_a_plain_split_owns_its_bytes_and_can_read_on(tmp_path):
    (tmp_path / "a").write_bytes(b"0123456789")
    with mock.patch.object(readers_compression, "CHUNK_BYTES", 4):
        assert list(readers_compression.pieces(split(tmp_path / "a", "none", 2, 8))) == [
            (b"2345", True),
            (b"67", True),
            (b"89", False),
        ]


def test_a_bz2_split_owns_the_streams_that_begin_in_it(tmp_path):
    streams = [bz2.compress(text) for text in (b"one", b"two", b"three")]
    (tmp_path / "a").write_bytes(b"".join(streams))
    second = len(streams[0])
    third = second + len(streams[1])

    def pieces(start, end):
        return list(readers_compression.pieces(split(tmp_path / "a", "bz2", start, end)))

    assert pieces(0, 1) == [(b"one", True), (b"two", False), (b"three", False)]
    assert pieces(1, second) == []
    assert pieces(1, second + 1) == [(b"two", True), (b"three", False)]
    assert pieces(second, third) == [(b"two", True), (b"three", False)]
    assert pieces(second + 1, third + 5) == [(b"three", True)]


# Globs


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl.gz", ("gzip", "a.jsonl")),
        ("A.XML.BZ2", ("bz2", "A.XML")),
        ("a.zst", ("zst", "a")),
        ("d.gz/a", ("none", "d.gz/a")),
    ],
)
def test_compression_of(name, expected):
    assert decompression.compression_of(name) == expected
