"""`prepare` with --dedup, --eval-by, --decontaminate and --update, end to end on small corpora with planted duplicates."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.pipelines.dataset import manifest
from clozemill.pipelines.shards import tf_example, tfrecord
from tests import corpora
from tests.slow import mostly_slow
from tests.test_determinism import digest_of
from tests.test_resume import CODE, files, run_until

OPTIONS = [
    "--num-groups",
    "3",
    "--dupe-factor",
    "2",
    "--eval-fraction",
    "0.3",
    "--seed",
    "7",
    "--no-progress",
    "--max-seq-length",
    "32",
]
BASES, COPIES = 20, 3


def planted(seed: int = 1) -> list[str]:
    """20 texts of about 300 words, each followed by three copies in which one to three words are changed."""
    rng, found = np.random.default_rng(seed), []
    for text in corpora.texts(BASES, seed, 40):
        found.append(text)
        for _ in range(COPIES):
            words = text.split(" ")
            for at in rng.permutation(len(words))[: rng.integers(1, 4)]:
                words[at] = "harbour" if words[at] != "harbour" else "grain"
            found.append(" ".join(words))
    return found


@pytest.fixture(scope="module")
def vocab(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("v") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", *dict.fromkeys(corpora.WORDS)]) + "\n")
    return str(path)


def prepare(folder: Path, vocab: str, documents: list[str], *more: str) -> dict:
    """Prepares documents, verifies the dataset, and returns its manifest."""
    source = folder.parent / "in.jsonl"
    source.write_bytes(corpora.jsonl(documents))
    command = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(folder), *OPTIONS, *more]
    assert clozemill.main(command) == 0
    assert clozemill.main(["verify", str(folder), "--no-progress"]) == 0
    digest_of(folder)
    return json.loads((folder / "dataset.json").read_text())


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory, vocab: str) -> Path:
    """The planted documents without near-duplicates, as a dataset."""
    folder = tmp_path_factory.mktemp("near") / "d"
    prepare(folder, vocab, planted(), "--dedup", "near")
    return folder


def keys(folder: Path, split: str) -> list[bytes]:
    return [key for path in sorted((folder / "documents").glob(f"{split}-*")) for key in pq.read_table(path)["key"].to_pylist()]


def test_one_near_duplicate_per_cluster_is_kept(near: Path) -> None:
    found = json.loads((near / "dataset.json").read_text())["documents"]
    assert (found["read"], found["kept"], found["dropped"]) == (80, BASES, {"near_duplicate": BASES * COPIES})
    table = pq.read_table(near / "clusters.parquet")
    assert table.num_rows == 80 and len(set(table["survivor"].to_pylist())) == BASES
    assert sorted(keys(near, "train") + keys(near, "eval")) == sorted(set(table["survivor"].to_pylist()))
    (rejects,) = (near / "rejects").glob("*.jsonl")
    reasons = [json.loads(line) for line in rejects.read_text().splitlines()]
    assert len(reasons) == 60 and all(" is a near-duplicate of " in reject["detail"] for reject in reasons)


RUNNERS = ["--shuffle", "beam"], ["--no-in-memory", "--num-workers", "2"], ["--in-memory"]


@pytest.mark.parametrize("more", mostly_slow(RUNNERS, RUNNERS[0], RUNNERS[2]))
def test_results_do_not_depend_on_the_runner(tmp_path: Path, vocab: str, near: Path, more: list[str]) -> None:
    """The order of the input, the shuffle and the number of workers don't matter."""
    expected = json.loads((near / "dataset.json").read_text())["digest"]
    (tmp_path / "other").mkdir()
    found = prepare(tmp_path / "other/d", vocab, planted()[::-1], "--dedup", "near", *more)["digest"]
    assert found == expected
    assert (near / "clusters.parquet").read_bytes() == (tmp_path / "other/d/clusters.parquet").read_bytes()


def test_filtered_documents_never_survive_for_a_cluster(tmp_path: Path, vocab: str) -> None:
    """The longest is dropped as too repetitive, and the others are kept."""
    (text,) = corpora.texts(1, 3, 40)
    long = text + " " + " ".join(text.split(" ")[:7])
    documents = [text, long, *corpora.texts(5, 4)]
    kept = prepare(tmp_path / "d", vocab, documents, "--dedup", "near", "--max-repeated-ngrams", "0.001")["documents"]
    assert kept["dropped"] == {"repeated_ngrams": 1} or kept["dropped"] == {"near_duplicate": 1}
    assert kept["kept"] == 6


def test_a_cluster_goes_to_one_side(tmp_path: Path, vocab: str) -> None:
    """By document, some cluster is divided; by cluster, none is, and nothing is dropped."""
    documents = planted()
    for by, parted in (("document", True), ("cluster", False)):
        folder = tmp_path / by / "d"
        folder.parent.mkdir()
        found = prepare(folder, vocab, documents, "--eval-by", by)
        assert found["documents"]["kept"] == 80 and found["documents"]["dropped"] == {}
        table = pq.read_table(
            (tmp_path / "cluster/d" if by == "cluster" else _clusters(tmp_path, vocab, documents)) / "clusters.parquet"
        )
        cluster = dict(zip(table["key"].to_pylist(), table["survivor"].to_pylist(), strict=True))
        sides = [{cluster[key] for key in keys(folder, split)} for split in ("train", "eval")]
        assert all(sides) and bool(sides[0] & sides[1]) == parted


def _clusters(tmp_path: Path, vocab: str, documents: list[str]) -> Path:
    (tmp_path / "near").mkdir()
    prepare(tmp_path / "near/d", vocab, documents, "--dedup", "near")
    return tmp_path / "near/d"


@pytest.mark.slow
def test_without_deduplication_duplicates_are_kept(tmp_path: Path, vocab: str) -> None:
    texts = corpora.texts(12, 5)
    once = prepare(tmp_path / "a" / "d", vocab, texts) if (tmp_path / "a").mkdir() is None else {}
    (tmp_path / "b").mkdir()
    found = prepare(tmp_path / "b" / "d", vocab, texts + texts[:6], "--dedup", "none", "--provenance")
    assert (found["documents"]["kept"], found["documents"]["duplicates"]) == (18, 6) and once["documents"]["kept"] == 12
    assert sorted(keys(tmp_path / "b/d", "train") + keys(tmp_path / "b/d", "eval")).count(
        keys(tmp_path / "a/d", "train")[0]
    ) in (1, 2)
    for path in (tmp_path / "b/d/provenance").rglob("*.parquet"):
        rows, labels = pq.read_table(path).to_pydict(), _labels(tmp_path / "b/d", path, found)
        for a, b, label in zip(rows["a_key"], rows["b_key"], labels, strict=True):
            assert (a == b) == (label == 0)  # never a random B from the same text


def _labels(folder: Path, provenance: Path, found: dict) -> list[int]:
    name = provenance.relative_to(folder / "provenance").with_suffix(".tfrecord")
    records = list(tfrecord.read((folder / name).read_bytes(), "none"))
    return tf_example.decode(records, found["max_seq_length"], found["max_predictions"]).next_sentence_labels.tolist()


def test_a_group_of_identical_texts_has_no_random_pairs(tmp_path: Path, vocab: str) -> None:
    found = prepare(
        tmp_path / "d", vocab, corpora.texts(1, 5) * 9, "--dedup", "none", "--eval-fraction", "0", "--num-groups", "1"
    )
    assert found["splits"]["train"]["copies"]["00"]["labels_random"] == 0


def test_copies_of_long_documents_do_not_tighten_the_limit_of_padding(tmp_path: Path, vocab: str) -> None:
    """Most of the input is copies of one long text. Without them, short documents explain the padding."""
    short, long = corpora.texts(150, 3, 1), corpora.texts(1, 4, 30)
    options = ["--max-seq-length", "128", "--pairs", "single", "--num-groups", "1", "--dupe-factor", "1"]
    told = []
    for copies in (1, 600):
        folder = tmp_path / str(copies) / "d"
        folder.parent.mkdir()
        found = prepare(folder, vocab, [*short, *long * copies], *options, "--eval-fraction", "0")
        lengths = json.loads((folder / "statistics.json").read_text())["documents"]["token_lengths"]
        assert found["documents"]["duplicates"] == copies - 1 and sum(lengths) == found["documents"]["kept"] == 151
        told.append((found["digest"], found["documents"]["kept_sentences"], found["documents"]["kept_tokens"], lengths))
    assert told[0] == told[1] and found["documents"]["tokens"] > 100_000 > told[1][2]
    assert f"151 documents with {told[1][2]:,} tokens of text" in (folder / "report.md").read_text()


def test_copies_of_a_text_file_are_not_taken_for_texts_on_lines(
    tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture
) -> None:
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text("".join(f"{line}\n" for line in corpora.sentences(5, np.random.default_rng(1))))
    command = ["prepare", "--input", str(tmp_path / "*.txt"), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    assert clozemill.main([*command, "--eval-fraction", "0", "--num-groups", "1"]) == 0
    told = capfd.readouterr().out
    assert "60 sentences" in told and "warning: all next-sentence labels" in told and "lines are in 1 document" not in told


def test_contaminated_documents_are_dropped_and_reported(tmp_path: Path, vocab: str) -> None:
    texts = corpora.texts(20, 6)
    words = " ".join(texts[3].lower().replace(".", "").split(" ")[5:18])
    (tmp_path / "dev.tsv").write_text(f"1\tshort\n2\t{words.upper()}\n")
    command = ["--decontaminate", str(tmp_path / "dev.tsv")]
    found = prepare(tmp_path / "d", vocab, texts, *command)["documents"]
    assert (found["kept"], found["dropped"]) == (19, {"contaminated": 1})
    (rejects,) = (tmp_path / "d/rejects").glob("*.jsonl")
    detail = json.loads(rejects.read_text())["detail"].replace(" .", "")  # as in the document
    assert detail == f"{words!r} is in {tmp_path / 'dev.tsv'}, line 2"


def test_other_evaluation_files_change_the_dataset(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    texts = corpora.texts(6, 6)
    (tmp_path / "dev.txt").write_text(texts[0])
    prepare(tmp_path / "d", vocab, texts, "--decontaminate", str(tmp_path / "dev.txt"))
    (tmp_path / "dev.txt").write_text(texts[1])
    command = ["prepare", "--input", str(tmp_path / "in.jsonl"), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    assert clozemill.main([*command, "--decontaminate", str(tmp_path / "dev.txt")]) == 2
    assert "was started with other --decontaminate files" in capfd.readouterr().err
    (tmp_path / "dev.txt").write_text("too short")
    assert clozemill.main([*command, "--decontaminate", str(tmp_path / "dev.txt")]) == 2
    assert "has 13 known words in a row" in capfd.readouterr().err


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file of a dataset except those with times."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.name not in TIMED}


TIMED = ("run.json", "report.html", "report.md", "prepare.yaml")


@pytest.mark.parametrize("dedup", mostly_slow(("exact", "near"), "near"))
def test_an_update_equals_a_full_rebuild(tmp_path: Path, vocab: str, dedup: str, capsys: pytest.CaptureFixture) -> None:
    texts, options = corpora.texts(60, 9, 12), ["--num-groups", "12", "--dupe-factor", "1", "--dedup", dedup]
    prepare(tmp_path / "d", vocab, texts, *options)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "d").rglob("*.tfrecord")}
    texts[7] = corpora.texts(1, 10, 12)[0]
    prepare(tmp_path / "d", vocab, texts[:-1], *options, "--update")
    changed = [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert 1 <= len(changed) <= 3  # one document was removed, one added, and another removed at the end
    groups = 12 + json.loads((tmp_path / "d/dataset.json").read_text())["num_eval_groups"]
    printed = f"\ngroups      {len(changed)} rebuilt, {groups - len(changed)} reused as they were\n"
    assert capsys.readouterr().out.count(printed) == 1
    updated = tree(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    prepare(tmp_path / "d", vocab, texts[:-1], *options)
    rebuilt = tree(tmp_path / "d")
    assert updated.keys() == rebuilt.keys()
    assert [name for name in rebuilt if rebuilt[name] != updated[name]] == []


def test_an_update_keeps_the_number_of_groups(tmp_path: Path, vocab: str) -> None:
    texts = corpora.texts(30, 9)
    prepare(tmp_path / "d", vocab, texts)
    found = prepare(tmp_path / "d", vocab, texts + corpora.texts(500, 11), "--num-groups", "0", "--update")
    assert found["config"]["num_groups"] == 3 and found["documents"]["kept"] == 530


def test_datasets_that_cannot_be_updated(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(corpora.jsonl(corpora.texts(9)))
    command = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(tmp_path / "d"), "--no-progress"]
    assert clozemill.main([*command, "--update"]) == 2
    assert "contains no dataset: remove --update" in capfd.readouterr().err
    assert clozemill.main(command) == 0
    source.write_bytes(corpora.jsonl(corpora.texts(8)))
    assert clozemill.main(command) == 2
    assert "was built from input files with other names, sizes or times: give --update" in capfd.readouterr().err
    assert clozemill.main([*command, "--seed", "8", "--update"]) == 2
    assert "was started with --seed 0, not --seed 8" in capfd.readouterr().err
    assert (tmp_path / "d/dataset.json").exists()


@pytest.mark.slow
def test_killed_while_comparing_and_while_updating(tmp_path: Path, vocab: str) -> None:
    """The same command resumes, although an update has no dataset.json, and also if the input changed again."""
    texts, source = corpora.texts(300, 9, 12), tmp_path / "in.jsonl"
    options = [*OPTIONS, "--num-groups", "12", "--dedup", "near"]
    words = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(tmp_path / "d"), *options]
    command = [sys.executable, "-c", CODE, *words]
    source.write_bytes(corpora.jsonl(texts))
    moments = [files(tmp_path / "d", ".work/spill/bands/*.json", 1), files(tmp_path / "d", "clusters.parquet", 1)]
    assert [run_until(command, moment, signal.SIGKILL) for moment in moments].count(-signal.SIGKILL) >= 1
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    source.write_bytes(corpora.jsonl(texts[::2]))
    moment = files(tmp_path / "d", ".work/groups/*.json", 3)
    assert run_until([*command, "--update"], moment, signal.SIGKILL) == -signal.SIGKILL
    assert not (tmp_path / "d/dataset.json").exists()
    source.write_bytes(corpora.jsonl(texts[1:]))
    subprocess.run([*command, "--update"], check=True, stdout=subprocess.DEVNULL)
    updated = tree(tmp_path / "d")
    shutil.rmtree(tmp_path / "d")
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert updated == tree(tmp_path / "d")


def gone(path: Path) -> Callable[[], bool]:
    """Return whether a file existed and was removed."""
    seen = []

    def moment() -> bool:
        seen.extend([1] * path.exists())
        return bool(seen) and not path.exists()

    return moment


WINDOWS = ("dataset.json is there, .work is too", "dataset.json went")


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_killed_between_two_datasets(tmp_path: Path, vocab: str, window: str) -> None:
    """Files of the first run must not be used for the second: neither finished groups nor clusters."""
    texts, source, folder = corpora.texts(90, 9, 12), tmp_path / "in.jsonl", tmp_path / "d"
    words = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(folder), *OPTIONS, "--dedup", "near"]
    command = [sys.executable, "-c", CODE, *words]
    source.write_bytes(corpora.jsonl(texts[:40]))
    for _ in range(5):  # the first window lasts a few milliseconds
        shutil.rmtree(folder, ignore_errors=True)
        if window == "dataset.json went":
            first = clozemill.main(words)
            break
        first = run_until(command, files(folder, "dataset.json", 1), signal.SIGKILL)
        if (folder / ".work").exists():
            break
    assert first in (0, -signal.SIGKILL) and (folder / "dataset.json").exists()
    copies = [f"{text} The end ." for text in texts[:20]]  # near-duplicates of existing documents
    source.write_bytes(corpora.jsonl(texts + copies))
    if window == "dataset.json went":
        run_until([*command, "--update"], gone(folder / "dataset.json"), signal.SIGKILL)
    assert clozemill.main([*words, "--update"]) == 0
    updated = tree(folder)
    assert clozemill.main(["verify", str(folder), "--no-progress"]) == 0
    shutil.rmtree(folder)
    assert clozemill.main(words) == 0
    assert updated == tree(folder)


def test_an_update_repairs_damaged_shards(tmp_path: Path, vocab: str) -> None:
    """Files that were changed or removed, or whose record was changed, are rebuilt, whatever their size."""
    texts, options = corpora.texts(60, 9, 12), ["--num-groups", "6", "--dupe-factor", "1", "--provenance"]
    prepare(tmp_path / "d", vocab, texts, *options)
    before, folder = tree(tmp_path / "d"), tmp_path / "d"
    shard = folder / "train/copy-00/examples-00000-of-00006.tfrecord"
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    (folder / "documents/train-00001.parquet").unlink()
    (folder / "provenance/train/copy-00/examples-00002-of-00006.parquet").write_bytes(b"PAR1")
    (folder / "groups/00003.json").write_text("{}")
    record = folder / "groups/00004.json"
    record.write_text(record.read_text().replace('"documents": ', '"documents": 5'))
    prepare(folder, vocab, texts, *options, "--update")
    assert tree(folder) == before


def test_an_update_rebuilds_groups_of_a_version_that_counted_no_tokens(
    tmp_path: Path, vocab: str, capsys: pytest.CaptureFixture
) -> None:
    """The gate needs the lengths of all documents."""
    texts, options = corpora.texts(60, 9, 12), ["--num-groups", "6", "--dupe-factor", "1"]
    prepare(tmp_path / "d", vocab, texts, *options)
    before, folder = tree(tmp_path / "d"), tmp_path / "d"
    contract = json.loads((folder / "dataset.json").read_text())
    for name in (name for name in contract["files"] if name.startswith("groups/")):
        group = json.loads((folder / name).read_text())
        data = json.dumps({key: value for key, value in group.items() if key not in ("sentences", "tokens", "token_lengths")})
        (folder / name).write_text(data)
        contract["files"][name] = hashlib.sha256(data.encode()).hexdigest()
    (folder / "dataset.json").write_bytes(manifest.dumps(contract))
    prepare(folder, vocab, texts, *options, "--update")
    assert tree(folder) == before
    assert f"\ngroups      {6 + contract['num_eval_groups']} rebuilt, 0 reused" in capsys.readouterr().out


def test_reading_a_dataset_during_an_update(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    """A failed update explains how to recover; only --update changes the rest; the old input restores the dataset."""
    texts, source = corpora.texts(30, 9), tmp_path / "in.jsonl"
    prepare(tmp_path / "d", vocab, texts)
    before = tree(tmp_path / "d")
    command = ["prepare", "--input", str(source), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    source.write_text('{"words": "no text"}\n')
    assert clozemill.main([*command, "--update"]) == 2
    told = capfd.readouterr().err
    assert (
        "is incomplete; run --update with the original input to restore the previous dataset" in told and told.count("\n") == 1
    )
    shards = sorted((tmp_path / "d/train").rglob("*.tfrecord"))
    for more in ([], ["--seed", "8"]):
        assert clozemill.main([*command, *more]) == 2
        assert "has an unfinished update: give --update to finish it" in capfd.readouterr().err
    assert shards == sorted((tmp_path / "d/train").rglob("*.tfrecord"))
    prepare(tmp_path / "d", vocab, texts, "--update")
    assert tree(tmp_path / "d") == before


def test_another_datasheet_is_not_ignored(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    texts = corpora.texts(12, 9)
    prepare(tmp_path / "d", vocab, texts, "--sources", "novels")
    command = ["prepare", "--input", str(tmp_path / "in.jsonl"), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    assert clozemill.main([*command, "--sources", "plays"]) == 2
    assert "was started with other --sources: give the same to resume, --update, or another --output" in capfd.readouterr().err
    found = prepare(tmp_path / "d", vocab, texts, "--sources", "plays", "--update")
    assert found["datasheet"]["sources"] == ["plays"]


def test_decontamination_is_part_of_the_signature(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    """Identified by content: a copy of the evaluation set under another name is equal."""
    texts = corpora.texts(12, 6, 12)
    for name in ("dev.txt", "copy.txt"):
        (tmp_path / name).write_text(texts[3])
    first = prepare(tmp_path / "d", vocab, texts, "--decontaminate", str(tmp_path / "dev.txt"))
    assert first["documents"]["dropped"] == {"contaminated": 1}
    assert first["decontamination"]["files"] == [str(tmp_path / "dev.txt")] and len(first["decontamination"]["sha256"]) == 64
    command = ["prepare", "--input", str(tmp_path / "in.jsonl"), "--vocab", vocab, "--output", str(tmp_path / "d"), *OPTIONS]
    assert clozemill.main([*command, "--decontaminate", str(tmp_path / "copy.txt")]) == 0
    assert "is complete; nothing to do" in capfd.readouterr().out
    assert "decontamination" not in prepare(tmp_path / "other", vocab, texts)


def test_documents_of_unknown_words_are_not_near_duplicates(tmp_path: Path, vocab: str) -> None:
    """All their words are [UNK], which says nothing about their similarity."""
    rng, letters = np.random.default_rng(5), np.array(list("абвгдежзиклмно"))
    strange = [" ".join("".join(rng.choice(letters, 6)) for _ in range(60)) + " ." for _ in range(8)]
    found = prepare(tmp_path / "d", vocab, corpora.texts(20, 9) + strange, "--dedup", "near", "--no-gate")
    assert found["documents"]["dropped"] == {} and found["documents"]["kept"] == 28


def test_kept_duplicates_are_not_reported_as_dropped(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    texts = corpora.texts(20, 9)
    prepare(tmp_path / "d", vocab, texts + texts[:5], "--dedup", "none", "--no-gate")
    assert "25 read, 25 kept; dropped: none" in capfd.readouterr().out
    assert "exact_duplicate" not in (tmp_path / "d/report.md").read_text()


def test_uninformative_labels_are_warned_about(tmp_path: Path, vocab: str, capfd: pytest.CaptureFixture) -> None:
    """A single document leaves no other one to draw a random B from."""
    prepare(tmp_path / "d", vocab, corpora.texts(1, 9, 60), "--eval-fraction", "0", "--num-groups", "1")
    assert "warning: all next-sentence labels are identical" in capfd.readouterr().out
