"""Chooses the options of `contrast` that were left open, from the encoder and the number of texts."""

import math
from collections.abc import Mapping
from typing import Any

from clozemill.model.config import POSITIVES, EncoderConfig
from clozemill.trainers.contrast.config import BATCH
from clozemill.trainers.finetuning.defaults import Settings, suited_rate

_LEAST_STEPS, _MOST_EPOCHS = 100, 10
_CROP_RATE = 2  # times the rate of fine-tuning: with spans the task stays hard
# For dropout alone: with 1e-3, an encoder of 128 was worse by both measures (docs/explanation/measurements.md).
_HIGHEST_RATE = 3e-4


def choose_settings(
    given: Mapping[str, Any], encoder: EncoderConfig, texts: int, parts: int = 1, positives: str = POSITIVES[0]
) -> tuple[Settings, tuple[str, ...]]:
    """Return all settings, those that are None in `given` chosen, and the reasons for the chosen ones.

    Args:
        given: values by the names in finetuning.defaults.OPEN.
        encoder: the pretrained encoder.
        texts: number of distinct texts, at least 2.
        parts: micro-batches, which must divide the batch.
        positives: one of POSITIVES.
    """
    found, reasons = dict(given), []
    if given["batch_size"] is None:
        found["batch_size"] = max(parts, min(BATCH, texts) // parts * parts)
        reasons.append(f"batches of {found['batch_size']}")
    if given["epochs"] is None:
        enough = math.ceil(_LEAST_STEPS * found["batch_size"] / texts)
        found["epochs"] = float(max(1, min(_MOST_EPOCHS, enough)))
        few = f" for only {texts:,} texts" if found["epochs"] > 1 else ""
        reasons.append(f"{found['epochs']:g} epoch{'s' * (found['epochs'] != 1)}{few}")
    if given["learning_rate"] is None:
        suited = suited_rate(encoder)
        found["learning_rate"] = _CROP_RATE * suited if positives == "crop" else min(suited, _HIGHEST_RATE)
        reasons.append(f"learning rate {found['learning_rate']:g} for an encoder {encoder.hidden_size} wide")
    return Settings(**found), tuple(reasons)
