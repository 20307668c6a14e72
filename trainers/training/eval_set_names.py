"""How evaluations name the metrics of further eval sets: `wiki/masked_lm_loss`. Those of the data's own have no prefix."""

from typing import Any

SEPARATOR = "/"
_COMPARED = ("examples", "perplexity", "unigram_loss")  # besides losses and accuracies


def prefixed(name: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics of an eval set under its name."""
    kept = {key: value for key, value in figures.items() if key.endswith(("_loss", "_accuracy")) or key in _COMPARED}
    return {f"{name}{SEPARATOR}{key}": value for key, value in kept.items()}


def set_of(metric: str) -> str:
    """Return the eval set of a metric, "" for the data's own."""
    return metric.rpartition(SEPARATOR)[0]


def metric_of(metric: str) -> str:
    """Return the metric without its eval set."""
    return metric.rpartition(SEPARATOR)[2]


def by_set(figures: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of an evaluation by eval set, "" for those of the data's own, which come first."""
    found: dict[str, dict[str, Any]] = {"": {}}
    for name, value in figures.items():
        found.setdefault(set_of(name), {})[metric_of(name)] = value
    return found
