"""Globs of local files, with ** that ends on any tree of folders. A folder that can't be listed is an error, not empty."""

import glob
import os
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError


def expand(pattern: str) -> list[str]:
    """Return the paths of a local glob. ** doesn't follow links to folders: two links upwards would give 2**40 paths.

    Raises UserError for a folder that can't be listed.
    """
    before, deep, rest = pattern.partition("**")
    if not deep or before.rpartition("/")[2] or not rest.startswith("/"):
        return _matches(pattern)
    tops = _matches(before) if before else ["."]
    folders = [place for top in tops for place in _visible_folders(top)]
    found = {path for place in folders for path in _matches(os.path.join(glob.escape(place), rest.lstrip("/")))}
    return [path.removeprefix("./") if not before else path for path in found]


def _matches(pattern: str) -> list[str]:
    """Return the paths of a glob in which ** means no more than *. Raises UserError for a folder that can't be listed."""
    parent, name = os.path.split(pattern)
    if glob.has_magic(pattern) and parent != pattern:
        for folder in _matches(parent) if parent else ["."]:
            if os.path.isdir(folder):
                try:
                    os.scandir(folder).close() if glob.has_magic(name) else os.lstat(os.path.join(folder, name))
                except (FileNotFoundError, NotADirectoryError):
                    pass
                except OSError as error:
                    _refuse(error, folder)
    return glob.glob(pattern)


def _refuse(error: OSError, folder: str = "") -> None:
    """Raise UserError, but not for the folder that every disk has for its administrator."""
    folder = folder or error.filename
    if os.path.basename(folder) == "lost+found":
        return
    raise UserError(
        f"{folder} can't be listed ({error.strerror or error}): allow it, or give files or globs without that folder"
    ) from None


def _visible_folders(top: str) -> Iterator[str]:
    """Yield a folder and those below it, without hidden ones. Raises UserError for one that can't be listed."""
    for place, names, _ in os.walk(top, onerror=_refuse):
        names[:] = [name for name in names if not name.startswith(".")]
        yield place
