"""Each statistic literally, and that neither the order of shards, nor chunks, nor widths of integers change one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.runtime import Stopwatch
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.quality import shortcut_probe, statistics
from clozemill.pipelines.quality.statistics import StatisticsCollector, StatisticsTotals, pack, unpack
from clozemill.pipelines.shards import writer
from tests import reference
from tests.pipelines.examples.test_assemble import COLUMNS

VOCABULARY = reference.make_vocabulary()
UNK, CLS, SEP, MASK = 2, 3, 4, 5
SETTINGS = ExampleConfig("nsp", "subword", 8, 3, 0.4, num_groups=1)


def joined(*parts: examples_columns.Columns) -> examples_columns.Columns:
    return examples_columns.Columns(
        *(np.concatenate(columns) for columns in zip(*(vars(part).values() for part in parts), strict=True))
    )


def figures(columns: examples_columns.Columns, options: ExampleConfig = SETTINGS, split: str = "train", copy: int = 0) -> dict:
    totals, gatherer = StatisticsTotals(), StatisticsCollector(options, VOCABULARY, split, copy)
    gatherer.add(columns)
    totals.add({"split": split, "group": 0, "copy": copy}, gatherer.sums())
    return totals.splits()[split][f"{copy:02d}"]


def sparse(values: list) -> dict[int, float]:
    return {place: value for place, value in enumerate(values) if value}


def test_literally() -> None:
    found = figures(COLUMNS)
    assert sparse(found["lengths"]) == {5: 1, 7: 1} and len(found["lengths"]) == 9
    assert [sparse(side) for side in found["a_lengths"]] == [{1: 1}, {2: 1}]
    assert [sparse(side) for side in found["b_lengths"]] == [{1: 1}, {2: 1}]
    assert found["masked_positions"] == [0, 2, 1, 0, 1, 0, 0, 0]
    # All three tokens of the first example are masked, and one of two of the second: 1/2 * 1/2 * 2 / (2 - 1).
    assert found["masked_positions_expected"] == [0, 1.5, 1, 0.5, 1, 0, 0, 0]
    assert found["masked_positions_variance"] == [0, 0.5, 0, 0.5, 0, 0, 0, 0]
    assert sparse(found["random_tokens"]) == {9: 1} and len(found["random_tokens"]) == 24
    assert sparse(found["masked_tokens"]) == {6: 2, 7: 1, 8: 1}
    assert sparse(found["tokens"]) == {UNK: 1, CLS: 2, SEP: 4, 6: 2, 7: 1, 8: 2}
    assert (found["masked_quota"], found["duplicate_examples"], found["masked_clusters"]) == (3 + 2, 0, 0)


def test_tokens_are_counted_once_and_duplicates_within_a_shard() -> None:
    assert figures(COLUMNS, copy=1)["tokens"] == []
    assert sum(figures(COLUMNS, split="eval")["tokens"]) == 12
    other = replace(COLUMNS, next_sentence_labels=1 - COLUMNS.next_sentence_labels)
    assert figures(joined(COLUMNS, COLUMNS, other))["duplicate_examples"] == 2
    masked_elsewhere = replace(COLUMNS, input_ids=COLUMNS.input_ids.copy())
    masked_elsewhere.input_ids[0, 2] = MASK
    assert figures(joined(COLUMNS, masked_elsewhere))["duplicate_examples"] == 2


def test_spans_and_whole_words() -> None:
    """Runs of 2, 1 and 1 masked positions; of two words of one piece, the first is masked."""
    assert figures(COLUMNS, replace(SETTINGS, masking="span"))["masked_clusters"] == 2**2 + 1 + 1
    columns = examples_columns.Columns(
        np.array([[CLS, 6, 18, MASK, SEP, 8, SEP, 0]]),
        *(np.array([row]) for row in ([1] * 7 + [0], [0] * 5 + [1, 1, 0], [3, 0, 0], [7, 0, 0], [1.0, 0, 0])),
        np.array([0]),
    )
    found = figures(columns, replace(SETTINGS, masking="whole_word", masked_lm_prob=0.15))
    assert sparse(found["masked_positions_expected"]) == {3: 0.5, 5: 0.5}
    assert (sparse(found["masked_positions"]), found["masked_quota"]) == ({3: 1}, 1)


def test_a_long_word_may_exceed_the_quota() -> None:
    """All three pieces of the only word are masked where one position is asked for."""
    columns = examples_columns.Columns(
        np.array([[CLS, MASK, MASK, MASK, SEP, UNK, SEP, 0]]),
        *(np.array([row]) for row in ([1] * 7 + [0], [0] * 5 + [1, 1, 0], [1, 2, 3], [6, 18, 19], [1.0, 1, 1])),
        np.array([0]),
    )
    assert figures(columns, replace(SETTINGS, masking="whole_word", masked_lm_prob=0.15))["masked_quota"] == 3
    assert figures(columns, replace(SETTINGS, masked_lm_prob=0.15))["masked_quota"] == 1


def test_single_runs_have_no_b() -> None:
    columns = examples_columns.Columns(
        np.array([[CLS, MASK, 7, SEP, 0, 0, 0, 0]]),
        *(np.array([row]) for row in ([1] * 4 + [0] * 4, [0] * 8, [1, 0, 0], [6, 0, 0], [1.0, 0, 0])),
        np.array([0]),
    )
    found = figures(columns, replace(SETTINGS, pairs="single"))
    assert [sparse(side) for side in (*found["a_lengths"], *found["b_lengths"])] == [{2: 1}, {}, {0: 1}, {}]
    assert sparse(found["masked_positions_expected"]) == {1: 0.5, 2: 0.5}


def test_fingerprints() -> None:
    """Of the tokens at any position, and of the label; also for lengths that aren't a multiple of a word."""
    rows = np.array([[1, 2, 3], [1, 2, 3], [2, 1, 3], [1, 2, 4], [0, 1, 2]], np.uint16)
    for ids in (rows, rows.astype(np.uint32), np.pad(rows, ((0, 0), (0, 2)))):
        labels = np.array([0, 0, 0, 0, 0], np.int8)
        assert len(set(statistics.fingerprints(ids, labels).tolist())) == 4
        assert set(statistics.fingerprints(ids, labels).tolist()).isdisjoint(statistics.fingerprints(ids, labels + 1).tolist())
    many = np.random.Generator(np.random.Philox(1)).integers(0, 3, (20000, 40)).astype(np.uint16)
    assert len(np.unique(statistics.fingerprints(many, np.zeros(20000)))) == len(np.unique(many, axis=0))


@pytest.mark.parametrize(
    ("documents", "limit", "repeated"),
    [
        ([], 10, 0),
        ([[[6, 7], [8]], [[6, 7], [6, 7, 8]]], 10, 1),
        ([[[6], [6]], [[6], [7, 6]]], 10, 2),
        ([[[6] * 25]], 10, 2),
        ([[[6, 7, 8, 9, 10, 11, 12, 13, 14]], [[6, 7, 8, 9, 17, 11, 12, 13, 14]]], 10, 1),  # told by four and four tokens
    ],
)
def test_repeated_sentences(documents: list, limit: int, repeated: int) -> None:
    assert statistics.repeated_sentences(reference.make_group(documents), limit) == repeated


def chunks(count: int, options: ExampleConfig) -> list[examples_columns.Columns]:
    rng = np.random.Generator(np.random.Philox(3))
    documents = [[rng.integers(6, 24, rng.integers(1, 12)).tolist() for _ in range(6)] for _ in range(count)]
    found: list[examples_columns.Columns] = []
    group = reference.make_group(documents)
    writer.write_shard(group, 0, 0, options, VOCABULARY, lambda data: None, Stopwatch(), found.append)
    return found


def parts(columns: examples_columns.Columns, size: int) -> list[examples_columns.Columns]:
    taken = [slice(low, low + size) for low in range(0, len(columns), size)]
    return [examples_columns.Columns(*(column[part] for column in vars(columns).values())) for part in taken]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.sampled_from(["nsp", "sop", "single"]), st.sampled_from(["subword", "whole_word", "span"]), st.integers(1, 90))
def test_neither_chunks_nor_types_nor_packing_matter(pairs: str, masking: str, size: int) -> None:
    """Statistics of complete chunks in `prepare` equal those of pieces decoded by `verify`."""
    options = ExampleConfig(pairs, masking, 32, 6, num_groups=1, seed=7)
    whole = joined(*chunks(30, options))
    once, pieces = (StatisticsCollector(options, VOCABULARY, "train", 0) for _ in range(2))
    once.add(whole)
    wide = examples_columns.Columns(*(column.astype(np.int64) for column in vars(whole).values()))
    for part in parts(wide, size):
        pieces.add(part)
    first, second = once.sums(), unpack(pack(pieces.sums()))
    assert first.keys() == second.keys()
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert len(first["probe"]) == (0 if pairs == "single" else len(whole))


def test_shards_add_up_in_any_order() -> None:
    options = ExampleConfig("nsp", "subword", 32, 6, num_groups=2, seed=7)
    pieces = parts(joined(*chunks(30, options)), 40)
    shards = []
    for number, part in enumerate(pieces):
        gatherer = StatisticsCollector(options, VOCABULARY, "train", 0)
        gatherer.add(part)
        shards.append(({"split": "train", "group": number, "copy": 0}, gatherer.sums()))
    orders = [StatisticsTotals(), StatisticsTotals()]
    for totals, order in zip(orders, (shards, shards[::-1]), strict=True):
        for shard in order:
            totals.add(*shard)
    assert orders[0].splits() == orders[1].splits()
    assert np.array_equal(orders[0].probe_rows(), orders[1].probe_rows())
    assert sum(orders[0].splits()["train"]["00"]["lengths"]) == sum(len(part) for part in pieces) == len(orders[0].probe_rows())


def test_the_sample_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of two groups, the first half of the rows that are wanted; of other copies and splits none."""
    monkeypatch.setattr(shortcut_probe, "ROWS", 9)
    options = ExampleConfig("nsp", "subword", 32, 6, num_groups=2, seed=7)
    columns = joined(*chunks(30, options))
    for split, copy, rows in (("train", 0, 5), ("train", 1, 0), ("eval", 0, 0)):
        gatherer = StatisticsCollector(options, VOCABULARY, split, copy)
        for part in parts(columns, 3):
            gatherer.add(part)
        assert len(gatherer.sums()["probe"]) == rows


def test_the_file() -> None:
    told = {"format_version": 1, "splits": {}, "probe": {}, "gate": {}, "documents": {"samples": {"é": ["\udc80"]}}}
    assert statistics.loads(statistics.dumps(told), "x")["splits"] == {}
    for data in (b"", b"[]", b"{}", b'{"format_version": 2, "splits": {}, "probe": {}}', b'{"format_version": 1}', b"\xff"):
        with pytest.raises(UserError, match=r"^x doesn't contain statistics"):
            statistics.loads(data, "x")
