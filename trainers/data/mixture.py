"""Datasets that share the batches of a phase, and what has to be equal for that."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.mixing import WINDOW, counts_of
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
    def key(self) -> tuple[tuple[str, int], ...]:
        """Return (digest, rows in WINDOW) of each dataset: mixtures with equal keys share an order."""
        digests = (each.manifest["digest"] for each in self.datasets)
        return tuple(zip(digests, self.counts, strict=True))

    @property
    def folders(self) -> str:
        """Return the folders of the datasets, with their shares if there are several."""
        return self._listed([each.folder for each in self.datasets])

    @property
    def digests(self) -> str:
        """Return the digests of the datasets, with their shares if there are several."""
        return self._listed([digest for digest, _ in self.key])

    def _listed(self, names: Sequence[str]) -> str:
        shares = (f"{100 * count / WINDOW:g} %" for count in self.counts)
        return names[0] if len(names) == 1 else ", ".join(map(" ".join, zip(shares, names, strict=True)))

    @property
    def train_rows(self) -> int:
        """Return the rows of one copy of all datasets."""
        return sum(each.train_rows for each in self.datasets)

    @property
    def train_examples(self) -> int:
        """Return the examples of one copy of all datasets."""
        return sum(each.train_examples for each in self.datasets)

    @property
    def examples_per_row(self) -> float:
        """Return the mean number of examples per row, by the shares of the datasets; more than 1 if they are packed."""
        means = (each.train_examples / each.train_rows for each in self.datasets)
        return sum(mean * count for mean, count in zip(means, self.counts, strict=True)) / WINDOW

    @property
    def record(self) -> list[dict[str, Any]]:
        """Return what a run's identity says of the datasets."""
        return [{"dataset": digest, "share": count / WINDOW, "order": kind_of_order(each)}
                for each, (digest, count) in zip(self.datasets, self.key, strict=True)]  # fmt: skip


def kind_of_order(dataset: PreparedDataset) -> str:
    """Return what an order permutes first: datasets of one digest may differ in it."""
    return "of blocks" if dataset.indexed else "of shards"


def mixed(datasets: Sequence[PreparedDataset], weights: Sequence[float], draws_masks: bool) -> Mixture:
    """Return a mixture. Raises UserError for datasets that can't share a batch, or are the same.

    draws_masks: whether masks are drawn in the training step, by one policy for all rows of a batch.
    """
    first = datasets[0]
    for number, each in enumerate(datasets[1:], 1):
        prepared_dataset.check_vocabulary(each, first.vocabulary, first.folder)
        for other in datasets[:number]:
            if other.manifest["digest"] == each.manifest["digest"]:
                raise UserError(
                    f"{other.folder} and {each.folder} in a mixture are the same dataset: give it once, with the sum of both "
                    "weights"
                )
        mine, theirs = _shared(each, draws_masks), _shared(first, draws_masks)
        for option, value in mine.items():
            if theirs[option] != value:
                raise UserError(
                    f"{each.folder} was prepared with {option} {value}, but {first.folder} in the same mixture with "
                    f"{theirs[option]}: prepare both with the same"
                )
    return Mixture(tuple(datasets), counts_of(weights))


def _shared(dataset: PreparedDataset, draws_masks: bool) -> dict[str, Any]:
    """Return the options of prepare that the datasets of a mixture must share."""
    config = dataset.manifest["config"]
    masks = {"--masking": config["masking"], "--masked-lm-prob": config["masked_lm_prob"]} if draws_masks else {}
    return {
        "--max-seq-length": dataset.max_seq_length,
        "--packing": "on" if dataset.packed else "off",
        "--max-predictions": dataset.max_predictions,
        **masks,
    }
