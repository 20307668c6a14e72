"""Early stopping: a run ends once its evaluations have stopped improving.

All of its state follows from the evaluations made so far and is saved in every checkpoint, so a run that was killed and
resumed stops at the step at which an uninterrupted one does, and a run that stopped early stays stopped.
"""

import math
from dataclasses import dataclass
from typing import Any

Rank = tuple[float, float]  # of an evaluation; the lower the better


def rank(figures: dict[str, Any] | None) -> Rank:
    """How good an evaluation is: its criterion, then its dev loss; the criterion is infinite where none was measured.

    The criterion is what was recorded as `criterion`, otherwise (pretraining) the masked-LM loss. The dev loss decides
    between evaluations of equal criterion, and orders those whose metric is undefined.
    """
    figures = figures or {}
    criterion = figures.get("criterion", figures.get("masked_lm_loss"))
    loss = figures.get("loss") if "criterion" in figures else None
    return _number(criterion), _number(loss)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else math.inf


@dataclass
class EarlyStopping:
    """Counts evaluations without improvement.

    Args:
        patience: so many of them in a row end the run; 0 never does.
        min_delta: by how much the criterion (or, while the metric is undefined, the dev loss) has to improve on the best.
        best: rank of the last evaluation that counted as an improvement. waited: evaluations since.
    """

    patience: int = 0
    min_delta: float = 0.0
    best: Rank | None = None
    waited: int = 0

    def add(self, figures: dict[str, Any]) -> None:
        """Takes the figures of the next evaluation."""
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
        return found[0] < self.best[0] - self.min_delta  # what was measured improves on what wasn't

    @property
    def stops(self) -> bool:
        """Whether the run ends here."""
        return bool(self.patience) and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps; {} without patience."""
        if not self.patience:
            return {}
        best = None if self.best is None else [value if math.isfinite(value) else None for value in self.best]
        return {"stopping": {"best": best, "waited": self.waited}}

    def resume(self, index: dict[str, Any]) -> None:
        """Takes the state of a checkpoint.json."""
        if saved := index.get("stopping"):
            self.best = None if saved["best"] is None else tuple(map(_number, saved["best"]))
            self.waited = saved["waited"]
