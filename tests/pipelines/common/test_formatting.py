"""Texts for people."""

import pytest

from clozemill.pipelines.common.formatting import enumerated


@pytest.mark.parametrize(("words", "text"), [(["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")])
def test_enumerated(words: list[str], text: str) -> None:
    assert enumerated(words) == text
