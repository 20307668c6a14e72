"""Describes a host's batches of a dataset, in the order of `example_order`, which can be entered at any step.

Each host reads its lanes of every batch: blocks of records, which it enters by the byte offsets in dataset.json. So no reader
state is ever saved. An engine chooses what reads the batches: `graph_reader`, in TensorFlow's graph, or `numpy_reader`. Both
return the same values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.dataset.manifest import records_of
from clozemill.trainers.data import mixing
from clozemill.trainers.data.blocks import Blocks
from clozemill.trainers.data.example_order import ExampleOrder
from clozemill.trainers.data.lanes import DatasetLanes, Merger
from clozemill.trainers.data.mixing import NUMPY, Arithmetic
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.prepared_dataset import PreparedDataset


@dataclass(frozen=True)
class TrainReader:
    """One host's part of the train split as an endless stream of batches, which can be entered at any step.

    Args:
        data: the dataset, or a mixture of several.
        seed: seed of the order.
        batch_size: rows per batch, across all hosts.
        host, hosts: index and number of the input pipelines; `hosts` divides the batch size.
        first_row: rows of the order that earlier phases have read.
        order_batch_size: rows per batch of the order, which divides `batch_size` and `first_row`; 0: `batch_size`.
        keyed: add KEYS, which new masks are drawn from: a function of (seed, epoch, record), whatever the batches.
        earlier: records of each dataset that phases with another share of it have read, as in ExampleOrder; (): none.
    """

    data: PreparedDataset | Mixture
    seed: int
    batch_size: int
    host: int = 0
    hosts: int = 1
    first_row: int = 0
    order_batch_size: int = 0
    keyed: bool = False
    earlier: tuple[int | None, ...] = ()

    @cached_property
    def mixture(self) -> Mixture:
        return self.data if isinstance(self.data, Mixture) else Mixture((self.data,))

    @cached_property
    def parts(self) -> list[DatasetLanes]:
        """Return the lanes of each dataset."""
        found, count = [], len(self.mixture.datasets)
        earlier = self.earlier or (None,) * count
        size, length = self.order_batch_size or self.batch_size, self.mixture.contract.max_seq_length
        for dataset, share, before in zip(self.mixture.datasets, mixing.shares(self.mixture.counts), earlier, strict=True):
            blocks = Blocks.of(dataset, "train", range(dataset.copies))
            order = ExampleOrder(blocks.counts, self.seed, size, length, share, before, count)
            found.append(DatasetLanes(blocks, order, self.host, self.hosts, self.keyed))
        return found

    def entry(self, step: int) -> int:
        """Return the step of the order at which a step begins."""
        return (self.first_row + step * self.batch_size) // self.parts[0].order.batch_size

    def shards_between(self, begin: int, end: int) -> Iterator[str]:
        """Yield the shard files that the host reads for steps [begin, end), dataset by dataset and lane by lane."""
        for part in self.parts:
            yield from part.shards_between(self.entry(begin), self.entry(end))

    @property
    def read_parts(self) -> list[DatasetLanes]:
        """Return the lanes of the datasets that come to the host's slots."""
        return [part for part in self.parts if part.lanes]

    def merger(self, step: int, batches: int, on: Arithmetic = NUMPY) -> Merger:
        """Return what puts the lanes' records into their order from a step on, in chunks of some batches of the order."""
        used = np.array([bool(part.lanes) for part in self.parts])
        turns = np.where(used, np.cumsum(used) - 1, used.sum())[mixing.turns(self.mixture.counts)]
        return Merger(self.read_parts, turns, self.entry(step), batches, on)

    def batches(self, size: int, step: int = 0) -> "TrainBatches":
        """Return an endless stream of batches of parsed features, from a step on.

        size: records per element, of which several make the host's part of a batch if it has several replicas.
        """
        return TrainBatches(self, size, step)


@dataclass(frozen=True)
class TrainBatches:
    """A host's batches of `size` rows of the train split from a step on, without end: features as of `EvalBatches`, KEYS."""

    reader: TrainReader
    size: int
    step: int = 0


def eval_rows(contract: PreparedDataset, hosts: int = 1, limit: int = 0) -> list[int]:
    """Return the number of rows of the eval split that each host reads.

    limit: maximum number of examples over all hosts, 0 for all; of packed rows, as many as hold so many examples on average.
    """
    size = sum(map(records_of, contract.shards("eval")))
    size = min(size, -(-limit * size // max(contract.eval_examples, 1)) or size)
    return [(host + 1) * size // hosts - host * size // hosts for host in range(hosts)]


def eval_steps(contract: PreparedDataset, batch_size: int, hosts: int = 1, limit: int = 0) -> int:
    """Return the number of batches of `batch_size` rows, across all hosts, that cover the eval split."""
    return max(-(-count // (batch_size // hosts)) for count in eval_rows(contract, hosts, limit))


@dataclass(frozen=True)
class EvalBatches:
    """A host's part of the eval split in batches of one size: every example once, then endless filler rows.

    The features of the dataset are int32, weights float32; [B, S], [B, P] or [B]. Those of packed rows are [B, S], [B, P] or
    [B, E], with room for the most predictions and examples of any row. `example_weights`, float32 [B] or, of packed rows,
    [B, E], is 1 for an example and 0 for others. A filler row is padding with a single token, so that attention has a key.

    Args:
        size: rows per batch of the host.
        limit: as in `eval_rows`.
    """

    contract: PreparedDataset
    size: int
    host: int = 0
    hosts: int = 1
    limit: int = 0

    def pieces(self) -> tuple[Blocks, np.ndarray]:
        """Return the blocks of the split, and the host's part of them: (block, begin, end) int64 [N, 3], in their order."""
        blocks, counts = Blocks.of(self.contract, "eval", range(1)), eval_rows(self.contract, self.hosts, self.limit)
        ends = np.cumsum(blocks.counts[0])
        starts, begin = ends - blocks.counts[0], sum(counts[: self.host])
        low, high = np.maximum(begin - starts, 0), np.minimum(begin + counts[self.host] - starts, blocks.counts[0])
        (touched,) = np.nonzero(low < high)
        return blocks, np.stack([touched, low[touched], high[touched]], axis=1)
