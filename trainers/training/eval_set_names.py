"""How evaluations name the metrics of further eval sets: `wiki/masked_lm_loss`. Those of the data's own have no prefix."""

import re
from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.common.errors import UserError

_NAME = re.compile(r"\w[\w.-]*")
SEPARATOR = "/"
_COMPARED = ("examples", "perplexity", "unigram_loss")  # besides losses and accuracies


def parse(given: Sequence[str]) -> dict[str, str]:
    """Return the datasets of `--eval-data` by name. Raises UserError for one without a name, or a name that comes twice.

    given: NAME=DATASET each.
    """
    found: dict[str, str] = {}
    for each in given:
        name, _, folder = each.partition("=")
        if not _NAME.fullmatch(name) or not folder:
            raise UserError(
                f"--eval-data {each}: give NAME=DATASET, as in wiki=wiki-128, with a name of letters, digits, . _ and -"
            )
        if name in found:
            raise UserError(f"--eval-data names {name} twice: give each eval set a name of its own")
        found[name] = folder
    return found


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
