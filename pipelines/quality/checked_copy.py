"""One copy of a split as the statistical gate sees it, and what a check of it finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.dataset.manifest import Manifest
from clozemill.pipelines.text.vocabulary import Vocabulary

EXACT = 1e-9  # tolerance for rounding


@dataclass(frozen=True)
class Check:
    """A value compared with its limits; `sentence` describes the result in words."""

    name: str
    where: str
    found: float
    low: float
    high: float
    passed: bool
    sentence: str


@dataclass(frozen=True)
class CheckedCopy:
    """One copy of a split: its name, its counts in dataset.json, its statistics, and the manifest entries of its shards.

    token_lengths: the number of documents of the dataset by the bit length of their number of tokens; () if it isn't known.
    """

    where: str
    split: str
    counts: dict[str, int]
    statistics: dict[str, Any]
    shards: list[dict[str, Any]]
    contract: Manifest
    vocabulary: Vocabulary
    token_lengths: Sequence[int] = ()

    @cached_property
    def config(self) -> ExampleConfig:
        return ExampleConfig.of(self.contract["config"])

    @property
    def documents(self) -> int:
        return self.contract["splits"][self.split]["documents"]

    def check(self, name: str, what: str, why: str, found: float, low: float, high: float, unit: str = "") -> Check:
        """Return a check. `what`: meaning of the value, e.g. "of tokens are masked"; `why`: reason for the limits."""
        passed = bool(low - EXACT <= found <= high + EXACT)
        scale, end = (100, " %") if unit == "%" else (1, unit)
        values = (f"{scale * value:,.{0 if not unit and float(value).is_integer() else 2}f}" for value in (found, low, high))
        found_text, low_text, high_text = values
        interval = f"{low_text} to {high_text}{end}"
        verdict = "within" if passed else "not within"
        sentence = f"{self.where}: {found_text}{end} {what}, {verdict} {interval}: {why}"
        return Check(name, self.where, float(found), float(low), float(high), passed, sentence)
