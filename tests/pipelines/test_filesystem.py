"""Files: globs, stamps, and writes that are whole or absent."""

import errno
import os

import pytest
from apache_beam.io.filesystem import FileSystem
from apache_beam.io.localfilesystem import LocalFileSystem

from pipelines import filesystem
from pipelines.schema import UserError


def test_match_sorts_and_lists_a_file_once(tmp_path):
    for name in ("b.txt", "a.txt", "sub/c.txt", "[x].txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    patterns = [f"{tmp_path}/**/*.txt", f"{tmp_path}/a.txt", f"{tmp_path}/[x].txt"]
    names = [os.path.relpath(info.path, tmp_path) for info in filesystem.match(patterns)]
    assert names == ["[x].txt", "a.txt", "b.txt", "sub/c.txt"]


def test_the_stamp_changes_with_the_file(tmp_path):
    path = tmp_path / "a"
    path.write_text("x")
    (before,) = filesystem.match([str(path)])
    os.utime(path, ns=(1, 1))
    (after,) = filesystem.match([str(path)])
    assert (before.size, after.size) == (1, 1)
    assert before.stamp != after.stamp


def test_match_refuses_nothing_and_folders(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*/\*\.txt: check the path, and quote the glob"):
        filesystem.match([f"{tmp_path}/*.txt"])
    with pytest.raises(UserError, match="is a folder: give files or a glob such as"):
        filesystem.match([str(tmp_path)])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is no regular file"):
        filesystem.match([f"{tmp_path}/*"])


@pytest.mark.parametrize(
    ("path", "what_to_do"),
    [
        ("gs://bucket/a", r"'clozemill\[gcp\]'"),
        ("s3://bucket/a", r"'clozemill\[aws\]'"),
        ("nosuch://host/a", "check the scheme"),
    ],
)
def test_a_filesystem_that_is_not_there(path, what_to_do, monkeypatch):
    """As where Beam was installed without extras."""
    monkeypatch.setattr(FileSystem, "get_all_subclasses", classmethod(lambda cls: [LocalFileSystem]))
    with pytest.raises(UserError, match=what_to_do):
        filesystem.match([path])
    with pytest.raises(UserError, match=what_to_do):
        filesystem.write_bytes(path, b"x")


# Writes


def test_a_write_appears_whole_and_makes_its_folder(tmp_path):
    path = tmp_path / "new" / "deep" / "a"
    with filesystem.atomic_write(str(path)) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    filesystem.write_bytes(str(path), b"second")
    assert os.listdir(path.parent) == ["a"]
    assert filesystem.read_bytes(str(path)) == b"second"
    assert (filesystem.size(str(path)), filesystem.size(f"{path}.no")) == (6, -1)


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), filesystem.atomic_write(str(path)) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_bytes() == b"before"


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    # The kernel's own full device: what is written there fails with ENOSPC.
    monkeypatch.setattr(filesystem, "open", lambda *a, **k: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    with pytest.raises(UserError) as caught:
        filesystem.write_bytes(str(tmp_path / "a"), b"x")
    reason = os.strerror(errno.ENOSPC)
    assert str(caught.value) == (f"{tmp_path}/a can't be written ({reason}): free some space, then run the same command again")
    assert os.listdir(tmp_path) == []


def test_a_folder_holds_files_at_any_depth_but_temporaries(tmp_path):
    assert not filesystem.holds_files(str(tmp_path / "none"))
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / "state.json.tmp-1f").write_text("half")
    assert not filesystem.holds_files(str(tmp_path))
    filesystem.remove_temporaries(str(tmp_path))
    assert os.listdir(tmp_path / ".work") == []
    (tmp_path / ".work" / "state.json").write_text("{}")
    assert filesystem.holds_files(str(tmp_path))
    filesystem.remove_tree(str(tmp_path / ".work"))
    filesystem.remove_tree(str(tmp_path / ".work"))
    assert os.listdir(tmp_path) == []
