"""Shuffle through spill files in the output folder, for workers that share a file system."""

import os
import struct
from collections.abc import Iterable, Iterator

import google_crc32c

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from clozemill.pipelines.shuffle.keys import KEY_BYTES

SPILL_BYTES = 64 << 20  # maximum bytes that a task buffers before it writes a spill file

_LENGTH = struct.Struct("<I")

_ENTRY = struct.Struct("<QQI")  # start, size and CRC-32C of a group's piece

_CHECK = struct.Struct("<I")  # CRC-32C of the entry

Item = tuple[int, bytes, bytes]  # group, sort key, payload


class FilesShuffle:
    """Spills to a local folder. A spill file starts with the positions and checksums of the pieces of each group.

    A split isn't read again if its marker exists and all its spill files have the right size. Only spill files listed in a
    marker of this run are read.

    Args:
        run: hash of everything that the content of spill files depends on. splits: number of splits; 0: unknown.
    """

    def __init__(self, folder: str, groups: int, run: str = "", splits: int = 0) -> None:
        self._folder, self._groups, self._run, self._splits = folder, groups, run, splits
        self._listed: list[str] | None = None

    def scatter(self, name: str, items: Iterable[Item]) -> Iterator[tuple[int, bytes]]:
        """Write items to spill files named after `name`; yield nothing."""
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
        # Not synced to disk: after a power cut, damage is detected by the checksums.
        with filesystem.atomic_write(filesystem.join(self._folder, name), sync=False) as file:
            start, table = (_ENTRY.size + _CHECK.size) * self._groups, []
            for group in range(self._groups):
                size, check = 0, 0
                for item in pieces.get(group, ()):
                    size, check = size + len(item), google_crc32c.extend(check, item)
                table.append(self._entry(group, start, size, check))
                start += size
            file.write(b"".join(table))
            for group in sorted(pieces):
                file.writelines(pieces[group])

    def _entry(self, group: int, start: int, size: int, check: int) -> bytes:
        """Return the position of a group's piece, its checksum, and a checksum of the entry for this run and group."""
        entry = _ENTRY.pack(start, size, check)
        return entry + _CHECK.pack(google_crc32c.value(f"{self._run} {group} ".encode() + entry))

    def mark_finished(self, name: str, summary: bytes) -> None:
        """Mark a split as done, and store its summary."""
        spills = {file: filesystem.size(filesystem.join(self._folder, file)) for file in self._spills(name)}
        write_sealed(self._marker(name), {"summary": summary.decode(), "spills": spills}, self._run)

    def finished_summary(self, name: str) -> bytes | None:
        """Return the summary passed to `mark_finished`, if all spill files of the split still exist."""
        marker = read_sealed(self._marker(name), self._run)
        if marker is None:
            return None
        there = all(filesystem.size(filesystem.join(self._folder, file)) == size for file, size in marker["spills"].items())
        return marker["summary"].encode() if there else None

    def _marker(self, name: str) -> str:
        return filesystem.join(self._folder, f"{name}.json")

    def _spills(self, name: str) -> list[str]:
        if not os.path.isdir(self._folder):
            return []
        return sorted(file for file in os.listdir(self._folder) if file.startswith(name) and file.endswith(".spill"))

    def _all_spills(self) -> list[str]:
        """Return the spill files of all splits. Raise UserError if a split is missing."""
        if self._listed is None:
            names = sorted(os.listdir(self._folder)) if os.path.isdir(self._folder) else []
            found = [read_sealed(filesystem.join(self._folder, name), self._run) for name in names if name.endswith(".json")]
            markers = [marker for marker in found if marker is not None]
            if self._splits and len(markers) != self._splits:
                raise UserError(
                    f"{self._folder} has the spill files of {len(markers)} of {self._splits} input splits, and the rest is "
                    "damaged or missing: run the same command again"
                )
            self._listed = sorted(file for marker in markers for file in marker["spills"])
        return self._listed

    def gather(self, group: int, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the (key, payload) items of a group from all spill files. Raise UserError if one is damaged."""
        for name in self._all_spills():
            data = self._piece(filesystem.join(self._folder, name), group)
            position = 0
            while position < len(data):
                (size,) = _LENGTH.unpack_from(data, position)
                position += _LENGTH.size
                yield data[position : position + KEY_BYTES], data[position + KEY_BYTES : position + KEY_BYTES + size]
                position += KEY_BYTES + size

    def _piece(self, path: str, group: int) -> bytes:
        """Return the bytes of a group in a spill file. Raise UserError."""
        length = _ENTRY.size + _CHECK.size
        with filesystem.open_read(path) as file:
            file.seek(length * group)
            entry = file.read(length)
            if len(entry) == length:
                start, size, check = _ENTRY.unpack_from(entry)
                if entry == self._entry(group, start, size, check):
                    file.seek(start)
                    data = file.read(size)
                    if google_crc32c.value(data) == check and len(data) == size:
                        return data
        raise UserError(f"{path} is damaged: remove it and run the same command again")
