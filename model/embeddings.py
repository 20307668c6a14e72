"""Embed token ids: words, positions and segments, summed and normalised (Devlin et al. 2018, section 3).

With rotary positions, only words and, if the encoder has any, segments.
"""

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout
from clozemill.model.layers import initializer, norm


class Embeddings(keras.layers.Layer):
    """The sum of word, position and segment embeddings, then LayerNorm and dropout.

    Rows are looked up and summed in float32 with any precision. In bfloat16, the gradient of a row that occurs in a batch more
    than about 256 times would stop growing: a sum in bfloat16 has 8 bits, and [MASK] or a comma occurs thousands of times.

    Call arguments:
        input_ids, segment_ids: int [B, S], S at most `max_position_embeddings`.
        position_ids: int [B, S], the positions of packed examples, which restart with each; None for 0, 1, 2, …
        seed: int32 [2] for dropout, or None outside of training.

    Returns float [B, S, H]. `word_embeddings` is a variable, float [V, H], shared with the masked-token head.
    """

    def __init__(self, config: EncoderConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        self.norm = norm(config, "layer_norm", self.dtype_policy)

    def build(self, input_shape=None) -> None:
        config = self.config
        rows = {"word": config.vocab_size, "position": config.max_position_embeddings, "segment": config.type_vocab_size}
        if config.design.rotary:
            del rows["position"]
        for name, size in rows.items():
            if size:
                named = {"name": f"{name}_embeddings", "autocast": False}
                table = self.add_weight((size, config.hidden_size), initializer(config), **named)
                setattr(self, f"{name}_embeddings", table)
        self.norm.build((None, None, config.hidden_size))
        self.built = True

    def call(self, input_ids, segment_ids, position_ids=None, seed=None):
        config = self.config
        total_BSH = ops.take(self.word_embeddings, input_ids, axis=0)
        if not config.design.rotary:
            total_BSH = total_BSH + self._positions(position_ids, ops.shape(input_ids)[1])
        if config.type_vocab_size:
            # A matrix product instead of a lookup: its gradient is a product too, not a scatter of every token onto two rows.
            kinds_BST = ops.one_hot(segment_ids, config.type_vocab_size, dtype="float32")
            total_BSH = total_BSH + ops.matmul(kinds_BST, ops.convert_to_tensor(self.segment_embeddings))
        total_BSH = ops.cast(total_BSH, self.compute_dtype)
        return dropout(self.norm(total_BSH), config.hidden_dropout_prob, seed)

    def _positions(self, position_ids, length):
        """Return the embeddings of the positions, [S, H] or [B, S, H]."""
        if position_ids is None:
            return ops.convert_to_tensor(self.position_embeddings)[:length]
        return ops.take(self.position_embeddings, position_ids, axis=0)
