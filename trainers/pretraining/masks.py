"""Masks that are drawn in the training step: `--masks fresh` and `--masked-lm-prob-schedule`.

Policy and shares are those that the dataset was prepared with. Evaluations use the masks of its shards.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from keras import ops

from clozemill.model.mask_policies import MaskRules
from clozemill.model.masking import draw_masks
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.examples import masking
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.prepared_dataset import PreparedDataset

_OPTION = "--masked-lm-prob-schedule"
_STEP = 0.001  # by which a rate falls at a time


@dataclass(frozen=True)
class MaskRates:
    """Falling mask rates, and the step of the run at which each of them begins."""

    rates: tuple[float, ...]
    begins: tuple[int, ...]

    def number(self, step: int) -> int:
        """Return the number of a step's rate."""
        return sum(begin <= step for begin in self.begins) - 1

    def at(self, step: int) -> float:
        """Return the rate of a step."""
        return self.rates[self.number(step)]


def parse_rates(text: str, steps: int) -> MaskRates:
    """Return the rates of `--masked-lm-prob-schedule` over a run of `steps`. Raises UserError.

    "0.3:0.15" falls linearly, by about a thousandth at a time; "0.3:0.15@0.5" in one step half-way.
    """
    number = r"(\d*\.?\d+)"
    found = re.fullmatch(rf"{number}:{number}(?:@{number})?", text)
    high, low, at = (float(value or 0) for value in found.groups()) if found else (0.0, 0.0, 0.0)
    if not found or not 0 < low <= high < 1 or not 0 <= at < 1:
        raise UserError(
            f"{_OPTION} is {text!r}: give two falling rates such as 0.3:0.15, or 0.3:0.15@0.5 to change from one to the other "
            "half-way"
        )
    if found[3]:
        return MaskRates((high, low), (0, round(at * steps)))
    count = min(1 + math.ceil(round((high - low) / _STEP, 6)), steps)
    rates = tuple(round(float(rate), 9) for rate in np.linspace(high, low, count))
    return MaskRates(rates, tuple(-(-number * steps // count) for number in range(count)))


@dataclass(frozen=True, eq=False)
class MaskDrawing:
    """Draws the masks of a training batch.

    begins: the step of the run at which each row of `rules.quotas` begins, int32 [R].
    """

    rules: MaskRules
    begins: np.ndarray

    def __call__(self, batch: dict[str, Any], step: Any) -> dict[str, Any]:
        """Return a device's batch with the masks of a step."""
        rate = ops.sum(ops.cast(ops.convert_to_tensor(self.begins) <= ops.cast(step, "int32"), "int32")) - 1
        return draw_masks(batch, self.rules, rate)


def mask_rules(dataset: PreparedDataset, fresh: bool, rates: Sequence[float] = ()) -> MaskRules:
    """Return how masks are drawn from the examples of a dataset, by default at its own rate."""
    config = replace(ExampleConfig.of(dataset.manifest["config"]), max_predictions=dataset.max_predictions)
    vocabulary = Vocabulary.from_bytes(dataset.read_vocabulary(), VOCAB)
    lengths = np.arange(dataset.max_seq_length + 1)
    quotas = [masking.quota(lengths, replace(config, masked_lm_prob=rate)) for rate in rates or (config.masked_lm_prob,)]
    return MaskRules(
        policy=config.masking,
        quotas=(np.array(quotas) * (lengths > 0)).astype(np.int32),
        max_predictions=dataset.max_predictions,
        slots=_slots(dataset, config, fresh),
        fresh=fresh,
        mask_id=vocabulary.mask_id,
        is_special=vocabulary.is_special,
        is_continuation=vocabulary.is_continuation,
        random_ids=vocabulary.random_ids,
        mask_share=masking.MASK_SHARE,
        random_share=masking.RANDOM_SHARE,
        span_shares=masking.span_shares(),
    )


def _slots(dataset: PreparedDataset, config: ExampleConfig, fresh: bool) -> int:
    """Return the most predictions of a row.

    With whole words, a draw may come closer to the quotas of a packed row than any draw in the shards did.
    """
    stored, length = dataset.sizes["max_predictions"], dataset.max_seq_length
    if not (fresh and dataset.packed and masking.MASKERS[config.masking].needs_words):
        return stored
    return max(stored, min(length, math.floor(length * config.masked_lm_prob) + dataset.sizes["max_examples"]))


def mask_drawing(dataset: PreparedDataset, fresh: bool, schedule: str, steps: int) -> MaskDrawing | None:
    """Return how a run of `steps` draws the masks of a dataset; None if it uses those of the shards.

    schedule: `--masked-lm-prob-schedule`, or "". Raises UserError if it exceeds the rate of the dataset.
    """
    if not fresh and not schedule:
        return None
    rates = parse_rates(schedule, steps) if schedule else MaskRates((), (0,))
    have = dataset.manifest["config"]["masked_lm_prob"]
    if schedule and rates.rates[0] > have:
        raise UserError(
            f"{_OPTION} {schedule} begins above {have:g}, the fraction of tokens that {dataset.folder} masks: begin at "
            f"{have:g} at most, or prepare with --masked-lm-prob {rates.rates[0]:g}"
        )
    return MaskDrawing(mask_rules(dataset, fresh, rates.rates), np.array(rates.begins, np.int32))
