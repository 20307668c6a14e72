"""The arithmetic of the comparison: steps that fit into a budget, curves of loss over CPU seconds, intervals over seeds.

A curve is a list of (CPU seconds, loss) in the order of time.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

Curve = Sequence[tuple[float, float]]
CONFIDENCE = 0.95


def fit_steps(budget: float, costs: Sequence[tuple[float, float]], weights: Sequence[float]) -> list[int]:
    """Return the steps of each phase that use up a budget of CPU seconds, in proportion to `weights`, at least 1 each.

    costs: for each phase the seconds that its start takes (compiling), and those of a step.
    """
    left = budget - sum(start for start, _ in costs)
    scale = left / sum(weight * step for weight, (_, step) in zip(weights, costs, strict=True))
    return [max(1, round(weight * scale)) for weight in weights]


def loss_at(curve: Curve, seconds: float) -> float:
    """Return the loss after some CPU seconds, interpolated linearly; NaN before the first evaluation."""
    if not curve or seconds < curve[0][0]:
        return math.nan
    times, losses = zip(*curve, strict=True)
    return float(np.interp(seconds, times, losses))


def seconds_to_reach(curve: Curve, loss: float) -> float:
    """Return the CPU seconds after which a curve is at `loss` or below, interpolated linearly; infinity if it never is."""
    before: tuple[float, float] | None = None
    for seconds, found in curve:
        if found <= loss:
            if before is None:
                return seconds
            share = (before[1] - loss) / (before[1] - found)
            return before[0] + share * (seconds - before[0])
        before = (seconds, found)
    return math.inf


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval (Student's t); the width is NaN for a single value."""
    mean = float(np.mean(values))
    if len(values) < 2 or not np.all(np.isfinite(values)):
        return mean, math.nan
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return mean, float(stats.t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * error


def ratio_interval(ratios: Sequence[float]) -> tuple[float, float, float]:
    """Return (geometric mean, lower and upper end of its 95 % interval) of positive ratios.

    The ends are NaN for a single value. All three are infinite if a ratio is.
    """
    if not all(map(math.isfinite, ratios)):
        return math.inf, math.inf, math.inf
    mean, half = interval([math.log(ratio) for ratio in ratios])
    return math.exp(mean), math.exp(mean - half), math.exp(mean + half)


def best_rate(losses: Mapping[float, float]) -> float:
    """Return the learning rate with the lowest loss. Raises ValueError if every run diverged (its loss isn't finite)."""
    finite = {rate: loss for rate, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise ValueError(f"every learning rate diverged: {', '.join(f'{rate:g}' for rate in sorted(losses))}")
    return min(finite, key=lambda rate: (finite[rate], rate))


def next_rate(losses: Mapping[float, float], most: int = 6) -> float | None:
    """Return the rate to try next if the best one is the lowest or highest so far: half or twice of it; None otherwise.

    most: stop at this many rates.
    """
    if len(losses) >= most:
        return None
    rate = best_rate(losses)
    if rate == max(losses):
        return 2 * rate
    return rate / 2 if rate == min(losses) else None


def rate_factor(schedule: str, step: int, steps: int) -> float:
    """Return the factor of the peak learning rate for the update after `step` finished ones, as `pretrain` schedules it.

    schedule: linear, or wsd, which stays and then falls by 1 - sqrt over the last fifth; both warm up for a tenth.
    """
    warmup, decay = math.ceil(steps / 10), math.ceil(steps / 5)
    rising = (step + 1) / max(1, warmup)
    if schedule == "linear":
        return min(rising, 1.0, (steps - step) / max(1, steps - warmup))
    fallen = max(0.0, (step - (steps - decay)) / max(1, decay))
    return min(rising, 1.0, 1 - math.sqrt(fallen))
