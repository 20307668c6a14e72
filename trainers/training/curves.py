"""A run's curves, from the entries of metrics.jsonl: the plots of report.html, three of which are curves.png."""

import math
from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.pages import svg
from clozemill.pipelines.pages.content import Plot, Series
from clozemill.trainers.training.eval_set_names import SEPARATOR, set_of

Entries = list[dict[str, Any]]
Points = list[tuple[int, float]]

MOST_POINTS = 400  # of a line: more can't be seen
# Values of an evaluation that are neither losses nor metrics between 0 and 1.
OTHERS = {
    "step", "epoch", "loss", "criterion", "comparable", "examples", "predictions", "perplexity", "unigram_loss",
    "unigram_entropy", "split", "remarks", "masked_lm_loss", "next_sentence_loss", "replaced_loss", "task_loss",
}  # fmt: skip
# The first three of these that exist.
_ON_PNG = (
    "loss", "next-sentence-accuracy", "replaced-token-accuracy", "masked-lm-accuracy", "metrics", "learning-rate",
)  # fmt: skip
CHANCE = {"loss": math.log(2), "accuracy": 0.5}  # of the next-sentence label


def split_entries(entries: Entries) -> tuple[Entries, Entries]:
    """Return the entries of training and those of evaluations."""
    return ([e for e in entries if e.get("split") != "eval"], [e for e in entries if e.get("split") == "eval"])


def points(entries: Entries, name: str, scale: float = 1.0) -> Points:
    """Return (step, value) for every entry with a finite value; undefined metrics are null. Long lines are averaged."""
    found = [
        (int(entry["step"]), scale * entry[name])
        for entry in entries
        if isinstance(entry.get(name), int | float) and math.isfinite(entry[name])
    ]
    size = -(-len(found) // MOST_POINTS)
    if size < 2:
        return found
    parts = [found[at : at + size] for at in range(0, len(found), size)]
    return [(part[-1][0], sum(value for _, value in part) / len(part)) for part in parts]


def metric_names(evaluated: Entries) -> list[str]:
    """Return the names of an evaluation's metrics between 0 and 1 (or -1 and 1), in their order."""
    names = dict.fromkeys(name for entry in evaluated for name in entry if name not in OTHERS and not set_of(name))
    return [name for name in names if any(isinstance(entry.get(name), float) for entry in evaluated)]


def _series(label: str, kind: str, found: Points) -> list[Series]:
    return [Series(label, kind, [step for step, _ in found], [value for _, value in found])] if found else []


def _alt(what: str, series: Sequence[Series]) -> str:
    lines = [
        f"{each.label or 'value'} from {each.y[0]:.4g} at step {each.x[0]:,} to {each.y[-1]:.4g} at step {each.x[-1]:,}"
        for each in series
        if each.kind in ("line", "dots", "guide")
    ]
    levels = [f"{each.label} at {each.y[0]:.4g}" for each in series if each.kind == "level"]
    return f"{what} over the steps: {'; '.join(lines + levels)}."


def _plot(name: str, title: str, unit: str, series: list[Series], best: int | None = None) -> list[Plot]:
    """Return the plot if anything was measured. `best`: step of the best checkpoint, marked in it."""
    if not any(each.kind in ("line", "dots") for each in series):
        return []
    mark = [Series("best", "mark", [best], [])] if best is not None else []
    return [Plot(name, title, "step", unit, _alt(title, series), series + mark)]


def _losses(train: Entries, evaluated: Entries, expected: Points, best: int | None) -> list[Plot]:
    if any("task_loss" in entry for entry in train) or not any("masked_lm_loss" in entry for entry in train + evaluated):
        series = _series("train", "line", points(train, "task_loss")) + _series("dev", "dots", points(evaluated, "loss"))
        return _plot("loss", "Loss", "nats", series, best)
    series = _series("train", "line", points(train, "masked_lm_loss"))
    series += _series("eval", "dots", points(evaluated, "masked_lm_loss"))
    for name in dict.fromkeys(set_of(metric) for entry in evaluated for metric in entry if set_of(metric)):
        series += _series(f"eval {name}", "dots", points(evaluated, f"{name}{SEPARATOR}masked_lm_loss"))
    unigram = points(evaluated, "unigram_loss")
    series += [Series("word frequencies", "level", [], [unigram[-1][1]])] if unigram else []
    reached = max((entry["step"] for entry in train + evaluated), default=0)
    series += _series("recipe", "guide", [point for point in expected if point[0] <= reached])
    return _plot("loss", "Masked-LM loss", "nats", series, best)


def _replaced(train: Entries, evaluated: Entries, best: int | None) -> list[Plot]:
    found = []
    for what, scale, unit in (("accuracy", 100.0, "%"), ("loss", 1.0, "nats")):
        name = f"replaced_{what}"
        series = _series("train", "line", points(train, name, scale)) + _series("eval", "dots", points(evaluated, name, scale))
        found += _plot(f"replaced-token-{what}", f"Replaced-token {what}", unit, series, best)
    return found


def _next_sentence(train: Entries, evaluated: Entries, best: int | None) -> list[Plot]:
    found = []
    for what, scale, unit in (("accuracy", 100.0, "%"), ("loss", 1.0, "nats")):
        name = f"next_sentence_{what}"
        series = _series("train", "line", points(train, name, scale)) + _series("eval", "dots", points(evaluated, name, scale))
        series += [Series("chance", "level", [], [scale * CHANCE[what]])] if series else []
        found += _plot(f"next-sentence-{what}", f"Next-sentence {what}", unit, series, best)
    return found


def _metrics(train: Entries, evaluated: Entries, best: int | None) -> list[Plot]:
    """Return the plot of a task's metrics, or that of masked-LM accuracy."""
    own = [name for name in metric_names(evaluated) if not name.startswith(("masked_lm_", "next_sentence_", "replaced_"))]
    if own or any("task_accuracy" in entry for entry in train):
        series = _series("accuracy, train", "line", points(train, "task_accuracy"))
        series += [each for name in own for each in _series(name, "dots", points(evaluated, name))]
        return _plot("metrics", "Metrics on the dev examples", "score", series, best)
    series = _series("train", "line", points(train, "masked_lm_accuracy", 100))
    series += _series("eval", "dots", points(evaluated, "masked_lm_accuracy", 100))
    return _plot("masked-lm-accuracy", "Masked-LM accuracy", "%", series, best)


def plots(entries: Entries, best: int | None = None, expected: Sequence[tuple[int, float]] = ()) -> list[Plot]:
    """Return the plots of a run; what wasn't measured has none.

    Args:
        best: step of the best checkpoint, marked where results are.
        expected: (step, masked-LM loss) of the recipe, drawn as far as the run has come.
    """
    train, evaluated = split_entries(entries)
    found = _losses(train, evaluated, list(expected), best) + _metrics(train, evaluated, best)
    found += _next_sentence(train, evaluated, best) + _replaced(train, evaluated, best)
    for name, title, unit, key, scale in (
        ("learning-rate", "Learning rate", "rate", "learning_rate", 1.0),
        ("throughput", "Throughput", "tokens per second", "tokens_per_second", 1.0),
        ("input-wait", "Waiting for input", "% of the time", "input_share", 100.0),
        ("gradient-norm", "Gradient norm", "norm before clipping", "gradient_norm", 1.0),
        ("utilisation", "Utilisation (MFU)", "% of the peak", "mfu", 100.0),
    ):
        found += _plot(name, title, unit, _series("", "line", points(train, key, scale)))
    return found


def draw(entries: Entries, title: str, best: int | None = None, expected: Sequence[tuple[int, float]] = ()) -> bytes:
    """Return curves.png: loss, a score and learning rate over the steps, from the plots of report.html."""
    named = {plot.name: plot for plot in plots(entries, best, expected)}
    chosen = [named[name] for name in _ON_PNG if name in named]
    kept = [plot for plot in chosen if plot.name != "masked-lm-accuracy"] if len(chosen) > 3 else chosen
    return svg.draw_png(kept, title)
