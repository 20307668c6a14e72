"""Mark test parameters as slow: `make test` runs the quick ones, `make test-slow` the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the values of one argument for parametrize, all except `quick` marked as slow."""
    return mostly_slow_rows(((value,) for value in values), *((value,) for value in quick))


def mostly_slow_rows(rows: Iterable[tuple[Any, ...]], *quick: tuple[Any, ...]) -> list[Any]:
    """Return the values of several arguments for parametrize, all rows except `quick` marked as slow."""
    return [pytest.param(*row, marks=[] if row in quick else [pytest.mark.slow]) for row in rows]
