"""AdamW and LAMB as pure functions of arrays in keras.ops, and the learning rate schedule.

A rule maps (variable, gradient, first moment, second moment) to new values. It is independent of variable ownership and
placement, and of how gradients are summed over replicas.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from keras import ops


@dataclass(frozen=True)
class Hyper:
    """Hyperparameters shared by the rules; the defaults are those of the BERT paper (epsilon: of its code)."""

    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-6
    clip_norm: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up from 0 to `peak` within `warmup_steps`, then linear decay to 0 at `steps`, counted from `begin`."""

    peak: float
    warmup_steps: int
    steps: int
    begin: int = 0

    def __call__(self, step):
        """Return the rate of the update after `step` finished ones, a float32 scalar. Step `begin` has peak / warmup_steps."""
        done = ops.cast(step - self.begin, "float32")
        left = ops.maximum(0.0, (self.steps - done) / max(1, self.steps - self.warmup_steps))
        return self.peak * ops.minimum((done + 1.0) / max(1, self.warmup_steps), ops.minimum(1.0, left))


def decays(path: str) -> bool:
    """Return whether weight decay (and LAMB's trust ratio) applies: not to biases and LayerNorm, as in the reference."""
    return not (path.endswith("bias") or "layer_norm" in path)


def _moments(gradient, first, second, done, hyper: Hyper):
    """Return (new first moment, new second moment, bias-corrected direction) of Adam (Kingma and Ba 2014)."""
    first = first + (gradient - first) * (1.0 - hyper.beta_1)
    second = second + (ops.square(gradient) - second) * (1.0 - hyper.beta_2)
    count = ops.cast(done, "float32") + 1.0
    corrected = ops.sqrt(second / (1.0 - ops.power(hyper.beta_2, count))) + hyper.epsilon
    return first, second, first / (1.0 - ops.power(hyper.beta_1, count)) / corrected


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
    first, second, direction = _moments(gradient, first, second, done, hyper)
    if decay:
        direction = direction + hyper.weight_decay * variable
    return variable - rate * direction, first, second


def lamb(variable, gradient, first, second, rate, done, hyper: Hyper, decay: bool):
    """LAMB (You et al. 2019): AdamW's direction, decay included, scaled to the variable's norm.

    As in the authors' code, variables without decay aren't scaled either. Arguments and result are those of adamw.
    """
    first, second, direction = _moments(gradient, first, second, done, hyper)
    if decay:
        direction = direction + hyper.weight_decay * variable
        size, length = ops.norm(variable), ops.norm(direction)
        both = ops.logical_and(size > 0, length > 0)
        rate = rate * ops.where(both, size / ops.where(both, length, 1.0), 1.0)
    return variable - rate * direction, first, second


OPTIMIZERS: dict[str, Callable[..., tuple]] = {"adamw": adamw, "lamb": lamb}


def global_norm(gradients: Sequence):
    """Return the Euclidean norm of all gradients together, a float32 scalar."""
    return ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))


def clip_scale(norm, clip_norm: float):
    """Return the factor that scales a norm down to `clip_norm`, 1 if it is below; a `clip_norm` of 0 means no clipping."""
    return ops.minimum(1.0, clip_norm / ops.maximum(norm, 1e-30)) if clip_norm else ops.ones_like(norm)
