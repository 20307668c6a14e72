"""The held-out share: the same for any order of the file, no text on both sides, no label missing from training."""

import collections

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.held_out import split
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES


def classify(rows: list[tuple[str, str]]) -> list[Example]:
    return [Example(f"a.tsv, line {number}", text, answer=label) for number, (text, label) in enumerate(rows)]


ROWS = [(f"text {number}", "abc"[number % 7 % 3]) for number in range(200)]


def texts(side: list[Example]) -> list[str]:
    return [example.text for example in side]


def test_the_share_and_each_label_s_part_of_it() -> None:
    found = split(classify(ROWS), TASK_TYPES["classify"](), 0.1, 0, "a.tsv")
    assert len(found.dev) == 20 and len(found.train) == 180 and not found.lone
    dev, all_ = (collections.Counter(label for _, label in rows) for rows in ([(e.text, e.answer) for e in found.dev], ROWS))
    assert all(abs(dev[label] - 0.1 * count) <= 1 for label, count in all_.items())
    assert texts(found.train) == [text for text, _ in ROWS if text not in set(texts(found.dev))]  # in the file's order


def test_the_order_of_the_file_changes_nothing_and_the_seed_does() -> None:
    shuffled = [ROWS[place] for place in np.random.default_rng(1).permutation(len(ROWS))]
    one, other = (split(classify(rows), TASK_TYPES["classify"](), 0.2, 3, "a.tsv") for rows in (ROWS, shuffled))
    assert set(texts(one.dev)) == set(texts(other.dev))
    assert set(texts(one.dev)) != set(texts(split(classify(ROWS), TASK_TYPES["classify"](), 0.2, 4, "a.tsv").dev))


def test_the_split_itself_is_golden() -> None:
    """Another version of clozemill must hold out the same texts, or a resumed run is refused."""
    assert texts(split(classify(ROWS[:40]), TASK_TYPES["classify"](), 0.1, 0, "a.tsv").dev) == GOLDEN


GOLDEN = ["text 10", "text 19", "text 22", "text 31"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abcd")), min_size=1, max_size=40),
    st.sampled_from([0.1, 0.25, 0.5]),
)
def test_equal_texts_stay_together_and_no_label_is_lost(rows: list[tuple[int, str]], fraction: float) -> None:
    """Also where one text has several labels; spacing and case don't make another text."""
    variants = [(f"{' ' * (place % 2)}Text  {number}" if place % 3 else f"text {number}", label)
                for place, (number, label) in enumerate(rows)]  # fmt: skip
    try:
        found = split(classify(variants), TASK_TYPES["classify"](), fraction, 0, "a.tsv")
    except UserError as error:
        assert "too few to hold out a fraction of" in str(error)
        return
    same = (
        [" ".join(text.lower().split()) for text in texts(found.train)],
        [" ".join(text.lower().split()) for text in texts(found.dev)],
    )
    assert not set(same[0]) & set(same[1]) and found.dev
    assert {example.answer for example in found.train} == {label for _, label in rows}
    assert len(found.train) + len(found.dev) == len(rows)


def test_a_label_of_one_text_is_trained_on_and_named() -> None:
    found = split(classify([*ROWS, ("rare", "z"), ("rare", "z")]), TASK_TYPES["classify"](), 0.5, 0, "a.tsv")
    assert found.lone == ("z",) and [e.answer for e in found.train].count("z") == 2


def test_pairs_are_one_text_and_contexts_keep_their_questions() -> None:
    pairs = [Example("", f"a {number % 30}", f"b {number % 60}", answer="xy"[number % 2]) for number in range(120)]
    found = split(pairs, TASK_TYPES["classify"](), 0.25, 0, "a.tsv")
    sides = [{(example.text, example.pair) for example in side} for side in (found.train, found.dev)]
    assert not sides[0] & sides[1] and len(sides[1]) == 15
    questions = [
        Example("", f"q {number}", f"context {number // 4}", answer=(("x", 0),) if number % 8 else ()) for number in range(80)
    ]
    found = split(questions, TASK_TYPES["spans"](), 0.1, 0, "a.json")
    assert len(found.dev) == 8 and len({example.pair for example in found.dev}) == 2
    assert not {example.pair for example in found.dev} & {example.pair for example in found.train}


def test_numbers_are_held_out_over_their_range() -> None:
    rows = [Example("", f"text {number}", answer=float(number * 37 % 100)) for number in range(100)]
    found = split(rows, TASK_TYPES["regress"](), 0.1, 0, "a.tsv")
    assert [int(value // 10) for value in sorted(example.answer for example in found.dev)] == list(range(10))


def test_rare_tags_are_on_the_training_side() -> None:
    rows = [Example("", words=("w", str(number)), answer=("O", "B-X" if number % 9 == 0 else "O")) for number in range(90)]
    rows.append(Example("", words=("once",), answer=("B-Y",)))
    found = split(rows, TASK_TYPES["tags"](), 0.2, 0, "a.conll")
    assert found.lone == ("B-Y",)
    assert sum("B-X" in example.answer for example in found.dev) == 2 and any("B-Y" in e.answer for e in found.train)


def test_too_few_examples() -> None:
    with pytest.raises(UserError, match=r"a.tsv has 3 distinct texts, too few to hold out a fraction of 0.1: give --dev"):
        split(classify(ROWS[:3]), TASK_TYPES["classify"](), 0.1, 0, "a.tsv")
