"""A picture, whatever the entries hold."""

import struct

import pytest

from trainers.curves import draw


def entry(step: int, **more: object) -> dict:
    return {"step": step, "loss": 7.0 / step, "masked_lm_loss": 6.0 / step, "masked_lm_accuracy": 0.1 * step, **more}


TRAIN = [entry(step, learning_rate=1e-3 * step) for step in (1, 2, 3)]
PAIRS = [row | {"next_sentence_loss": 0.7, "next_sentence_accuracy": 0.5} for row in TRAIN]
EVAL = [entry(step, split="eval", examples=9) for step in (2, 3)]
CASES = {"nothing": [], "one": TRAIN[:1], "train": TRAIN, "pairs": PAIRS, "eval": TRAIN + EVAL, "eval alone": EVAL}


@pytest.mark.parametrize("name", CASES)
def test_a_png(name: str) -> None:
    """11 x 3.6 inches of 120 dots, and the same bytes each time."""
    data = draw(CASES[name], "a title")
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (1320, 432)
    assert len(data) > 5000
    if name == "pairs":
        assert draw(PAIRS, "a title") == data != draw(PAIRS, "another title")


def test_what_is_drawn_makes_a_difference() -> None:
    drawn = [draw(rows, "a title") for rows in (TRAIN, PAIRS, TRAIN + EVAL)]
    assert len(set(drawn)) == 3
