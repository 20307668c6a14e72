"""Small corpora for tests: deterministic text from a word list, in every format that the readers know."""

import bz2
import json
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from clozemill.pipelines.vocab import training

TEXT = (
    "the river moves under old stone bridge while small boats carry grain salt wool and copper toward quiet harbour "
    "towns where merchants count their coins by lamplight children chase geese along narrow lanes until evening bells "
    "ring from every tower farmers mend fences before first frost settles over northern fields"
)
WORDS = TEXT.split()


def sentences(count: int, rng: np.random.Generator) -> list[str]:
    """Sentences of 4 to 11 words."""
    picked = [rng.choice(WORDS, int(rng.integers(4, 12))) for _ in range(count)]
    return [" ".join(words).capitalize() + "." for words in picked]


def texts(count: int, seed: int = 1, length: int = 8) -> list[str]:
    """Return `count` documents of `length` sentences, all different."""
    rng = np.random.default_rng(seed)
    return [" ".join(sentences(length, rng)) for _ in range(count)]


def jsonl(documents: Iterable[str]) -> bytes:
    """A JSON object per document, with id and title."""
    records = ({"id": number, "title": f"Title {number}", "text": text} for number, text in enumerate(documents))
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def bert(documents: Iterable[str]) -> bytes:
    """A sentence per line, an empty line between documents."""
    return "\n".join("".join(f"{part.strip()}.\n" for part in text.split(".") if part) for text in documents).encode()


def page(title: str, text: str, namespace: int = 0, redirect: bool = False, number: int = 1) -> str:
    """One page of a MediaWiki dump."""
    return (
        f"  <page>\n    <title>{escape(title)}</title>\n    <ns>{namespace}</ns>\n    <id>{number}</id>\n"
        + ('    <redirect title="Elsewhere" />\n' if redirect else "")
        + "    <revision>\n      <id>77</id>\n      <contributor><username>A</username><id>9</id></contributor>\n"
        + f'      <text xml:space="preserve">{escape(text)}</text>\n    </revision>\n  </page>\n'
    )


HEADER = '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/">\n  <siteinfo><dbname>test</dbname></siteinfo>\n'
FOOTER = "</mediawiki>\n"


def wikixml(pages: Iterable[str]) -> bytes:
    """A dump of some pages."""
    return (HEADER + "".join(pages) + FOOTER).encode()


def dump(documents: Iterable[str]) -> bytes:
    """A dump with a page per document."""
    return wikixml(page(f"Title {number}", text, number=number) for number, text in enumerate(documents))


def multistream(data: bytes, cuts: Iterable[int]) -> bytes:
    """bz2 streams one after another, the text cut at these places."""
    edges = [0, *sorted(cuts), len(data)]
    return b"".join(bz2.compress(data[low:high], 1) for low, high in pairwise(edges))


def tokens(size: int = 120) -> list[str]:
    """A vocabulary learnt from WORDS."""
    return training.learn([*Counter(WORDS).items(), (".", 9)], size, 100)


def write_vocabulary(path: Path, entries: Iterable[str] | None = None) -> Path:
    """vocab.txt with these entries, or with tokens()."""
    path.write_text("".join(f"{token}\n" for token in entries or tokens()), "utf-8")
    return path
