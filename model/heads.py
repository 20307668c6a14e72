"""The pretraining heads: masked tokens, and whether B follows A (Devlin et al. 2018, 3.1)."""

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.layers import Transform, initializer


class MaskedLMHead(Transform):
    """Dense, activation, LayerNorm, then a product with the word embeddings, plus a bias per token.

    Arguments: config, the EncoderConfig of the embeddings; width, that of the inputs if it differs from theirs.

    Call arguments: hidden_BPH, float [B, P, H]; words_VH, the encoder's word embeddings.
    Returns logits, float32 [B, P, V].
    """

    def __init__(self, config: EncoderConfig, name: str = "masked_lm", width: int = 0, **kwargs) -> None:
        super().__init__(config, name=name, width=width, **kwargs)

    def build(self, input_shape=None) -> None:
        super().build()
        self.output_bias = self.add_weight((self.config.vocab_size,), "zeros", name="output_bias")

    def call(self, hidden_BPH, words_VH):
        hidden_BPH = super().call(hidden_BPH)
        words_VH = ops.cast(ops.convert_to_tensor(words_VH), self.compute_dtype)
        logits_BPV = ops.matmul(hidden_BPH, ops.transpose(words_VH))
        return ops.cast(logits_BPV, "float32") + ops.cast(self.output_bias, "float32")


class NextSentenceHead(keras.layers.Layer):
    """Two logits from the pooled output: B follows A (0), or it is random or swapped (1).

    Call argument: pooled_BH, float [B, H], or [B, E, H] of packed examples. Returns float32 [B, 2] or [B, E, 2].
    """

    def __init__(self, config: EncoderConfig, name: str = "next_sentence", **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.dense = keras.layers.Dense(2, kernel_initializer=initializer(config), name="dense", dtype=self.dtype_policy)
        self.config = config

    def build(self, input_shape=None) -> None:
        self.dense.build((None, self.config.hidden_size))
        self.built = True

    def call(self, pooled_BH):
        return ops.cast(self.dense(pooled_BH), "float32")
