"""Examples as arrays: the seven features of google-research/bert."""

from dataclasses import dataclass

import numpy as np

# google-research/bert's features: name -> (dtype, the configuration field with its length, or None for 1).
FEATURES = {
    "input_ids": ("int64", "max_seq_length"),
    "input_mask": ("int64", "max_seq_length"),
    "segment_ids": ("int64", "max_seq_length"),
    "masked_lm_positions": ("int64", "max_predictions"),
    "masked_lm_ids": ("int64", "max_predictions"),
    "masked_lm_weights": ("float32", "max_predictions"),
    "next_sentence_labels": ("int64", None),
}


@dataclass
class Columns:
    """Examples as columns [E, S], [E, P] or [E]: integers of any width (weights float32), padded with 0 as in the reference."""

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    masked_lm_weights: np.ndarray
    next_sentence_labels: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)
