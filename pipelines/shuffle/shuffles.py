"""The one shuffle, in two interchangeable ways with one contract: (group, key, payload) in, a group's items out.

`files` writes each split's items to spill files laid out by group and sends nothing: a group reads its own piece of every
spill file, so that on one machine neither the corpus nor a list of its pieces passes through the engine. `beam` sends the
items themselves, for engines with a shuffle of their own. What crosses the engine is (group, bytes) either way.
"""

from collections.abc import Iterable, Iterator

from clozemill.pipelines.shuffle import spill
from clozemill.pipelines.shuffle.keys import KEY_BYTES
from clozemill.pipelines.shuffle.spill import FilesShuffle


class BeamShuffle:
    """Sends every item through the engine; remembers nothing."""

    def __init__(self, folder: str, groups: int, run: str = "", splits: int = 0) -> None:
        pass

    def scatter(self, name: str, items: Iterable[spill.Item]) -> Iterator[tuple[int, bytes]]:
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
