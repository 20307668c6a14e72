"""AdamW, StableAdamW, LAMB and Muon as pure functions of arrays in keras.ops, and the learning rate schedule.

A rule maps (variable, gradient, moments) to new values. It is independent of variable ownership and placement, and of how
gradients are summed over replicas. An optimizer says which rule, and so which moments, a variable has.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras import ops


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters shared by the rules; the defaults are those of the BERT paper (epsilon: of its code).

    momentum: that of Muon, instead of the betas.
    """

    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0
    momentum: float = 0.95


# How the rate falls: from the share of the decay that is left, 1 before it begins and 0 after the last step, to a factor.
SCHEDULES: dict[str, Callable] = {
    "linear": lambda left: left,
    # (1 + cos(pi done)) / 2 of Loshchilov and Hutter 2016, and 1 - sqrt(done) of Hägele et al. 2024, where done = 1 - left,
    # written without the cancellation near the end.
    "cosine": lambda left: ops.square(ops.sin(math.pi / 2 * left)),
    "wsd": lambda left: left / (1.0 + ops.sqrt(1.0 - left)),
}


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to `peak` within `warmup_steps`, then a decay to 0 at `steps`, counted from `begin`.

    shape: a key of SCHEDULES. linear and cosine decay from the warm-up on; wsd ("warm-up, stable, decay") stays at `peak`
    until the last `decay_steps`, which the other two ignore.
    """

    peak: float
    warmup_steps: int
    steps: int
    begin: int = 0
    shape: str = "linear"
    decay_steps: int = 0

    def __call__(self, step):
        """Return the rate of the update after `step` finished ones, a float32 scalar. Step `begin` has peak / warmup_steps."""
        done = ops.cast(step - self.begin, "float32")
        span = self.decay_steps if self.shape == "wsd" else self.steps - self.warmup_steps
        left = ops.minimum(1.0, ops.maximum(0.0, (self.steps - done) / max(1, span)))
        return self.peak * ops.minimum((done + 1.0) / max(1, self.warmup_steps), SCHEDULES[self.shape](left))

    @property
    def stable_until(self) -> int | None:
        """Return the step after which the rate leaves its peak; None for a schedule without a stable part."""
        return self.begin + self.steps - self.decay_steps if self.shape == "wsd" else None


def decays(path: str) -> bool:
    """Return whether weight decay (and LAMB's trust ratio) applies: not to biases and LayerNorm, as in the reference."""
    return not (path.endswith("bias") or "layer_norm" in path)


def _moments(gradient, first, second, done, hyper: Hyper):
    """Return (new first moment, new second moment, bias-corrected direction, bias-corrected second moment) of Adam.

    Kingma and Ba 2014.
    """
    first = first + (gradient - first) * (1.0 - hyper.beta_1)
    second = second + (ops.square(gradient) - second) * (1.0 - hyper.beta_2)
    count = ops.cast(done, "float32") + 1.0
    variance = second / (1.0 - ops.power(hyper.beta_2, count))
    corrected = ops.sqrt(variance) + hyper.epsilon
    return first, second, first / (1.0 - ops.power(hyper.beta_1, count)) / corrected, variance


def adamw(variable, gradient, first, second, rate, done, hyper: Hyper, decay: bool):
    """AdamW (Loshchilov and Hutter 2017), decay times the learning rate, with Adam's bias correction.

    google-research/bert's AdamWeightDecayOptimizer omits the correction, which makes little difference with a warm-up.

    Args:
        variable, gradient, first, second: float32 of the same shape.
        rate: the learning rate.
        done: number of updates done before.
        decay: whether weight decay applies to this variable.

    Returns (variable, first, second), new.
    """
    first, second, direction, _ = _moments(gradient, first, second, done, hyper)
    if decay:
        direction = direction + hyper.weight_decay * variable
    return variable - rate * direction, first, second


def stable_adamw(variable, gradient, first, second, rate, done, hyper: Hyper, decay: bool):
    """StableAdamW (Wortsman et al. 2023, algorithm 2): AdamW with a lower rate where the second moment is out of date.

    The rate of a variable is divided by the root mean square of gradient / sqrt(second moment) if that is above 1: its
    gradient has then grown faster than the moment could follow. Arguments and result are those of adamw.
    """
    first, second, direction, variance = _moments(gradient, first, second, done, hyper)
    surprise = ops.sqrt(ops.mean(ops.square(gradient) / ops.maximum(variance, hyper.epsilon**2)))
    if decay:
        direction = direction + hyper.weight_decay * variable
    return variable - rate / ops.maximum(1.0, surprise) * direction, first, second


def lamb(variable, gradient, first, second, rate, done, hyper: Hyper, decay: bool):
    """LAMB (You et al. 2019): AdamW's direction, decay included, scaled to the variable's norm.

    As in the authors' code, variables without decay aren't scaled either. Arguments and result are those of adamw.
    """
    first, second, direction, _ = _moments(gradient, first, second, done, hyper)
    if decay:
        direction = direction + hyper.weight_decay * variable
        size, length = ops.norm(variable), ops.norm(direction)
        both = ops.logical_and(size > 0, length > 0)
        rate = rate * ops.where(both, size / ops.where(both, length, 1.0), 1.0)
    return variable - rate * direction, first, second


# Coefficients of a step's polynomial a x + b x^3 + c x^5, and the number of steps (Jordan et al. 2024). They raise small
# singular values fast (by 3.4445 per step) and leave all of them between 0.68 and 1.21, which is as good as exactly 1.
_NEWTON_SCHULZ, _NEWTON_SCHULZ_STEPS = (3.4445, -4.7750, 2.0315), 5
_MUON_SCALE = 0.2  # Liu et al. 2025: the root mean square of AdamW's updates, so that its rates and decay suit Muon too


def orthogonalized(matrix):
    """Return about U V^T of a matrix U S V^T: the same singular vectors, with singular values between 0.68 and 1.21.

    Five Newton-Schulz steps. Singular values below about a thousandth of the Frobenius norm don't get that far.

    Args:
        matrix: float32 [..., R, C]; leading axes are a batch of matrices.
    """
    a, b, c = _NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]  # the products with the transpose are smaller for wide matrices
    wide = ops.swapaxes(matrix, -1, -2) if tall else matrix
    norm = ops.sqrt(ops.sum(ops.square(wide), axis=(-2, -1), keepdims=True))
    wide = wide / ops.maximum(norm, 1e-12)  # all singular values are at most 1
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = ops.matmul(wide, ops.swapaxes(wide, -1, -2))
        wide = a * wide + ops.matmul(b * gram + c * ops.matmul(gram, gram), wide)
    return ops.swapaxes(wide, -1, -2) if tall else wide


def muon(variable, gradient, first, rate, done, hyper: Hyper, decay: bool):
    """Muon (Jordan et al. 2024), scaled as in Liu et al. 2025: Nesterov momentum, orthogonalised; decay as in AdamW.

    The momentum is a mean, as Adam's first moment; orthogonalisation ignores its scale.

    Args:
        variable, gradient, first: float32 [R, C].
        rate, done, decay: as for adamw.

    Returns (variable, first), new.
    """
    first = first + (gradient - first) * (1.0 - hyper.momentum)
    direction = orthogonalized(gradient + (first - gradient) * hyper.momentum)
    direction = direction * (_MUON_SCALE * max(variable.shape) ** 0.5)
    if decay:
        direction = direction + hyper.weight_decay * variable
    return variable - rate * direction, first


@dataclass(frozen=True)
class Rule:
    """How a variable is updated.

    Args:
        update: a function like `adamw`: (variable, gradient, *moments, rate, done, hyper, decay) -> (variable, *moments).
        moments: their names, in the order of the arguments; each has the shape of the variable.
    """

    update: Callable[..., tuple]
    moments: tuple[str, ...] = ("first", "second")


_LAYER_MATRIX = re.compile(r"/layer_\d+/(.+/)?kernel$")


@dataclass(frozen=True)
class Optimizer:
    """The rules of an optimizer: that of the matrices of the encoder's layers, and that of all other variables."""

    matrices: Rule
    others: Rule

    def rule(self, path: str, shape: Sequence[int]) -> Rule:
        """Return the rule of a variable. Embeddings, the pooler and heads have no layer's path."""
        return self.matrices if len(shape) == 2 and _LAYER_MATRIX.search(path) else self.others


_ADAMW, _LAMB, _STABLE_ADAMW, _MUON = Rule(adamw), Rule(lamb), Rule(stable_adamw), Rule(muon, ("first",))
OPTIMIZERS = {
    "adamw": Optimizer(_ADAMW, _ADAMW),
    "lamb": Optimizer(_LAMB, _LAMB),
    "muon": Optimizer(_MUON, _ADAMW),
    "stable-adamw": Optimizer(_STABLE_ADAMW, _STABLE_ADAMW),
}


def default_clip_norm(optimizer: str) -> float:
    """Return the norm to which gradients are clipped by default: 0, not at all, for StableAdamW, which replaces clipping."""
    return 0.0 if optimizer == "stable-adamw" else 1.0


def global_norm(gradients: Sequence):
    """Return the Euclidean norm of all gradients together, a float32 scalar."""
    return ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))


def clip_scale(norm, clip_norm: float):
    """Return the factor that scales a norm down to `clip_norm`, 1 if it is below; a `clip_norm` of 0 means no clipping."""
    return ops.minimum(1.0, clip_norm / ops.maximum(norm, 1e-30)) if clip_norm else ops.ones_like(norm)
