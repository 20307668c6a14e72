"""Write one copy of one group as the bytes of its shard, in chunks of bounded size."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import assemble, random_streams
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples.packing import pack_examples, plan_rows
from clozemill.pipelines.examples.pairs import PAIRS, Pairs
from clozemill.pipelines.shards import tf_example
from clozemill.pipelines.shards.blocks import BlockOffsets
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.text.vocabulary import Vocabulary

# Tokens encoded at a time, 2,048 examples of 128: the arrays stay in the cache. Part of the format: draws are per chunk.
CHUNK_TOKENS = 1 << 18


@dataclass
class Shard:
    """The result of write_shard.

    Attributes:
        pairs: in the order of the shard, for provenance.
        counts: STATISTICS of assemble.py.
        starts: int64 [R + 1] if packed: record r has the examples starts[r] to starts[r + 1]; else None.
        max_predictions: if packed, the largest number of masked positions of a row.
        blocks: byte offsets of the blocks of records, before compression.
    """

    pairs: Pairs
    counts: dict[str, int]
    starts: np.ndarray | None = None
    max_predictions: int = 0
    blocks: list[int] = field(default_factory=list)

    @property
    def packing(self) -> dict[str, int]:
        """What the manifest records of a packed shard: rows, max_examples and max_predictions; nothing if not packed."""
        if self.starts is None:
            return {}
        most = int(np.diff(self.starts).max(initial=0))
        return {"rows": len(self.starts) - 1, "max_examples": most, "max_predictions": self.max_predictions}


def _chunks(starts: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of records with up to `size` examples, but at least one record; record r begins at example starts[r]."""
    low, records = 0, len(starts) - 1
    while low < records:
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + size, side="right")) - 1)
        yield low, high
        low = high


def write_shard(
    group: Group,
    index: int,
    copy: int,
    config: ExampleConfig,
    vocabulary: Vocabulary,
    write: Callable[[memoryview], object],
    watch: Stopwatch,
    observe: Callable[[examples_columns.Columns], None] = lambda columns: None,
) -> Shard:
    """Write one copy of one group: pass its columns to `observe` and its framed records to `write`, chunk by chunk.

    If packed, the examples are put into rows before masks are drawn, so that a chunk has the examples of complete rows.
    """
    rngs = {purpose: random_streams.generator(config.seed, index, copy, purpose) for purpose in random_streams.PURPOSES}
    with watch.time("pairs"):
        pairs = PAIRS[config.pairs](group, config, lambda: random_streams.generator(config.seed, index, copy, "pairs"))
        pairs = pairs.take(rngs["order"].permutation(len(pairs)))
    packed = config.packing == "on"
    starts = np.arange(len(pairs) + 1)
    if packed:
        with watch.time("rows"):
            plan = plan_rows(pairs.lengths, config.max_seq_length)
            plan = plan.take(rngs["order"].permutation(len(plan)))
            pairs, starts = pairs.take(plan.order), plan.starts
    counts, most, blocks = dict.fromkeys(assemble.STATISTICS, 0), 0, BlockOffsets()
    counts |= {"forced_random": pairs.forced, "drawn_labels": pairs.drawn, "chunks_dropped": pairs.dropped}
    for low, high in _chunks(starts, max(CHUNK_TOKENS // config.max_seq_length, 1)):
        with watch.time("mask"):
            part = pairs.take(np.arange(starts[low], starts[high]))
            columns = assemble.make_columns(group, part, config, vocabulary, rngs)
            for name, value in assemble.count_examples(columns, vocabulary).items():
                counts[name] += value
        with watch.time("statistics"):
            observe(columns)
        records: examples_columns.Columns | examples_columns.PackedColumns = columns
        if packed:
            with watch.time("rows"):
                records = pack_examples(columns, starts[low : high + 1] - starts[low])
                most = max(most, int(records.predictions.max()))
        with watch.time("encode"):
            data, sizes = tf_example.encode_sized(records)
            blocks.add(sizes)
        with watch.time("write"):
            write(data.data)
    if packed:
        counts["padding"] = (len(starts) - 1) * config.max_seq_length - counts["tokens"]
    return Shard(pairs, counts, starts if packed else None, most, blocks.offsets)
