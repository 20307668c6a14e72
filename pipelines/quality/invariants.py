"""Rules that every example of a dataset must satisfy, as functions on columns; `verify` runs them all.

A check yields (violating records as bool [E], message). Shapes: E examples, S sequence length, P predictions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import masking as examples_masking
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class _View:
    """Columns with derived values that several checks use."""

    columns: Columns
    config: ExampleConfig
    vocabulary: Vocabulary

    @cached_property
    def inside(self) -> np.ndarray:
        return self.columns.input_mask == 1

    @cached_property
    def lengths(self) -> np.ndarray:
        return self.inside.sum(axis=1)

    @cached_property
    def place(self) -> np.ndarray:
        return np.arange(self.columns.input_ids.shape[1])

    @cached_property
    def used(self) -> np.ndarray:
        return self.columns.masked_lm_weights == 1

    @cached_property
    def positions(self) -> np.ndarray:
        return np.clip(self.columns.masked_lm_positions, 0, len(self.place) - 1)

    @cached_property
    def at_positions(self) -> np.ndarray:
        return np.take_along_axis(self.columns.input_ids, self.positions, axis=1)

    @cached_property
    def separators(self) -> np.ndarray:
        return self.columns.input_ids == self.vocabulary.sep_id

    @cached_property
    def special(self) -> np.ndarray:
        return np.isin(self.columns.input_ids, self.vocabulary.special_ids)


def _ranges(view: _View) -> Iterator[tuple[np.ndarray, str]]:
    columns, size = view.columns, len(view.vocabulary)
    for name in ("input_ids", "masked_lm_ids"):
        values = getattr(columns, name)
        yield ((values < 0) | (values >= size)).any(axis=1), f"{name} is outside the vocabulary, 0 to {size - 1}"
    for name in ("input_mask", "segment_ids", "masked_lm_weights"):
        values = getattr(columns, name)
        yield ((values != 0) & (values != 1)).any(axis=1), f"{name} is neither 0 nor 1"
    most = 0 if view.config.pairs == "single" else 1
    labels = columns.next_sentence_labels
    yield (labels < 0) | (labels > most), f"next_sentence_labels is not within 0 to {most}"


def _layout(view: _View) -> Iterator[tuple[np.ndarray, str]]:
    columns, vocabulary = view.columns, view.vocabulary
    filled = view.place < view.lengths[:, None]
    yield (view.inside != filled).any(axis=1), "input_mask is not ones followed by zeros"
    yield ((columns.input_ids == vocabulary.pad_id) == filled).any(axis=1), "[PAD] and input_mask disagree"
    yield columns.input_ids[:, 0] != vocabulary.cls_id, "the first token is not [CLS]"
    yield (columns.input_ids[:, 1:] == vocabulary.cls_id).any(axis=1), "[CLS] is within the sequence"
    runs = 1 if view.config.pairs == "single" else 2
    yield view.separators.sum(axis=1) != runs, f"there are not {runs} [SEP]"
    last = np.take_along_axis(columns.input_ids, np.maximum(view.lengths - 1, 0)[:, None], axis=1)[:, 0]
    yield last != vocabulary.sep_id, "the last token is not [SEP]"
    first = view.separators.argmax(axis=1)[:, None]
    yield first[:, 0] < 2, "segment A is empty"
    if runs == 2:
        yield view.lengths - first[:, 0] < 3, "segment B is empty"
    wanted = (view.place > first) & filled
    yield (
        ((columns.segment_ids == 1) != wanted).any(axis=1),
        "segment_ids don't change after the first [SEP] and end with the tokens",
    )


def _masks(view: _View) -> Iterator[tuple[np.ndarray, str]]:
    columns, used, vocabulary = view.columns, view.used, view.vocabulary
    count = used.sum(axis=1)
    yield (used != (np.arange(used.shape[1]) < count[:, None])).any(axis=1), "masked_lm_weights is not ones followed by zeros"
    unused = ~used & ((columns.masked_lm_positions != 0) | (columns.masked_lm_ids != 0))
    yield unused.any(axis=1), "masked_lm_positions or masked_lm_ids is not 0 where the weight is"
    steps = np.diff(columns.masked_lm_positions, axis=1)
    yield ((steps <= 0) & used[:, 1:]).any(axis=1), "masked_lm_positions are not sorted and unique"
    outside = (columns.masked_lm_positions < 0) | (columns.masked_lm_positions >= view.lengths[:, None])
    yield (outside & used).any(axis=1), "masked_lm_positions point at padding"
    on_special = np.isin(columns.masked_lm_ids, vocabulary.special_ids)
    on_special |= np.isin(view.at_positions, vocabulary.special_ids) & (view.at_positions != vocabulary.mask_id)
    yield (on_special & used).any(axis=1), "a special token is masked, or used as a random token"
    covered = np.zeros(columns.input_ids.shape, bool)
    row, slot = np.nonzero(used)
    covered[row, view.positions[row, slot]] = True
    yield ((columns.input_ids == vocabulary.mask_id) & ~covered).any(axis=1), "[MASK] is at a position without a prediction"
    yield from _quota(view, count)


def _quota(view: _View, count: np.ndarray) -> Iterator[tuple[np.ndarray, str]]:
    wanted = examples_masking.quota(view.lengths, view.config)
    masked_now = (view.used & (view.at_positions == view.vocabulary.mask_id)).sum(axis=1)
    maskable = (view.inside & ~view.special).sum(axis=1) + masked_now
    if view.config.masking == "subword":
        yield count != np.minimum(wanted, maskable), "the number of masked positions differs from what masked_lm_prob requires"
        return
    yield (
        (count > wanted) & ~one_word(view.columns, view.vocabulary),
        "more masked positions than masked_lm_prob allows",
    )
    single = view.inside & ~view.special & ~view.vocabulary.is_continuation[view.columns.input_ids]
    single[:, :-1] &= ~view.vocabulary.is_continuation[view.columns.input_ids[:, 1:]]
    yield (count == 0) & single.any(axis=1), "nothing is masked, although there are complete words to mask"


def one_word(columns: Columns, vocabulary: Vocabulary) -> np.ndarray:
    """bool [E]: at most one word is masked. It may have more pieces than required if there is no shorter word."""
    together = np.diff(columns.masked_lm_positions, axis=1) == 1
    together &= vocabulary.is_continuation[columns.masked_lm_ids[:, 1:]]
    return (together | (columns.masked_lm_weights[:, 1:] == 0)).all(axis=1)


def find_violations(columns: Columns, config: ExampleConfig, vocabulary: Vocabulary) -> Iterator[tuple[np.ndarray, str]]:
    """Yield every rule that some example violates: (indices of the examples, message)."""
    view = _View(columns, config, vocabulary)
    for check in (_ranges, _layout, _masks):
        found = False
        for bad, message in check(view):
            if bad.any():
                found = True
                yield np.flatnonzero(bad), message
        if found and check is _ranges:
            return  # the other checks would use values out of range as indices
