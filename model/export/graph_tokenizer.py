"""Tokenize raw text in TensorFlow operations, with exactly the ids of the training data's tokenizer, for exported graphs.

Clean, normalise and split any Unicode text into WordPieces, and pack pairs like BERT. The vocabulary is part of the graph.
ASCII text takes a fast path. The only known difference from the Python tokenizer: a word with a character of the vocabulary
that Unicode 14.0 doesn't define yet. Invalid UTF-8 bytes are dropped.

B texts, S sequence length. `[MASK]` and other special tokens in a text are treated as text, except by `tokenize_masked`.
"""

from dataclasses import replace

import tensorflow as tf
from tensorflow_text import FastWordpieceTokenizer, normalize_utf8

from clozemill.model.conversion.characters import DROPPED, LIBRARY_DROPS, PAGE, SPACE, UNK, Characters, final_sigma
from clozemill.pipelines.common.tokenizer_rules import MAX_WORD_CHARS, REFERENCE, TextRules

PAD, CLS, SEP, MASK = "[PAD]", "[CLS]", "[SEP]", "[MASK]"
TEXTS = tf.TensorSpec([None], tf.string)
_WORD_CHAR = r"[^\x00-/:-@\[-`{-\x7f]"  # bytes of normalised text
_MAX_TOKEN_BYTES = 256  # limit of FastWordpieceTokenizer, without the ##


def clean(texts: tf.Tensor, library: bool = False) -> tf.Tensor:
    """Return texts, string [B], in NFC, without control characters, with white space collapsed to single spaces.

    library: as in TextRules: drop what the library drops, and keep accents unchanged.
    """
    texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
    texts = tf.strings.regex_replace(texts, LIBRARY_DROPS, "") if library else texts
    texts = tf.strings.regex_replace(tf.strings.regex_replace(texts, DROPPED, ""), f"{SPACE}+", " ")
    texts = tf.strings.strip(texts)
    return texts if library else normalize_utf8(texts, "NFC")


def look_up(table: tuple, codes: tf.Tensor) -> tf.Tensor:
    """Look up code points, int32 [N], in a table of `Characters`; returns rows, int32 [N, W]."""
    pages, rows = (tf.constant(part) for part in table)
    return tf.gather(tf.reshape(rows, (-1, rows.shape[-1])), tf.gather(pages, codes // PAGE) * PAGE + codes % PAGE)


def cut(ragged: tf.RaggedTensor, keep: tf.Tensor) -> tf.RaggedTensor:
    """Return the first `keep` values, int64 [B], of each row."""
    starts = ragged.row_starts()
    return tf.gather(ragged.values, tf.ragged.range(starts, starts + tf.minimum(keep, ragged.row_lengths())))


def dense(ragged: tf.RaggedTensor, length: tf.Tensor, default) -> tf.Tensor:
    """Return [B, length], each row padded with `default`; no row may be longer."""
    rows, values = tf.reshape(ragged.value_rowids(), (-1, 1)), ragged.flat_values
    columns = tf.range(tf.size(rows, tf.int64), dtype=tf.int64)[:, None] - tf.gather(ragged.row_starts(), rows)
    empty = tf.fill(tf.stack([ragged.nrows(), tf.cast(length, tf.int64)]), tf.constant(default, values.dtype))
    return tf.tensor_scatter_nd_update(empty, tf.concat([rows, columns], 1), values)


class TextOps(tf.Module):
    """The tokenizer of a vocabulary, as a graph.

    Arguments:
        tokens: the vocabulary, with [PAD], [UNK], [CLS], [SEP] and [MASK] at any position.
        cased: keep case and accents. max_seq_length: ids that a text or pair is truncated to, including special ones.
        rules: how the tokenizer differs from google-research/bert's. segments: number of segments of the model; with one,
        packing a pair is a runtime error of the graph.

    Raises ValueError for a vocabulary without the special tokens, or with a token too long for the library.
    """

    def __init__(
        self, tokens: tuple[str, ...], cased: bool, max_seq_length: int, rules: TextRules = REFERENCE, segments: int = 2
    ) -> None:
        super().__init__()
        if missing := [token for token in (PAD, UNK, CLS, SEP, MASK) if token not in tokens]:
            raise ValueError(f"the vocabulary lacks {', '.join(missing)}")
        self.cased, self.max_seq_length, self.rules = cased, max_seq_length, rules
        self._segments = segments
        self.pad, self.cls, self.sep, self.mask = (tokens.index(token) for token in (PAD, CLS, SEP, MASK))
        bare = Characters(tuple(tokens), cased, {}, rules)
        self.characters = replace(bare, substitutes=_substitutes(bare))
        entries = self.characters.entries()
        for token in entries:
            if len(token.removeprefix("##").encode()) > _MAX_TOKEN_BYTES:
                raise ValueError(f"{token!r} has more than {_MAX_TOKEN_BYTES} bytes of UTF-8: export takes no such token")
        self._pieces = _pieces(entries, rules.max_word_chars)
        self._too_long = f"{_WORD_CHAR}{{{rules.max_word_chars + 1},}}"
        # A single function, so that a graph holds the tables and the vocabulary only once.
        self.tokenize = tf.function(self._tokenize, input_signature=[TEXTS], autograph=False)

    def _tokenize(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Return the ids of raw texts, int32 [B, (pieces)], without special tokens or truncation."""
        ascii_B = tf.strings.regex_full_match(texts, r"[\x00-\x7f]*")
        plain, wide = tf.where(ascii_B)[:, 0], tf.where(~ascii_B)[:, 0]
        parts = [self._normalise_ascii(tf.gather(texts, plain)), self._normalise(tf.gather(texts, wide))]
        texts_B = tf.dynamic_stitch([tf.cast(plain, tf.int32), tf.cast(wide, tf.int32)], parts)
        return self._pieces.tokenize(tf.strings.regex_replace(texts_B, self._too_long, self.characters.unknown))

    def _normalise_ascii(self, texts: tf.Tensor) -> tf.Tensor:
        texts = texts if self.cased else tf.strings.lower(texts)
        texts = tf.strings.regex_replace(texts, r"[\x00-\x08\x0e-\x1b\x1f\x7f]", "")
        return tf.strings.regex_replace(texts, r"[\x0b\x0c\x1c-\x1e]", "" if self.rules.library else " ")

    def _normalise(self, texts: tf.Tensor) -> tf.Tensor:
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="ignore")
        if self.rules.library:
            texts = tf.strings.regex_replace(texts, LIBRARY_DROPS, "")
        texts = tf.strings.regex_replace(tf.strings.regex_replace(texts, DROPPED, ""), SPACE, " ")
        # Before NFC, which Python doesn't define for these characters.
        texts = tf.strings.regex_replace(texts, self.characters.unassigned(), self.characters.unknown)
        texts = self.lower_sigmas(texts if self.rules.library else normalize_utf8(texts, "NFC"))
        return tf.strings.unicode_encode(self._replaced(tf.strings.unicode_decode(texts, "UTF-8"))[0], "UTF-8")

    def _replaced(self, codes: tf.RaggedTensor) -> tuple[tf.RaggedTensor, tf.Tensor]:
        """Return (normalised code points, int32 [B, (characters)]; the index in `codes` of each one's source, int64)."""
        replaced = look_up(self.characters.replacements(), codes.values)
        kept = tf.not_equal(replaced, 0)
        ends = tf.cumsum(tf.reduce_sum(tf.cast(kept, tf.int64), axis=1))
        splits = tf.gather(tf.concat([tf.zeros([1], tf.int64), ends], 0), codes.row_splits)
        found = tf.RaggedTensor.from_row_splits(tf.boolean_mask(replaced, kept), splits, validate=False)
        return found, tf.where(kept)[:, 0]

    def tokenize_with_places(self, texts: tf.Tensor) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Return the pieces of clean texts, their starts and their ends in characters, each [B, (pieces)].

        A character that normalising drops belongs to the one before it, as in the Python tokenizer.
        """
        texts = tf.strings.regex_replace(texts, self.characters.unassigned(), self.characters.unknown)
        codes = tf.strings.unicode_decode(self.lower_sigmas(texts), "UTF-8")
        normal, sources = self._replaced(codes)
        normal = normal.with_values(self._without_long_words(normal))
        pieces, *edges = self._pieces.tokenize_with_offsets(tf.strings.unicode_encode(normal, "UTF-8"))
        # Convert bytes of the normalised text to its characters, then to characters of the text.
        wide = [tf.cast(normal.values >= limit, tf.int64) for limit in (0x80, 0x800, 0x10000)]
        bytes_before = tf.cumsum(1 + tf.add_n(wide), exclusive=True)
        before_text = tf.gather(tf.concat([bytes_before, [0]], 0), normal.row_starts())
        row = pieces.value_rowids()
        begin, end = (edge.values + tf.gather(before_text, row) for edge in edges)
        first = tf.searchsorted(bytes_before, begin, "right", tf.int64) - 1
        last = tf.searchsorted(bytes_before, end, "left", tf.int64) - 1
        text_begin = tf.gather(codes.row_starts(), row)
        begins = tf.gather(sources, first) - text_begin
        ends = self._ends(codes, sources, tf.gather(sources, last)) - text_begin
        return pieces, pieces.with_values(begins), pieces.with_values(ends)

    def _without_long_words(self, normal: tf.RaggedTensor) -> tf.Tensor:
        """Replace all code points of too long words by `unknown`: they become [UNK] and keep their positions."""
        codes = normal.values
        apart = [(codes >= low) & (codes <= high) for low, high in ((0, 47), (58, 64), (91, 96), (123, 127))]
        word = ~tf.reduce_any(tf.stack(apart), axis=0)
        rows = normal.value_rowids()
        before = tf.concat([[False], word], 0)[:-1] & tf.equal(rows, tf.concat([[-1], rows], 0)[:-1])
        begins = word & ~before
        number = tf.cumsum(tf.cast(begins, tf.int64))
        sizes = tf.math.unsorted_segment_sum(tf.cast(word, tf.int32), number, tf.size(number, tf.int64) + 1)
        long = word & (tf.gather(sizes, number) > self.rules.max_word_chars)
        return tf.where(long, ord(self.characters.unknown), codes)

    def _ends(self, codes: tf.RaggedTensor, sources: tf.Tensor, last: tf.Tensor) -> tf.Tensor:
        """Return the ends of pieces whose last character is `codes[last]`: the next character that normalising keeps."""
        alone = tf.equal(tf.gather(look_up(self.characters.kinds(), codes.values)[:, 0], last), ord("!"))
        edges = tf.concat([sources, codes.row_splits[-1:]], 0)
        following = tf.gather(edges, tf.searchsorted(edges, last, "right", tf.int64))
        text_end = tf.gather(codes.row_limits(), tf.gather(codes.value_rowids(), last))
        return tf.where(alone, last + 1, tf.minimum(following, text_end))

    def lower_sigmas(self, texts: tf.Tensor) -> tf.Tensor:
        """Lowercase sigmas in NFC texts, if uncased: the one letter whose lower case, σ or ς, depends on its neighbours."""
        if self.cased:
            return texts
        texts = texts if self.rules.library else tf.strings.regex_replace(texts, *final_sigma())
        return tf.strings.regex_replace(texts, "Σ", "σ")

    def tokenize_masked(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Tokenize like `tokenize`, but with the mask's id for each literal `[MASK]`."""
        parts = tf.strings.split(texts, MASK)
        pieces = self.tokenize(parts.values)
        last = tf.scatter_nd(
            parts.row_limits()[:, None] - 1, tf.ones_like(parts.row_limits()), [tf.size(parts.values, tf.int64)]
        )
        masks = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(1 - last)], self.mask), 1 - last)
        joined = tf.concat([pieces, masks], axis=1)
        return tf.RaggedTensor.from_row_splits(joined.values, tf.gather(joined.row_splits, parts.row_splits))

    def pack(self, first: tf.RaggedTensor, second: tf.RaggedTensor, length=0) -> dict[str, tf.Tensor]:
        """Return the model's inputs for texts or pairs: `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` if b has any piece.

        Args:
            first, second: int32 [B, (pieces)]. While they are too long, the longer one loses its last piece; if both have the
                same length, the second one does.
            length: int, S, at most `max_seq_length`; 0 for the longest of the batch.

        Returns `input_ids`, `input_mask`, `segment_ids`, int32 [B, S].
        """
        first_B, second_B = first.row_lengths(), second.row_lengths()
        if self._segments == 1:
            message = "the model has only one segment (type_vocab_size 1) and doesn't support pairs"
            with tf.control_dependencies(
                [tf.debugging.assert_equal(tf.reduce_sum(second_B), tf.constant(0, tf.int64), message)]
            ):
                second_B = tf.identity(second_B)
        paired_B = tf.cast(second_B > 0, tf.int64)
        limit = tf.where(tf.equal(length, 0), self.max_seq_length, tf.minimum(length, self.max_seq_length))
        budget_B = tf.cast(limit, tf.int64) - 2 - paired_B
        half_B = tf.where(paired_B > 0, (budget_B + 1) // 2, budget_B)
        first_B = tf.minimum(first_B, tf.maximum(half_B, budget_B - second_B))
        second_B = tf.minimum(second_B, budget_B - first_B)
        starts, ends = (tf.fill([first.nrows(), 1], token) for token in (self.cls, self.sep))
        closing = cut(tf.RaggedTensor.from_tensor(ends), paired_B)
        ids = tf.concat([starts, cut(first, first_B), ends, cut(second, second_B), closing], axis=1)
        longest = tf.maximum(tf.reduce_max(tf.concat([ids.row_lengths(), [2]], 0)), tf.cast(length, tf.int64))
        place_S = tf.range(longest)[None]
        used_BS = place_S < ids.row_lengths()[:, None]
        return {
            "input_ids": dense(ids, longest, self.pad),
            "input_mask": tf.cast(used_BS, tf.int32),
            "segment_ids": tf.cast(used_BS & (place_S >= first_B[:, None] + 2), tf.int32),
        }


def _pieces(entries: list[str], max_word_chars: int = MAX_WORD_CHARS) -> FastWordpieceTokenizer:
    longest = 4 * max_word_chars
    return FastWordpieceTokenizer(entries, token_out_type=tf.int32, unknown_token=UNK, max_bytes_per_word=longest)


def _substitutes(characters: Characters) -> dict[str, str]:
    """Return replacements for characters of the vocabulary that the library's newer Unicode treats as punctuation or space."""
    words = {char: f"a{char}a" for char in characters.words}
    found = _pieces([UNK, "a", *words.values()]).tokenize([*words.values()]).to_list() if words else []
    apart = [char for index, (char, pieces) in enumerate(zip(words, found, strict=True), 2) if pieces != [index]]
    return dict(zip(apart, characters.spare(), strict=False))
