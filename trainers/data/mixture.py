"""Datasets that share the batches of a phase, and what has to be equal for that."""

from dataclasses import dataclass, replace
from functools import cached_property

from clozemill.trainers.data.mixing import WINDOW
from clozemill.trainers.data.prepared_dataset import PreparedDataset


@dataclass(frozen=True)
class Mixture:
    """Datasets that share batches, or a single one.

    Args:
        datasets: the datasets. Evaluations use the eval split of the first one.
        counts: how many rows each has in mixing.WINDOW.
    """

    datasets: tuple[PreparedDataset, ...]
    counts: tuple[int, ...] = (WINDOW,)

    @cached_property
    def contract(self) -> PreparedDataset:
        """Return the first dataset with room for the rows of all: what batches look like."""
        first = self.datasets[0]
        if len(self.datasets) == 1 or not first.packed:
            return first
        packings = [each.manifest["packing"] for each in self.datasets]
        largest = {name: max(packing[name] for packing in packings) for name in ("max_examples", "max_predictions")}
        return replace(first, manifest={**first.manifest, "packing": {**packings[0], **largest}})

    @property
    def weights(self) -> list[float]:
        return [count / sum(self.counts) for count in self.counts]
