"""A million documents end to end, on two cores, no process above 2 GB: `vocab`, `prepare`, `verify`. make test-faults.

The corpus is synthetic: sentences of invented words with the frequency distribution of a natural language.
"""

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.test_resume import CODE

DOCUMENTS = int(os.environ.get("DOCUMENTS", "1000000"))
LIMIT = 2 << 30  # maximum bytes of memory of one process
BLOCK = 10_000  # documents generated at a time
SYLLABLES = [first + vowel for first in "bdfgklmnprstvz" for vowel in ("a", "e", "i", "o", "u", "ar", "en")]


def words(stream: np.random.Generator, count: int = 50_000) -> list[str]:
    """Distinct invented words of one to four syllables."""
    found: dict[str, None] = {}
    while len(found) < count:
        picked = stream.integers(0, len(SYLLABLES), int(stream.integers(1, 5))).tolist()
        found["".join(SYLLABLES[at] for at in picked)] = None
    return list(found)


def documents(count: int, seed: int = 1) -> Iterator[str]:
    """Texts of about 1 kB; every tenth is short, of about 100 bytes; every hundredth repeats an earlier one."""
    stream = np.random.Generator(np.random.Philox(seed))
    known = np.array(words(stream), dtype=object)
    shares = 1 / (np.arange(len(known)) + 2.7)
    edges = np.cumsum(shares / shares.sum())
    for begin in range(0, count, BLOCK):
        sizes = np.where(stream.random(BLOCK) < 0.1, 2, stream.integers(10, 26, BLOCK))  # sentences
        lengths = stream.integers(5, 15, int(sizes.sum()))
        picked = known[np.minimum(np.searchsorted(edges, stream.random(int(lengths.sum()))), len(known) - 1)]
        ends = np.cumsum(lengths)
        parts = [" ".join(picked[low:high]).capitalize() + "." for low, high in zip(ends - lengths, ends, strict=True)]
        places = np.cumsum(sizes)
        texts = [" ".join(parts[low:high]) for low, high in zip(places - sizes, places, strict=True)]
        for row in np.flatnonzero(stream.random(BLOCK) < 0.01).tolist():
            texts[row] = texts[row // 2]
        yield from texts[: count - begin]


def write(folder: Path, count: int) -> int:
    """The corpus as ten files of JSON lines, gzipped; returns the bytes of text."""
    total, made = 0, documents(count)
    for number in range(10):
        with gzip.open(folder / f"part-{number}.jsonl.gz", "wt", compresslevel=1) as file:
            for _ in range(count // 10):
                text = next(made)
                total += len(text)
                file.write(json.dumps({"text": text}) + "\n")
    return total


def measured(arguments: list[str]) -> tuple[float, int, int]:
    """Run a command; return (seconds, the largest peak memory of a process, the number of processes)."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", CODE, *map(str, arguments)], stdout=subprocess.DEVNULL)
    whole, peaks = psutil.Process(process.pid), {}
    while process.poll() is None:
        try:
            for one in (whole, *whole.children(recursive=True)):
                peaks[one.pid] = max(peaks.get(one.pid, 0), one.memory_info().rss)
        except psutil.NoSuchProcess:
            pass
        time.sleep(0.2)
    assert process.returncode == 0
    return time.monotonic() - began, max(peaks.values()), len(peaks)


@pytest.mark.slow  # as is the only test that reads it
def test_the_corpus_is_reproducible() -> None:
    texts = list(documents(300))
    assert texts[:150] == list(documents(300))[:150] and len(set(texts)) < 300
    sizes = np.array(list(map(len, texts)))
    assert 700 < sizes.mean() < 1300 and 15 < (sizes < 250).sum() < 60
    assert sum(text.count(". ") for text in texts) > 3000


@pytest.mark.slow
@pytest.mark.parametrize("dedup", ["exact", "near"])
def test_a_million_documents_within_2_gb(tmp_path: Path, dedup: str) -> None:
    size = write(tmp_path, DOCUMENTS)
    inputs = ["--input", str(tmp_path / "*.jsonl.gz"), "--no-progress", "--num-workers", "2"]
    commands = [
        ["vocab", *inputs, "--vocab-size", "8000", "--output", tmp_path / "vocab.txt"],
        [
            "prepare",
            *inputs,
            "--vocab",
            tmp_path / "vocab.txt",
            "--output",
            tmp_path / "d",
            "--dupe-factor",
            "1",
            "--dedup",
            dedup,
        ],
        ["verify", tmp_path / "d", "--no-progress", "--num-workers", "2"],
    ]
    for command in commands:
        seconds, peak, processes = measured(command)
        print(
            f"{command[0]} of {DOCUMENTS:,} documents, {size / 1e6:,.0f} MB, --dedup {dedup}: {seconds:,.0f} s, "
            f"peak of the largest of {processes} processes {peak / 1e6:,.0f} MB"
        )
        assert peak < LIMIT, command[0]
    told = json.loads((tmp_path / "d/dataset.json").read_text())["documents"]
    assert told["read"] == DOCUMENTS // 10 * 10
    assert 0.98 * DOCUMENTS < told["kept"] < 0.997 * DOCUMENTS  # duplicates are dropped
