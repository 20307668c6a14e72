"""Decompression bombs: a few kB that expand to 10 GB take bounded memory, and result in a counted reject."""

import bz2
import gzip
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.readers import document, formats
from clozemill.pipelines.readers.document import Rejected
from tests import corpora

PACK: dict[str, Callable[[bytes], bytes]] = {
    ".gz": lambda data: gzip.compress(data, 9, mtime=0),
    ".bz2": bz2.compress,
    ".zst": lambda data: zstandard.ZstdCompressor(19).compress(data),
}
GOOD = corpora.texts(30)
BODY = {".jsonl": corpora.jsonl(GOOD), ".xml": corpora.dump(GOOD), ".txt": corpora.bert(GOOD) + b"\n"}
STREAM = 64 << 20
GIGABYTE = 1 << 30


def bomb(path: Path, ending: str, size: int) -> None:
    """Write a valid file, then `size` zero bytes in consecutive streams of 64 MB, as all three formats allow."""
    pack = PACK[path.suffix]
    stream = pack(bytes(STREAM))
    path.write_bytes(pack(BODY[ending]) + stream * (size // STREAM))
    assert path.stat().st_size < size / 500


# A small process starts the command, because Linux counts the peak of the parent for a forked child.
WATCHER = """
import resource, subprocess, sys
code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def prepared(folder: Path, source: Path, *more: str) -> tuple[int, str, int]:
    """Return (exit code, standard error, peak memory in bytes) of `prepare` in a separate process."""
    corpora.write_vocabulary(folder / "vocab.txt")
    command = [sys.executable, "-m", "clozemill", "prepare", "--input", str(source), "--vocab", str(folder / "vocab.txt")]
    command += ["--output", str(folder / "out"), "--max-seq-length", "32", "--in-memory", "--no-progress", "--num-groups", "1"]
    with open(folder / "error", "wb") as error:
        done = subprocess.run([sys.executable, "-c", WATCHER, *command, *more], stdout=subprocess.PIPE, stderr=error)
    code, peak = map(int, done.stdout.split()[-2:])
    return code, (folder / "error").read_text(), peak * 1024


def assert_given_up(folder: Path, source: Path, record: str) -> None:
    """Check that the run fails and names the record or, if rejects are allowed, keeps all other documents."""
    code, error, peak = prepared(folder, source)
    print(f"{source.name}: {source.stat().st_size:,} bytes on disk, peak {peak / 1e6:,.0f} MB")
    assert code == 2 and error.count("\n") == 1, error
    assert f"{source}, {record}" in error and "too_long it is larger than 128 MB: split it into documents" in error
    assert peak < GIGABYTE
    code, error, peak = prepared(folder, source, "--max-reject-rate", "1")
    assert (code, error) == (0, "")
    documents = json.loads((folder / "out/dataset.json").read_text())["documents"]
    assert documents["dropped"] == {"too_long": 1} and documents["kept"] == 30
    assert peak < GIGABYTE


@pytest.mark.slow
def test_a_gzip_file_of_more_zeros_than_memory_allowed(tmp_path: Path) -> None:
    bomb(tmp_path / "a.jsonl.gz", ".jsonl", GIGABYTE + GIGABYTE // 8)
    assert_given_up(tmp_path, tmp_path / "a.jsonl.gz", "line 31")


@pytest.mark.slow
@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize(("ending", "record"), [(".jsonl", "line 31"), (".xml", "page 31"), (".txt", "line 2")])
def test_10_gb_of_zeros(tmp_path: Path, ending: str, record: str, packed: str) -> None:
    bomb(tmp_path / f"a{ending}{packed}", ending, 10 * GIGABYTE)
    assert_given_up(tmp_path, tmp_path / f"a{ending}{packed}", record)


@pytest.mark.slow
def test_10_gb_as_one_document(tmp_path: Path) -> None:
    bomb(tmp_path / "a.txt.bz2", ".txt", 10 * GIGABYTE)
    code, error, peak = prepared(tmp_path, tmp_path / "a.txt.bz2", "--format", "document")
    assert code == 2 and f"{tmp_path}/a.txt.bz2: too_long" in error
    assert peak < GIGABYTE


def write_parquet(path: Path) -> None:
    """Write it in a separate process, because the peak memory of a child includes its parent's."""
    row = pa.table({"text": pa.array(["0" * (100 << 20)], pa.large_string()), "title": ["a"]})
    with pq.ParquetWriter(path, row.schema, compression="zstd", use_dictionary=False) as writer:
        writer.write_table(pa.table({"text": pa.array(GOOD, pa.large_string()), "title": ["a"] * len(GOOD)}))
        writer.write_table(pa.concat_tables([row] * 10), row_group_size=10)


@pytest.mark.slow
def test_a_parquet_file_that_expands(tmp_path: Path) -> None:
    """Ten values of 100 MB in a few kB: none is decompressed."""
    writer = multiprocessing.get_context("spawn").Process(target=write_parquet, args=(tmp_path / "a.parquet",))
    writer.start()
    writer.join()
    assert (tmp_path / "a.parquet").stat().st_size < 1 << 20
    code, error, peak = prepared(tmp_path, tmp_path / "a.parquet", "--max-reject-rate", "1")
    assert (code, error) == (0, "") and peak < GIGABYTE
    assert json.loads((tmp_path / "out/dataset.json").read_text())["documents"]["dropped"] == {"too_long": 1}
    (reject,) = [json.loads(line) for file in tmp_path.glob("out/rejects/*.jsonl") for line in file.open()]
    assert reject["source"] == f"{tmp_path}/a.parquet, row group 1" and "not plausible for text" in reject["detail"]


def read(path: Path, split_bytes: int) -> list:
    """Read the records of a file in splits of this many bytes."""
    (info,) = formats.filesystem.match([str(path)])
    format_, compression = formats.detect(str(path), "auto")
    splits = formats.READERS[format_].plan(info, format_, compression, split_bytes)
    options = PrepareConfig(input=(str(path),))
    return [record for split in splits for record in formats.read(split, options)]


@pytest.mark.parametrize("split_bytes", [100, 700, 5000, 1 << 20])
@pytest.mark.parametrize("ending", BODY)
def test_a_long_record_is_one_reject_for_any_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, split_bytes: int
) -> None:
    """The records around it are read exactly once: a limit that depended on the splits would change the bytes."""
    monkeypatch.setattr(document, "MAX_RECORD", 2000)
    long = "word " * 600 + "end."
    (tmp_path / f"a{ending}").write_bytes(
        {".jsonl": corpora.jsonl, ".xml": corpora.dump, ".txt": corpora.bert}[ending]([*GOOD[:7], long, *GOOD[7:]])
    )
    found = read(tmp_path / f"a{ending}", split_bytes)
    dropped = [record for record in found if isinstance(record, Rejected)]
    assert [record.reason for record in dropped] == ["too_long"] and dropped[0].bad
    assert len(found) == 31
    texts = [" ".join(record.text.split()) for record in found if not isinstance(record, Rejected)]
    assert texts == GOOD
