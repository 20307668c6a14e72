"""Local paths within a folder of ours, opened without following links that someone else puts into it."""

import contextlib
import os
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator
from typing import BinaryIO

from clozemill.pipelines.common.errors import UserError

CHUNK_BYTES = 1 << 20


class Inside(str):
    """A path within a folder of ours, `root`. Links on the way to the root itself are the user's choice."""

    root: str

    def __new__(cls, path: str, root: str) -> "Inside":
        made = super().__new__(cls, path)
        made.root = root
        return made

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # str has one argument, this has two
        return str(self), self.root


def private_folder(path: str) -> str:
    """Return a folder that only this user can enter; create it if missing. Raise UserError if it belongs to another user."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o700)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise UserError(f"{path} is not a private folder of yours: remove it, or set TMPDIR to another folder")
    return path


def refuse_link(path: str, folder: str) -> None:
    """Raise UserError if a path in a folder is a symbolic link: writing to it would write outside the folder."""
    if os.path.islink(path):
        raise UserError(
            f"{path} is a symbolic link, and nothing is written outside {folder}: remove it, or give another --output"
        )


def refuse_links(folder: str, besides: Collection[str] = ()) -> None:
    """Raise UserError if a local folder contains a symbolic link. Remote folders have no links.

    besides: folders in it that other programs write, and we never do: only they themselves may not be links.
    """
    for place, folders, names in [] if "://" in folder else os.walk(folder):
        for name in (*folders, *names):
            refuse_link(os.path.join(place, name), folder)
        if place == folder:
            folders[:] = [name for name in folders if name not in besides]


@contextlib.contextmanager
def parent(path: str, make: bool = False) -> Iterator[tuple[int, str]]:
    """Yield a descriptor of the folder that contains a path, and the name in it.

    For an Inside path, no folder below its root may be a symbolic link. `make`: create missing folders. Raises OSError.
    """
    folder, name = os.path.split(os.path.abspath(path))
    root = os.path.abspath(path.root) if isinstance(path, Inside) else folder
    if make:
        with contextlib.suppress(FileExistsError):  # if it is a file, opening it as a folder fails below
            os.makedirs(root, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in [] if folder == root else os.path.relpath(folder, root).split(os.sep):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def renamed(folder: int, name: str, sync: bool) -> Iterator[BinaryIO]:
    """Write a new file in a folder (a descriptor) that gets its name when the block ends without error. Raise OSError."""
    temporary = f"{name}.tmp-{uuid.uuid4().hex}"

    def create(path: str, flags: int) -> int:
        return os.open(path, flags, 0o666, dir_fd=folder)  # the flags create a new file or fail

    try:
        with open(temporary, "xb", buffering=CHUNK_BYTES, opener=create) as file:
            yield file
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        if sync:
            os.fsync(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def sync(folder: str, names: Iterable[str]) -> None:
    """Flush files of a folder, and their names, to the disk. Raise OSError."""
    names = list(names)
    folders = {""}
    for name in names:
        parts = name.split("/")[:-1]
        folders |= {"/".join(parts[: end + 1]) for end in range(len(parts))}
    for name in (*names, *sorted(folders, key=len, reverse=True)):
        descriptor = os.open(os.path.join(folder, name), os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
