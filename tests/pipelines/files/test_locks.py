"""Locks on files: held by one process, released when it exits for any reason, never through a link."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks

HOLD = """
import sys, time
from clozemill.pipelines.files import locks
with locks.locked(sys.argv[1], "busy"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_lock_is_rejected_until_the_first_is_released(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with locks.locked(path, "busy"):
        for _ in range(2):
            with pytest.raises(UserError, match=r"^busy$"), locks.locked(path, "busy"):
                raise AssertionError("two hold it")
        assert os.path.exists(path)  # the rejected process hasn't removed it
    assert not os.path.exists(path)
    with locks.locked(path, "busy"):
        pass


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UserError, match="busy"), locks.locked(path, "busy"):
        raise AssertionError("two hold it")
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert os.path.exists(path)  # the file is kept, and is empty
    with locks.locked(path, "busy"):
        pass


def test_a_renamed_lock_file_is_replaced(tmp_path: Path) -> None:
    """As happens to a finished output whose temporary name was locked."""
    path = str(tmp_path / "a.tmp")
    first = locks.acquire(path, "busy")
    os.rename(path, tmp_path / "a")
    second = locks.acquire(path, "busy")
    assert not os.path.samestat(os.fstat(first), os.fstat(second))
    os.close(first)
    os.close(second)


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "fifo", "folder"])
def test_only_plain_files_are_locked(tmp_path: Path, kind: str) -> None:
    path, mine = tmp_path / "lock", tmp_path / "mine"
    mine.write_text("mine")
    if kind == "symlink":
        path.symlink_to(mine)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "nowhere")
    elif kind == "hard link":
        path.hardlink_to(mine)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(UserError, match="lock"), locks.locked(str(path), "busy"):
        raise AssertionError("locked")
    assert mine.read_text() == "mine" and not (tmp_path / "nowhere").exists() and os.path.lexists(path)


def test_a_child_that_inherits_a_lock_keeps_it_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Such as a worker that is still writing; the next run waits briefly for it."""
    path = str(tmp_path / "lock")
    code = (
        "import os, subprocess, sys\nfrom clozemill.pipelines.files import locks\n"
        f"with locks.locked({path!r}, 'busy'):\n"
        "    print(subprocess.Popen(['sleep', '60'], stdout=2, pass_fds=locks.held_descriptors()).pid, flush=True)\n"
        "    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert killed.returncode == -9 and locks.held_descriptors() == ()
    with pytest.raises(UserError, match="busy"), locks.locked(path, "busy"):
        pass
    os.kill(int(killed.stdout), 9)
    with locks.locked(path, "busy", patience=60):
        assert len(locks.held_descriptors()) == 1
