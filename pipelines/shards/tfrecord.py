"""The TFRecord container: framing with masked CRC32C, and a reader that checks every byte of it."""

import gzip
import io
import struct
import zlib
from collections.abc import Iterator
from functools import lru_cache

import google_crc32c
import numpy as np

HEADER, FOOTER = 12, 4  # before the data: its length and the length's CRC; after it: the data's CRC
MAX_RECORD = 64 << 20  # bytes; an example of 65,536 tokens takes one
_MASK_DELTA = 0xA282EAD8


def _masked(crc):  # an int or a uint64 array
    """Return TensorFlow's mask of a CRC: rotated right by 15 bits, plus a constant."""
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def masked_crc(data: bytes) -> int:
    """Return TensorFlow's masked CRC32C."""
    return _masked(google_crc32c.value(data))


def fill_frames(buffer: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Write the frames around records in `buffer`, which has room for them, in place.

    Args:
        buffer: uint8 [bytes], contiguous: HEADER bytes, the data, FOOTER bytes, for each record.
        starts: int64 [records], where each record's header begins.
        lengths: int64 [records], bytes of data of each record.
    """
    data, place = buffer.tobytes(), np.arange(HEADER)  # the CRC library accepts only read-only bytes
    size_bytes = lengths.astype("<u8").view(np.uint8).reshape(-1, 8)
    distinct, index = np.unique(lengths, return_inverse=True)
    size_crcs = np.array([masked_crc(struct.pack("<Q", length)) for length in distinct.tolist()], "<u4")[index]
    buffer[starts[:, None] + place[:8]] = size_bytes
    buffer[starts[:, None] + place[8:12]] = size_crcs.view(np.uint8).reshape(-1, 4)
    first = starts + HEADER
    crc = google_crc32c.value
    crcs = np.array(
        [crc(data[low:high]) for low, high in zip(first.tolist(), (first + lengths).tolist(), strict=True)], np.uint64
    )
    buffer[(first + lengths)[:, None] + place[:4]] = _masked(crcs).astype("<u4").view(np.uint8).reshape(-1, 4)


class CorruptRecord(ValueError):
    """Raised for a damaged TFRecord file; the message names the first damaged record and the reason."""


def read(data: bytes, compression: str = "none") -> Iterator[bytes]:
    """Yield the records in the bytes of a TFRecord file.

    Raises CorruptRecord at the first record whose length or CRC is wrong, or if the file ends within a record. A gzip stream is
    decompressed record by record, so that memory is bounded by one record even for a decompression bomb.
    """
    if compression == "gzip" and not data:  # gzip would read it as an empty stream
        raise CorruptRecord("the gzip stream is empty")
    raw = io.BytesIO(data)
    stream: gzip.GzipFile | io.BytesIO = gzip.GzipFile(fileobj=raw) if compression == "gzip" else raw
    number = 0
    while True:
        try:
            record = _next(stream)
        except CorruptRecord as error:
            raise CorruptRecord(f"record {number}: {error}") from None
        except (OSError, EOFError, zlib.error) as error:
            raise CorruptRecord(f"record {number}: the gzip stream is damaged ({error})") from None
        if record is None:
            return
        yield record
        number += 1


def _next(stream: gzip.GzipFile | io.BytesIO) -> bytes | None:
    """Return the next record, or None at the end. Raises CorruptRecord with just the reason."""
    if not (header := stream.read(HEADER)):
        return None
    length = _length(header)
    record, footer = stream.read(length), stream.read(FOOTER)
    if len(record) < length or len(footer) < FOOTER:
        raise CorruptRecord("the file is truncated within it")
    if masked_crc(record) != int.from_bytes(footer, "little"):
        raise CorruptRecord("the CRC of its data is wrong")
    return record


@lru_cache(1 << 12)  # records of a shard have few different lengths
def _length(header: bytes) -> int:
    """Return the length of a record from its header. Raises CorruptRecord with just the reason."""
    if len(header) < HEADER:
        raise CorruptRecord("the file is truncated within its header")
    if masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
        raise CorruptRecord("the CRC of its length is wrong")
    (length,) = struct.unpack("<Q", header[:8])
    if length > MAX_RECORD:
        raise CorruptRecord(f"its length of {length:,} bytes is more than any example has")
    return length
