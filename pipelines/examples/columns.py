"""Examples as arrays: the seven features of google-research/bert, and rows of packed examples."""

from collections.abc import Mapping
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

# The features of a packed record: name -> (dtype, length). Those of max_seq_length have this length. The others vary from
# record to record, up to the max_examples or max_predictions of `packing` in dataset.json.
PACKED_FEATURES = {
    "input_ids": ("int64", "max_seq_length"),
    "input_mask": ("int64", "max_seq_length"),
    "segment_ids": ("int64", "max_seq_length"),
    "example_ids": ("int64", "max_seq_length"),
    "cls_positions": ("int64", "max_examples"),
    "next_sentence_labels": ("int64", "max_examples"),
    "example_weights": ("float32", "max_examples"),
    "masked_lm_positions": ("int64", "max_predictions"),
    "masked_lm_ids": ("int64", "max_predictions"),
    "masked_lm_weights": ("float32", "max_predictions"),
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

    def take(self, order: np.ndarray | list[int] | slice) -> "Columns":
        """Return the examples at `order`."""
        return Columns(*(values[order] for values in vars(self).values()))


def pad_rows(values: np.ndarray, counts: np.ndarray, width: int) -> np.ndarray:
    """Return values of all rows, one after another, as a matrix [R, width] padded with 0. counts: int64 [R], those of a row."""
    there = np.arange(width) < counts[:, None]
    out = np.zeros(there.shape, values.dtype)
    out[there] = values
    return out


@dataclass
class PackedColumns:
    """Rows of packed examples: R rows, S max_seq_length, E examples and M masked positions in all rows.

    Attributes:
        input_ids, input_mask, segment_ids, example_ids: integers [R, S], padded with 0 at the end.
        cls_positions, next_sentence_labels: integers [E], those of all rows one after another.
        example_weights: float32 [E].
        masked_lm_positions, masked_lm_ids: integers [M]; the positions are those in the row.
        masked_lm_weights: float32 [M].
        examples, predictions: int64 [R], how many of the E and M values belong to each row.
    """

    input_ids: np.ndarray
    input_mask: np.ndarray
    segment_ids: np.ndarray
    example_ids: np.ndarray
    cls_positions: np.ndarray
    next_sentence_labels: np.ndarray
    example_weights: np.ndarray
    masked_lm_positions: np.ndarray
    masked_lm_ids: np.ndarray
    masked_lm_weights: np.ndarray
    examples: np.ndarray
    predictions: np.ndarray

    def __len__(self) -> int:
        return len(self.input_ids)

    def counts_of(self, name: str) -> np.ndarray | None:
        """Return how many values of a feature each row has, int64 [R]; None if all rows have max_seq_length."""
        return {"max_examples": self.examples, "max_predictions": self.predictions}.get(PACKED_FEATURES[name][1])

    def padded(self, packing: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Return the ten features as matrices of one shape for all batches of a dataset, padded with 0.

        packing: `packing` in dataset.json: max_examples (N) and max_predictions (P). Features are [R, S], [R, N] or [R, P].
        """
        found: dict[str, np.ndarray] = {}
        for name, (_, length) in PACKED_FEATURES.items():
            values, counts = getattr(self, name), self.counts_of(name)
            found[name] = values if counts is None else pad_rows(values, counts, packing[length])
        return found
