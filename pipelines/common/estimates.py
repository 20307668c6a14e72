"""An estimated value with its range and unit."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """An estimate with its range. All three values are equal if the value was counted or calculated exactly.

    unit: "" for a count, "B", "s", "h" (of a core or chip), "x" (times) or "price" (in the unit of the given prices).
    """

    name: str
    unit: str
    estimate: float
    low: float
    high: float
