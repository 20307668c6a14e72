"""The one shuffle, in two interchangeable ways with one contract: (group, key, payload) in, a group's items out.

`files` writes each split's items to spill files laid out by group and sends nothing: a group reads its own piece of every
spill file, so that on one machine neither the corpus nor a list of its pieces passes through the engine. `beam` sends the
items themselves, for engines with a shuffle of their own. What crosses the engine is (group, bytes) either way.
"""

import json
import os
import struct
from collections.abc import Iterable, Iterator

import numpy as np

from pipelines import filesystem
from pipelines.schema import UserError
from pipelines.seeds import KEY_BYTES

SPILL_BYTES = 64 << 20  # what one task holds before it writes a spill file
_LENGTH = struct.Struct("<I")
_OFFSET_BYTES = 8

Item = tuple[int, bytes, bytes]  # group, sort key, payload


class FilesShuffle:
    """Spills to a local folder. A spill file begins with where each group's piece starts, and the last one ends.

    A split whose marker is there, with all its spill files of the right size, need not be read again.
    """

    def __init__(self, folder: str, groups: int) -> None:
        self._folder, self._groups = folder, groups

    def scatter(self, name: str, items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
        """Writes items to spill files named after `name`; yields nothing."""
        pieces: dict[int, list[bytes]] = {}
        size, number = 0, 0
        for group, key, payload in items:
            pieces.setdefault(group, []).append(b"".join((_LENGTH.pack(len(payload)), key, payload)))
            size += len(payload) + _LENGTH.size + KEY_BYTES
            if size >= SPILL_BYTES:
                self._spill(f"{name}-{number:04d}.spill", pieces)
                pieces, size, number = {}, 0, number + 1
        if pieces:
            self._spill(f"{name}-{number:04d}.spill", pieces)
        yield from ()

    def _spill(self, name: str, pieces: dict[int, list[bytes]]) -> None:
        sizes = [sum(map(len, pieces.get(group, ()))) for group in range(self._groups)]
        offsets = np.cumsum([_OFFSET_BYTES * (self._groups + 1), *sizes]).astype("<u8")
        with filesystem.atomic_write(filesystem.join(self._folder, name)) as file:
            file.write(offsets.tobytes())
            for group in sorted(pieces):
                file.writelines(pieces[group])

    def finish(self, name: str, summary: bytes) -> None:
        """Marks a split as done, with what is to be known of it."""
        spills = {file: filesystem.size(filesystem.join(self._folder, file)) for file in self._spills(name)}
        marker = json.dumps({"summary": summary.decode(), "spills": spills})
        filesystem.write_bytes(filesystem.join(self._folder, f"{name}.json"), marker.encode())

    def finished(self, name: str) -> bytes | None:
        """The summary that `finish` was given, if all that it vouched for is still there."""
        marker = filesystem.join(self._folder, f"{name}.json")
        if not filesystem.exists(marker):
            return None
        told = json.loads(filesystem.read_bytes(marker))
        whole = all(filesystem.size(filesystem.join(self._folder, file)) == size for file, size in told["spills"].items())
        return told["summary"].encode() if whole else None

    def _spills(self, name: str = "") -> list[str]:
        if not os.path.isdir(self._folder):
            return []
        return sorted(file for file in os.listdir(self._folder) if file.startswith(name) and file.endswith(".spill"))

    def gather(self, group: int, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The (key, payload) items of a group, from all spill files."""
        for name in self._spills():
            path = filesystem.join(self._folder, name)
            with filesystem.open_read(path) as file:
                file.seek(_OFFSET_BYTES * group)
                start, end = np.frombuffer(file.read(2 * _OFFSET_BYTES), "<u8").tolist()
                file.seek(start)
                data = file.read(end - start)
            if len(data) != end - start:
                raise UserError(f"{path} is cut short: remove it and run the same command again")
            position = 0
            while position < len(data):
                (size,) = _LENGTH.unpack_from(data, position)
                position += _LENGTH.size
                yield data[position : position + KEY_BYTES], data[position + KEY_BYTES : position + KEY_BYTES + size]
                position += KEY_BYTES + size


class BeamShuffle:
    """Sends every item through the engine; remembers nothing."""

    def __init__(self, folder: str, groups: int) -> None:
        pass

    def scatter(self, name: str, items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
        """Each item as it is."""
        for group, key, payload in items:
            yield group, key + payload

    def finish(self, name: str, summary: bytes) -> None:
        """Nothing lies anywhere."""

    def finished(self, name: str) -> bytes | None:
        """Every split is read again."""
        return None

    def gather(self, group: int, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """The items again."""
        for value in values:
            yield value[:KEY_BYTES], value[KEY_BYTES:]


SHUFFLES = {"files": FilesShuffle, "beam": BeamShuffle}
