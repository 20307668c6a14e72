"""Some records of a shard as `inspect` shows them, in words and as a page."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipelines import features
from pipelines.wordpiece import Vocabulary

LABELS = {
    "nsp": ("B follows A", "B is random"),
    "sop": ("B follows A", "A and B are swapped"),
    "single": ("one run of sentences", ""),
}


@dataclass(frozen=True)
class Records:
    """Some records of one shard, the first of them number `offset`; origins: provenance by column, where the dataset has it."""

    contract: dict[str, Any]
    vocabulary: Vocabulary
    shard: dict[str, Any]
    columns: features.Columns
    offset: int
    origins: dict[str, list[Any]] | None

    def meaning(self, row: int) -> str:
        """What the label says."""
        return LABELS[self.contract["config"]["pairs"]][int(self.columns.next_sentence_labels[row])]

    def sizes(self, row: int) -> str:
        """'128 tokens, 19 to predict'."""
        masked = int(np.count_nonzero(self.columns.masked_lm_weights[row]))
        return f"{int(self.columns.input_mask[row].sum())} tokens, {masked} to predict"
