"""Files: globs, stamps, and atomic writes."""

import errno
import os

import pytest
from apache_beam.io.filesystem import FileSystem
from apache_beam.io.localfilesystem import LocalFileSystem

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem, safe_paths


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


def test_match_rejects_folders_and_empty_results(tmp_path):
    with pytest.raises(UserError, match=r"no file matches .*/\*\.txt: check the path, and quote the glob"):
        filesystem.match([f"{tmp_path}/*.txt"])
    with pytest.raises(UserError, match="is a folder: give files or a glob such as"):
        filesystem.match([str(tmp_path)])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe is not a regular file"):
        filesystem.match([f"{tmp_path}/*"])


@pytest.mark.parametrize(
    ("path", "what_to_do"),
    [
        ("gs://bucket/a", r"'clozemill\[gcp\]'"),
        ("s3://bucket/a", r"'clozemill\[aws\]'"),
        ("nosuch://host/a", "check the scheme"),
    ],
)
def test_an_unavailable_filesystem(path, what_to_do, monkeypatch):
    """If Beam is installed without extras."""
    monkeypatch.setattr(FileSystem, "get_all_subclasses", classmethod(lambda cls: [LocalFileSystem]))
    with pytest.raises(UserError, match=what_to_do):
        filesystem.match([path])
    with pytest.raises(UserError, match=what_to_do):
        filesystem.write_bytes(path, b"x")


# Writes


def test_a_write_is_atomic_and_creates_its_folder(tmp_path):
    path = tmp_path / "new" / "deep" / "a"
    with filesystem.atomic_write(str(path)) as file:
        file.write(b"first")
        assert not path.exists()
    assert path.read_bytes() == b"first"
    filesystem.write_bytes(str(path), b"second")
    assert os.listdir(path.parent) == ["a"]
    assert filesystem.read_bytes(str(path)) == b"second"
    assert (filesystem.size(str(path)), filesystem.size(f"{path}.no")) == (6, -1)


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), filesystem.atomic_write(str(path)) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["a"]
    assert path.read_bytes() == b"before"


def test_a_full_disk_error_names_the_file(tmp_path, monkeypatch):
    # The kernel's full device: writes fail with ENOSPC.
    monkeypatch.setattr(safe_paths, "open", lambda *a, **k: open("/dev/full", "wb"), raising=False)  # noqa: SIM115
    with pytest.raises(UserError) as caught:
        filesystem.write_bytes(str(tmp_path / "a"), b"x")
    reason = os.strerror(errno.ENOSPC)
    assert str(caught.value) == (f"{tmp_path}/a can't be written ({reason}): free some space, then run the same command again")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "pattern", ["c/**/*.jsonl", "c/*/*.jsonl", "c/*/d/1.jsonl", "c/*/1.jsonl", "c/b/*.jsonl", "**/*.jsonl"]
)
def test_a_folder_that_can_t_be_listed_is_an_error(pattern, tmp_path, monkeypatch):
    """Its files would be missing from the dataset. (Simulated, because root may list every folder.)"""
    for name in ("c/a/d/1.jsonl", "c/a/1.jsonl", "c/b/1.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert filesystem.match([pattern])
    scandir = os.scandir

    def refusing(path="."):
        if os.path.basename(path) == "b" or pattern == "c/*/d/1.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    def refusing_to_enter(path, **more):
        if os.path.basename(os.path.dirname(path)) == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return lstat(path, **more)

    lstat = os.lstat
    monkeypatch.setattr(os, "scandir", refusing)
    monkeypatch.setattr(os, "lstat", refusing_to_enter)
    with pytest.raises(UserError, match=r"^(.*b|c) can't be listed \(Permission denied\): allow it, or give files or globs"):
        filesystem.match([pattern])


@pytest.mark.parametrize("pattern", ["**/*.jsonl", "*/*.jsonl"])
def test_the_folder_of_a_disk_s_administrator_is_left_out(pattern, tmp_path, monkeypatch):
    for name in ("a/1.jsonl", "lost+found/1.jsonl"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    scandir = os.scandir

    def refusing(path="."):
        if os.path.basename(path) == "lost+found":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert [info.path for info in filesystem.match([f"{tmp_path}/{pattern}"])] == [f"{tmp_path}/a/1.jsonl"]


def test_holds_files_ignores_temporary_files(tmp_path):
    assert not filesystem.holds_files(str(tmp_path / "none"))
    (tmp_path / ".work").mkdir()
    (tmp_path / ".work" / f"state.json.tmp-{'1f' * 16}").write_text("half")
    assert not filesystem.holds_files(str(tmp_path))
    filesystem.remove_temporaries(str(tmp_path))
    assert os.listdir(tmp_path / ".work") == []
    (tmp_path / ".work" / "state.json").write_text("{}")
    assert filesystem.holds_files(str(tmp_path))
    filesystem.remove_tree(str(tmp_path / ".work"))
    filesystem.remove_tree(str(tmp_path / ".work"))
    assert os.listdir(tmp_path) == []


def test_only_our_temporary_files_are_removed(tmp_path):
    """A user's files with similar names are kept."""
    for name in ("a.tmp-1", "b.tmp-" + "0" * 31, "c.tmp-" + "g" * 32, "d.tmp-" + "0a" * 16 + ".txt"):
        (tmp_path / name).write_text("dear")
    assert filesystem.holds_files(str(tmp_path))
    (tmp_path / ("e.tmp-" + "0a" * 16)).write_text("half")
    filesystem.remove_temporaries(str(tmp_path))
    assert len(os.listdir(tmp_path)) == 4


# Links


@pytest.fixture
def linked(tmp_path):
    """A dataset folder whose folder `train` was replaced by a link to another place during writing."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a").write_text("dear")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train").symlink_to(tmp_path / "elsewhere")
    yield str(tmp_path / "d")
    assert (tmp_path / "elsewhere" / "a").read_text() == "dear" and os.listdir(tmp_path / "elsewhere") == ["a"]


@pytest.mark.parametrize("name", ["train/a", "train/new", "train/deep/a"])
def test_nothing_is_written_or_removed_through_a_link_to_a_folder(linked, name):
    path = filesystem.inside(linked, name)
    with pytest.raises(UserError, match=rf"{name} can't be written \((Not a directory|Too many levels of symbolic links)\)"):
        filesystem.write_bytes(path, b"x")
    filesystem.remove(path)
    filesystem.remove_tree(path)
    filesystem.remove_tree(filesystem.join(filesystem.inside(linked, "train"), "a"))


def test_a_link_is_removed_or_replaced_itself(linked, tmp_path):
    filesystem.remove_tree(filesystem.inside(linked, "train"))
    assert os.listdir(linked) == []
    for kind in (os.symlink, os.link):
        kind(tmp_path / "elsewhere" / "a", f"{linked}/b")
        filesystem.write_bytes(filesystem.inside(linked, "b"), b"x")
        assert filesystem.read_bytes(f"{linked}/b") == b"x" and not os.path.islink(f"{linked}/b")
        os.unlink(f"{linked}/b")


def test_a_root_may_be_reached_through_links(tmp_path):
    """Links on the way to the root are the user's choice."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    filesystem.write_bytes(filesystem.inside(str(tmp_path / "data" / "d"), "train/a"), b"x")
    assert (tmp_path / "disk" / "d" / "train" / "a").read_bytes() == b"x"


def test_a_private_folder_belongs_to_this_user(tmp_path):
    path = str(tmp_path / "spill")
    assert safe_paths.private_folder(path) == safe_paths.private_folder(path) == path
    os.chmod(path, 0o755)
    with pytest.raises(UserError, match=r"spill is not a private folder of yours: remove it, or set TMPDIR"):
        safe_paths.private_folder(path)
    os.rmdir(path)
    os.symlink(tmp_path, path)
    with pytest.raises(UserError, match="not a private folder of yours"):
        safe_paths.private_folder(path)


def test_files_and_their_folders_are_synced(tmp_path, monkeypatch):
    """Each file, then each folder on the way to it, the deepest first."""
    for name in ("a/b/c", "d"):
        filesystem.write_bytes(f"{tmp_path}/{name}", b"x", sync=False)
    synced = []
    monkeypatch.setattr(
        safe_paths.os, "fsync", lambda number: synced.append(os.path.relpath(os.readlink(f"/proc/self/fd/{number}"), tmp_path))
    )
    filesystem.sync_files(str(tmp_path), ["a/b/c", "d"])
    assert synced == ["a/b/c", "d", "a/b", "a", "."]
    synced.clear()
    filesystem.write_bytes(f"{tmp_path}/e", b"x")
    assert [name.split(".tmp-")[0] for name in synced] == ["e", "."]
