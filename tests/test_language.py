"""Messages, help texts, docstrings and comments use plain technical English, without a list of words and phrases."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Packages and modules that are checked. To check another package, add its folder.
CHECKED = ("pipelines", "clozemill.py")

BANNED = re.compile(
    r"\b(?:"
    r"anew|begun|is told|are told|was told|tells? of|told of|whoever|"
    r"held against|put up with|puts up with|(?-i:is none)|of no account|stands? in|stood in|lies in|lie in|heeded|"
    r"mend(?:ed|s|ing)?|goes on with|go on with|gone on with|passed over|passes over|no whole|is whole|are whole|the whole of|"
    r"mill(?:ed|s|ing|er|ers)?|begin anew|brings? the old|in the middle of an?|leave it out|must see to it|"
    r"upon|whence|thereof|therein|hitherto|heretofore|lest|ere|nought|naught|"
    r"(?<!there )is no (?:file|dataset|text|number|page|list|regular)"
    r")\b",
    re.IGNORECASE,
)

# Names in code, and keys of plan.json.
ALLOWED = re.compile(r"\bmill_(?:seconds|stages)\b|>>> mend\(.*|(?:CPU|cost) of the mill")


def files() -> list[Path]:
    return [
        path for name in CHECKED for path in sorted((ROOT / name).rglob("*.py") if (ROOT / name).is_dir() else [ROOT / name])
    ]


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the string constants and comments of a module; an identifier or a key isn't prose."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.split("\n")):
                yield node.lineno + offset * (node.end_lineno > node.lineno), line
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def faults(source: str) -> list[tuple[int, str]]:
    """Return (line, phrase) for each banned phrase."""
    return [
        (line, found[0]) for line, text in prose(source) for found in BANNED.finditer(ALLOWED.sub("", text.replace("\n", " ")))
    ]


def test_no_banned_words() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {phrase!r}"
        for path in files()
        for line, phrase in faults(path.read_text(encoding="utf-8"))
    ]
    assert not found, "write plain English:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""A run that was begun."""\n', [(1, "begun")]),
        ("x = 1  # a file that is mended\n", [(1, "mended")]),
        ('y = 2\nraise ValueError(f"{y} is told, and begun anew")\n', [(2, "is told"), (2, "begun"), (2, "anew")]),
        ('"""Docs.\n\nWhoever reads\n"""\n', [(3, "Whoever")]),
        ('"Process splits" >> step  # resumes where it stopped\n', []),
        ("begun = mill(anew)\n", []),
    ],
)
def test_banned_words_are_found(source: str, expected: list[tuple[int, str]]) -> None:
    assert faults(source) == expected


def test_packages_exist() -> None:
    assert all((ROOT / name).exists() for name in CHECKED) and len(files()) > 100
