"""Packing: literal plans and rows, what holds for every plan, and that unpacking is the exact reverse of packing."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import random_streams
from clozemill.pipelines.examples.assemble import make_columns
from clozemill.pipelines.examples.columns import FEATURES, PACKED_FEATURES, Columns, PackedColumns
from clozemill.pipelines.examples.masking import MASKERS
from clozemill.pipelines.examples.packing import RowPlan, count_rows, pack_examples, plan_rows, unpack_examples
from clozemill.pipelines.examples.pairs import PAIRS
from clozemill.pipelines.examples.row_rules import find_row_violations
from tests import reference

DEFAULT = ExampleConfig("nsp", "subword", 32, 6, 0.15, 0.1, seed=7)
LENGTHS = st.integers(1, 40).flatmap(
    lambda limit: st.tuples(st.lists(st.integers(1, limit), max_size=200).map(np.array), st.just(limit))
)


def plan(lengths: list[int], limit: int) -> list[list[int]]:
    """The examples of each row."""
    found = plan_rows(np.array(lengths, np.int64), limit)
    return [found.order[low:high].tolist() for low, high in itertools.pairwise(found.starts)]


@pytest.mark.parametrize(
    ("lengths", "limit", "rows"),
    [
        ([], 8, []),
        ([8], 8, [[0]]),
        ([8, 8, 8], 8, [[0], [1], [2]]),
        ([3, 8, 5], 8, [[1], [2, 0]]),
        ([4, 4, 4, 4, 4], 8, [[0, 1], [2, 3], [4]]),
        ([2, 6, 3, 5, 3], 8, [[1, 0], [3, 2], [4]]),  # 3 goes to 5, where it leaves nothing, and not to 6
        ([5, 6, 2, 3], 8, [[1, 2], [0, 3]]),  # best fit: 3 goes to 5, because 6 has no room for it
        ([1] * 9, 4, [[0, 1, 2, 3], [4, 5, 6, 7], [8]]),
        ([3, 3, 3, 1, 1, 1, 1], 8, [[0, 1, 3, 4], [2, 5, 6]]),
    ],
)
def test_plan_literally(lengths: list[int], limit: int, rows: list[list[int]]):
    assert plan(lengths, limit) == rows


def simple_best_fit(lengths: list[int], limit: int) -> list[int]:
    """Tokens per row when examples are placed one by one, the longest first, where the least room remains."""
    rows: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in range(len(rows)) if rows[row] + length <= limit]
        if fitting:
            rows[max(fitting, key=lambda row: rows[row])] += length
        else:
            rows.append(length)
    return sorted(rows)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(LENGTHS)
def test_every_example_is_in_one_row_and_no_row_is_too_long(drawn: tuple[np.ndarray, int]):
    """And the histogram gives rows as full as placing the examples one by one."""
    lengths, limit = drawn[0].astype(np.int64), drawn[1]
    found = plan_rows(lengths, limit)
    assert sorted(found.order.tolist()) == list(range(len(lengths)))
    sizes = np.diff(found.starts)
    assert (sizes > 0).all() and found.starts[0] == 0 and found.starts[-1] == len(lengths)
    totals = np.add.reduceat(lengths[found.order], found.starts[:-1]) if len(lengths) else np.zeros(0, np.int64)
    assert (totals <= limit).all()
    assert sorted(totals.tolist()) == simple_best_fit(lengths.tolist(), limit)
    assert len(found) == len(totals) == count_rows(np.bincount(lengths, minlength=limit + 1), limit)
    again = plan_rows(lengths.copy(), limit)
    assert np.array_equal(again.order, found.order) and np.array_equal(again.starts, found.starts)


def test_rows_of_a_plan_in_another_order():
    found = RowPlan(np.array([4, 2, 0, 3, 1]), np.array([0, 2, 3, 5])).take(np.array([2, 0]))
    assert found.order.tolist() == [3, 1, 4, 2] and found.starts.tolist() == [0, 2, 4]
    assert len(found) == 2


# Three examples of 5, 4 and 3 tokens; the first two share a row of 10. The third has no masked position.
COLUMNS = Columns(
    np.array([[3, 6, 5, 7, 4, 0, 0, 0, 0, 0], [3, 5, 9, 4, 0, 0, 0, 0, 0, 0], [3, 2, 4, 0, 0, 0, 0, 0, 0, 0]]),
    np.array([[1] * 5 + [0] * 5, [1] * 4 + [0] * 6, [1] * 3 + [0] * 7]),
    np.array([[0, 0, 0, 1, 1, 0, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0, 0, 0, 0], [0] * 10]),
    np.array([[2, 3], [1, 0], [0, 0]]),
    np.array([[8, 7], [6, 0], [0, 0]]),
    np.array([[1, 1], [1, 0], [0, 0]], np.float32),
    np.array([1, 0, 1]),
)


def test_pack_literally():
    packed = pack_examples(COLUMNS, np.array([0, 2, 3]))
    assert {name: values.tolist() for name, values in vars(packed).items()} == {
        "input_ids": [[3, 6, 5, 7, 4, 3, 5, 9, 4, 0], [3, 2, 4, 0, 0, 0, 0, 0, 0, 0]],
        "input_mask": [[1] * 9 + [0], [1] * 3 + [0] * 7],
        "segment_ids": [[0, 0, 0, 1, 1, 0, 0, 1, 1, 0], [0] * 10],
        "example_ids": [[1, 1, 1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]],
        "cls_positions": [0, 5, 0],
        "next_sentence_labels": [1, 0, 1],
        "example_weights": [1, 1, 1],
        "masked_lm_positions": [2, 3, 6],
        "masked_lm_ids": [8, 7, 6],
        "masked_lm_weights": [1, 1, 1],
        "examples": [2, 1],
        "predictions": [3, 0],
    }
    assert packed.example_weights.dtype == packed.masked_lm_weights.dtype == np.float32
    assert packed.counts_of("cls_positions").tolist() == [2, 1] and packed.counts_of("masked_lm_ids").tolist() == [3, 0]
    assert packed.counts_of("input_ids") is None and len(packed) == 2


def check_same(found: Columns, wanted: Columns) -> None:
    for name in FEATURES:
        assert np.array_equal(getattr(found, name), getattr(wanted, name)), name


def test_unpack_literally():
    check_same(unpack_examples(pack_examples(COLUMNS, np.array([0, 2, 3])), 2), COLUMNS)


def test_padding_is_the_vocabulary_s():
    columns = replace(COLUMNS, input_ids=np.where(COLUMNS.input_mask > 0, COLUMNS.input_ids, 13))
    packed = pack_examples(columns, np.array([0, 2, 3]))
    assert packed.input_ids.tolist() == [[3, 6, 5, 7, 4, 3, 5, 9, 4, 13], [3, 2, 4] + [13] * 7]
    check_same(unpack_examples(packed, 2, pad_id=13), columns)


def test_features_padded_to_the_shapes_of_a_batch():
    padded = pack_examples(COLUMNS, np.array([0, 2, 3])).padded({"max_examples": 3, "max_predictions": 4})
    assert padded.keys() == PACKED_FEATURES.keys()
    assert padded["cls_positions"].tolist() == [[0, 5, 0], [0, 0, 0]]
    assert padded["next_sentence_labels"].tolist() == [[1, 0, 0], [1, 0, 0]]
    assert padded["example_weights"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert padded["masked_lm_positions"].tolist() == [[2, 3, 6, 0], [0, 0, 0, 0]]
    assert padded["masked_lm_weights"].dtype == np.float32 and padded["input_ids"].shape == (2, 10)


def examples_of(config: ExampleConfig, documents: int) -> Columns:
    """The examples of a group of documents of 1 to 9 sentences of 1 to 11 tokens."""
    group = reference.make_group(
        [
            [[6 + (i + j + k) % 18 for k in range(1 + (7 * i + 3 * j) % 11)] for j in range(1 + 5 * i % 9)]
            for i in range(documents)
        ]
    )
    rngs = {purpose: random_streams.generator(config.seed, 0, 0, purpose) for purpose in random_streams.PURPOSES}
    pairs = PAIRS[config.pairs](group, config, lambda: random_streams.generator(config.seed, 0, 0, "pairs"))
    return make_columns(group, pairs, config, reference.make_vocabulary(), rngs)


def packed_in_rows(columns: Columns, limit: int) -> tuple[Columns, PackedColumns]:
    found = plan_rows(columns.input_mask.sum(axis=1).astype(np.int64), limit)
    columns = columns.take(found.order)
    return columns, pack_examples(columns, found.starts)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("masking", MASKERS)
@pytest.mark.parametrize("documents", [0, 1, 2, 60])
def test_unpacking_reverses_packing(pairs: str, masking: str, documents: int):
    config = replace(DEFAULT, pairs=pairs, masking=masking)
    columns, packed = packed_in_rows(examples_of(config, documents), 32)
    assert list(find_row_violations(packed, config.max_predictions)) == []
    check_same(unpack_examples(packed, config.max_predictions), columns)
    assert packed.examples.sum() == len(columns) and packed.predictions.sum() == columns.masked_lm_weights.sum()
    if documents > 2:
        assert len(packed) < len(columns) and packed.examples.max() > 1


@settings(max_examples=100, deadline=None, derandomize=True)
@given(LENGTHS.filter(lambda drawn: len(drawn[0])), st.randoms(use_true_random=False))
def test_rows_hold_their_examples_one_after_another(drawn: tuple[np.ndarray, int], random):
    """For any lengths and masks: what a reader of the rows relies on, one row at a time."""
    lengths, limit = drawn
    rng, places = np.random.default_rng(random.randrange(1 << 32)), np.arange(limit)
    inside = places < lengths[:, None]
    masked = np.minimum(rng.integers(0, 4, len(lengths)), lengths)
    used = np.arange(4) < masked[:, None]
    positions = np.argsort(np.where(inside, rng.random(inside.shape), 2), axis=1)[:, :4]
    positions = np.pad(positions, ((0, 0), (0, 4 - positions.shape[1])))
    positions = np.sort(np.where(used, positions, limit), axis=1)
    columns, packed = packed_in_rows(
        Columns(
            np.where(inside, rng.integers(1, 99, inside.shape), 0),
            inside.astype(np.int64),
            np.where(inside, rng.integers(0, 2, inside.shape), 0),
            np.where(used, positions, 0),
            np.where(used, rng.integers(1, 99, used.shape), 0),
            used.astype(np.float32),
            rng.integers(0, 2, len(lengths)),
        ),
        limit,
    )
    assert set(vars(packed)) == PACKED_FEATURES.keys() | {"examples", "predictions"}
    check_same(unpack_examples(packed, 4), columns)
    sizes, example = columns.input_mask.sum(axis=1), 0
    for row, count in enumerate(packed.examples):
        begin = 0
        for number in range(1, count + 1):
            places = slice(begin, begin + sizes[example])
            assert (packed.example_ids[row, places] == number).all() and packed.cls_positions[example] == begin
            assert packed.input_ids[row, places].tolist() == columns.input_ids[example, : sizes[example]].tolist()
            begin, example = begin + sizes[example], example + 1
        assert not packed.input_mask[row, begin:].any() and not packed.example_ids[row, begin:].any()
    assert example == len(columns)
