"""Write one copy of one group as the bytes of its shard, in chunks of bounded size."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import assemble, random_streams
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples.pairs import PAIRS, Pairs
from clozemill.pipelines.shards import tf_example
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.text.vocabulary import Vocabulary

# Tokens encoded at a time, 2,048 examples of 128: the arrays stay in the cache. Part of the format: draws are per chunk.
CHUNK_TOKENS = 1 << 18


@dataclass
class Shard:
    """The result of write_shard: the pairs in shard order (for provenance) and the counts."""

    pairs: Pairs
    counts: dict[str, int]


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
    """Write one copy of one group: pass its columns to `observe` and its framed records to `write`, chunk by chunk."""
    rngs = {purpose: random_streams.generator(config.seed, index, copy, purpose) for purpose in random_streams.PURPOSES}
    with watch.time("pairs"):
        pairs = PAIRS[config.pairs](group, config, lambda: random_streams.generator(config.seed, index, copy, "pairs"))
        pairs = pairs.take(rngs["order"].permutation(len(pairs)))
    counts = dict.fromkeys(assemble.STATISTICS, 0)
    counts |= {"forced_random": pairs.forced, "drawn_labels": pairs.drawn, "chunks_dropped": pairs.dropped}
    rows = max(CHUNK_TOKENS // config.max_seq_length, 1)
    for low in range(0, len(pairs), rows):
        with watch.time("mask"):
            part = pairs.take(np.arange(low, min(low + rows, len(pairs))))
            columns = assemble.make_columns(group, part, config, vocabulary, rngs)
            for name, value in assemble.count_examples(columns, vocabulary).items():
                counts[name] += value
        with watch.time("statistics"):
            observe(columns)
        with watch.time("encode"):
            data = tf_example.encode(columns)
        with watch.time("write"):
            write(data.data)
    return Shard(pairs, counts)
