"""Messages, help texts, docstrings, comments and pages use plain technical English: they avoid a list of words and phrases.

test_documents.py uses the same list for README and docs. Of the tests, names, docstrings and comments are checked, not data.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Packages and modules whose docstrings, comments and texts are checked. To check another package, add its folder.
CHECKED = ("pipelines", "model", "trainers", "deploy", "clozemill.py", "setup.py")
# Other files: pages, scripts, manifests, requirements.
PLAIN = (".md", ".yaml", ".sh", ".txt", ".toml", "Makefile", "Dockerfile")

# Words and phrases, and what to write instead.
BANNED_WORDS = {
    "anew|begin anew|made anew": "again",
    "begun": "started",
    r"(?:is|are|was) told|tells? of|told of": "is reported",
    "held against": "compared with",
    "puts? up with": "allowed",
    "whoever": "who",
    "(?<!there )(?-i:is none)": "is not a",
    "of no account|heeded": "ignored",
    "stands? in|stood in|lies in|lie in": "is in",
    "mend(?:ed|s|ing)?": "fix",
    "(?:goes|go|gone) on with": "resumes",
    "(?:passed|passes) over": "skipped",
    "(?:no|is|are) whole|the whole of": "complete",
    "mill(?:ed|s|ing|er|ers)?": "pipeline",
    "brings? the old": "restores",
    "in the middle of an?": "within",
    "must see to it": "must",
    "in vain|to the bit|strangers?": "without success, bit-identical, foreign",
    "upon|whence|thereof|therein|hitherto|heretofore|lest|ere|nought|naught": "(archaic)",
    "(?<!there )is no (?:file|dataset|text|number|page|list|regular)": "is not a",
}
BANNED = re.compile(r"\b(?:" + "|".join(BANNED_WORDS) + r")\b", re.IGNORECASE)

# Names in code, keys of plan.json, the number of epochs, and real mills in examples.
ALLOWED = re.compile(
    r"\bmill_(?:seconds|stages)\b|>>> mend\(.*|passes over the training examples|"
    r"[Tt]he mill stands by|`mills` has"
)


def modules(*names: str) -> list[Path]:
    """Return the modules in folders, or with these names."""
    return [path for name in names for path in sorted((ROOT / name).rglob("*.py") if (ROOT / name).is_dir() else [ROOT / name])]


def pages() -> list[Path]:
    """Return README, the pages of docs/ and other text files that people read."""
    found = [path for name in ("docs", "deploy") for path in sorted((ROOT / name).rglob("*"))]
    return [path for path in [*ROOT.glob("*"), *found] if path.name.endswith(PLAIN) and path.is_file()]


def comments(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the comments in a module."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the string constants and comments of a module; an identifier or a key isn't prose."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            for offset, line in enumerate(node.value.split("\n")):
                yield node.lineno + offset * (node.end_lineno > node.lineno), line
    yield from comments(source)


def prose_of_tests(source: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of the names of tests, docstrings and comments of a test module; other strings are data."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield getattr(node, "lineno", 1), ast.get_docstring(node) or ""
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.lineno, node.name.replace("_", " ")
    yield from comments(source)


def phrases(text: str) -> list[str]:
    """Return the banned phrases in a text."""
    return [found[0] for found in BANNED.finditer(ALLOWED.sub("", text.replace("\n", " ")))]


def faults(texts: Iterator[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return (line, phrase) for each banned phrase."""
    return [(line, phrase) for line, text in texts for phrase in phrases(text)]


def report(path: Path, found: list[tuple[int, str]]) -> list[str]:
    """Return a line per banned phrase in a file."""
    return [f"{path.relative_to(ROOT)}:{line}: {phrase!r}" for line, phrase in found]


def test_no_banned_words() -> None:
    found = [line for path in modules(*CHECKED) for line in report(path, faults(prose(path.read_text("utf-8"))))]
    assert not found, "write plain English:\n" + "\n".join(found)


def test_no_banned_words_in_tests() -> None:
    paths = [path for path in modules("tests") if path.name != Path(__file__).name]
    found = [line for path in paths for line in report(path, faults(prose_of_tests(path.read_text("utf-8"))))]
    assert not found, "write plain English:\n" + "\n".join(found)


def test_no_banned_words_in_pages() -> None:
    found = [line for path in pages() for line in report(path, faults(enumerate(path.read_text("utf-8").split("\n"), 1)))]
    assert not found, "write plain English:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('"""A run that was begun."""\n', [(1, "begun")]),
        ("x = 1  # a file that is mended\n", [(1, "mended")]),
        ('y = 2\nraise ValueError(f"{y} is told, and begun anew")\n', [(2, "is told"), (2, "begun"), (2, "anew")]),
        ('"""Docs.\n\nWhoever reads\n"""\n', [(3, "Whoever")]),
        ('"the mill_seconds of it"  # resumes where it stopped\n', []),
        ("begun = mill(anew)\n", []),
    ],
)
def test_banned_words_are_found(source: str, expected: list[tuple[int, str]]) -> None:
    assert faults(prose(source)) == expected


def test_banned_words_are_found_in_names_of_tests() -> None:
    source = 'def test_what_is_told() -> None:\n    """Begun."""\n    x = "is told"  # in vain\n'
    assert sorted(faults(prose_of_tests(source))) == [(1, "Begun"), (1, "is told"), (3, "in vain")]


def test_files_are_found() -> None:
    names = {path.relative_to(ROOT).as_posix() for path in pages()}
    assert {"README.md", "Makefile", "docs/index.md", "deploy/gke/Dockerfile", "deploy/tpu/run.sh"} <= names
    assert len(modules(*CHECKED)) > 200 and len(modules("tests")) > 200
