"""Measures the pace of a run, from which the time left is estimated."""

from dataclasses import dataclass

_HALF_LIFE = 60.0  # seconds: other programs come and go, so the pace must follow


@dataclass
class Pace:
    """Seconds per step, recent steps first: a step counts half after a minute of training.

    Only steady steps may be added. The first step of a phase traces and compiles the model, which takes as long as dozens.
    """

    seconds: float = 0.0
    steps: float = 0.0

    def add(self, seconds: float, steps: int) -> None:
        """Add some steps that took `seconds` together."""
        kept = 0.5 ** (seconds / _HALF_LIFE)
        self.seconds = self.seconds * kept + seconds
        self.steps = self.steps * kept + steps

    def time_for(self, steps: float) -> float | None:
        """Return the seconds that `steps` more will take; None if no step was measured yet."""
        return steps * self.seconds / self.steps if self.steps else None
