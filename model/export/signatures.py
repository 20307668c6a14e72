"""Outputs of exported models for raw text, in TensorFlow operations: filled masks, labels, tags, spans, vectors.

B texts, S sequence length, L labels, W words, M masks of a text, H hidden size. To add a task type, add it to ANSWERS.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from clozemill.model.export.graph_tokenizer import TextOps, clean, cut, dense
from clozemill.model.task_model import MAX_QUESTION

Ask = Callable[[dict[str, tf.Tensor]], tf.Tensor]  # the three id tensors to logits, float32


def fill_mask(model: keras.Model, ops: TextOps, text: tf.Tensor, text_pair: tf.Tensor, k: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the k most likely tokens at each literal `[MASK]`.

    Args:
        text, text_pair: string [B], the pair's "" for none. k: int32, at least 1.

    Returns `tokens` string, `token_ids` int32 and `probabilities` float32, [B, M, k], likeliest first, and `positions` int32
    [B, M]: each mask's position in the sequence. If a text has fewer masks than another, the rest is -1, with tokens "".
    """
    inputs = ops.pack(ops.tokenize_masked(text), ops.tokenize_masked(text_pair))
    masks_BS = tf.equal(inputs["input_ids"], ops.mask)
    places = tf.where(masks_BS)
    hidden_BSH = model.encoder(*inputs.values())["sequence_output"]
    hidden_N1H = tf.gather_nd(hidden_BSH, places)[:, None]
    logits_NV = model.masked_lm(hidden_N1H, model.encoder.embeddings.word_embeddings)[:, 0]
    best = tf.math.top_k(tf.nn.softmax(logits_NV), tf.minimum(k, len(ops.characters.tokens)))
    tokens = tf.gather(tf.constant(ops.characters.tokens), best.indices)
    counts = tf.reduce_sum(tf.cast(masks_BS, tf.int64), axis=1)
    values = {"tokens": tokens, "token_ids": best.indices, "probabilities": best.values}
    found = {name: tf.RaggedTensor.from_row_lengths(value, counts).to_tensor() for name, value in values.items()}
    positions = tf.RaggedTensor.from_row_lengths(tf.cast(places[:, 1], tf.int32), counts)
    return found | {"positions": positions.to_tensor(-1)}


def classify(ask: Ask, ops: TextOps, task, text: tf.Tensor, text_pair: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return `label` string [B], `probabilities` float32 [B, L], and the names of the labels in order, `labels` [L]."""
    probs_BL = tf.nn.softmax(ask(ops.pack(ops.tokenize(text), ops.tokenize(text_pair))))
    labels_L = tf.constant(task.labels)
    return {"label": tf.gather(labels_L, tf.argmax(probs_BL, -1)), "probabilities": probs_BL, "labels": labels_L}


def multilabel(ask: Ask, ops: TextOps, task, text: tf.Tensor, text_pair: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return `probabilities` float32 [B, L] of the `labels` [L], and `given` bool [B, L]: at or above the task's threshold."""
    probs_BL = tf.sigmoid(ask(ops.pack(ops.tokenize(text), ops.tokenize(text_pair))))
    return {"probabilities": probs_BL, "given": probs_BL >= task.threshold, "labels": tf.constant(task.labels)}


def regress(ask: Ask, ops: TextOps, task, text: tf.Tensor, text_pair: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return `score` float32 [B]."""
    return {"score": ask(ops.pack(ops.tokenize(text), ops.tokenize(text_pair)))[:, 0]}


def embed(ask: Ask, ops: TextOps, task, text: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return `sentence_embedding` float32 [B, H], vectors of length 1."""
    pieces = ops.tokenize(text)
    return {"sentence_embedding": ask(ops.pack(pieces, pieces[:, :0]))}


def tags(ask: Ask, ops: TextOps, task, text: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return a tag for every word; words are separated by white space, and tagged at their first piece.

    Returns `words` and `tags`, string [B, W], `probabilities` float32 [B, W] of those tags, and `lengths` int32 [B], each
    text's words. Words that don't fit into the sequence have the tag "" and the probability 0.
    """
    words = tf.strings.split(clean(text, ops.rules.library))
    pieces = ops.tokenize(words.values)
    unknown = ops.characters.tokens.index("[UNK]")
    missing = tf.cast(tf.equal(pieces.row_lengths(), 0), tf.int64)
    filler = tf.RaggedTensor.from_row_lengths(tf.fill([tf.reduce_sum(missing)], unknown), missing)
    pieces = tf.concat([pieces, filler], axis=1)  # a word of only accents: [UNK]
    text_pieces = tf.RaggedTensor.from_row_splits(pieces.values, tf.gather(pieces.row_splits, words.row_splits))
    rows = words.value_rowids()
    starts = pieces.row_starts() - tf.gather(text_pieces.row_starts(), rows)  # within the text
    fits = starts + pieces.row_lengths() <= ops.max_seq_length - 2
    probs_BSL = tf.nn.softmax(ask(ops.pack(text_pieces, text_pieces[:, :0])))
    probs_NL = tf.gather_nd(probs_BSL, tf.stack([rows, tf.where(fits, starts + 1, tf.zeros_like(starts))], axis=1))
    names = tf.where(fits, tf.gather(tf.constant(task.labels), tf.argmax(probs_NL, -1)), "")
    longest = tf.reduce_max(tf.concat([words.row_lengths(), [0]], 0))
    probs_N = tf.where(fits, tf.reduce_max(probs_NL, -1), 0.0)
    values = (("words", words.values, ""), ("tags", names, ""), ("probabilities", probs_N, 0.0))
    found = {name: dense(words.with_values(value), longest, default) for name, value, default in values}
    return found | {"lengths": tf.cast(words.row_lengths(), tf.int32)}


def spans(ask: Ask, ops: TextOps, task, question: tf.Tensor, context: tf.Tensor) -> dict[str, tf.Tensor]:
    """Return the best span of the context, of at most `task.max_answer` tokens.

    A context that doesn't fit into the sequence is truncated.

    Returns `answer` string [B], in the form of `clean`, "" for none; `probability` float32 [B] among all spans;
    `no_answer_probability` float32 [B], of [CLS] relative to the best span, 0 if all questions of the task have an answer.
    """
    asked, contexts = ops.tokenize(question), clean(context, ops.rules.library)
    asked = asked[:, : min(MAX_QUESTION, ops.max_seq_length // 2)]
    pieces, begin, end = ops.tokenize_with_places(contexts)
    room_B = ops.max_seq_length - 3 - asked.row_lengths()
    pieces, begin, end = (cut(each, room_B) for each in (pieces, begin, end))
    logits_BS2 = ask(ops.pack(asked, pieces))
    size = tf.shape(logits_BS2)[1]
    first_B, none_B = asked.row_lengths() + 2, tf.equal(pieces.row_lengths(), 0)
    place_S = tf.range(tf.cast(size, tf.int64))[None]
    inside_BS = (place_S >= first_B[:, None]) & (place_S < (first_B + pieces.row_lengths())[:, None])
    near_SS = tf.linalg.band_part(tf.ones([size, size], tf.bool), 0, tf.minimum(task.max_answer, size) - 1)
    allowed_BSS = inside_BS[:, :, None] & inside_BS[:, None] & near_SS
    scores_BSS = tf.where(allowed_BSS, logits_BS2[:, :, None, 0] + logits_BS2[:, None, :, 1], -1e9)
    flat = tf.reshape(scores_BSS, [-1, size * size])
    best_B, score_B = tf.argmax(flat, -1), tf.reduce_max(flat, -1)
    no_B = tf.sigmoid(tf.reduce_sum(logits_BS2[:, 0], -1) - score_B) if task.no_answer else tf.zeros_like(score_B)
    zero, row_B = tf.constant(0, tf.int64), tf.range(tf.shape(flat)[0], dtype=tf.int64)
    begins, ends = (dense(each, tf.cast(size, tf.int64), 0) for each in (begin, end))

    def place(at_B, table):
        return tf.gather_nd(table, tf.stack([row_B, tf.where(none_B, zero, at_B - first_B)], axis=1))

    start_B = place(best_B // tf.cast(size, tf.int64), begins)
    length_B = tf.where(none_B | (no_B > 0.5), zero, place(best_B % tf.cast(size, tf.int64), ends) - start_B)
    answer_B = tf.strings.substr(contexts, tf.where(length_B > 0, start_B, zero), length_B, unit="UTF8_CHAR")
    probability_B = tf.where(none_B, 0.0, tf.exp(score_B - tf.reduce_logsumexp(flat, -1)))
    return {"answer": answer_B, "probability": probability_B, "no_answer_probability": no_B}


ANSWERS: dict[str, tuple[Callable[..., dict], tuple[str, ...]]] = {  # task type -> function, names of its input texts
    "classify": (classify, ("text", "text_pair")),
    "multilabel": (multilabel, ("text", "text_pair")),
    "regress": (regress, ("text", "text_pair")),
    "tags": (tags, ("text",)),
    "spans": (spans, ("question", "context")),
    "embed": (embed, ("text",)),
}
