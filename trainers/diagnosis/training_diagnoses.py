"""Diagnoses of the training itself, from losses, rates, gradients and times. Each returns a Finding, or None if all is well.

Thresholds are far from the figures of healthy runs, so that an alarm deserves a look. Docstrings explain them.
"""

import math
from itertools import pairwise
from statistics import median

from clozemill.trainers.diagnosis.figures import Figures, Finding
from clozemill.trainers.diagnosis.recorded_run import number, series

LEAST_STEPS = 200  # of a run or phase, before a plateau or a trend means anything
_LIKE_UNIGRAMS = 0.99  # of the loss of word frequencies: less than that needs context
_SMOOTHED = 0.1  # of the lines, whose mean is compared, and at least three


def diverged(figures: Figures) -> Finding | None:
    """A loss or a gradient that is NaN or infinite. There is no threshold: training ends there."""
    broken = [
        entry
        for entry in figures.train
        if any(isinstance(entry.get(name), float) and not math.isfinite(entry[name]) for name in ("loss", "gradient_norm"))
    ]
    told = figures.diverged or (broken[0] if broken else None)
    if told is None:
        return None
    rate = number(told, "learning_rate")
    at = f", at a learning rate of {rate:.3g}" if rate is not None else ""
    if figures.objective:
        remedy = (
            "a longer --warmup-steps; if the step stays the same, check the shards that diverged.json lists with clozemill "
            "verify"
        )
    else:
        remedy = "a larger --warmup-share; if the step stays the same, look at the texts of the training file"
    sentence = f"loss or gradients became NaN or infinite at step {told.get('step', 0):,}{at}"
    return Finding("diverged", sentence, f"restart with a lower --learning-rate or {remedy}")


def wrong_start(figures: Figures) -> Finding | None:
    """A first loss that random weights can't have, far above or below that of a guess among all entries, ln V nats.

    Random weights predict all entries about equally. Measured in healthy runs: 0 to 0.5 above ln V at step 1, below it later.
    1 nat above means confident wrong predictions: initial weights or the first updates are too large. The mean over the first
    100 steps or fewer was never below word frequencies; 20 % below means that the inputs show the answers.
    """
    first = series(figures.train, "masked_lm_loss")[:1]
    if not figures.from_scratch or figures.begin or figures.vocabulary < 2 or not first:
        return None
    (step, loss), guess, unigrams = first[0], math.log(figures.vocabulary), series(figures.evaluated, "unigram_loss")
    logged = f"the first logged masked-LM loss, {loss:.2f} nats up to step {step:,}, is"
    if loss > guess + 1.0:
        return Finding(
            "wrong_start",
            f"{logged} above that of a guess among all {figures.vocabulary:,} entries, {guess:.2f}",
            "lower --initializer-range (BERT has 0.02) or --learning-rate, or raise --warmup-steps",
        )
    if unigrams and step <= 100 and loss < 0.8 * unigrams[0][1]:
        return Finding(
            "wrong_start",
            f"{logged} below that of word frequencies, {unigrams[0][1]:.2f}, although the weights began at random",
            "look at examples with clozemill inspect: masked positions must show [MASK]",
        )
    return None


def plateau(figures: Figures) -> Finding | None:
    """A masked-LM loss like that of word frequencies, after three quarters of the run, or 20,000 steps.

    Every run learns word frequencies first. Measured: runs of 300 to 1,000 steps leave this plateau in their first half or a
    little later. 20,000 steps are twice the warm-up of BERT. The frequencies of the eval split alone explain up to 1 %.
    """
    ratio, trained = figures.beats_unigrams, figures.step - figures.begin
    if ratio is None or ratio < _LIKE_UNIGRAMS or trained < max(LEAST_STEPS, 2 * figures.warmup):
        return None
    if not figures.done(0.75) and trained < 20_000:
        return None
    last = figures.last_evaluation
    return Finding(
        "plateau",
        f"at step {last['step']:,} the evaluated masked-LM loss, {last['masked_lm_loss']:.3f} nats, is still that of word "
        f"frequencies alone, {last['unigram_loss']:.3f}",
        "train for more steps, on shorter sequences first, or at another --learning-rate",
    )


def _update_share(figures: Figures) -> float:
    """Return by which share of an initial weight a step at the peak may change it, math.nan if that is unknown.

    An update of AdamW changes each weight by at most about the learning rate, one of Muon by about a fifth of it on average;
    weights begin with a deviation of `initializer_range`. LAMB scales updates to the weights, so its rate is that share.
    """
    deviation = number(figures.config, "initializer_range")
    if not figures.peak_rate or not figures.from_scratch:
        return math.nan
    if figures.config.get("optimizer") == "lamb":
        return figures.peak_rate
    return figures.peak_rate / deviation if deviation else math.nan


def rate_too_high(figures: Figures) -> Finding | None:
    """A learning rate that destroys what was learnt. Any of three signs, after the warm-up:

    - The loss, as a mean over a tenth of the lines, rises by 0.3 nats over its lowest. Such means vary by less than 0.1 nats
      in healthy runs.
    - The loss is no better than word frequencies, and a step at the peak may change a weight by 30 % of its initial size.
      Healthy runs have 0.2 to 5 %, those of narrow encoders up to 10 %.
    - Gradients have 20 times the norm at which they are clipped. Healthy norms are 0.5 to 10.
    """
    kind, remedy = "rate_too_high", f"lower --learning-rate, or raise --warmup-{'steps' if figures.objective else 'share'}"
    losses, share, ratio = figures.losses(), _update_share(figures), figures.beats_unigrams
    width = max(3, int(_SMOOTHED * len(losses)))
    means = [sum(loss for _, loss in losses[at : at + width]) / width for at in range(len(losses) - width + 1)]
    if figures.objective and means and figures.step - figures.begin >= LEAST_STEPS and means[-1] > min(means) + 0.3:
        lowest = losses[means.index(min(means)) + width - 1][0]
        risen = f"the training loss rose from {min(means):.2f} nats about step {lowest:,} to {means[-1]:.2f} at the end"
        return Finding(kind, f"{risen}, at a peak learning rate of {figures.peak_rate:g}", remedy)
    warm = figures.last_evaluation.get("step", 0) >= figures.begin + figures.warmup + 20
    if ratio is not None and ratio >= _LIKE_UNIGRAMS and share >= 0.3 and warm:
        changed = f"a step at the peak learning rate of {figures.peak_rate:g} may change a weight by {100 * share:.0f} % of its"
        return Finding(kind, f"{changed} initial size, and the loss is no better than that of word frequencies", remedy)
    norms, clip = [value for _, value in series(figures.warm, "gradient_norm")], number(figures.config, "clip_norm") or 0.0
    recent = norms[-max(3, len(norms) // 4) :]
    if clip and len(recent) >= 3 and median(recent) >= 20 * clip:
        times = f"{median(recent) / clip:.0f} times that at which they are clipped"
        return Finding(kind, f"gradients have a norm of {median(recent):.3g}, {times}", remedy)
    return None


def rate_too_low(figures: Figures) -> Finding | None:
    """A learning rate at which weights can hardly move: its sum over the steps so far is below half of their initial size.

    AdamW moves a weight by at most about the learning rate per step, so this sum bounds the way from where it began. Healthy
    runs of 1,000 steps or more have sums of 10 and more times the initial size. The loss must be no better than word
    frequencies, or else the rate was enough.
    """
    deviation, ratio = number(figures.config, "initializer_range"), figures.beats_unigrams
    unlearnt = ratio is None or ratio >= _LIKE_UNIGRAMS
    if not figures.from_scratch or not deviation or not figures.done(0.5) or not unlearnt or figures.step < LEAST_STEPS:
        return None
    rates = [(0, 0.0), *series([entry for entry in figures.entries if entry.get("split") != "eval"], "learning_rate")]
    moved = sum(rate * (step - before) for (before, _), (step, rate) in pairwise(rates))
    moved = moved if figures.config.get("optimizer") == "lamb" else moved / deviation
    if len(rates) < 3 or moved >= 0.5:
        return None
    return Finding(
        "rate_too_low",
        f"the learning rates of all {figures.step:,} steps add up to {100 * moved:.2g} % of the initial size of a weight, so "
        "no weight could move further",
        "raise --learning-rate (1e-4 is usual for base, 1e-3 for tiny)",
    )


def underflow(figures: Figures) -> Finding | None:
    """Gradients with a norm below 0.001 while the loss is above 0.5 nats, in the second half of the lines.

    The norm over all weights is 0.5 to 10 in healthy runs, and falls to 0.05 only where a task's loss is near 0. A thousandth
    means that most gradients are rounded to 0, or that they can't reach the weights.
    """
    recent = figures.train[len(figures.train) // 2 :]
    norms = [(value, number(entry, "loss") or 0.0) for entry in recent if (value := number(entry, "gradient_norm")) is not None]
    if len(norms) < 3 or median(norm for norm, _ in norms) >= 1e-3 or median(loss for _, loss in norms) <= 0.5:
        return None
    half = figures.config.get("precision") == "bfloat16"
    scale = "raise --initializer-range" if figures.objective else "give another encoder as --init"
    return Finding(
        "underflow",
        f"gradients have a norm of {median(norm for norm, _ in norms):.1e}, although the loss is "
        f"{median(loss for _, loss in norms):.2f} nats",
        "train with --precision float32" if half else f"{scale}: gradients vanish on the way to the weights",
    )


def input_bound(figures: Figures) -> Finding | None:
    """Steps that wait for input a fifth of their time, as the median of the second half of the lines.

    Healthy runs wait for 1 to 5 %. The first lines also wait for files to be opened, so they don't count.
    """
    waits = [value for _, value in series(figures.train, "input_share")]
    recent = waits[max(1, len(waits) // 2) :]
    if len(recent) < 3 or median(recent) < 0.2:
        return None
    return Finding(
        "input_bound",
        f"steps wait for input {100 * median(recent):.0f} % of their time",
        "put the dataset on a faster disk, give this process more CPU cores, or end other programs that read or compute",
    )
