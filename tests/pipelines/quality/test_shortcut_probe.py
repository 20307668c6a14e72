"""The probe: its features literally, nothing found where there is nothing, and planted shortcuts found."""

import numpy as np
import pytest

from clozemill.pipelines.quality import intervals, shortcut_probe
from tests import reference

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "mill", "##s", ".", "1900", "##?", ",", "river", "。"]
VOCABULARY = reference.Vocabulary.from_tokens(TOKENS)


def ids(text: str) -> list[int]:
    return [TOKENS.index(token) for token in text.split()]


def test_features_literally() -> None:
    rows = [
        "[CLS] ##s mill ##s . [SEP] 1900 , [UNK] [SEP] [PAD]",
        "[CLS] 。 [SEP] mill ##? [SEP] [PAD] [PAD] [PAD] [PAD] [PAD]",
    ]
    a_len, b_len, labels = np.array([4, 1]), np.array([3, 2]), np.array([1, 0])
    found = shortcut_probe.features(np.array([ids(row) for row in rows]), a_len, b_len, labels, VOCABULARY)
    told = [dict(zip((*shortcut_probe.COLUMNS, "label"), row, strict=True)) for row in found.tolist()]
    stop, mark, digit, unknown, piece = 1, 2, 4, 8, 16
    assert told[0] == {
        **{"a_length": 4, "a_stop": 1, "a_mark": 1, "a_digit": 0, "a_unknown": 0, "a_piece": 2},
        **{"b_length": 3, "b_stop": 0, "b_mark": 1, "b_digit": 1, "b_unknown": 1, "b_piece": 0},
        **{"a_first_kinds": piece, "a_last_kinds": stop + mark, "b_first_kinds": digit, "b_last_kinds": unknown},
        **{"a_first": 6, "b_first": 8, "label": 1},
    }
    assert told[1] == {
        **{"a_length": 1, "a_stop": 1, "a_mark": 1, "a_digit": 0, "a_unknown": 0, "a_piece": 0},
        **{"b_length": 2, "b_stop": 1, "b_mark": 1, "b_digit": 0, "b_unknown": 0, "b_piece": 1},
        **{"a_first_kinds": stop + mark, "a_last_kinds": stop + mark},
        **{"b_first_kinds": 0, "b_last_kinds": stop + mark + piece, "a_first": 12, "b_first": 5, "label": 0},
    }


def sample(count: int, seed: int, share: float = 0.5) -> np.ndarray:
    """Rows whose labels have nothing to do with the features."""
    rng = np.random.Generator(np.random.Philox(seed))
    rows = rng.integers(1, 60, (count, len(shortcut_probe.COLUMNS) + 1)).astype(np.int32)
    rows[:, -1] = rng.random(count) < share
    return rows


def excess(rows: np.ndarray) -> float:
    found = shortcut_probe.evaluate_probe(rows, 128)
    return found["accuracy"] - found["chance"]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_found_where_there_is_nothing(seed: int, share: float) -> None:
    found = shortcut_probe.evaluate_probe(sample(4000, seed, share), 128)
    assert found["chance"] >= 0.5 and found["judged"] == 2000
    assert found["accuracy"] - found["chance"] <= found["sampling"]


COLUMN = {name: place for place, name in enumerate(shortcut_probe.COLUMNS)}
SHORTCUTS = {
    "shorter": lambda rows: rows[:, COLUMN["a_length"]] < 30,
    "parity": lambda rows: (rows[:, COLUMN["a_length"]] + rows[:, COLUMN["b_length"]]) % 2,
    "parity of B": lambda rows: rows[:, COLUMN["b_length"]] % 2,
    "alike in length": lambda rows: np.abs(rows[:, COLUMN["a_length"]] - rows[:, COLUMN["b_length"]]) < 18,
    "B begins with a digit": lambda rows: rows[:, COLUMN["b_first_kinds"]] >> 2 & 1,
    "A ends with a stop": lambda rows: rows[:, COLUMN["a_last_kinds"]] & 1,
    "one stop in A": lambda rows: rows[:, COLUMN["a_stop"]] == 1,
    "many [UNK] in B": lambda rows: rows[:, COLUMN["b_unknown"]] > 30,
}


@pytest.mark.parametrize("name", SHORTCUTS)
def test_planted_shortcuts_are_found(name: str) -> None:
    rows = sample(4000, 1)
    rows[::2, COLUMN["a_stop"]] = 1  # in half of the rows, so that its label is worth guessing
    rows = rows[np.random.Generator(np.random.Philox(5)).permutation(len(rows))]
    rows[:, -1] = SHORTCUTS[name](rows)
    assert excess(rows) > 0.3


def test_a_token_that_begins_one_kind_of_b() -> None:
    rows = sample(4000, 1)
    rows[rows[:, -1] == 1, COLUMN["b_first"]] = 777
    assert excess(rows) > 0.4
    assert "b_first token 777" in shortcut_probe.evaluate_probe(rows, 128)["strongest"]


def test_few_rows_and_none() -> None:
    assert shortcut_probe.evaluate_probe(sample(0, 1), 128) == {"rows": 0, "judged": 0}
    assert shortcut_probe.evaluate_probe(sample(1, 1), 128) == {"rows": 1, "judged": 0}
    for count in (2, 3, 10):
        found = shortcut_probe.evaluate_probe(sample(count, 1), 128)
        assert found["sampling"] >= 1 / found["judged"] and 0 <= found["accuracy"] <= 1


def test_the_interval_is_that_of_five_standard_deviations() -> None:
    found = shortcut_probe.evaluate_probe(sample(20000, 1), 128)
    assert found["margin"] == shortcut_probe.MARGIN == 0.25
    assert found["sampling"] == pytest.approx(5 * (0.25 / 10000) ** 0.5 + 1 / 10000, rel=0.01)
    assert intervals.SIGMAS == 5
