"""Embed token ids: words, positions and segments, summed and normalised (Devlin et al. 2018, section 3)."""

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout


def initializer(config: EncoderConfig) -> keras.initializers.Initializer:
    """Return the reference's initializer: a normal distribution truncated at two deviations."""
    return keras.initializers.TruncatedNormal(stddev=config.initializer_range)


class Embeddings(keras.layers.Layer):
    """The sum of word, position and segment embeddings, then LayerNorm and dropout.

    Call arguments:
        input_ids, segment_ids: int [B, S], S at most `max_position_embeddings`.
        position_ids: int [B, S], the positions of packed examples, which restart with each; None for 0, 1, 2, …
        seed: int32 [2] for dropout, or None outside of training.

    Returns float [B, S, H]. `word_embeddings` is a variable, float [V, H], shared with the masked-token head.
    """

    def __init__(self, config: EncoderConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name="layer_norm", dtype=self.dtype_policy)

    def build(self, input_shape=None) -> None:
        config = self.config
        for name, rows in (
            ("word_embeddings", config.vocab_size),
            ("position_embeddings", config.max_position_embeddings),
            ("segment_embeddings", config.type_vocab_size),
        ):
            setattr(self, name, self.add_weight((rows, config.hidden_size), initializer(config), name=name))
        self.norm.build((None, None, config.hidden_size))
        self.built = True

    def call(self, input_ids, segment_ids, position_ids=None, seed=None):
        config, length = self.config, ops.shape(input_ids)[1]
        words_BSH = ops.take(self.word_embeddings, input_ids, axis=0)
        if position_ids is None:
            positions_BSH = ops.convert_to_tensor(self.position_embeddings)[:length]
        else:
            positions_BSH = ops.take(self.position_embeddings, position_ids, axis=0)
        # A matrix product instead of a lookup: its gradient is a product too, not a scatter of every token onto two rows.
        kinds_BST = ops.one_hot(segment_ids, config.type_vocab_size, dtype=self.compute_dtype)
        segments_BSH = ops.matmul(kinds_BST, ops.convert_to_tensor(self.segment_embeddings))
        return dropout(self.norm(words_BSH + positions_BSH + segments_BSH), config.hidden_dropout_prob, seed)
