"""Attention on JAX: the kernels of TPUs and GPUs, and which of them a run uses.

A kernel computes softmax and products block by block, and never stores the scores. Those here are functions like
`attention.plain_attention`, which they call for what they can't compute.

Tensors carry their shape: B batch, S sequence length, Q positions kept of it, N heads, D head size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
from jax import numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from clozemill.model.attention import Reach, View, in_chunks, plain_attention
from clozemill.model.config import EncoderConfig
from clozemill.trainers.common.hardware import BFLOAT16_CAPABILITY, AttentionKernel

_TILE = 128  # positions that a splash block has a multiple of
_BLOCK = 512  # the most; not tuned, for lack of a TPU
_HEAD_TILE, _LARGEST_HEAD = 32, 256  # head sizes that were compiled are multiples of the one, up to the other
_CUDNN_TILE, _CUDNN_LARGEST_HEAD = 8, 128
_WITHOUT_SPLASH = ("TPU v2", "TPU v3")  # Mosaic, the kernel's compiler, rejects products in bfloat16 there


class Kernel(AttentionKernel, Protocol):
    """A way to compute attention."""

    @property
    def name(self) -> str:
        """Return the name of the kernel, for people."""

    def __call__(self, query_BQND: Any, key_BSND: Any, value_BSND: Any, view: View, scale: float) -> Any:
        """Return the values weighted by the attention, [B, Q, N, D]."""


@dataclass(frozen=True)
class NoKernel:
    """The plain form. reason: why there is no kernel."""

    reason: str
    name = "plain"

    def refusal(self, head_size: int, length: int, dtype: str) -> str:
        return self.reason

    def __call__(self, query_BQND: Any, key_BSND: Any, value_BSND: Any, view: View, scale: float) -> Any:
        return plain_attention(query_BQND, key_BSND, value_BSND, view, scale)


def _splash_mask(reach: Reach, length: int) -> masks.Mask:
    """Return what the order of the positions allows; the kernel computes it from their numbers."""
    if not reach.causal and not reach.window:
        return masks.FullMask((length, length))
    sides = reach.window or None, 0 if reach.causal else reach.window
    return masks.LocalMask((length, length), sides, offset=0)


@dataclass(frozen=True)
class SplashAttention:
    """JAX's sparse flash attention for TPUs, forward and backward. interpret: run it on a CPU, slowly, for tests.

    It skips blocks that a window or causal attention leaves empty, but not those between different examples of a row.
    """

    interpret: bool = False
    name = "splash kernel of the TPU, with numbers of examples instead of masks"

    def refusal(self, head_size: int, length: int, dtype: str) -> str:
        if head_size % _HEAD_TILE or head_size > _LARGEST_HEAD:
            return f"heads have {head_size} dimensions, not a multiple of {_HEAD_TILE} up to {_LARGEST_HEAD}"
        return f"length {length} is not a multiple of {_TILE}" if length % _TILE else ""

    def __call__(self, query_BQND: Any, key_BSND: Any, value_BSND: Any, view: View, scale: float) -> Any:
        _, length, heads, size = key_BSND.shape
        if not view.reach.complete or self.refusal(size, length, str(query_BQND.dtype)):
            return plain_attention(query_BQND, key_BSND, value_BSND, view, scale)
        block = max(size for size in range(_TILE, _BLOCK + 1, _TILE) if length % size == 0)
        blocks = splash.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        )
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([_splash_mask(view.reach, length)] * heads),
            block_sizes=blocks,
            head_shards=1,
            q_seq_shards=1,
            interpret=self.interpret,
        )
        groups_BS = view.reach.groups.astype("int32")
        by_head = (jnp.swapaxes(x, 1, 2) for x in (query_BQND * scale, key_BSND, value_BSND))
        return jnp.swapaxes(jax.vmap(kernel)(*by_head, splash.SegmentIds(groups_BS, groups_BS)), 1, 2)


@dataclass(frozen=True)
class CudnnAttention:
    """cuDNN's flash attention, in bfloat16. Examples that aren't packed need only their lengths, others a mask.

    implementation: the name of jax.nn.dot_product_attention's; tests give "xla".
    """

    implementation: str = "cudnn"
    name = "cuDNN, with lengths instead of masks unless examples are packed or attention is local"

    def refusal(self, head_size: int, length: int, dtype: str) -> str:
        if dtype != "bfloat16":
            return f"cuDNN's kernel needs bfloat16, not {dtype}"
        if head_size % _CUDNN_TILE or head_size > _CUDNN_LARGEST_HEAD:
            return f"heads have {head_size} dimensions, not a multiple of {_CUDNN_TILE} up to {_CUDNN_LARGEST_HEAD}"
        return ""

    def __call__(self, query_BQND: Any, key_BSND: Any, value_BSND: Any, view: View, scale: float) -> Any:
        rows, queries, _, size = query_BQND.shape
        reach, keys = view.reach, key_BSND.shape[1]
        by_lengths = not reach.packed and not reach.window and (reach.complete or not reach.causal)
        odd = not by_lengths and not view.chunk and (queries % 2 or keys % 2)  # of such masks, cuDNN has no gradient
        if odd or self.refusal(size, keys, str(query_BQND.dtype)):
            return plain_attention(query_BQND, key_BSND, value_BSND, view, scale)
        attend = partial(jax.nn.dot_product_attention, scale=scale, implementation=self.implementation)
        if by_lengths:
            lengths_B = jnp.maximum(reach.groups.sum(axis=1), 1).astype("int32")  # a filler row has no token to see
            attend = partial(attend, key_value_seq_lengths=lengths_B, is_causal=reach.causal)
        else:  # without a window, a mask may lack the axis of the queries, and cuDNN needs it
            mask = view.visible
            mask = mask if view.chunk else jnp.broadcast_to(mask, (rows, 1, queries, keys))
            attend = partial(attend, mask=mask)
        return in_chunks(attend, view.chunk, query_BQND, key_BSND, value_BSND)


def compute_capability(device: jax.Device) -> tuple[int, ...]:
    """Return the compute capability of an NVIDIA GPU, such as (8, 0); (0, 0) for other devices."""
    parts = str(getattr(device, "compute_capability", "0.0")).split(".")
    return tuple(map(int, parts)) if all(part.isdigit() for part in parts) else (0, 0)


def choose_kernel(device: Any, option: str) -> Kernel:
    """Return the kernel of a device, which may be an absent one. option: --attention-kernel."""
    if option == "plain":
        return NoKernel("--attention-kernel is plain")
    if device.platform == "tpu":
        old = device.device_kind in _WITHOUT_SPLASH
        return NoKernel(f"the kernel doesn't compile for {device.device_kind}") if old else SplashAttention()
    if device.platform == "gpu":
        old = compute_capability(device) < BFLOAT16_CAPABILITY
        return NoKernel("cuDNN's kernel needs an NVIDIA GPU of compute capability 8.0 or higher") if old else CudnnAttention()
    return NoKernel("there is no kernel for CPUs")


def described(kernel: Kernel, encoder: EncoderConfig, lengths: Sequence[int], dtype: str) -> str:
    """Return how a run computes attention in training, for people. lengths: of its rows. dtype: of its activations."""
    rate = encoder.attention_probs_dropout_prob
    dropout = f"the kernel has no dropout, and the attention's is {rate:g}" if rate else ""
    refusals = [kernel.refusal(encoder.head_size, length, dtype) or dropout for length in lengths]
    reasons = dict.fromkeys(filter(None, refusals))
    plain = f"plain, because {' and '.join(reasons)}"
    return plain if all(refusals) else f"{kernel.name}; for some rows {plain}" if reasons else kernel.name
