"""Multi-head attention (Vaswani et al. 2017), over all positions or the nearest ones, with or without rotary positions.

Tensors carry their shape: B batch, S sequence length, Q positions kept of it, N heads, D head size, H = N D; C positions of a
chunk, K = 3 C positions of a chunk and its neighbours.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops

from clozemill.model.config import EncoderConfig
from clozemill.model.dropout import dropout
from clozemill.model.layers import dense

_MASKED = -1e9  # finite, so that a row without any visible key doesn't become NaN


@dataclass(frozen=True)
class Reach:
    """Which keys the queries of a layer see, for kernels that compute it from these numbers instead of reading a mask.

    groups: int [B, S]: a query sees the keys with its own number. Padding is 0; by the mask it may see other keys, but what it
        sees is never used.
    packed: whether they are the numbers of packed examples; if not, they are the input mask, 1s and then 0s.
    causal: whether a query sees no keys to its right. window: the largest distance of a key, 0 for any.
    complete: whether the queries are all positions.
    """

    groups: Any
    packed: bool
    causal: bool
    window: int
    complete: bool


@dataclass(frozen=True)
class View:
    """What the queries of a layer see.

    visible: bool, broadcastable to [B, N, Q, S]; with `chunk`, [B * chunks, 1, C, K].
    reach: the same, as a Reach.
    queries, keys: rotations of the queries and keys (`rotation`), or None.
    chunk: C, if each chunk of queries is to see only its own and the neighbouring chunks of keys; 0: all keys.
    choose: where the length isn't known yet, instead of `visible`: calls a function with the view in chunks or with that of all
        keys, whichever suits the length, and returns its result.
    """

    visible: Any
    reach: Reach
    queries: tuple | None = None
    keys: tuple | None = None
    chunk: int = 0
    choose: Callable[[Callable], Any] | None = None


def visible(input_mask_BS, query_positions_BQ, causal: bool, example_ids_BS=None, window: int = 0):
    """Return which keys a query sees, bool [B, 1, Q or 1, S]: no padding and, if causal, none to its right.

    Of packed examples, it sees the keys of its own example. Padding, example 0, sees padding: a row of the attention without
    any key would have no softmax. window: the largest distance of a key, 0 for any.
    """
    if example_ids_BS is None:
        mask = ops.cast(input_mask_BS, "bool")[:, None, None, :]
    else:
        queries_BQ = ops.take_along_axis(example_ids_BS, query_positions_BQ, axis=1)
        mask = queries_BQ[:, None, :, None] == example_ids_BS[:, None, None, :]
    keys_S = ops.arange(ops.shape(input_mask_BS)[1], dtype="int32")
    if causal:
        mask = ops.logical_and(mask, query_positions_BQ[:, None, :, None] >= keys_S)
    if window:
        mask = ops.logical_and(mask, ops.abs(query_positions_BQ[:, None, :, None] - keys_S) <= window)
    return mask


def chunks(x, size: int):
    """Return [B, S, ...] in chunks of C positions, [B * chunks, C, ...], the last one filled up with zeros."""
    missing = -ops.shape(x)[1] % size
    filled = ops.pad(x, ((0, 0), (0, missing), *((0, 0),) * (len(x.shape) - 2)))
    return ops.reshape(filled, (-1, size, *x.shape[2:]))


def neighbours(x, size: int):
    """Return each chunk of [B, S, ...] between its neighbours, [B * chunks, K, ...], zeros beyond the ends."""
    length, rest = ops.shape(x)[1], tuple(x.shape[2:])
    count = -(-length // size)
    filled = ops.pad(x, ((0, 0), (size, (count + 1) * size - length), *((0, 0),) * len(rest)))
    apart = ops.reshape(filled, (-1, count + 2, size, *rest))
    around = ops.concatenate([apart[:, :-2], apart[:, 1:-1], apart[:, 2:]], axis=2)
    return ops.reshape(around, (-1, 3 * size, *rest))


def visible_in_chunks(groups_BS, causal: bool, window: int):
    """Return which keys around its chunk a query sees, bool [B * chunks, 1, C, K], C = window: the nearest of its group.

    groups: int [B, S], numbers of packed examples or the input mask; 0 is padding, which sees padding.
    """
    same = chunks(groups_BS, window)[:, None, :, None] == neighbours(groups_BS, window)[:, None, None, :]
    away = np.arange(3 * window)[None] - (window + np.arange(window)[:, None])
    return ops.logical_and(same, (abs(away) <= window) & (away <= 0 if causal else True))


def in_chunks(attend: Callable, size: int, query_BQND, key_BSND, value_BSND):
    """Return `attend` of queries, keys and values, [B, Q, N, D]; with a size of chunks, these become rows of the batch."""
    if not size:
        return attend(query_BQND, key_BSND, value_BSND)
    length = ops.shape(query_BQND)[1]
    mixed = attend(chunks(query_BQND, size), neighbours(key_BSND, size), neighbours(value_BSND, size))
    whole = -(-length // size) * size
    return ops.reshape(mixed, (-1, whole, *mixed.shape[2:]))[:, :length]


def masked(attend: Callable, view: View, *tensors):
    """Return `attend` of queries, keys, values and, by name, the `mask` of a view, which may take them in chunks."""
    if view.choose:
        return view.choose(lambda chosen: masked(attend, chosen, *tensors))
    return in_chunks(partial(attend, mask=view.visible), view.chunk, *tensors)


def plain_attention(query_BQND, key_BSND, value_BSND, view: View, scale: float):
    """Return the values weighted by the attention, float [B, Q, N, D], from the mask of a view and without a kernel."""
    attend = partial(ops.dot_product_attention, scale=scale, flash_attention=False)
    return masked(attend, view, query_BQND, key_BSND, value_BSND)


_kernel: ContextVar[Callable] = ContextVar("kernel", default=plain_attention)


@contextlib.contextmanager
def attention_kernel(kernel: Callable) -> Iterator[None]:
    """Return a context in which models compute attention without dropout by a function like `plain_attention`."""
    token = _kernel.set(kernel)
    try:
        yield
    finally:
        _kernel.reset(token)


def rotation(positions_BX, theta: float, size: int) -> tuple:
    """Return cosines and sines of RoPE's angles (Su et al. 2021), float32 [B or 1, X, 1, D / 2]."""
    frequencies = (1.0 / theta ** (np.arange(0, size, 2, dtype=np.float32) / size)).astype(np.float32)
    angles = ops.cast(positions_BX, "float32")[:, :, None, None] * frequencies
    return ops.cos(angles), ops.sin(angles)


def rotated(x_BXND, angles: tuple | None):
    """Return heads turned by their positions, in float32 as in transformers: dimension d is paired with d + D / 2."""
    if angles is None:
        return x_BXND
    cosines, sines = angles
    one, two = ops.split(ops.cast(x_BXND, "float32"), 2, axis=-1)
    turned = ops.concatenate([one * cosines - two * sines, two * cosines + one * sines], axis=-1)
    return ops.cast(turned, x_BXND.dtype)


def make_view(config: EncoderConfig, layer: int, tokens: tuple, places_BS, positions_BQ=None, causal: bool = False) -> View:
    """Return what the queries of a layer see.

    Args:
        tokens: (input_mask, example_ids or None), int [B, S].
        places_BS: int [B or 1, S], the position of each token within its example.
        positions_BQ: int [B, Q], the positions of the queries; None for all.
        causal: whether a query sees no keys to its right.
    """
    input_mask, example_ids = tokens
    groups = input_mask if example_ids is None else example_ids
    window, length = config.window(layer), input_mask.shape[1]
    everywhere_BQ = ops.arange(ops.shape(input_mask)[1], dtype="int32")[None]
    queries_BQ = everywhere_BQ if positions_BQ is None else ops.cast(positions_BQ, "int32")
    reach = Reach(groups, example_ids is not None, causal, window, positions_BQ is None)
    rotations = _rotations(config, window, places_BS, None if positions_BQ is None else queries_BQ, example_ids is not None)

    def whole() -> View:  # in a local layer, padding may be too far from any token
        return View(visible(input_mask, queries_BQ, causal, groups if window else example_ids, window), reach, *rotations)

    def in_parts() -> View:
        return View(visible_in_chunks(groups, causal, window), reach, *rotations, chunk=window)

    if not window or positions_BQ is not None:
        return whole()
    if length is not None:
        return in_parts() if config.takes_chunks(layer, length) else whole()
    takes = config.takes_chunks(layer, ops.shape(input_mask)[1])  # a tensor of TensorFlow, in a graph for any length
    return View(None, reach, *rotations, choose=lambda then: ops.cond(takes, lambda: then(in_parts()), lambda: then(whole())))


def _rotations(config: EncoderConfig, window: int, places_BS, positions_BQ, packed: bool) -> tuple[Any, Any]:
    """Return the rotations of queries and keys. positions_BQ: those of the queries; None for all."""
    if not config.design.rotary:
        return None, None
    theta = config.local_rope_theta if window else config.global_rope_theta
    keys = rotation(places_BS, theta, config.head_size)
    if positions_BQ is None:
        return keys, keys
    own_BQ = ops.take_along_axis(places_BS, positions_BQ, axis=1) if packed else positions_BQ
    return rotation(own_BQ, theta, config.head_size), keys


class Attention(keras.layers.Layer):
    """Multi-head attention with its output projection (no residual).

    Call arguments:
        query_BQH, hidden_BSH: inputs of the queries, and of keys and values.
        view: a View.
        seed: int32 [2] for dropout on the probabilities, or None outside of training.

    Without active dropout, the kernel of `attention_kernel` computes it.
    """

    def __init__(self, config: EncoderConfig, **kwargs) -> None:
        super().__init__(**kwargs)
        self.config = config
        for name in ("query", "key", "value", "output_dense"):
            setattr(self, name, dense(config, config.hidden_size, name, self.dtype_policy))

    def build(self, input_shape=None) -> None:
        for layer in (self.query, self.key, self.value, self.output_dense):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def _heads(self, x_BSH):
        return ops.reshape(x_BSH, (-1, ops.shape(x_BSH)[1], self.config.num_attention_heads, self.config.head_size))

    def _dropped(self, query_BQND, key_BSND, value_BSND, mask, seed):
        """Return the values weighted by the attention with dropout on it, [B, Q, N, D]."""
        rate, scale = self.config.attention_probs_dropout_prob, self.config.head_size**-0.5
        scores_BNQS = ops.einsum("BQND,BSND->BNQS", query_BQND * scale, key_BSND)
        scores_BNQS = ops.cast(scores_BNQS, "float32") + ops.where(mask, 0.0, _MASKED)
        probs_BNQS = dropout(ops.cast(ops.softmax(scores_BNQS), self.compute_dtype), rate, seed)
        return ops.einsum("BNQS,BSND->BQND", probs_BNQS, value_BSND)

    def call(self, query_BQH, hidden_BSH, view, seed=None):
        query_BQND, key_BSND, value_BSND = (
            self._heads(layer(x)) for layer, x in ((self.query, query_BQH), (self.key, hidden_BSH), (self.value, hidden_BSH))
        )
        query_BQND, key_BSND = rotated(query_BQND, view.queries), rotated(key_BSND, view.keys)
        if seed is None or self.config.attention_probs_dropout_prob == 0:
            mixed_BQND = _kernel.get()(query_BQND, key_BSND, value_BSND, view, self.config.head_size**-0.5)
        else:
            mixed_BQND = masked(partial(self._dropped, seed=seed), view, query_BQND, key_BSND, value_BSND)
        length = ops.shape(query_BQH)[1]
        return self.output_dense(ops.reshape(mixed_BQND, (-1, length, self.config.hidden_size)))
