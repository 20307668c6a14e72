"""The one shuffle, in two interchangeable ways with one contract: (group, key, payload) in, a group's items out.

`files` writes each split's items to spill files laid out by group and sends only where they lie, so that on one
machine the corpus never passes through the engine; `beam` sends the items themselves, for engines with a shuffle of
their own. What crosses the engine is (group, bytes) either way.
"""

import struct
from collections.abc import Iterable, Iterator

from pipelines import filesystem
from pipelines.seeds import KEY_BYTES

SPILL_BYTES = 64 << 20  # what one task holds before it writes a spill file
_LOCATION = struct.Struct("<QQ")
_LENGTH = struct.Struct("<I")

Item = tuple[int, bytes, bytes]  # group, sort key, payload


class FilesShuffle:
    """Spills to `folder`; what travels is offset, length and name of the piece of a spill file."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def scatter(self, name: str, items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
        """Writes items to spill files named after `name`, and yields where each group's are."""
        pieces: dict[int, list[bytes]] = {}
        size, number = 0, 0
        for group, key, payload in items:
            pieces.setdefault(group, []).append(b"".join((_LENGTH.pack(len(payload)), key, payload)))
            size += len(payload) + _LENGTH.size + KEY_BYTES
            if size >= SPILL_BYTES:
                yield from self._spill(f"{name}-{number:04d}.spill", pieces)
                pieces, size, number = {}, 0, number + 1
        if pieces:
            yield from self._spill(f"{name}-{number:04d}.spill", pieces)

    def _spill(self, name: str, pieces: dict[int, list[bytes]]) -> Iterator[tuple[int, bytes]]:
        locations, offset = [], 0
        with filesystem.atomic_write(filesystem.join(self._folder, name)) as file:
            for group in sorted(pieces):
                data = b"".join(pieces[group])
                file.write(data)
                locations.append((group, _LOCATION.pack(offset, len(data)) + name.encode()))
                offset += len(data)
        yield from locations

    def gather(self, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The (key, payload) items that lie where `values` say."""
        for value in values:
            offset, length = _LOCATION.unpack_from(value)
            with filesystem.open_read(filesystem.join(self._folder, value[_LOCATION.size :].decode())) as file:
                file.seek(offset)
                data = file.read(length)
            position = 0
            while position < length:
                (size,) = _LENGTH.unpack_from(data, position)
                position += _LENGTH.size
                yield data[position : position + KEY_BYTES], data[position + KEY_BYTES : position + KEY_BYTES + size]
                position += KEY_BYTES + size


class BeamShuffle:
    """Sends every item through the engine."""

    def scatter(self, name: str, items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
        """Each item as it is."""
        for group, key, payload in items:
            yield group, key + payload

    def gather(self, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The items again."""
        for value in values:
            yield value[:KEY_BYTES], value[KEY_BYTES:]


SHUFFLES = {"files": FilesShuffle, "beam": BeamShuffle}
