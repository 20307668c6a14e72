"""Bad input, end to end: one sentence and exit code 2, or a counted reject; never a traceback or a partial file."""

import bz2
import gzip
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import clozemill
from clozemill.pipelines.files import safe_paths
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from tests import corpora
from tests.slow import mostly_slow

DOCUMENTS = corpora.texts(30)
SMALL = ["--max-seq-length", "32", "--max-predictions", "5", "--dupe-factor", "1", "--in-memory", "--no-progress"]


@dataclass
class Outcome:
    """The result of running a command."""

    code: int
    out: str
    err: str
    folder: Path

    def refused(self, *parts: str) -> None:
        """Check for exit code 2, one sentence with these parts, and no partial files."""
        assert self.code == 2, self.err
        assert len(self.err.splitlines()) == 1, self.err
        assert self.err.startswith("clozemill: ")
        for part in parts:
            assert part in self.err
        assert not (self.folder / "dataset.json").exists()
        self.clean()

    def clean(self) -> None:
        assert "Traceback" not in self.err + self.out
        assert not list(self.folder.rglob("*.tmp-*")) if self.folder.is_dir() else True

    def manifest(self) -> dict:
        assert (self.code, self.err) == (0, "")
        self.clean()
        return json.loads((self.folder / "dataset.json").read_text())

    def rejected(self, reason: str, count: int, source: str = "") -> None:
        """Check for exit code 0 and this many records dropped for this reason, each in rejects/ with its source."""
        documents = self.manifest()["documents"]
        assert documents["dropped"].get(reason) == count
        assert documents["kept"] == documents["read"] - sum(documents["dropped"].values()) + documents["dropped"].get(
            "empty_file", 0
        )
        lines = [json.loads(line) for path in self.folder.glob("rejects/*.jsonl") for line in path.open()]
        assert sum(line["reason"] == reason and source in line["source"] for line in lines) == count


@pytest.fixture
def bench(tmp_path, capsys):
    """A function that writes the input and runs `prepare` on it."""
    corpora.write_vocabulary(tmp_path / "vocab.txt")

    def run(name: str, data: bytes | None, *flags: str, output: str = "out") -> Outcome:
        if data is not None:
            (tmp_path / name).write_bytes(data)
        argv = ["prepare", "--input", str(tmp_path / name), "--vocab", str(tmp_path / "vocab.txt")]
        return call([*argv, "--output", str(tmp_path / output), *SMALL, *flags], tmp_path / output, capsys)

    run.folder, run.capsys = tmp_path, capsys
    return run


def call(argv: list[str], folder: Path, capsys) -> Outcome:
    capsys.readouterr()
    try:
        code = clozemill.main(argv)
    except SystemExit as stop:  # raised by argparse
        code = stop.code
    return Outcome(code, *capsys.readouterr(), folder)


JSONL = corpora.jsonl(DOCUMENTS)


# Damaged files

DAMAGED = {
    "a.jsonl.bz2": (bz2.compress(JSONL)[:-30], "is not an intact bz2 file (it is truncated in the stream"),
    "a.jsonl.gz": (gzip.compress(JSONL)[:-30], "is not an intact gzip file (it is truncated"),
    "a.jsonl.zst": (zstandard.ZstdCompressor().compress(JSONL)[:-30], "is not an intact zstd file (it is truncated"),
    "b.jsonl.bz2": (JSONL, "is not an intact bz2 file (from byte 0: Invalid data stream"),
    "b.jsonl.gz": (JSONL, "is not an intact gzip file (Error -3"),
    "b.jsonl.zst": (JSONL, "is not an intact zstd file ("),
    "c.txt.bz2": (b"", "is not an intact bz2 file (it is empty"),
    "c.txt.gz": (b"", "is not an intact gzip file (it is truncated"),
    "c.txt.zst": (b"", "is not an intact zstd file (it is truncated"),
    "c.parquet": (b"", "is not an intact Parquet file ("),
    "d.parquet": (JSONL, "is not an intact Parquet file ("),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files(bench, name):
    data, why = DAMAGED[name]
    bench(name, data).refused(str(bench.folder / name), why, "download it again or remove it from the input")


def parquet(folder: Path, **columns) -> bytes:
    pq.write_table(pa.table(columns), folder / "whole.parquet", compression="none", use_dictionary=False)
    return (folder / "whole.parquet").read_bytes()


def test_truncated_and_damaged_parquet(bench):
    data = parquet(bench.folder, text=DOCUMENTS)
    bench("a.parquet", data[: len(data) // 2]).refused(
        "a.parquet is not an intact Parquet file", "download it again or remove it from the input"
    )
    # The footer is intact, the header of the column's page isn't.
    bench("b.parquet", data[:4] + b"\xff" * 40 + data[44:]).refused("b.parquet is not an intact Parquet file")


def test_parquet_without_text(bench):
    data = parquet(bench.folder, body=DOCUMENTS)
    bench("a.parquet", data).refused("a.parquet has no column 'text' (it has ['body']): see --text-field")
    data = parquet(bench.folder, text=[None, *DOCUMENTS])
    outcome = bench("b.parquet", data, "--max-reject-rate", "0.1", output="out2")
    outcome.rejected("field_is_no_text", 1, "b.parquet, row group 0, row 0")


def test_parquet_without_rows(bench):
    data = parquet(bench.folder, text=pa.array([], pa.string()))
    bench("a.parquet", data).refused("the input contains no usable document")


# Malformed records

LINES = {
    "malformed_json": [b'{"text": "cut', b"not JSON", b"[" * 100_000, b'{"text": "\x00"}', b"\x00\x00"],
    "invalid_utf8": [b'{"text": "Caf\xe9"}'],
    "missing_field": [b'{"body": "The old bridge."}', b"{}"],
    "field_is_no_text": [b'{"text": null}', b'{"text": 7}', b'{"text": {"a": [1]}}'],
    "not_an_object": [b"null", b'"text"', b"[1]"],
    "no_token": [b'{"text": ""}', b'{"text": " \\u0000\\ud800\\n"}'],
}


@pytest.mark.parametrize("reason", LINES)
def test_malformed_lines_are_counted_and_kept(bench, reason):
    lines = LINES[reason]
    outcome = bench("a.jsonl", b"\n".join([*lines, JSONL]), "--max-reject-rate", "0.5")
    outcome.rejected(reason, len(lines), f"{bench.folder}/a.jsonl, line ")
    assert outcome.manifest()["documents"]["defective"] == (0 if reason == "no_token" else len(lines))


def test_nul_bytes_and_invalid_utf8_in_text(bench):
    documents = corpora.bert(DOCUMENTS).split(b"\n\n")
    documents[3] = documents[3][:9] + b"\xff" + documents[3][9:]
    documents[5] = documents[5][:9] + b"\x00\x00" + documents[5][9:]
    outcome = bench("a.txt", b"\n\n".join(documents), "--max-reject-rate", "0.1")
    outcome.rejected("invalid_utf8", 1, "a.txt, line ")
    assert outcome.manifest()["documents"]["kept"] == 29


def test_a_malformed_page_and_a_truncated_dump(bench):
    data = corpora.dump(DOCUMENTS)
    bench("a.xml", data.replace(b"<title>Title 3</title>", b"<title>Title 3</titel>"), "--max-reject-rate", "0.1").rejected(
        "malformed_xml", 1, "a.xml"
    )
    bench("b.xml", data[: data.rindex(b"</text>")], "--max-reject-rate", "0.1", output="out2").rejected(
        "malformed_xml", 1, "b.xml"
    )


def test_too_many_rejects(bench):
    outcome = bench("a.jsonl", b"{\n" + JSONL)
    outcome.refused(
        "1 of 31 records are malformed, more than --max-reject-rate 0.01",
        f"{bench.folder}/a.jsonl, line 1: malformed_json",
        "correct them or raise the limit",
    )
    assert list(outcome.folder.glob("rejects/*.jsonl"))
    # The limit doesn't affect the output: the same command resumes with a higher one.
    resumed = bench("a.jsonl", None, "--max-reject-rate", "0.05")
    resumed.rejected("malformed_json", 1)
    groups = len(list(resumed.folder.glob("groups/*.json")))
    assert f"\nresuming: {groups} of {groups} groups are complete\n" in resumed.out
    assert f"\nrejected    1 record was rejected as malformed: see {resumed.folder}/rejects/\n" in resumed.out


def test_an_entity_bomb(bench):
    bomb = b'<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]>' + corpora.dump(DOCUMENTS)
    bench("a.xml", bomb).refused(f"{bench.folder}/a.xml declares a document type or entities")
    bench("b.xml", b"<html></html>", output="out2").refused("b.xml is not a MediaWiki XML dump", "give another --format")


# Too little


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.xml", "a.jsonl.gz"])
def test_only_an_empty_file(bench, name):
    data = gzip.compress(b"") if name.endswith("gz") else b""
    bench(name, data).refused("the input contains no usable document (0 records read", "check --input and filters")


def test_an_empty_file_among_others(bench):
    bench("a.jsonl", JSONL)
    (bench.folder / "b.jsonl").touch()
    bench("*.jsonl", None, output="out2").rejected("empty_file", 1, "b.jsonl")


@pytest.mark.parametrize("pairs", ["nsp", "sop", "single"])
def test_a_corpus_of_one_document(bench, pairs):
    manifest = bench("a.jsonl", corpora.jsonl(corpora.texts(1, length=40)), "--pairs", pairs, "--eval-fraction", "0").manifest()
    assert manifest["documents"]["kept"] == 1


def test_a_corpus_of_one_sentence(bench):
    outcome = bench("a.jsonl", b'{"text": "The old bridge."}', "--eval-fraction", "0")
    outcome.refused("no training example could be built from 1 documents", "add text")


def test_all_documents_in_the_eval_split(bench):
    """One document, with the first seed that draws it."""
    for seed in range(20):
        given = ["--eval-fraction", "0.4", "--seed", str(seed)]
        outcome = bench("a.jsonl", b'{"text": "The old bridge. A mill."}', *given, output=f"out-{seed}")
        if "in the eval split" in outcome.err:
            break
    outcome.refused("all 1 documents are in the eval split", "lower --eval-fraction, add text, or give another --seed")


def test_all_documents_filtered(bench):
    outcome = bench("a.jsonl", JSONL, "--min-chars", "1000000")
    outcome.refused("the input contains no usable document (30 records read: 30 too_few_chars)")


# Vocabularies


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ([token for token in corpora.tokens() if token != "[MASK]"], "vocab.txt lacks [MASK]: give"),
        ([*corpora.tokens(), "[CLS]"], "vocab.txt, line 121: '[CLS]' repeats line 3: remove one"),
        ([*corpora.tokens(), ""], "vocab.txt, line 121: the token is empty"),
        (["\n"], "vocab.txt, line 1: the token is empty"),
        (
            [*corpora.tokens(), "Ġthe", "Ġmill"],
            "vocab.txt is a vocabulary of byte-level BPE (tokens begin with 'Ġ'), and datasets",
        ),
    ],
)
def test_bad_vocabularies(bench, entries, why):
    corpora.write_vocabulary(bench.folder / "vocab.txt", entries)
    bench("a.jsonl", JSONL).refused(f"{bench.folder}/{why}")


def test_no_vocabulary(bench):
    (bench.folder / "vocab.txt").write_bytes(b"[PAD]\n\xff")
    bench("a.jsonl", JSONL).refused("vocab.txt is not UTF-8 (byte 6)")
    (bench.folder / "vocab.txt").write_bytes(b"")
    bench("a.jsonl", JSONL).refused("vocab.txt lacks [PAD], [UNK], [CLS], [SEP], [MASK]")
    (bench.folder / "vocab.txt").unlink()
    bench("a.jsonl", JSONL).refused("vocab.txt can't be read (No such file or directory)")


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--vocab-size", "20"], ["--vocab-size 20 is too small for the", "raise it, or lower --max-alphabet"]),
        (["--vocab-size", "20000"], ["fewer than --vocab-size 20,000: give --vocab-size", "or more text"]),
        (["--min-count", "99999"], ["no word occurs 99999 times in the input"]),
        (["--text-field", "body"], ["30 of 30 records are malformed, more than --max-reject-rate 0.01"]),
        (["--input", "none.jsonl"], ["no file matches none.jsonl"]),
        (["--output", "FOLDER"], ["FOLDER is a folder: give the name of the file to write"]),
        (["--output", "FOLDER/a.jsonl/v.txt"], ["FOLDER/a.jsonl/v.txt", "can't be written (Not a directory)"]),
        (["--vocab", "v.txt"], ["unknown option --vocab"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") else "",
)
def test_learning_a_vocabulary(tmp_path, capsys, flags, parts):
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    flags = [flag.replace("FOLDER", str(tmp_path)) for flag in flags]
    argv = ["vocab", "--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "v.txt"), "--in-memory", *flags]
    call(argv, tmp_path, capsys).refused(*[part.replace("FOLDER", str(tmp_path)) for part in parts])
    assert not (tmp_path / "v.txt").exists()


def test_learning_a_vocabulary_from_a_damaged_file(tmp_path, capsys):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(JSONL)[:-20])
    argv = ["vocab", "--input", str(tmp_path / "a.jsonl.gz"), "--output", str(tmp_path / "v.txt"), "--in-memory"]
    call(argv, tmp_path, capsys).refused(f"{tmp_path}/a.jsonl.gz is not an intact gzip file")


# Options


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--max-seq-length", "7"], ["--max-seq-length is 7: give a value between 8 and 65536"]),
        (["--max-seq-length", "x"], ["--max-seq-length is 'x': give a whole number"]),
        (["--max-predictions", "30"], ["--max-predictions 30 is more than the 29 tokens", "lower it"]),
        (["--max-prediction", "3"], ["unknown option --max-prediction", "did you mean"]),
        (["--direct_num_worker=2"], ["unknown option --direct_num_worker", "did you mean --direct_num_workers?"]),
        (["--bundle-size", "2"], ["unknown option --bundle-size", "--help"]),
        (["stray"], ["unknown option stray"]),
        (["--runner", "NoSuchRunner"], ["--runner NoSuchRunner can't be used"]),
        (["--language", "en", "--min-chars", "-1"], ["--min-chars is -1: give a value at least 0"]),
    ],
    ids=lambda value: value[0] if value[0].startswith("--") or value[0] == "stray" else "",
)
def test_bad_options(bench, flags, parts):
    bench("a.jsonl", JSONL, *flags).refused(*parts)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("max_seq_lenght: 32\n", "unknown option 'max_seq_lenght'; did you mean max_seq_length?"),
        ("seed: [1]\n", "seed is [1]: give a whole number"),
        ("- seed\n", "is not a mapping of options to values"),
        ("seed: {\n", "line 2 is not valid YAML"),
    ],
)
def test_bad_configuration_files(bench, text, why):
    (bench.folder / "job.yaml").write_text(text)
    bench("a.jsonl", JSONL, "--config", str(bench.folder / "job.yaml")).refused(f"{bench.folder}/job.yaml", why)


def test_missing_options(bench):
    call(["prepare"], bench.folder / "out", bench.capsys).refused(
        "--input, --vocab and --output are missing: give input files or globs"
    )


def test_no_file_matches(bench):
    bench("none-*.jsonl", None).refused(f"no file matches {bench.folder}/none-*.jsonl: check the path, and quote the glob")
    (bench.folder / "sub").mkdir()
    bench("sub", None).refused(f"{bench.folder}/sub is a folder: give files or a glob")
    bench("a.csv", b"x").refused("a.csv: unknown file format")
    bench("a.parquet.gz", b"x").refused("a.parquet.gz: a Parquet file with additional compression")


def test_remote_files_without_the_extra(bench):
    try:
        from apache_beam.io.gcp import gcsfilesystem  # noqa: F401
    except ImportError:
        install = "pip install 'clozemill[gcp]'"
    else:
        pytest.skip("the extra is installed")
    argv = ["prepare", "--input", "gs://bucket/*.jsonl", "--vocab", str(bench.folder / "vocab.txt"), *SMALL]
    call([*argv, "--output", str(bench.folder / "out")], bench.folder / "out", bench.capsys).refused(
        "gs://bucket/*.jsonl", install
    )
    bench("a.jsonl", JSONL, "--output", "gs://bucket/out").refused("gs://bucket/out", install)


# Output folders


def test_a_finished_dataset_is_not_changed(bench):
    first = bench("a.jsonl", JSONL)
    before = {path: path.stat().st_mtime_ns for path in first.folder.rglob("*")}
    digest = first.manifest()["digest"]
    again = bench("a.jsonl", None)
    assert "is complete; nothing to do" in again.out
    assert again.manifest()["digest"] == digest
    assert {path: path.stat().st_mtime_ns for path in again.folder.rglob("*")} == before


def left_alone(outcome: Outcome, before: bytes, *parts: str) -> None:
    assert (outcome.folder / "dataset.json").read_bytes() == before
    (outcome.folder / "dataset.json").rename(outcome.folder / "kept")
    outcome.refused(*parts)
    (outcome.folder / "kept").rename(outcome.folder / "dataset.json")


def test_a_different_run_in_the_same_folder_is_rejected(bench):
    folder = bench("a.jsonl", JSONL).folder
    before = (folder / "dataset.json").read_bytes()
    left_alone(
        bench("a.jsonl", None, "--seed", "8"), before, f"{folder} was started with --seed 0, not --seed 8", "another --output"
    )
    corpora.write_vocabulary(bench.folder / "vocab.txt", corpora.tokens(119))
    left_alone(bench("a.jsonl", None), before, f"{folder} was started with another vocabulary")
    left_alone(bench("a.jsonl", JSONL[:-1]), before, f"{folder} was built from input files with other names, sizes or times")


def test_an_unfinished_dataset_rejects_another_configuration_or_input(bench):
    """Except if it failed because of them: then it can start over with others, and nothing of it is left."""
    folder = bench("a.jsonl", b"{\n" + JSONL).folder
    refused = folder / ".work/refused.txt"
    refused.rename(folder / "kept")  # as if it had been killed
    bench("a.jsonl", None, "--seed", "8").refused(f"{folder} was started with --seed 0, not --seed 8")
    bench("a.jsonl", JSONL).refused(f"{folder} was built from input files with other", "another --output")
    (folder / "kept").rename(refused)
    finished = bench("a.jsonl", None, "--seed", "8", "--num-groups", "2").manifest()
    assert finished["config"]["seed"] == 8
    assert not (folder / ".work").exists() and not (folder / "rejects").exists()
    assert len(list(folder.rglob("*.tfrecord"))) == len(finished["shards"])


def test_a_folder_with_other_files_is_rejected(bench):
    (bench.folder / "out").mkdir()
    (bench.folder / "out" / "thesis.txt").write_text("dear")
    bench("a.jsonl", JSONL).refused(f"{bench.folder}/out contains other files", "give a new folder")
    assert os.listdir(bench.folder / "out") == ["thesis.txt"]


@pytest.mark.parametrize("output", ["vocab.txt", "vocab.txt/child", "vocab.txt/deep/child"])
def test_an_output_under_a_file(bench, output):
    bench("a.jsonl", JSONL, output=output).refused(f"{bench.folder}/{output}", "can't be written (Not a directory)")


PARTS = ("state.json", ".spill", ".tfrecord", ".parquet", "dataset.json", ".jsonl")


@pytest.mark.parametrize("part", mostly_slow(PARTS, ".spill", ".tfrecord", "dataset.json"))
def test_a_full_disk(bench, monkeypatch, part):
    full = [True]

    def fake(path, *arguments, **options):
        if full[0] and part in path:
            return open("/dev/full", "wb")
        return open(path, *arguments, **options)

    monkeypatch.setattr(safe_paths, "open", fake, raising=False)
    flags = ["--max-reject-rate", "0.1"]
    bench("a.jsonl", b"{\n" + JSONL, *flags).refused(
        f"{bench.folder}/out/",
        part,
        "can't be written (No space left on device): free some space, then run the same command again",
    )
    full[0] = False
    finished = bench("a.jsonl", None, *flags).manifest()
    assert bench("a.jsonl", None, *flags, output="out2").manifest()["digest"] == finished["digest"]


def test_a_real_full_disk(bench):
    (bench.folder / "out").mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "none", bench.folder / "out"], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        bench("a.jsonl", corpora.jsonl(corpora.texts(300))).refused("No space left on device): free some space")
    finally:
        subprocess.run(["umount", bench.folder / "out"], check=True)


# Several processes


@pytest.mark.slow
def test_an_error_in_a_worker_process_is_one_sentence(bench):
    for number in range(4):
        (bench.folder / f"{number}.jsonl.gz").write_bytes(gzip.compress(JSONL)[: -30 if number == 2 else None])
    argv = ["-m", "clozemill", "prepare", "--input", f"{bench.folder}/*.jsonl.gz", "--vocab", f"{bench.folder}/vocab.txt"]
    argv += ["--output", f"{bench.folder}/out", *SMALL, "--num-workers", "2", "--no-in-memory"]
    done = subprocess.run([sys.executable, *argv], capture_output=True, text=True)
    outcome = Outcome(done.returncode, done.stdout, done.stderr, bench.folder / "out")
    outcome.refused(f"{bench.folder}/2.jsonl.gz is not an intact gzip file (it is truncated)", "remove it from the input")
    assert re.fullmatch(r"clozemill: [^\n]*\n", done.stderr)


def test_the_output_is_rejected_as_input(bench, tmp_path, capsys):
    """Neither the vocabulary to be written nor a file within the dataset folder is accepted."""
    (tmp_path / "a.jsonl").write_bytes(JSONL)
    argv = ["vocab", "--input", str(tmp_path / "*"), "--output", str(tmp_path / "a.jsonl")]
    call(argv, tmp_path, capsys).refused("a.jsonl already exists: give --overwrite to replace it, or another --output")
    call([*argv, "--overwrite"], tmp_path, capsys).refused("--input", "a.jsonl is input, and --overwrite could replace it")
    assert (tmp_path / "a.jsonl").read_bytes() == JSONL
    (bench.folder / "out").mkdir()
    bench("out/a.jsonl", JSONL).refused("out/a.jsonl is both input and --output")


def test_a_concurrent_run_in_the_same_folder_is_rejected(bench, monkeypatch):
    import fcntl

    monkeypatch.setattr("clozemill.pipelines.beam.run_lock._PATIENCE_SECONDS", 0.0)
    bench("a.jsonl", b"{\n" + JSONL)  # started, and rejected at the end
    with open(bench.folder / "out/.work/lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        bench("a.jsonl", None, "--max-reject-rate", "0.5").refused("another clozemill prepare is writing to", "wait")


def test_folders_that_match_a_glob_are_skipped(bench):
    (bench.folder / "b.jsonl").mkdir()
    assert bench("*.jsonl", None).code == 2  # only a folder matches, no file
    bench("a.jsonl", JSONL)


def test_another_version_does_not_resume_the_run(bench):
    folder = bench("a.jsonl", b"{\n" + JSONL).folder
    (folder / ".work/refused.txt").unlink()
    state = str(folder / ".work/state.json")
    before = read_sealed(state, "state.json")
    before["versions"]["numpy"] = "0." + before["versions"]["numpy"]
    write_sealed(state, before, "state.json")
    bench("a.jsonl", None).refused(f"{folder} was started with numpy 0.", "another --output")
