"""The promise: same corpus, configuration and seed give the same bytes, on any runner and for any layout of the input."""

import bz2
import gzip
import hashlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.readers import formats

OPTIONS = ["--num-groups", "3", "--dupe-factor", "2", "--eval-fraction", "0.2", "--seed", "7", "--no-progress"]


def digest_of(folder: Path) -> str:
    """The dataset's digest, recomputed from the bytes on disk and compared with dataset.json's."""
    manifest = json.loads((folder / "dataset.json").read_text())
    for shard in manifest["shards"]:
        assert hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest() == shard["sha256"]
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.tfrecord"))
    assert found == [shard["name"] for shard in manifest["shards"]] or set(found) == {s["name"] for s in manifest["shards"]}
    return manifest["digest"]


def prepare(folder: Path, vocab: str, inputs: list[str], *more: str) -> str:
    """Runs `clozemill prepare` in this process and returns the digest."""
    command = ["prepare", "--input", *inputs, "--vocab", vocab, "--output", str(folder), *OPTIONS, *more]
    assert clozemill.main(command) == 0
    return digest_of(folder)


@pytest.fixture(scope="module")
def expected(demo_dataset: Path) -> str:
    """The digest of the run in memory with the `files` shuffle (provenance doesn't change the shards)."""
    return digest_of(demo_dataset)


def test_golden_digest(expected: str) -> None:
    """If a change alters the bytes on purpose, put the new value here and explain it in the commit."""
    assert expected == "9c787ab2e2d96b6b5830bbdba26730fe189f3f14e4b8f20fca10239d0fb56a15"


@pytest.mark.parametrize(
    ("workers", "shuffle"),
    [
        ("1", "beam"),
        ("2", "files"),
        pytest.param("1", "files", marks=pytest.mark.slow),
        pytest.param("2", "beam", marks=pytest.mark.slow),
    ],
)
def test_workers_and_shuffles(
    tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str, shuffle: str, workers: str
) -> None:
    mode = "--in-memory" if workers == "1" else "--no-in-memory"
    found = prepare(tmp_path / "d", demo_vocab, [demo_corpus], "--shuffle", shuffle, "--num-workers", workers, mode)
    assert found == expected


def test_small_splits(
    tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "MIN_SPLIT", 5000)
    monkeypatch.setattr("clozemill.pipelines.shuffle.spill.SPILL_BYTES", 3000)
    monkeypatch.setattr("clozemill.pipelines.prepare.document_processor.BATCH_CHARS", 2000)
    assert prepare(tmp_path / "d", demo_vocab, [demo_corpus]) == expected


def dump_parts(corpus: str, parts: int) -> list[bytes]:
    """The demo corpus as several dumps, each with its own header."""
    text = Path(corpus).read_bytes()
    head = text[: text.index(b"  <page>")]
    pages = [page + b"</page>\n" for page in text[len(head) :].split(b"</page>\n")[:-1]]
    return [head + b"".join(pages[part::parts]) + b"</mediawiki>\n" for part in range(parts)]


def test_renamed_reordered_split_and_compressed_input(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str) -> None:
    names = ["z.xml", "a.xml.gz", "m.xml.bz2"]
    for name, data in zip(names, dump_parts(demo_corpus, 3), strict=True):
        pack = {"gz": gzip.compress, "bz2": bz2.compress}.get(name.rsplit(".", 1)[1], bytes)
        (tmp_path / name).write_bytes(pack(data))
    assert prepare(tmp_path / "d", demo_vocab, [str(tmp_path / name) for name in names]) == expected


def test_a_multistream_dump(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str, monkeypatch) -> None:
    """Streams cut at arbitrary bytes, and splits smaller than a stream: every page is still read once."""
    data = Path(demo_corpus).read_bytes()
    streams = b"".join(bz2.compress(data[low : low + 30_000]) for low in range(0, len(data), 30_000))
    (tmp_path / "dump.xml.bz2").write_bytes(streams)
    monkeypatch.setattr(formats, "MIN_SPLIT", 4000)
    assert prepare(tmp_path / "d", demo_vocab, [str(tmp_path / "dump.xml.bz2")]) == expected


def test_duplicated_input_changes_nothing(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str) -> None:
    (tmp_path / "again.xml").write_bytes(Path(demo_corpus).read_bytes())
    assert prepare(tmp_path / "d", demo_vocab, [demo_corpus, str(tmp_path / "again.xml")]) == expected
    documents = json.loads((tmp_path / "d/dataset.json").read_text())["documents"]
    assert documents["duplicates"] == documents["kept"] == 66


def test_another_seed_gives_other_bytes(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str) -> None:
    assert prepare(tmp_path / "d", demo_vocab, [demo_corpus], "--seed", "8") != expected


def test_gzip_contains_the_same_records(tmp_path: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path) -> None:
    prepare(tmp_path / "d", demo_vocab, [demo_corpus], "--compression", "gzip")
    names, plain = (
        {path.relative_to(folder).as_posix() for path in folder.rglob("*.tfrecord")}
        for folder in (tmp_path / "d", demo_dataset)
    )
    assert names == plain and len(names) == 7  # two copies of 3 groups, and the eval split
    for name in names:
        assert gzip.decompress((tmp_path / "d" / name).read_bytes()) == (demo_dataset / name).read_bytes(), name


@pytest.fixture
def job_service(tmp_path: Path):
    """Beam's portable job service, as Flink and Spark would be submitted to; yields its address."""
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "apache_beam.runners.portability.local_job_service_main", "--port", "0"]
    server = subprocess.Popen([*command, "--port_file", str(port_file)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (port_file.exists() and port_file.read_text().strip()) and time.monotonic() < deadline:
        time.sleep(0.1)
    yield f"localhost:{port_file.read_text().strip()}"
    server.kill()
    server.wait()


@pytest.mark.slow
def test_the_portable_job_service(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str, job_service: str) -> None:
    runner = ["--runner", "PortableRunner", "--job_endpoint", job_service, "--environment_type", "LOOPBACK"]
    assert prepare(tmp_path / "d", demo_vocab, [demo_corpus], *runner) == expected


DASK = """
import sys
from dask.distributed import LocalCluster
import clozemill
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        code = clozemill.main([*sys.argv[1:], "--runner", "DaskRunner", "--dask_client_address", cluster.scheduler_address])
    sys.exit(code)
"""


@pytest.mark.slow
def test_dask_on_a_local_cluster(tmp_path: Path, demo_corpus: str, demo_vocab: str, expected: str) -> None:
    pytest.importorskip("distributed")
    (tmp_path / "run.py").write_text(DASK)
    command = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    subprocess.run([sys.executable, str(tmp_path / "run.py"), *command], check=True, timeout=300)
    assert digest_of(tmp_path / "d") == expected


def test_the_manifest_depends_on_no_clock_process_or_order(
    tmp_path: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path
) -> None:
    """dataset.json itself is byte-identical for the same input path."""
    prepare(tmp_path / "d", demo_vocab, [demo_corpus], "--provenance", "--shuffle", "beam")
    for name in (
        "dataset.json",
        "vocab.txt",
        *(str(path.relative_to(demo_dataset)) for path in demo_dataset.rglob("*.parquet")),
    ):
        assert (tmp_path / "d" / name).read_bytes() == (demo_dataset / name).read_bytes(), name
    assert not re.search(r"\.tmp-|\.work", "\n".join(map(str, (tmp_path / "d").rglob("*"))))
