"""What `finetune` chooses for options that were left open, by the encoder and the number of rows, and what it advises."""

from typing import Any

import pytest

from clozemill.model.config import preset
from clozemill.trainers.finetuning.defaults import OPEN, Settings, advice, choose, log_interval

LEFT_OPEN: dict[str, Any] = dict.fromkeys(OPEN)


@pytest.mark.parametrize(
    ("name", "rows", "frozen", "parts", "expected"),
    [  # learning rate, epochs, batch
        ("tiny", 8551, False, 1, (1e-3, 8, 32)),
        ("mini", 8551, False, 1, (3e-4, 5, 32)),
        ("small", 8551, False, 1, (1e-4, 4, 32)),
        ("medium", 8551, False, 1, (1e-4, 4, 32)),
        ("base", 8551, False, 1, (3e-5, 3, 32)),
        ("large", 8551, False, 1, (2e-5, 3, 32)),
        ("base", 2490, False, 1, (3e-5, 3, 32)),  # RTE
        ("base", 999, False, 1, (3e-5, 4, 16)),
        ("base", 103, False, 1, (3e-5, 20, 16)),
        ("tiny", 1, False, 1, (1e-3, 20, 16)),
        ("base", 8551, True, 1, (1e-3, 3, 32)),
        ("tiny", 8551, True, 1, (1e-3, 8, 32)),
        ("base", 8551, False, 3, (3e-5, 3, 30)),
        ("base", 8551, False, 40, (3e-5, 3, 40)),
    ],
)
def test_choices(name: str, rows: int, frozen: bool, parts: int, expected: tuple) -> None:
    settings, reasons = choose(LEFT_OPEN, preset(name, vocab_size=30522), rows, frozen, parts)
    assert settings == Settings(*expected)
    assert len(reasons) == 3 and ("only" in reasons[1]) == (rows < 1000)


def test_what_is_given_is_never_chosen() -> None:
    encoder = preset("tiny", vocab_size=4000)
    everything: dict[str, Any] = {"learning_rate": 0.0, "epochs": 0.5, "batch_size": 7}
    assert choose(everything, encoder, 100) == (Settings(0.0, 0.5, 7), ())
    settings, reasons = choose({**LEFT_OPEN, "batch_size": 64}, encoder, 100)
    assert (settings, len(reasons)) == (Settings(1e-3, 20, 64), 2)


@pytest.mark.parametrize(
    ("settings", "rows", "frozen", "from_scratch", "expected"),
    [
        (Settings(3e-5, 3, 32), 8551, False, False, "give a higher --learning-rate, such as 0.001 for this encoder"),
        (Settings(1e-2, 8, 32), 8551, False, False, "give a lower --learning-rate, such as 0.001 for this encoder"),
        (Settings(1e-3, 8, 32), 8551, False, True, "leave --from-scratch out"),
        (Settings(1e-3, 8, 32), 8551, True, False, "leave --frozen out"),
        (Settings(1e-3, 1, 32), 64, False, False, "give more --epochs or more training rows"),
        (Settings(1e-3, 8, 32), 8551, False, False, "pretrain the encoder for longer"),
    ],
)
def test_advice(settings: Settings, rows: int, frozen: bool, from_scratch: bool, expected: str) -> None:
    encoder = preset("tiny", vocab_size=4000)
    assert advice(settings, encoder, rows, frozen, from_scratch).startswith(expected)


@pytest.mark.parametrize(
    ("rows", "batch_size", "steps", "every"), [(272, 16, 85, 3), (16, 16, 5, 1), (4000, 16, 1250, 50), (80_000, 16, 25_000, 50)]
)
def test_a_short_run_logs_more_often(rows: int, batch_size: int, steps: int, every: int) -> None:
    settings = Settings(1e-3, 5, batch_size)
    assert (settings.steps(rows), log_interval(rows, settings)) == (steps, every)
