"""The same operations on local files, and on remote ones through TensorFlow and through fsspec; errors are one sentence."""

import errno
import gzip
import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import tensorflow as tf

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import filesystems, storage
from clozemill.trainers.finetuning.reading import lines

FOLDERS = itertools.count()


@pytest.fixture(params=["local", "tensorflow", "fsspec"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that doesn't exist yet, of each kind of storage."""
    if request.param == "local":
        return str(tmp_path / "new")
    monkeypatch.setenv("KERAS_BACKEND", {"tensorflow": "tensorflow", "fsspec": "jax"}[request.param])
    return f"file://{tmp_path}/new" if request.param == "tensorflow" else f"memory://storage-{next(FOLDERS)}"


def test_a_place_that_can_t_be_looked_at_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose checkpoints seemed missing would start over."""

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    assert not storage.exists(str(tmp_path / "none")) and not storage.exists(str(tmp_path / "none/below"))
    monkeypatch.setattr(filesystems.os, "stat", failing)
    with pytest.raises(UserError, match=f"{tmp_path} can't be .*Input/output error"):
        storage.exists(str(tmp_path))


def test_files(folder: str) -> None:
    path = storage.join(folder, "deep", "file")
    assert not storage.exists(folder) and not storage.is_folder(folder) and storage.listed(folder) == []
    for data in (b"one, which is long", b"", b"\x00\xff\n" * 1000):
        storage.write(path, data)
        assert storage.read(path, "-") == data and storage.size(path) == len(data)
    assert storage.exists(path) and not storage.is_folder(path) and storage.listed(path) == []
    assert storage.is_folder(folder) and storage.listed(folder) == ["deep"] and storage.listed(f"{folder}/deep") == ["file"]
    with storage.open_to_read(path) as file:
        assert (file.read(4), file.read()) == (b"\x00\xff\n\x00", b"\xff\n" + b"\x00\xff\n" * 998)
    with storage.open_to_read(path) as file:
        assert file.seek(2997) == file.tell() == 2997 and file.read(2) == b"\x00\xff"
    assert storage.read_range(path, 1, 4) == b"\xff\n\x00"
    assert (storage.read_range(path, 2999, 5000), storage.read_range(path, 5, 5)) == (b"\n", b"")
    storage.make_folder(folder)
    storage.remove(path)
    storage.remove(path)
    assert not storage.exists(path)
    storage.write_json(path, {"a": 1})
    storage.remove_tree(folder)
    storage.remove_tree(folder)
    assert not storage.exists(path) and storage.listed(folder) == []


def test_compressed_lines(folder: str) -> None:
    storage.write(f"{folder}/x.tsv.gz", gzip.compress("a\tÄ\nb\t2\n".encode()))
    assert list(lines.lines(f"{folder}/x.tsv.gz")) == ["a\tÄ", "b\t2"]
    with pytest.raises(UserError, match=r"/none.gz doesn't exist: give a file of texts"):
        list(lines.lines(f"{folder}/none.gz"))


def test_a_file_gets_its_name_when_it_is_complete(folder: str) -> None:
    path = storage.join(folder, "file")
    with pytest.raises(RuntimeError), storage.writing(path) as file:
        file.write(b"half")
        assert not storage.exists(path)
        raise RuntimeError
    assert storage.listed(folder) == []
    with storage.writing(path, overwrite=False) as file:
        assert file.write(memoryview(b"who").cast("B")) == 3 and file.tell() == 3
        file.flush()
        file.write(b"le")
    assert storage.listed(folder) == ["file"] and storage.read(path, "-") == b"whole"
    with pytest.raises(UserError, match=r"/file already exists: give --overwrite"):
        storage.write(path, b"other", overwrite=False)
    assert storage.listed(folder) == ["file"] and storage.read(path, "-") == b"whole"


def test_a_name_that_is_taken_meanwhile_is_kept(folder: str) -> None:
    path, told = storage.join(folder, "file"), r"/file can't be written \(.+\): fix that and run the command again$"
    storage.write(storage.join(folder, "other"), b"theirs")
    with pytest.raises(UserError, match=told), storage.writing(path, overwrite=False) as file:
        if storage.is_local(path):
            Path(folder, "other").rename(path)
        else:
            filesystems.remote(path).rename(storage.join(folder, "other"), path, True)
        file.write(b"mine")
    assert storage.listed(folder) == ["file"] and storage.read(path, "-") == b"theirs"


def test_a_folder_is_uploaded(folder: str, tmp_path: Path) -> None:
    if storage.is_local(folder):
        return
    (tmp_path / "from/a/b").mkdir(parents=True)
    for name in ("a/b/x", "entry", "z"):
        (tmp_path / "from" / name).write_text(name)
    for _ in range(2):
        storage.upload(f"{tmp_path}/from", folder, "entry")
    assert storage.listed(folder) == ["a", "entry", "z"] and storage.read(f"{folder}/a/b/x", "-") == b"a/b/x"


def test_what_is_missing(folder: str) -> None:
    with pytest.raises(UserError, match=r"^[^ ]+/none doesn't exist: look again$"):
        storage.read(f"{folder}/none", "look again")
    with pytest.raises(FileNotFoundError):
        storage.read_range(f"{folder}/none", 0, 1)
    with pytest.raises(FileNotFoundError), storage.open_to_read(f"{folder}/none") as file:
        file.read()
    with pytest.raises(FileNotFoundError):
        storage.size(f"{folder}/none")


@pytest.mark.parametrize("path", ["gs://bucket/folder", "gs://bucket", "/a/b", "a", ""])
def test_paths_are_joined_as_tensorflow_does(path: str) -> None:
    assert storage.join(path, "c", "d") == tf.io.gfile.join(path, "c", "d")


def failing(error: Exception) -> Callable:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "told", "code"),
    [
        (PermissionError("Forbidden: memory://x"), "Forbidden: memory://x", 2),
        (OSError(errno.EIO, "broken"), "broken", 75),
        (ConnectionError(), "ConnectionError", 75),
        (RuntimeError("HTTP 503,\nretry later"), "RuntimeError: HTTP 503, retry later", 75),
        (RuntimeError("HTTP 404: no such bucket"), "RuntimeError: HTTP 404: no such bucket", 2),
        (OSError(errno.ENOSPC, "full"), "full", 2),
    ],
)
def test_errors_of_fsspec(error: Exception, told: str, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its storages raise whatever they like; a folder that can't be listed must not look empty."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setattr(fsspec.filesystem("memory", use_listings_cache=False).__class__, "info", failing(error))
    hint = "free some space, then run the same command again" if told == "full" else storage.FIX
    with pytest.raises(UserError) as found:
        storage.listed("memory://x")
    assert str(found.value) == f"memory://x can't be listed ({told}): {hint}"
    assert found.value.exit_code == code  # 75: what restarts jobs tries again
    with pytest.raises(UserError, match=r"^memory://x/y can't be read"):
        storage.exists("memory://x/y")


def test_errors_of_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tf.io.gfile, "stat", failing(tf.errors.PermissionDeniedError(None, None, "403\n\t [[{{node x}}]]")))
    with pytest.raises(UserError, match=r"^ram://x can't be listed \(403\): fix that and run the command again$") as found:
        storage.listed("ram://x")
    assert found.value.exit_code == 2
    told = "All 10 retry attempts failed. The last failure: HTTP response code 503"
    monkeypatch.setattr(tf.io.gfile, "stat", failing(tf.errors.AbortedError(None, None, told)))
    with pytest.raises(UserError) as found:
        storage.listed("ram://x")
    assert found.value.exit_code == 75


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("nothing://a/b", "paths with nothing:// need a package (Protocol not known: nothing): install it"),
        ("sftp://a/b", "paths with sftp:// need a package ("),
    ],
)
def test_a_protocol_without_its_package(path: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setitem(sys.modules, "paramiko", None)
    with pytest.raises(UserError) as found:
        storage.read(path, "-")
    assert str(found.value).startswith(told) and "\n" not in str(found.value)


def test_a_failed_upload_is_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """fsspec would complete it when the file is garbage collected."""
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    uploads: list[bytes] = []

    class File(fsspec.spec.AbstractBufferedFile):
        def _upload_chunk(self, final: bool = False) -> bool:
            uploads.append(self.buffer.getvalue())
            return True

    memory = filesystems.remote("memory://x")._files  # type: ignore[attr-defined]
    monkeypatch.setattr(memory, "open", lambda path, mode: File(memory, path, mode))
    with pytest.raises(RuntimeError), storage.writing("memory://x/file") as file:
        file.write(b"half")
        raise RuntimeError
    del file
    assert uploads == []
