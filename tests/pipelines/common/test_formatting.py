"""Texts for people."""

import pytest

from clozemill.pipelines.common.formatting import aligned, enumerated


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_enumerated(words: list[str], text: str) -> None:
    assert enumerated(words) == text


def test_aligned() -> None:
    lines = [("run", "steps", ""), ("a", "1,000", "b")]
    assert aligned(lines) == ["run  steps", "a    1,000  b"]
    assert aligned(lines, [False, True, False]) == ["run  steps", "a    1,000  b"]
    assert aligned([("1", "x"), ("20", "y")], [True, False]) == [" 1  x", "20  y"]
