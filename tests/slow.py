"""Mark test parameters as slow: `make test` runs the quick ones, `make test-slow` the others."""

from collections.abc import Iterable
from typing import Any

import pytest


def mostly_slow(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Return the values for parametrize, all except `quick` marked as slow."""
    return [value if value in quick else pytest.param(value, marks=pytest.mark.slow) for value in values]
