"""Replaced-token detection (ELECTRA, Clark et al. 2020): a small generator replaces masked tokens, and the encoder finds them.

B batch, S sequence length, P masked positions, H hidden size of the encoder, V vocabulary.
"""

import keras
from keras import ops

from clozemill.model.config import EncoderConfig, generator_config
from clozemill.model.embeddings import Embeddings
from clozemill.model.encoder import Encoder
from clozemill.model.heads import MaskedLMHead
from clozemill.model.layers import activation, initializer
from clozemill.model.masking import put_back
from clozemill.model.random_bits import BITS, draw, mix

_SAMPLE = 16  # purpose of random numbers
_FLOAT_BITS = 24  # that a float32 holds exactly


class Generator(keras.layers.Layer):
    """A narrow masked language model over the embeddings of another encoder.

    Arguments:
        config: the EncoderConfig of that encoder. embeddings: its embeddings, which this layer neither builds nor owns.
        size: the generator's width as a fraction of the encoder's.

    Call arguments: those of Encoder, and words_VH, the word embeddings. Returns logits, float32 [B, P, V], at `positions`.
    """

    def __init__(self, config: EncoderConfig, embeddings: Embeddings, size: float, name: str = "generator", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        own, options = generator_config(config, size), {"dtype": self.dtype_policy}
        self.encoder = Encoder(own, embeddings=embeddings, **options)
        self.masked_lm = MaskedLMHead(config, width=own.hidden_size, **options)

    def build(self, input_shape=None) -> None:
        self.encoder.build()
        self.masked_lm.build()
        self.built = True

    def call(
        self,
        input_ids,
        input_mask,
        segment_ids,
        words_VH=None,
        positions=None,
        seed=None,
        example_ids=None,
        cls_positions=None,
        causal=None,
    ):
        options = {"example_ids": example_ids, "cls_positions": cls_positions, "causal": causal}
        encoded = self.encoder(input_ids, input_mask, segment_ids, positions=positions, seed=seed, **options)
        return self.masked_lm(encoded["sequence_output"], words_VH)


class ReplacedTokenHead(keras.layers.Layer):
    """Dense, activation, and one logit per token: above 0 if it was replaced.

    Call argument: hidden_BSH, float [B, S, H]. Returns float32 [B, S].
    """

    def __init__(self, config: EncoderConfig, name: str = "replaced_token", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config = config
        for part, units in (("transform", config.hidden_size), ("output_dense", 1)):
            layer = keras.layers.Dense(units, kernel_initializer=initializer(config), name=part, dtype=self.dtype_policy)
            setattr(self, part, layer)

    def build(self, input_shape=None) -> None:
        for layer in (self.transform, self.output_dense):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, hidden_BSH):
        hidden_BSH = activation(self.config.hidden_act)(self.transform(hidden_BSH))
        return ops.cast(self.output_dense(hidden_BSH)[:, :, 0], "float32")


def sampling_keys(input_ids_BS, seed):
    """Return the keys of a batch's samples, int32 [B, 2], from its tokens and the seed of the step, int32 [2] or None.

    The second number of a seed differs between micro-batches and replicas, and isn't used: samples don't depend on them.
    Without a seed, keys depend on the tokens alone, and an evaluation gives the same result for any batch size.
    """
    places_S = ops.arange(input_ids_BS.shape[1], dtype="int32")
    mixed_BS = mix(ops.cast(input_ids_BS, "int32") + places_S * (1 << 21))  # ids have at most 21 bits
    keys_B2 = ops.stack([ops.sum(mixed_BS, axis=1), ops.sum(mix(mixed_BS), axis=1)], axis=1)
    return keys_B2 if seed is None else keys_B2 + ops.cast(seed, "int32")[0]


def sample(logits_BPV, keys_B2):
    """Draw a token for each position with the probabilities of its logits, int32 [B, P].

    A uniform number is looked up among the cumulative probabilities. That has the distribution of Gumbel noise on the logits,
    but takes one random number per position instead of one per entry of the vocabulary.
    """
    slots_1P = ops.arange(logits_BPV.shape[1], dtype="int32")[None]
    lots_BP = ops.right_shift(draw(keys_B2, slots_1P, _SAMPLE), BITS - _FLOAT_BITS)
    uniform_BP = ops.cast(lots_BP, "float32") * (1.0 / (1 << _FLOAT_BITS))
    sums_BPV = ops.cumsum(ops.softmax(ops.cast(logits_BPV, "float32")), axis=-1)
    below_BPV = sums_BPV <= uniform_BP[:, :, None] * sums_BPV[:, :, -1:]  # rounding: the last sum isn't quite 1
    return ops.minimum(ops.sum(ops.cast(below_BPV, "int32"), axis=-1), logits_BPV.shape[2] - 1)


def replaced(original_ids_BS, positions_BP, weights_BP, samples_BP):
    """Return (tokens with samples at the positions, int32 [B, S]; 1 where they differ from the original, int32 [B, S])."""
    ids_BS, _ = put_back(original_ids_BS, positions_BP, weights_BP, samples_BP)
    return ids_BS, ops.cast(ids_BS != original_ids_BS, "int32")
