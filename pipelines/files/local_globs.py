"""Globs of local files, with ** that ends on any tree of folders."""

import glob
import os
from collections.abc import Iterator


def expand(pattern: str) -> list[str]:
    """Return the paths of a local glob. ** doesn't follow links to folders: two links upwards would give 2**40 paths."""
    before, deep, rest = pattern.partition("**")
    if not deep or before.rpartition("/")[2] or not rest.startswith("/"):
        return glob.glob(pattern)
    tops = glob.glob(before) if before else ["."]
    folders = [place for top in tops for place in _visible_folders(top)]
    found = {path for place in folders for path in glob.glob(os.path.join(glob.escape(place), rest.lstrip("/")))}
    return [path.removeprefix("./") if not before else path for path in found]


def _visible_folders(top: str) -> Iterator[str]:
    """Yield a folder and those below it, without hidden ones."""
    for place, names, _ in os.walk(top):
        names[:] = [name for name in names if not name.startswith(".")]
        yield place
