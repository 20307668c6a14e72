"""The Transformer encoder, in pure keras.ops: BERT's (Devlin et al. 2018) and ModernBERT's (Warner et al. 2024).

The architectures share everything here and differ in the choices of `config.Design`.

Tensors carry their shape: B batch, S sequence length, Q positions kept of it, E packed examples per row, H hidden size,
N heads, D head size.
"""

from functools import partial
from typing import Any

import keras
from keras import ops

from clozemill.model.attention import Attention, make_view
from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout, fold
from clozemill.model.embeddings import Embeddings
from clozemill.model.layers import Transform, activation, dense, norm


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


def _applied(layer, x):
    return layer(x) if layer else x


def _unchanged(_layer, x):
    return x


class Block(keras.layers.Layer):
    """One layer: attention, then two dense layers, each with dropout, residual and LayerNorm, before or after.

    Call arguments:
        hidden_BSH: output of the previous layer.
        view: what the queries see (attention.View).
        picked_BQS: positions to compute (`selection`), or None for all. Keys and values cover all positions; everything else
            is computed for the picked ones only.
        seed: int32 [2] or None.

    Returns float [B, Q, H], Q = S without `picked_BQS`.
    """

    SITES = 3

    def __init__(self, config: EncoderConfig, index: int, **kwargs) -> None:
        super().__init__(name=f"layer_{index}", **kwargs)
        self.config, self.index, design, policy = config, index, config.design, self.dtype_policy
        self.attention = Attention(config, name="attention", dtype=policy)
        self.attention_norm = norm(config, "attention_layer_norm", policy)
        if design.pre_norm and index == 0:  # the embeddings are normalised already
            self.attention_norm = None
        self.intermediate = dense(config, config.intermediate_size, "intermediate", policy)
        self.gate = dense(config, config.intermediate_size, "gate", policy) if design.gated else None
        self.outer = dense(config, config.hidden_size, "output", policy)
        self.outer_norm = norm(config, "output_layer_norm", policy)

    def build(self, input_shape=None) -> None:
        hidden = (None, None, self.config.hidden_size)
        for layer in (self.attention, self.attention_norm, self.intermediate, self.gate, self.outer_norm):
            if layer is not None:
                layer.build(hidden)
        self.outer.build((None, None, self.config.intermediate_size))
        self.built = True

    def call(self, hidden_BSH, view, picked_BQS=None, seed=None):
        rate, site = self.config.hidden_dropout_prob, 1 + self.SITES * self.index
        before, after = (_applied, _unchanged) if self.config.design.pre_norm else (_unchanged, _applied)
        seen_BSH = before(self.attention_norm, hidden_BSH)
        kept_BQH = hidden_BSH if picked_BQS is None else ops.matmul(picked_BQS, hidden_BSH)
        query_BQH = kept_BQH if seen_BSH is hidden_BSH else seen_BSH if picked_BQS is None else ops.matmul(picked_BQS, seen_BSH)
        mixed_BQH = self.attention(query_BQH, seen_BSH, view=view, seed=fold(seed, site))
        hidden_BQH = after(self.attention_norm, kept_BQH + dropout(mixed_BQH, rate, fold(seed, site + 1)))
        outer_BQH = self.outer(self._inner(before(self.outer_norm, hidden_BQH)))
        return after(self.outer_norm, hidden_BQH + dropout(outer_BQH, rate, fold(seed, site + 2)))

    def _inner(self, hidden_BQH):
        inner = activation(self.config.hidden_act)(self.intermediate(hidden_BQH))
        return inner if self.gate is None else inner * self.gate(hidden_BQH)


class Encoder(keras.Model):
    """The encoder with its pooler.

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
        causal: whether tokens attend to the left only (default: as the configuration says).

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
        self.final_norm = norm(config, "final_layer_norm", self.dtype_policy) if config.design.pre_norm else None
        self.pooler: Any = None
        self.projection: Any = None
        if embeddings is not None:
            self.projection = dense(config, config.hidden_size, "projection", self.dtype_policy)
        elif config.design.transforms_tokens:
            self.pooler = Transform(config, name="pooler", **options)
        else:
            self.pooler = dense(config, config.hidden_size, "pooler", self.dtype_policy, activation="tanh")
        self.seeds = keras.random.SeedGenerator(0, name="seeds")

    def build(self, input_shape=None) -> None:
        parts: list[Embeddings | Block] = [*self.blocks]
        if self.projection is None:
            parts = [self.embeddings, *parts]
        else:
            self.projection.build((None, None, self.embeddings.config.hidden_size))
        for layer in parts:
            layer.build()
        for last, shape in ((self.final_norm, (None, None)), (self.pooler, (None,))):
            if last is not None:
                last.build((*shape, self.config.hidden_size))
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
        causal=None,
    ):
        seed = self.seeds.next() if training and seed is None else seed
        causal, length = self.config.attention == "causal" if causal is None else causal, ops.shape(input_ids)[1]
        make = partial(make_view, self.config, tokens=(input_mask, example_ids), causal=causal)
        restarted_BS = None if example_ids is None else restarted_positions(example_ids, cls_positions)
        places_BS = ops.arange(length, dtype="int32")[None] if restarted_BS is None else restarted_BS
        views = {}  # of layers that see as far
        layers = [self.embeddings(input_ids, segment_ids, restarted_BS, seed=fold(seed, 0))]
        layers = layers if self.projection is None else [self.projection(layers[0])]
        for block in self.blocks:
            window, picked_BQS = self.config.window(block.index), None
            if block is self.blocks[-1] and positions is not None:
                picked_BQS = selection(positions, length, self.compute_dtype)
                views[window] = make(block.index, places_BS=places_BS, positions_BQ=positions)
            elif window not in views:
                views[window] = make(block.index, places_BS=places_BS)
            # A function of one tensor: TensorFlow's recompute_grad supports neither None nor, in a graph, keyword arguments.
            step = partial(block, view=views[window], picked_BQS=picked_BQS, seed=seed)
            layers.append((keras.remat(step) if self.config.remat else step)(layers[-1]))
        layers[-1] = _applied(self.final_norm, layers[-1])
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
