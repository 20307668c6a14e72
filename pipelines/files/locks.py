"""Exclusive locks on local files: a second process is rejected with an error message.

The system releases a lock when its process ends, however it ends. Object stores have no locks: users of gs:// must make sure
that only one process writes.
"""

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError

FOLDER = ".lock"  # the file to lock in an output folder
_POLL_SECONDS = 0.05
_HELD: list[int] = []
_PLAIN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK  # a FIFO must not block the open


def open_plain(path: str, flags: int = 0) -> int:
    """Return a descriptor of a plain file with only this name; create it if it is missing. Raise UserError.

    Args:
        flags: more flags for os.open.
    """
    try:
        found = os.open(path, _PLAIN | flags, 0o644)
    except OSError as error:
        raise UserError(
            f"{path} can't be opened as a plain file ({error.strerror}): remove it, then run the same command again"
        ) from None
    status = os.fstat(found)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(found)
        raise UserError(f"{path} is a link or device, which clozemill never writes to: remove it")
    return found


def _names(path: str, descriptor: int) -> bool:
    """Return whether a path still names the file that was opened."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def acquire(path: str, busy: str) -> int:
    """Open a file, create it if it is missing, and lock it. Return its descriptor; closing it releases the lock.

    Nothing is written to the file. Symbolic links and files with several names are rejected.

    Args:
        path: a local file in an existing folder.
        busy: the message of the UserError if another process holds the lock.
    """
    while True:
        descriptor = open_plain(path)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner may have removed or renamed the file between our open and our lock.
            if _names(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(busy) from None
        os.close(descriptor)


def held_descriptors() -> tuple[int, ...]:
    """Return the descriptors of the locks that this process holds in `locked` blocks.

    A child that inherits one keeps the lock: if this process is killed, nobody gets the lock while the child may still write.
    """
    return tuple(_HELD)


@contextlib.contextmanager
def locked(path: str, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock of a file within the block, and remove the file at the end. Raise UserError(busy).

    Args:
        patience: seconds to wait for the lock, which children of a killed process may still hold for a moment.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            descriptor = acquire(path, busy)
            break
        except UserError as error:
            if str(error) != str(UserError(busy)) or time.monotonic() >= deadline:
                raise
        time.sleep(_POLL_SECONDS)
    _HELD.append(descriptor)
    try:
        yield
    finally:
        _HELD.remove(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(path)  # while it is still locked: a process that has opened it sees that the name is gone
        os.close(descriptor)
