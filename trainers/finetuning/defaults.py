"""Chooses the options of `finetune` that were left open, from the encoder and the number of training rows.

`choose` is a pure function; tests/trainers/finetuning/test_defaults.py has the table. A run records what was chosen in
run.json, and a resumed run uses that.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clozemill.model.config import EncoderConfig


@dataclass(frozen=True)
class Settings:
    """How to train: peak learning rate, epochs, and rows per update."""

    learning_rate: float
    epochs: float
    batch_size: int

    def steps(self, rows: int) -> int:
        """Return the number of updates on a number of training rows."""
        return max(1, math.ceil(rows * self.epochs / self.batch_size))


OPEN = tuple(Settings.__dataclass_fields__)

# Rate and epochs by the largest hidden size that they suit. Those of 768 are of Devlin et al. 2018. Narrow encoders need more:
# with 3e-5, one of 128 only learns to answer the most frequent label (docs/explanation/measurements.md). Those between
# are interpolated, not measured.
_SUITED = {128: (1e-3, 8), 256: (3e-4, 5), 512: (1e-4, 4), 768: (3e-5, 3)}
_WIDEST = (2e-5, 3)  # Devlin et al. 2018 choose among 2e-5, 3e-5 and 5e-5; the lowest is the safest for large encoders
_HEAD_RATE = 1e-3  # of a head alone, on a frozen encoder
_BATCH, _SMALL_BATCH, _FEW_ROWS = 32, 16, 1000
# Small files need more epochs to take enough steps, up to 20: Mosbach et al. 2021, "On the Stability of Fine-tuning BERT".
_LEAST_STEPS, _MOST_EPOCHS = 200, 20
_LOG_LINES, _MOST_LOG_STEPS = 25, 50  # the curves of a run need some 20 points


def suited_rate(encoder: EncoderConfig, frozen: bool = False) -> float:
    """Return the peak learning rate that suits an encoder, or the head on top of a frozen one."""
    return _HEAD_RATE if frozen else _suited(encoder)[0]


def _suited(encoder: EncoderConfig) -> tuple[float, int]:
    return next((found for width, found in _SUITED.items() if encoder.hidden_size <= width), _WIDEST)


def choose(
    given: Mapping[str, Any], encoder: EncoderConfig, rows: int, frozen: bool = False, parts: int = 1
) -> tuple[Settings, tuple[str, ...]]:
    """Return all settings, those that are None in `given` chosen, and the reasons for the chosen ones.

    Args:
        given: values by the names in `OPEN`.
        encoder: the pretrained encoder.
        rows: training rows.
        frozen: whether only the head is trained.
        parts: micro-batches, which must divide the batch.
    """
    found, reasons = dict(given), []
    if given["batch_size"] is None:
        wanted = _SMALL_BATCH if rows < _FEW_ROWS else _BATCH
        found["batch_size"] = max(parts, wanted // parts * parts)
        reasons.append(f"batches of {found['batch_size']}")
    if given["epochs"] is None:
        usual = _suited(encoder)[1]
        enough = math.ceil(_LEAST_STEPS * found["batch_size"] / rows)
        found["epochs"] = float(max(usual, min(_MOST_EPOCHS, enough)))
        few = f" for only {rows:,} training rows" if found["epochs"] > usual else ""
        reasons.append(f"{found['epochs']:g} epochs{few}")
    if given["learning_rate"] is None:
        found["learning_rate"] = suited_rate(encoder, frozen)
        trained = "a head alone" if frozen else f"an encoder {encoder.hidden_size} wide"
        reasons.append(f"learning rate {found['learning_rate']:g} for {trained}")
    return Settings(**found), tuple(reasons)


def log_interval(rows: int, settings: Settings) -> int:
    """Return the number of steps between two lines of metrics: at most 50, and fewer for a run of few steps."""
    return max(1, min(_MOST_LOG_STEPS, settings.steps(rows) // _LOG_LINES))


def advice(settings: Settings, encoder: EncoderConfig, rows: int, frozen: bool, from_scratch: bool) -> str:
    """Return what to try after a result that is no better than the baseline.

    Args:
        settings: those of the run.
        encoder, rows, frozen: as in `choose`.
        from_scratch: whether the encoder was not pretrained.
    """
    suited = suited_rate(encoder, frozen)
    if from_scratch:
        return "leave --from-scratch out, to start from the pretrained weights"
    if settings.learning_rate < suited / 2:
        return f"give a higher --learning-rate, such as {suited:g} for this encoder"
    if settings.learning_rate > 4 * suited:
        return f"give a lower --learning-rate, such as {suited:g} for this encoder"
    if frozen:
        return "leave --frozen out, to train the encoder too"
    if rows * settings.epochs < _LEAST_STEPS * settings.batch_size:
        return "give more --epochs or more training rows, or pretrain the encoder for longer"
    return "pretrain the encoder for longer and on more text, or start from a larger one; more training rows help too"
