"""Sentence vectors of an encoder, and the contrastive loss that trains them: SimCSE (Gao et al. 2021), as pure functions.

B texts, S sequence length, H hidden size.
"""

from keras import ops

from clozemill.model.losses import weighted

_EXCLUDED = -1e9  # a logit
_LEAST_SQUARE = 1e-24  # of a vector's length, so that a vector of zeros stays one


def pooled(hidden_BSH, input_mask_BS, pooling: str):
    """Return one vector per text, float32 [B, H].

    Args:
        hidden_BSH: outputs of a layer, floats.
        input_mask_BS: 1 = a token, 0 = padding; at least one token per text.
        pooling: "cls" for the first position, "mean" for the mean over all tokens, special ones included.
    """
    if pooling == "cls":
        return ops.cast(hidden_BSH[:, 0], "float32")
    mask_BS1 = ops.cast(input_mask_BS, "float32")[:, :, None]
    return ops.sum(ops.cast(hidden_BSH, "float32") * mask_BS1, axis=1) / ops.sum(mask_BS1, axis=1)


def normalised(vectors_BH):
    """Return vectors of length 1, so that products are cosines."""
    return vectors_BH * ops.rsqrt(ops.maximum(ops.sum(ops.square(vectors_BH), axis=-1, keepdims=True), _LEAST_SQUARE))


def contrastive(vectors_2BH, texts_B, weights_B, temperature: float) -> tuple:
    """Return the sums of cross entropy (nats), weights and hits: each text has to find itself among the others.

    Every text was encoded twice, with different dropout or as two spans of it. The first vector of a text is compared with the
    second vectors of all texts, and the classes of the cross entropy are these texts. A hit: a text's own second vector is the
    most similar one.

    Args:
        vectors_2BH: vectors of length 1, float32 [2B, H]: the first ones of all texts, then the second ones.
        texts_B: numbers of the texts, int [B]. Rows of the same number are the same text, and don't count as others.
        weights_B: float [B]; a text of weight 0 is padding: it neither counts nor is compared with.
        temperature: divisor of the cosines.
    """
    count = ops.shape(weights_B)[0]
    similarities_BB = ops.matmul(vectors_2BH[:count], ops.transpose(vectors_2BH[count:])) / temperature
    rows_B = ops.arange(count, dtype="int32")
    own_BB = rows_B[:, None] == rows_B[None]
    other_BB = ops.logical_and(texts_B[:, None] != texts_B[None], weights_B[None] > 0)
    logits_BB = ops.where(ops.logical_or(own_BB, other_BB), similarities_BB, _EXCLUDED)
    return weighted(logits_BB, rows_B, weights_B)
