"""Corpus, vocabulary and dataset on a filesystem known only to Beam: an object store in a folder, under fake://."""

import gzip
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.io.filesystem import BeamIOError, FileMetadata, FileSystem

import clozemill
from clozemill.pipelines.files import filesystem
from tests.test_determinism import OPTIONS, digest_of

ROOT = ""  # the folder of the bucket; set by the fixture


class FakeFileSystem(FileSystem):
    """Objects by name, no folders, and a rename that copies: like object stores."""

    @classmethod
    def scheme(cls) -> str:
        return "fake"

    @staticmethod
    def _file(path: str) -> Path:
        assert path.startswith("fake://bucket/"), path
        return Path(ROOT) / path.removeprefix("fake://bucket/")

    def join(self, base: str, *parts: str) -> str:
        return "/".join([base.rstrip("/"), *parts])

    def split(self, path: str) -> tuple[str, str]:
        head, _, tail = path.rpartition("/")
        return head, tail

    def mkdirs(self, path: str) -> None:
        raise BeamIOError("object stores have no folders")

    def has_dirs(self) -> bool:
        return False

    def _list(self, dir_or_prefix: str) -> Iterator[FileMetadata]:
        for path in sorted(Path(ROOT).rglob("*")):
            name = f"fake://bucket/{path.relative_to(ROOT)}"
            if path.is_file() and name.startswith(dir_or_prefix):
                yield FileMetadata(name, path.stat().st_size, path.stat().st_mtime)

    def create(self, path: str, mime_type: str = "", compression_type: str = ""):
        self._file(path).parent.mkdir(parents=True, exist_ok=True)
        return open(self._file(path), "wb")

    def open(self, path: str, mime_type: str = "", compression_type: str = ""):
        return open(self._file(path), "rb")

    def copy(self, sources: list[str], destinations: list[str]) -> None:
        for source, destination in zip(sources, destinations, strict=True):
            self._file(destination).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self._file(source), self._file(destination))

    def rename(self, sources: list[str], destinations: list[str]) -> None:
        self.copy(sources, destinations)
        self.delete(sources)

    def exists(self, path: str) -> bool:
        return self._file(path).is_file()

    def size(self, path: str) -> int:
        return self._file(path).stat().st_size

    def last_updated(self, path: str) -> float:
        return self._file(path).stat().st_mtime

    def checksum(self, path: str) -> str:
        return str(self.size(path))

    def metadata(self, path: str) -> FileMetadata:
        return FileMetadata(path, self.size(path), self.last_updated(path))

    def delete(self, paths: list[str]) -> None:
        for path in paths:
            os.unlink(self._file(path))


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tests.test_remote.ROOT", str(tmp_path / "bucket"))
    (tmp_path / "bucket").mkdir()
    return tmp_path / "bucket"


def test_all_pipeline_commands_on_a_remote_filesystem(
    bucket: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    (bucket / "in").mkdir()
    (bucket / "in/dump.xml.gz").write_bytes(gzip.compress(Path(demo_corpus).read_bytes()))
    shutil.copy(demo_vocab, bucket / "vocab.txt")
    (bucket / "ids.txt.gz").write_bytes(gzip.compress(b"0\n"))  # of no page
    ids = ["--id-field", "id", "--exclude-ids", "fake://bucket/ids.txt.gz"]
    command = ["prepare", "--input", "fake://bucket/in/*.gz", "--vocab", "fake://bucket/vocab.txt", "--provenance", *OPTIONS]
    command += ids
    assert clozemill.main([*command, "--output", "fake://bucket/out"]) == 0
    assert digest_of(bucket / "out") == digest_of(demo_dataset)
    assert not list(bucket.rglob("*.tmp-*")) and not list(bucket.rglob(".work/**/*.json"))
    assert clozemill.main([*command, "--output", "fake://bucket/out"]) == 0
    assert "is complete; nothing to do" in capsys.readouterr().out
    assert clozemill.main(["verify", "fake://bucket/out", "--no-progress"]) == 0
    assert clozemill.main(["inspect", "fake://bucket/out", "--limit", "1"]) == 0
    assert "characters" in capsys.readouterr().out
    assert clozemill.main(["inspect", "fake://bucket/out", "--id", "102", "--limit", "1"]) == 0
    assert "'Glacier'" in capsys.readouterr().out


def test_a_remote_vocabulary(bucket: Path, demo_corpus: str, demo_vocab: str) -> None:
    (bucket / "dump.xml").write_bytes(Path(demo_corpus).read_bytes())
    command = ["vocab", "--input", "fake://bucket/dump.xml", "--output", "fake://bucket/v.txt", "--vocab-size", "4000"]
    assert clozemill.main([*command, "--no-progress"]) == 0
    assert (bucket / "v.txt").read_bytes() == Path(demo_vocab).read_bytes()
    assert (bucket / "v.txt.yaml").exists()


def test_a_killed_remote_run_is_resumed(bucket: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path) -> None:
    command = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", "fake://bucket/out", *OPTIONS]
    assert clozemill.main([*command, "--max-reject-rate", "1"]) == 0
    (bucket / "out/dataset.json").unlink()
    assert clozemill.main(command) == 2  # the state of the run was removed, so these files are new
    shutil.rmtree(bucket / "out")
    left = bucket / f"out/train/copy-00/examples-00000-of-00004.tfrecord.tmp-{'0a' * 16}"  # by a worker that was killed
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    assert clozemill.main(command) == 0
    assert digest_of(bucket / "out") == digest_of(demo_dataset) and not left.exists()
    left.write_bytes(b"half")  # by a worker that outlived the run
    assert clozemill.main(["verify", "fake://bucket/out", "--no-progress"]) == 0


def test_a_file_keeps_its_content_until_the_new_one_is_there(bucket: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the process ends between the upload and the renaming."""
    filesystem.write_bytes("fake://bucket/a", b"old")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(FakeFileSystem, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            filesystem.write_bytes("fake://bucket/a", b"new")
    assert (bucket / "a").read_bytes() == b"old"
    filesystem.write_bytes("fake://bucket/a", b"new")
    assert (bucket / "a").read_bytes() == b"new" and len(list(bucket.iterdir())) == 1


def test_errors_name_the_remote_path(bucket: Path, demo_vocab: str, capsys: pytest.CaptureFixture) -> None:
    command = ["prepare", "--vocab", demo_vocab, "--output", "fake://bucket/out"]
    assert clozemill.main([*command, "--input", "fake://bucket/none*"]) == 2
    assert "no file matches fake://bucket/none*" in capsys.readouterr().err
    assert clozemill.main([*command, "--input", "nowhere://bucket/a.jsonl"]) == 2
    assert "nowhere://" in capsys.readouterr().err


def test_remove_tree_removes_nested_files(bucket: Path) -> None:
    for name in ("t/a", "t/b/c", "tt"):
        filesystem.write_bytes(f"fake://bucket/{name}", json.dumps(name).encode())
    filesystem.remove_tree("fake://bucket/t")
    assert [path.name for path in bucket.rglob("*") if path.is_file()] == ["tt"]


def test_a_plan_of_a_remote_corpus(bucket: Path, demo_corpus: str, demo_vocab: str) -> None:
    """Sampled and complete, with files that can be split and others; vocabulary and estimate are remote, too."""
    data = Path(demo_corpus).read_bytes()
    shutil.copy(demo_vocab, bucket / "vocab.txt")
    for name, content in (("a.xml", data), ("b.xml.gz", gzip.compress(data))):
        (bucket / name).write_bytes(content)
        command = ["plan", "--input", f"fake://bucket/{name}", "--vocab", "fake://bucket/vocab.txt", "--no-progress"]
        command += ["--output", "fake://bucket/plan.json", "--overwrite"]
        tokens = []
        for least in ("4", "0.01"):
            assert clozemill.main([*command, "--sample-min-mb", least]) == 0
            tokens.append(json.loads((bucket / "plan.json").read_bytes())["figures"]["tokens"])
        assert tokens[0]["low"] == tokens[0]["high"] and tokens[1]["low"] < tokens[0]["estimate"] < tokens[1]["high"]
    assert sorted(path.name for path in bucket.iterdir()) == ["a.xml", "b.xml.gz", "plan.json", "vocab.txt"]
