"""The Transformer encoder of BERT (Devlin et al. 2018; Vaswani et al. 2017), post-LayerNorm, in pure keras.ops.

Tensors carry their shape: B batch, S sequence length, Q positions kept of it, E packed examples per row, H hidden size,
N heads, D head size.
"""

from functools import partial
from typing import Any

import keras
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout, fold
from clozemill.model.embeddings import Embeddings, initializer

_MASKED = -1e9  # finite, so that a row without any visible key doesn't become NaN

_ACTIVATIONS = {
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "gelu_erf": lambda x: ops.gelu(x, approximate=False),
    "relu": ops.relu,
}


def activation(name: str):
    """Return the activation function named by `hidden_act`."""
    return _ACTIVATIONS[name]


def selection(positions_BQ, length: int, dtype: str):
    """Return a matrix [B, Q, S] whose product with hidden_BSH picks positions; its gradient is a deterministic product too."""
    return ops.one_hot(positions_BQ, length, dtype=dtype)


def restarted_positions(example_ids_BS, cls_positions_BE):
    """Return the position of each token within its packed example, int32 [B, S], 0 for padding.

    example_ids [1 1 1 2 2 0] with examples that begin at [0 3] -> [0 1 2 0 1 0].
    """
    ids_BS = ops.cast(example_ids_BS, "int32")
    begins_BS = ops.take_along_axis(ops.cast(cls_positions_BE, "int32"), ops.maximum(ids_BS - 1, 0), axis=1)
    places_S = ops.arange(ops.shape(ids_BS)[1], dtype="int32")
    return ops.where(ids_BS > 0, places_S - begins_BS, 0)


def visible(input_mask_BS, query_positions_BQ, causal: bool, example_ids_BS=None):
    """Return which keys a query sees, bool [B, 1, Q or 1, S]: no padding and, if causal, none to its right.

    Of packed examples, it sees the keys of its own example. Padding, example 0, sees padding: a row of the attention without
    any key would have no softmax.
    """
    if example_ids_BS is None:
        mask = ops.cast(input_mask_BS, "bool")[:, None, None, :]
    else:
        queries_BQ = ops.take_along_axis(example_ids_BS, query_positions_BQ, axis=1)
        mask = queries_BQ[:, None, :, None] == example_ids_BS[:, None, None, :]
    if causal:
        keys_S = ops.arange(ops.shape(input_mask_BS)[1], dtype="int32")
        mask = ops.logical_and(mask, query_positions_BQ[:, None, :, None] >= keys_S)
    return mask


class Attention(keras.layers.Layer):
    """Multi-head attention with its output projection (no residual).

    Call arguments:
        query_BQH, hidden_BSH: inputs of the queries, and of keys and values.
        visible: bool, broadcastable to [B, N, Q, S].
        seed: int32 [2] for dropout on the probabilities, or None outside of training.

    Without active dropout, the backend's fused attention is used if it has one.
    """

    def __init__(self, config: EncoderConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        for name in ("query", "key", "value", "output_dense"):
            layer = keras.layers.Dense(
                config.hidden_size, kernel_initializer=initializer(config), name=name, dtype=self.dtype_policy
            )
            setattr(self, name, layer)

    def build(self, input_shape=None) -> None:
        for layer in (self.query, self.key, self.value, self.output_dense):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def _heads(self, x_BSH):
        return ops.reshape(x_BSH, (-1, ops.shape(x_BSH)[1], self.config.num_attention_heads, self.config.head_size))

    def call(self, query_BQH, hidden_BSH, visible, seed=None):
        query_BQND, key_BSND, value_BSND = (
            self._heads(layer(x)) for layer, x in ((self.query, query_BQH), (self.key, hidden_BSH), (self.value, hidden_BSH))
        )
        rate, scale = self.config.attention_probs_dropout_prob, self.config.head_size**-0.5
        if seed is None or rate == 0:
            mixed_BQND = ops.dot_product_attention(query_BQND, key_BSND, value_BSND, mask=visible, scale=scale)
        else:
            scores_BNQS = ops.einsum("BQND,BSND->BNQS", query_BQND * scale, key_BSND)
            scores_BNQS = ops.cast(scores_BNQS, "float32") + ops.where(visible, 0.0, _MASKED)
            probs_BNQS = dropout(ops.cast(ops.softmax(scores_BNQS), self.compute_dtype), rate, seed)
            mixed_BQND = ops.einsum("BNQS,BSND->BQND", probs_BNQS, value_BSND)
        return self.output_dense(ops.reshape(mixed_BQND, (-1, ops.shape(query_BQH)[1], self.config.hidden_size)))


class Block(keras.layers.Layer):
    """One layer: attention, then two dense layers, each with dropout, residual and LayerNorm.

    Call arguments:
        hidden_BSH: output of the previous layer.
        visible: as in Attention.
        picked_BQS: positions to compute (`selection`), or None for all. Keys and values cover all positions; everything else
            is computed for the picked ones only.
        seed: int32 [2] or None.

    Returns float [B, Q, H], Q = S without `picked_BQS`.
    """

    SITES = 3

    def __init__(self, config: EncoderConfig, index: int, **kwargs) -> None:
        super().__init__(name=f"layer_{index}", **kwargs)
        self.config, self.index = config, index
        options = {"dtype": self.dtype_policy}
        self.attention = Attention(config, name="attention", **options)
        self.attention_norm = keras.layers.LayerNormalization(
            epsilon=config.layer_norm_eps, name="attention_layer_norm", **options
        )
        self.intermediate = keras.layers.Dense(
            config.intermediate_size, kernel_initializer=initializer(config), name="intermediate", **options
        )
        self.outer = keras.layers.Dense(config.hidden_size, kernel_initializer=initializer(config), name="output", **options)
        self.outer_norm = keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, name="output_layer_norm", **options)

    def build(self, input_shape=None) -> None:
        hidden = (None, None, self.config.hidden_size)
        for layer in (self.attention, self.attention_norm, self.intermediate, self.outer_norm):
            layer.build(hidden)
        self.outer.build((None, None, self.config.intermediate_size))
        self.built = True

    def call(self, hidden_BSH, visible, picked_BQS=None, seed=None):
        rate, site = self.config.hidden_dropout_prob, 1 + self.SITES * self.index
        query_BQH = hidden_BSH if picked_BQS is None else ops.matmul(picked_BQS, hidden_BSH)
        mixed_BQH = self.attention(query_BQH, hidden_BSH, visible, seed=fold(seed, site))
        hidden_BQH = self.attention_norm(query_BQH + dropout(mixed_BQH, rate, fold(seed, site + 1)))
        inner = activation(self.config.hidden_act)(self.intermediate(hidden_BQH))
        return self.outer_norm(hidden_BQH + dropout(self.outer(inner), rate, fold(seed, site + 2)))


class Encoder(keras.Model):
    """BERT's encoder with its pooler.

    Arguments:
        config: an EncoderConfig.
        embeddings: those of another encoder, to share: they are projected to the width of this one, which has no pooler.
        dtype: a Keras dtype policy; with "mixed_bfloat16" variables, LayerNorm and softmax stay in float32.

    Call arguments:
        input_ids, input_mask, segment_ids: int [B, S]; mask 1 = a token, 0 = padding.
        positions: int [B, Q]: positions to output, or None for all. The last layer computes only these.
        training, seed: dropout is active with a seed, int32 [2]; with training=True and no seed, one is drawn from a state.
        example_ids: int [B, S], for rows of several packed examples: 1, 2, … by example, 0 = padding. Attention stays within
            an example, and positions restart with each.
        cls_positions: int [B, E], with example_ids: where each example begins, unused ones 0. `positions` begins with these.
        causal: attend to the left only, also if the configuration doesn't say so.

    Returns a dict: `sequence_output` float [B, Q, H]; `pooled_output` float [B, H], from the first of the positions ([B, E, H]
    from the first E of them with `cls_positions`); and `all_layers`, the outputs of the embeddings and of every layer,
    [B, S, H], the last one as `sequence_output`.

    Example:
        encoder = Encoder(preset("tiny"))
        ids = np.array([[2, 7, 8, 3]])
        pooled = encoder(ids, np.ones_like(ids), np.zeros_like(ids))["pooled_output"]
    """

    def __init__(self, config: EncoderConfig, name: str = "encoder", embeddings: Embeddings | None = None, **kwargs) -> None:
        super().__init__(name=name, **kwargs)
        self.config = config
        options = {"dtype": self.dtype_policy}
        self.embeddings = embeddings or Embeddings(config, name="embeddings", **options)
        self.blocks = [Block(config, index, **options) for index in range(config.num_hidden_layers)]
        self.pooler: Any = None
        self.projection: Any = None
        if embeddings is None:
            self.pooler = keras.layers.Dense(
                config.hidden_size, activation="tanh", kernel_initializer=initializer(config), name="pooler", **options
            )
        else:
            self.projection = keras.layers.Dense(
                config.hidden_size, kernel_initializer=initializer(config), name="projection", **options
            )
        self.seeds = keras.random.SeedGenerator(0, name="seeds")

    def build(self, input_shape=None) -> None:
        parts: list[Embeddings | Block] = [*self.blocks]
        if self.projection is None:
            parts = [self.embeddings, *parts]
        else:
            self.projection.build((None, None, self.embeddings.config.hidden_size))
        for layer in parts:
            layer.build()
        if self.pooler is not None:
            self.pooler.build((None, self.config.hidden_size))
        self.built = True

    def call(
        self,
        input_ids,
        input_mask,
        segment_ids,
        positions=None,
        training=False,
        seed=None,
        example_ids=None,
        cls_positions=None,
        causal=False,
    ):
        seed = self.seeds.next() if training and seed is None else seed
        length, causal = ops.shape(input_ids)[1], causal or self.config.attention == "causal"
        everywhere_BQ = ops.arange(length, dtype="int32")[None]
        seen, picked_BQS = visible(input_mask, everywhere_BQ, causal, example_ids), None
        places_BS = None if example_ids is None else restarted_positions(example_ids, cls_positions)
        layers = [self.embeddings(input_ids, segment_ids, places_BS, seed=fold(seed, 0))]
        layers = layers if self.projection is None else [self.projection(layers[0])]
        for block in self.blocks:
            if block is self.blocks[-1] and positions is not None:
                picked_BQS = selection(positions, length, self.compute_dtype)
                seen = visible(input_mask, ops.cast(positions, "int32"), causal, example_ids)
            # A function of one tensor: TensorFlow's recompute_grad supports neither None nor, in a graph, keyword arguments.
            step = partial(block, visible=seen, picked_BQS=picked_BQS, seed=seed)
            layers.append((keras.remat(step) if self.config.remat else step)(layers[-1]))
        found = {"sequence_output": layers[-1], "all_layers": layers}
        if self.pooler is not None:
            found["pooled_output"] = self.pooler(self._first(layers[-1], positions, cls_positions))
        return found

    def _first(self, hidden_BQH, positions, cls_positions_BE):
        """Return the output of each row's [CLS], or of those of its packed examples."""
        if cls_positions_BE is None:
            return hidden_BQH[:, 0]
        if positions is not None:
            return hidden_BQH[:, : ops.shape(cls_positions_BE)[1]]
        return ops.matmul(selection(cls_positions_BE, ops.shape(hidden_BQH)[1], self.compute_dtype), hidden_BQH)
