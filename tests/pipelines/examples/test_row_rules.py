"""Every rule of packed rows, with a row that violates only this rule; valid rows violate none."""

from dataclasses import replace

import numpy as np
import pytest

from clozemill.pipelines.examples.columns import PackedColumns
from clozemill.pipelines.examples.row_rules import find_row_violations

# Two rows of 8: examples of 4 and 3 tokens; one of 5.
ROWS = PackedColumns(
    input_ids=np.array([[3, 6, 7, 4, 3, 8, 4, 0], [3, 6, 7, 8, 4, 0, 0, 0]]),
    input_mask=np.array([[1] * 7 + [0], [1] * 5 + [0] * 3]),
    segment_ids=np.array([[0, 0, 1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 0, 0, 0]]),
    example_ids=np.array([[1, 1, 1, 1, 2, 2, 2, 0], [1] * 5 + [0] * 3]),
    cls_positions=np.array([0, 4, 0]),
    next_sentence_labels=np.array([1, 0, 1]),
    example_weights=np.ones(3, np.float32),
    masked_lm_positions=np.array([1, 2, 5, 3]),
    masked_lm_ids=np.array([6, 7, 8, 8]),
    masked_lm_weights=np.ones(4, np.float32),
    examples=np.array([2, 1]),
    predictions=np.array([3, 1]),
)
NUMBERS = "example_ids are not 1 to the number of examples, in order and without a gap, followed by 0"


def test_valid_rows_violate_no_rule():
    assert list(find_row_violations(ROWS, 2)) == []


def numbered(*rows: list[int]) -> dict[str, np.ndarray]:
    return {"example_ids": np.array(rows)}


FIRST, SECOND = ROWS.example_ids.tolist()


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        (numbered([1, 1, 1, 1, 3, 3, 3, 0], SECOND), [0], NUMBERS),
        (numbered([2, 2, 2, 2, 1, 1, 1, 0], SECOND), [0], NUMBERS),
        (numbered([1, 1, 1, 1, 2, 2, 1, 0], SECOND), [0], NUMBERS),
        (numbered([0, 1, 1, 1, 2, 2, 2, 0], SECOND), [0], NUMBERS),
        (numbered([1, 1, 1, 0, 2, 2, 2, 0], SECOND), [0], NUMBERS),
        (numbered([1, 1, 1, 1, 1, 1, 1, 0], SECOND), [0], NUMBERS),
        (numbered([1, 1, 1, 1, 2, 2, 2, -1], SECOND), [0], NUMBERS),
        (numbered([0] * 8, [1, 1, 1, 2, 2, 0, 0, 0]), [0, 1], NUMBERS),
        (
            {"input_mask": np.array([[1] * 8, [1] * 5 + [0] * 3])},
            [0],
            "input_mask is not 1 where example_ids has an example, and 0 elsewhere",
        ),
        (
            {"input_ids": np.array([[3, 6, 7, 4, 3, 8, 4, 0], [3, 6, 7, 8, 4, 0, 0, 9]])},
            [1],
            "input_ids or segment_ids are not empty after the last example",
        ),
        (
            {"segment_ids": np.array([[0, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 0, 0, 0]])},
            [0],
            "input_ids or segment_ids are not empty after the last example",
        ),
        ({"cls_positions": np.array([0, 3, 0])}, [0], "cls_positions are not where its examples begin"),
        ({"cls_positions": np.array([0, 4, 1])}, [1], "cls_positions are not where its examples begin"),
        ({"example_weights": np.array([1, 1, 0.5], np.float32)}, [1], "example_weights are not all 1"),
        ({"masked_lm_weights": np.array([1, 0, 1, 1], np.float32)}, [0], "masked_lm_weights are not all 1"),
        ({"masked_lm_positions": np.array([1, 2, 7, 3])}, [0], "masked_lm_positions point at padding"),
        ({"masked_lm_positions": np.array([1, 2, 5, -1])}, [1], "masked_lm_positions point at padding"),
        ({"masked_lm_positions": np.array([2, 1, 5, 3])}, [0], "masked_lm_positions are not sorted and unique"),
        ({"masked_lm_positions": np.array([1, 5, 5, 3])}, [0], "masked_lm_positions are not sorted and unique"),
        ({"masked_lm_positions": np.array([1, 2, 3, 3])}, [0], "one of its examples has more than 2 predictions"),
    ],
)
def test_a_violated_rule_is_named(change: dict[str, np.ndarray], rows: list[int], message: str):
    ((found, said),) = find_row_violations(replace(ROWS, **change), 2)
    assert (found.tolist(), said) == (rows, message)


def test_swapped_examples_are_found_by_their_lengths():
    """The two examples of the first row in the other order: each is intact, but the order isn't that of a plan."""
    swapped = replace(
        ROWS,
        input_ids=np.array([[3, 8, 4, 3, 6, 7, 4, 0], ROWS.input_ids[1]]),
        segment_ids=np.array([[0, 0, 1, 0, 0, 1, 1, 0], ROWS.segment_ids[1]]),
        example_ids=np.array([[1, 1, 1, 2, 2, 2, 2, 0], SECOND]),
        cls_positions=np.array([0, 3, 0]),
        masked_lm_positions=np.array([1, 4, 5, 3]),
    )
    ((rows, message),) = find_row_violations(swapped, 2)
    assert rows.tolist() == [0] and message == "its examples are not ordered from the longest to the shortest"


def test_a_row_without_examples():
    empty = replace(
        ROWS,
        example_ids=np.array([FIRST, [0] * 8]),
        **{name: getattr(ROWS, name)[:2] for name in ("cls_positions", "next_sentence_labels", "example_weights")},
        examples=np.array([2, 0]),
    )
    found = {message: rows.tolist() for rows, message in find_row_violations(empty, 2)}
    assert found == {"it contains no example": [1], NUMBERS: [1]}


def test_padding_is_that_of_the_vocabulary():
    padded = replace(ROWS, input_ids=np.where(ROWS.example_ids > 0, ROWS.input_ids, 9))
    assert list(find_row_violations(padded, 2, pad_id=9)) == []
    assert [rows.tolist() for rows, _ in find_row_violations(padded, 2)] == [[0, 1]]
