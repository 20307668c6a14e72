"""Random spans of texts, two of which have to find each other in contrastive training.

Dropout alone changes the vectors of a shallow encoder so little that a text finds itself at once. Two spans of a text share its
topic, but few words ("independent cropping", Izacard et al. 2021, arXiv:2112.09118).

B texts, S sequence length, W its part that spans need.
"""

from keras import ops

from clozemill.model.dropout import uniform

SHORTEST, LONGEST = 10, 30  # percent of a text's tokens
LEAST = 8  # tokens of a span, or all of a shorter text
_SPECIAL = 2  # [CLS] and [SEP]


def span_places(tokens_B, draws_2B) -> tuple:
    """Return where spans begin, 0 for a text's first token, and how many tokens they have, int32 [B] each.

    Args:
        tokens_B: tokens of the texts without special ones, int [B].
        draws_2B: numbers from 0 to below 1, float32 [2, B]: for the lengths, and for the places.
    """
    tokens_B = ops.cast(tokens_B, "float32")
    wanted_B = ops.round((SHORTEST + (LONGEST - SHORTEST) * draws_2B[0]) / 100 * tokens_B)
    sizes_B = ops.minimum(ops.maximum(wanted_B, float(LEAST)), tokens_B)
    begins_B = ops.minimum(ops.floor(draws_2B[1] * (tokens_B - sizes_B + 1)), tokens_B - sizes_B)  # the product is rounded
    return ops.cast(begins_B, "int32"), ops.cast(sizes_B, "int32")


def _width(length):
    """Return the positions that spans of rows of `length` positions need. Both are integers, or scalar tensors, int32."""
    longest = (length - _SPECIAL) * LONGEST // 100 + 1
    if isinstance(length, int):
        return min(length, max(LEAST, longest) + _SPECIAL)
    return ops.minimum(length, ops.maximum(longest, LEAST) + _SPECIAL)


def cropped(inputs: dict, seed) -> dict:
    """Return each text as [CLS], a random span of its tokens, [SEP].

    Args:
        inputs: tensors [B, S] by name: `input_ids`, and `input_mask`, 1 = a token, 0 = padding. Others are cut
            to the same width.
        seed: int32 [2].

    Returns tensors [B, W], of the same dtypes; the ids of padding mean nothing.

    Example, with a span of two tokens: [CLS] a b c d e [SEP] -> [CLS] c d [SEP]
    """
    mask_BS = inputs["input_mask"]
    tokens_B = ops.sum(ops.cast(mask_BS, "int32"), axis=1) - _SPECIAL
    begins_B, sizes_B = span_places(tokens_B, uniform((2, ops.shape(mask_BS)[0]), seed))
    width = _width(ops.shape(mask_BS)[1])
    places_1W, sizes_B1 = ops.arange(width, dtype="int32")[None], sizes_B[:, None]
    inner_BW = places_1W + begins_B[:, None]
    last_BW = ops.zeros_like(inner_BW) + tokens_B[:, None] + 1
    sources_BW = ops.where(places_1W == 0, 0, ops.where(places_1W <= sizes_B1, inner_BW, last_BW))
    found = {name: value[:, :width] for name, value in inputs.items()}
    found["input_ids"] = ops.take_along_axis(inputs["input_ids"], sources_BW, axis=1)
    return found | {"input_mask": ops.cast(places_1W < sizes_B1 + _SPECIAL, mask_BS.dtype)}


def mean_span(tokens: float) -> float:
    """Return the mean tokens of the spans of a text with special tokens, for estimates of cost."""
    return min(tokens, max(float(LEAST), (SHORTEST + LONGEST) / 200 * (tokens - _SPECIAL)) + _SPECIAL)
