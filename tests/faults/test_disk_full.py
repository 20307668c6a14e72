"""A disk that is full at any moment: one sentence that names the file, no partial file; with free space, runs resume."""

import errno
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.files import safe_paths
from tests import corpora
from tests.faults.test_kills import CODE, contents
from tests.slow import mostly_slow

FULL = "No space left on device): free some space, then run the same command again"


class Disk:
    """A small in-memory file system that can be enlarged."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.mounted = folder, False

    def resize(self, kilobytes: int) -> None:
        self.folder.mkdir(exist_ok=True)
        option = f"{'remount,' if self.mounted else ''}size={kilobytes}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "none", self.folder], capture_output=True)
        if done.returncode:
            pytest.skip("no file system can be mounted here")
        self.mounted = True

    def unmount(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "-l", self.folder], check=True)
        self.mounted = False


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    made.unmount()


def run(words: list[str]) -> tuple[int, list[str]]:
    """Return (exit code, lines on standard error) of a command in a separate process."""
    done = subprocess.run([sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stderr.splitlines()


def refused(words: list[str], place: Path, said: str) -> bool:
    """Return whether the command failed because of a full disk; check its error and that no temporary file is left."""
    code, lines = run(words)
    if code == 0:
        return False
    assert code == 2 and len(lines) == 1, lines
    assert lines[0].startswith(f"clozemill: {place}") and said in lines[0], lines
    assert not [name for name in contents(place) if ".tmp" in name and ".work/" not in name]
    return True


SMALL = ["--max-seq-length", "32", "--num-groups", "4", "--dupe-factor", "3", "--seed", "7", "--no-progress", "--provenance"]


@pytest.mark.slow
@pytest.mark.parametrize("mode", [["--in-memory"], ["--no-in-memory", "--num-workers", "2"]], ids=["one", "two"])
def test_prepare_on_disks_of_random_sizes(disk: Disk, tmp_path: Path, demo_corpus: str, demo_vocab: str, mode: list) -> None:
    prepare = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, *SMALL, *mode, "--output"]
    assert run([*prepare, tmp_path / "whole"])[0] == 0
    digest = json.loads((tmp_path / "whole/dataset.json").read_text())["digest"]
    enough = sum(map(len, contents(tmp_path / "whole").values())) // 1024
    stream, full = np.random.default_rng(3), 0
    for kilobytes in stream.integers(20, enough, 10).tolist():
        disk.resize(kilobytes)
        if refused([*prepare, disk.folder / "d"], disk.folder, FULL):
            full += 1
            assert not (disk.folder / "d/dataset.json").exists()
            disk.resize(20 * enough)
            assert run([*prepare, disk.folder / "d"]) == (0, [])
        assert json.loads((disk.folder / "d/dataset.json").read_text())["digest"] == digest
        assert set(contents(disk.folder / "d")) == set(contents(tmp_path / "whole"))
        disk.unmount()
    print(f"{full} of 10 disks were full, told in one sentence; with room, the same digest")
    assert full >= 5


class Filling(io.FileIO):
    """A file on a disk that is full from write number `at` on, counted over all files."""

    at, writes = 0, 0

    def write(self, data) -> int:
        Filling.writes += 1
        if Filling.writes >= Filling.at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("name", mostly_slow(("prepare", "vocab"), "prepare"))
def test_the_disk_is_full_at_a_random_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, name: str
) -> None:
    """The lowest-level write fails as the system does. Each time, the same command then resumes to identical bytes."""
    (tmp_path / "a.jsonl").write_bytes(b"{\n" + corpora.jsonl(corpora.texts(300)))
    corpora.write_vocabulary(tmp_path / "vocab.txt")
    more = ["--in-memory", "--no-progress", "--max-reject-rate", "0.5", "--input", str(tmp_path / "a.jsonl")]
    if name == "prepare":
        words = ["prepare", "--vocab", str(tmp_path / "vocab.txt"), *more, *SMALL]
    else:
        words = ["vocab", "--vocab-size", "120", *more]

    def output(number: int) -> list[str]:
        (tmp_path / str(number)).mkdir()
        return ["--output", str(tmp_path / str(number) / "out")]

    def opening(path, mode="r", buffering=-1, **options):
        if "x" in mode and "b" in mode:
            raw = Filling(path, "x", opener=options.get("opener"))
            return io.BufferedWriter(raw, buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE)
        return open(path, mode, buffering, **options)

    monkeypatch.setattr(safe_paths, "open", opening, raising=False)
    Filling.at, Filling.writes = 1 << 40, 0
    assert clozemill.main([*words, *output(0)]) == 0
    every = Filling.writes
    digest = (tmp_path / "0/out").read_bytes() if name == "vocab" else digest_of(tmp_path / "0/out")
    assert every >= (2 if name == "vocab" else 20)
    moments = np.random.default_rng(5).choice(np.arange(1, every + 1), min(every, 4), replace=False).tolist()
    for number, moment in enumerate(moments, 1):
        where = output(number)
        Filling.at, Filling.writes = moment, 0
        capsys.readouterr()
        assert clozemill.main([*words, *where]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and error.startswith(f"clozemill: {tmp_path}/{number}/") and FULL in error, error
        assert not list((tmp_path / str(number)).rglob("*.tmp-*"))
        Filling.at = 1 << 40
        assert clozemill.main([*words, *where]) == 0
        made = tmp_path / str(number) / "out"
        assert (made.read_bytes() if name == "vocab" else digest_of(made)) == digest


def digest_of(folder: Path) -> str:
    return json.loads((folder / "dataset.json").read_text())["digest"]


@pytest.mark.slow
def test_vocab_on_disks_of_random_sizes(disk: Disk, tmp_path: Path, demo_corpus: str) -> None:
    vocab = ["vocab", "--input", demo_corpus, "--vocab-size", "3000", "--no-progress", "--in-memory", "--output"]
    assert run([*vocab, tmp_path / "whole.txt"])[0] == 0
    for kilobytes in (4, 8, 16):
        disk.resize(kilobytes)
        assert refused([*vocab, disk.folder / "vocab.txt"], disk.folder, FULL)
        assert not (disk.folder / "vocab.txt").exists()
        disk.resize(1 << 12)
        assert run([*vocab, disk.folder / "vocab.txt"]) == (0, [])
        assert (disk.folder / "vocab.txt").read_bytes() == (tmp_path / "whole.txt").read_bytes()
        disk.unmount()


@pytest.mark.slow
def test_a_checkpoint_on_a_full_disk(disk: Disk, tmp_path: Path, demo_dataset: Path) -> None:
    """A partial checkpoint is ignored. With free space, the same command resumes to the losses of an uninterrupted run."""
    words = [
        "pretrain",
        "--data",
        demo_dataset,
        "--preset",
        "tiny",
        "--steps",
        "4",
        "--batch-size",
        "4",
        "--checkpoint-steps",
        "2",
    ]
    words += ["--keep-checkpoints", "2", "--seed", "3", "--output"]
    assert run([*words, tmp_path / "whole"])[0] == 0
    one = sum(map(len, contents(tmp_path / "whole/checkpoints/step-00000002").values())) // 1024
    for kilobytes in (one // 2, one + one // 2):  # full within the first checkpoint, and within the second
        disk.resize(kilobytes)
        assert refused([*words, disk.folder / "run"], disk.folder, "No space left on device")
        disk.resize(10 * one)
        assert run([*words, disk.folder / "run"])[0] == 0
        losses = [
            [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines() if '"loss"' in line]
            for folder in (tmp_path / "whole", disk.folder / "run")
        ]
        assert losses[0] == losses[1] and losses[0]
        disk.unmount()


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_predictions_and_features_on_a_full_disk(disk: Disk, name: str) -> None:
    """The output file of predict and embed."""
    import pyarrow as pa

    from clozemill.pipelines.common.errors import UserError
    from clozemill.trainers.inference import writers

    path, columns = str(disk.folder / name), pa.schema([("text", pa.string()), ("vector", pa.list_(pa.float32(), 64))])
    stream = np.random.default_rng(1)
    rows = [[{"text": "a", "vector": stream.normal(size=64).astype(np.float32)} for _ in range(100)] for _ in range(20)]
    if name.endswith("jsonl"):
        rows = [[{**row, "vector": row["vector"].tolist()} for row in part] for part in rows]

    def write() -> None:
        with writers.opened(path, columns) as sink:
            for part in rows:
                sink.write(part)

    disk.resize(64)
    with pytest.raises(UserError, match=r"can't be written \(.*No space left on device\)") as error:
        write()
    assert str(error.value).startswith(path) and "\n" not in str(error.value)
    assert list(disk.folder.iterdir()) == []
    disk.resize(8192)
    write()
    assert [file.name for file in disk.folder.iterdir()] == [name]


def test_events_on_a_full_disk(disk: Disk) -> None:
    """TensorBoard events, whose first bytes are written before any metric."""
    from clozemill.pipelines.common.errors import UserError
    from clozemill.trainers.training.metrics_log import MetricsLog

    disk.resize(8)  # one page for metrics.jsonl, and one for the first file in the folder
    (disk.folder / "filler").write_bytes(bytes(4096))
    with pytest.raises(UserError) as error:
        MetricsLog(str(disk.folder), 10).tell_eval(1, {"masked_lm_loss": 2.5, "masked_lm_accuracy": 0.5, "examples": 9})
    told = str(error.value)
    assert told.startswith(f"{disk.folder}/tensorboard/events.out.tfevents.") and told.count("can't be written (") == 1
    assert "\n" not in told
    assert told.endswith("): free some space, then run the same command again")
