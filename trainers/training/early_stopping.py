"""Early stopping: a run ends once its evaluations have stopped improving.

Its state depends only on the evaluations so far and is saved in every checkpoint. So a resumed run stops at the same step as
an uninterrupted one, and a run that stopped early stays stopped.
"""

import math
from dataclasses import dataclass
from typing import Any

Rank = tuple[float, float]  # rank of an evaluation; lower is better
INCOMPARABLE: dict[str, Any] = {"criterion": None, "comparable": False}  # of an evaluation that selects no checkpoint


def rank(figures: dict[str, Any] | None) -> Rank:
    """Return the rank of an evaluation: its criterion, then its dev loss; an undefined criterion is infinite.

    The criterion is the recorded `criterion`, otherwise (pretraining) the masked-LM loss. The dev loss breaks ties, and orders
    evaluations whose metric is undefined. An incomparable one ranks like none at all.
    """
    figures = figures if figures and figures.get("comparable", True) else {}
    criterion = figures.get("criterion", figures.get("masked_lm_loss"))
    loss = figures.get("loss") if "criterion" in figures else None
    return _number(criterion), _number(loss)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.inf


@dataclass
class EarlyStopping:
    """Counts evaluations without improvement.

    Args:
        patience: number of them in a row that ends the run; 0: never.
        min_delta: minimum improvement on the best criterion (or, while the metric is undefined, the best dev loss).
        best: rank of the last evaluation that counted as an improvement.
        waited: number of evaluations since then.
    """

    patience: int = 0
    min_delta: float = 0.0
    best: Rank | None = None
    waited: int = 0

    def add(self, figures: dict[str, Any]) -> None:
        """Record the metrics of the next evaluation."""
        found = rank(figures)
        if self._improves(found):
            self.best, self.waited = found, 0
        else:
            self.waited += 1

    def _improves(self, found: Rank) -> bool:
        if self.best is None:
            return True
        if math.isinf(found[0]) and math.isinf(self.best[0]):
            return found[1] < self.best[1] - self.min_delta
        return found[0] < self.best[0] - self.min_delta  # a defined metric improves on an undefined one

    @property
    def stops(self) -> bool:
        """Return whether the run ends here."""
        return bool(self.patience) and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """Return the state to save in a checkpoint; {} without patience."""
        if not self.patience:
            return {}
        best = None if self.best is None else [value if math.isfinite(value) else None for value in self.best]
        return {"stopping": {"best": best, "waited": self.waited}}

    def resume(self, index: dict[str, Any]) -> None:
        """Restore the state from a checkpoint.json."""
        if saved := index.get("stopping"):
            self.best = None
            if saved["best"] is not None:
                first, second = map(_number, saved["best"])
                self.best = first, second
            self.waited = saved["waited"]
