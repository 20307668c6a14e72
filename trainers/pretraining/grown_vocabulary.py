"""Starts a model with an extended vocabulary from the weights of one with the original vocabulary.

The rows of old entries keep their weights. A new entry gets the mean of the rows of its old pieces: those that the old
tokenizer makes of its text.

V entries of the new vocabulary, H hidden size, E examples, S tokens, P masked positions.
"""

from collections.abc import Sequence

import numpy as np

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece

_TABLES = ("word_embeddings", "output_bias")  # the last parts of the paths of weights with a row per entry


def check_extension(old: Vocabulary, new: Vocabulary, old_name: str, new_name: str) -> None:
    """Raise UserError, which names a token, unless the new vocabulary begins with all entries of the old one, in order."""
    for number, token in enumerate(old.tokens):
        if number < len(new) and new.tokens[number] == token:
            continue
        place = new.ids.get(token)
        where = "lacks it" if place is None else f"has it as entry {place + 1:,}"
        raise UserError(
            f"entry {number + 1:,} of the vocabulary of {old_name} is {token!r}, but that of {new_name} {where}: prepare the "
            "dataset with the same vocab.txt, or with one that clozemill vocab --extend made from it"
        )


def old_pieces(old: Vocabulary, new: Vocabulary) -> list[list[int]]:
    """Return for each entry of an extended vocabulary the old entries that its text consists of; for old ones, themselves."""
    tokenizer, known = WordPiece(old), len(old)
    added = [tokenizer.pieces(token.removeprefix("##"), token.startswith("##")) for token in new.tokens[known:]]
    return [[number] for number in range(known)] + added


def grown_weights(weights: dict[str, np.ndarray], pieces: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Return weights for an extended vocabulary.

    Args:
        weights: arrays by path within the model; those of word embeddings, float [old entries, H], and of output biases,
            float [old entries], get more rows.
        pieces: of each entry of the extended vocabulary, see `old_pieces`.
    """
    found = dict(weights)
    for name, rows in weights.items():
        if name.rsplit("/", 1)[-1] in _TABLES:
            means = [np.mean(rows[each], axis=0, dtype=np.float64) for each in pieces[len(rows) :]]
            found[name] = np.concatenate([rows, np.array(means, rows.dtype).reshape(-1, *rows.shape[1:])])
    return found


def with_old_pieces(columns: Columns, pieces: Sequence[Sequence[int]], old: Vocabulary) -> tuple[Columns, Columns]:
    """Return examples twice, with the same text and the same of it masked: in the new entries, and in their old pieces.

    A masked entry becomes as many masked pieces as it has: all [MASK], all its own, or those of the random entry, repeated. An
    example that gets longer than S is cut in both, and ends in [SEP]. Masked entries with [UNK] among their pieces are left
    out: their text isn't known to both.

    Args:
        columns: the examples.
        pieces: of each entry, see `old_pieces`.
        old: the old vocabulary, whose special tokens are those of the new one.
    """
    size = columns.input_ids.shape[1]
    both: tuple[list, list] = ([], [])
    for row in range(len(columns)):
        used = columns.masked_lm_weights[row] > 0
        places, targets = columns.masked_lm_positions[row][used], columns.masked_lm_ids[row][used]
        shown = columns.input_ids[row][columns.input_mask[row] > 0]
        segments = columns.segment_ids[row][: len(shown)]
        original = shown.copy()
        original[places] = targets
        counts = np.array([len(pieces[token]) for token in original.tolist()])
        if counts.sum() > size:
            kept = int(np.searchsorted(np.cumsum(counts), size - 1, side="right"))
            shown, original = (np.append(ids[:kept], old.sep_id) for ids in (shown, original))
            segments, counts = np.append(segments[:kept], segments[kept - 1]), np.append(counts[:kept], 1)
            places = places[places < kept]
        places = np.array([place for place in places.tolist() if old.unk_id not in pieces[original[place]]], np.int64)
        parts = [_shown(pieces, int(one), int(other), old.mask_id) for one, other in zip(shown, original, strict=True)]
        starts = np.cumsum(counts) - counts
        wide = np.concatenate([np.arange(starts[place], starts[place] + counts[place]) for place in places] or [places])
        texts = np.concatenate([np.asarray(pieces[token]) for token in original.tolist()])
        both[0].append((shown, segments, places, original[places]))
        both[1].append((np.concatenate(parts), np.repeat(segments, counts), wide, texts[wide]))
    labels = columns.next_sentence_labels
    return _padded(both[0], size, old.pad_id, labels), _padded(both[1], size, old.pad_id, labels)


def _shown(pieces: Sequence[Sequence[int]], shown: int, original: int, mask: int) -> np.ndarray:
    """Return the old pieces that are shown in place of an entry, as many as its own."""
    return np.resize([mask] if shown == mask else pieces[shown], len(pieces[original]))


def _padded(rows: list, size: int, pad: int, labels: np.ndarray) -> Columns:
    """Return rows of (ids, segments, masked positions, their tokens) as examples of `size` tokens."""
    most = max(1, *(len(places) for _, _, places, _ in rows))
    shape, masks = (len(rows), size), (len(rows), most)
    columns = Columns(
        np.full(shape, pad, np.int64), np.zeros(shape, np.int64), np.zeros(shape, np.int64),
        np.zeros(masks, np.int64), np.zeros(masks, np.int64), np.zeros(masks, np.float32), labels,
    )  # fmt: skip
    for row, (ids, segments, places, targets) in enumerate(rows):
        columns.input_ids[row, : len(ids)], columns.input_mask[row, : len(ids)] = ids, 1
        columns.segment_ids[row, : len(ids)] = segments
        columns.masked_lm_positions[row, : len(places)], columns.masked_lm_ids[row, : len(places)] = places, targets
        columns.masked_lm_weights[row, : len(places)] = 1
    return columns
