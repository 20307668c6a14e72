"""The shuffle, in two interchangeable implementations: (group, key, payload) in, the items of a group out.

`files` writes the items of each split to spill files ordered by group, and emits nothing. A group reads its piece of every
spill file, so that on one machine neither the corpus nor a list of pieces passes through the engine. `beam` emits the items
themselves, for engines with their own shuffle. Both emit elements of the type (group, bytes).
"""

from collections.abc import Iterable, Iterator

from clozemill.pipelines.shuffle import spill
from clozemill.pipelines.shuffle.keys import KEY_BYTES
from clozemill.pipelines.shuffle.spill import FilesShuffle


class BeamShuffle:
    """Sends every item through the engine; keeps no state."""

    def __init__(self, folder: str, groups: int, run: str = "", splits: int = 0) -> None:
        pass

    def scatter(self, name: str, items: Iterable[spill.Item]) -> Iterator[tuple[int, bytes]]:
        """Yield each item unchanged."""
        for group, key, payload in items:
            yield group, key + payload

    def mark_finished(self, name: str, summary: bytes) -> None:
        """Do nothing: no files were written."""

    def finished_summary(self, name: str) -> bytes | None:
        """Return None, because every split must be read again."""
        return None

    def gather(self, group: int, values: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items unchanged."""
        for value in values:
            yield value[:KEY_BYTES], value[KEY_BYTES:]


SHUFFLES: dict[str, type[FilesShuffle] | type[BeamShuffle]] = {"files": FilesShuffle, "beam": BeamShuffle}
