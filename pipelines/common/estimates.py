"""An estimated value with its range and unit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """An estimate and its range, all three equal for what was counted or follows by arithmetic.

    unit: "" for a count, "B", "s", "h" (of a core or chip), "x" (times) or "price" (in the unit that prices were given in).
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float
