"""Build the examples of one copy of one group: pairs, order, token matrix, masks, features, statistics.

Pure: a function of the group, the configuration and (seed, group, copy). Shapes: E examples, S sequence length.
"""

import numpy as np

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import columns as examples_columns
from clozemill.pipelines.examples import masking as examples_masking
from clozemill.pipelines.examples.pairs import Pairs
from clozemill.pipelines.shuffle.groups import Group
from clozemill.pipelines.text.vocabulary import Vocabulary

STATISTICS = (
    "examples",
    "tokens",
    "padding",
    "maskable",
    "masked",
    "masked_as_mask",
    "masked_as_random",
    "masked_as_kept",
    "labels_random",
    "forced_random",
    "drawn_labels",
    "chunks_dropped",
    "unknown",
)


def token_matrix(group: Group, pairs: Pairs, max_seq_length: int, vocabulary: Vocabulary) -> tuple[np.ndarray, ...]:
    """Return rows [CLS] A [SEP] B [SEP], padded with [PAD]: (input_ids in the type of the tokens, segment_ids uint8, both
    [E, S], lengths int64 [E]).

    Without B there is one [SEP]. Segment 0 includes the first [SEP].
    """
    row = np.arange(len(pairs))
    place = np.arange(max_seq_length, dtype=np.int32)
    a_len, lengths = pairs.a_end - pairs.a_start, pairs.lengths
    in_b = place > (a_len + 1).astype(np.int32)[:, None]
    shift = np.where(in_b, (pairs.b_start - a_len - 2)[:, None], (pairs.a_start - 1)[:, None])
    ids = group.tokens.take(shift + place, mode="clip")
    outside = place >= lengths.astype(np.int32)[:, None]
    ids[outside] = vocabulary.pad_id
    ids[:, 0] = vocabulary.cls_id
    ids[row, a_len + 1] = ids[row, lengths - 1] = vocabulary.sep_id
    return ids, (in_b & ~outside).view(np.uint8), lengths


def word_starts(ids: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Return bool [E, S]: positions that start a word. A piece after a special token does, even if it is a `##` piece."""
    starts = ~vocabulary.is_continuation[ids]
    starts[:, 1:] |= vocabulary.is_special[ids[:, :-1]]
    return starts


def make_columns(
    group: Group, pairs: Pairs, config: ExampleConfig, vocabulary: Vocabulary, rngs: dict[str, np.random.Generator]
) -> examples_columns.Columns:
    """Return the seven features of some pairs, with masks drawn from the given streams."""
    ids, segment_ids, lengths = token_matrix(group, pairs, config.max_seq_length, vocabulary)
    masker = examples_masking.MASKERS[config.masking]
    candidates = ~vocabulary.is_special[ids]
    starts = word_starts(ids, vocabulary) if masker.needs_words else candidates
    wanted = examples_masking.quota(lengths, config)
    chosen = masker.choose(candidates, starts, wanted, config, rngs["mask_positions"])
    masked_ids, originals = examples_masking.replace(
        ids, chosen, vocabulary.mask_id, vocabulary.random_ids, rngs["mask_actions"], rngs["mask_tokens"]
    )
    used = np.arange(config.max_predictions) < chosen.count[:, None]
    inside = (np.arange(config.max_seq_length) < lengths[:, None]).view(np.uint8)
    return examples_columns.Columns(
        masked_ids,
        inside,
        segment_ids,
        chosen.positions,
        originals,
        used.astype(np.float32),
        pairs.labels,
    )


def count_examples(columns: examples_columns.Columns, vocabulary: Vocabulary) -> dict[str, int]:
    """Count STATISTICS of some examples, except those that only the pairs have."""
    (width, places), ids = (columns.masked_lm_ids.shape[1], columns.input_ids.shape[1]), columns.input_ids
    used = np.flatnonzero(columns.masked_lm_weights > 0)
    now = ids.ravel()[used // width * places + columns.masked_lm_positions.ravel()[used]]
    as_mask = int(np.count_nonzero(now == vocabulary.mask_id))
    as_kept = int(np.count_nonzero(now == columns.masked_lm_ids.ravel()[used]))
    tokens = int(np.count_nonzero(columns.input_mask))
    special = {token: int(np.count_nonzero(ids == token)) for token in vocabulary.special_ids.tolist()}
    return {
        "examples": len(columns),
        "tokens": tokens,
        "padding": ids.size - tokens,
        "maskable": tokens - (sum(special.values()) - special[vocabulary.pad_id]) + as_mask,
        "masked": len(used),
        "masked_as_mask": as_mask,
        "masked_as_kept": as_kept,
        "masked_as_random": len(used) - as_mask - as_kept,
        "labels_random": int(columns.next_sentence_labels.sum()),
        "unknown": special[vocabulary.unk_id],
    }
