"""Replaces a local folder by another one, for --overwrite; a process killed in between loses neither.

The old folder is renamed, the new one gets its name, and the old one is removed. `restore_folder` repairs what a kill left.
"""

import os
import shutil
from collections.abc import Collection

from clozemill.trainers.common import storage


def _aside(folder: str) -> str:
    """Return the name of a folder while it is replaced."""
    parent, name = os.path.split(folder.rstrip("/"))
    return os.path.join(parent, f".{name}.replaced")


def restore_folder(folder: str) -> None:
    """Finish or undo the replacement of a folder that a kill interrupted. The caller holds a lock."""
    aside = _aside(folder)
    if not os.path.isdir(aside) or os.path.islink(aside):
        return
    with storage.translate_errors(folder, "restored"):
        if os.path.lexists(folder):
            shutil.rmtree(aside)
        else:
            os.rename(aside, folder)


def replace_folder(new: str, folder: str, ours: Collection[str]) -> None:
    """Give a new folder the name of an existing one. Raises UserError.

    Args:
        new: on the same filesystem.
        ours: the files of the old folder that can go, relative to it. The others are copied into the new one, unless it has a
            file of that name.
    """
    folder = folder.rstrip("/")
    with storage.translate_errors(folder, "written"):
        for name in sorted(storage.names_below(folder) - set(ours) - storage.names_below(new)):
            path = os.path.join(new, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            shutil.copy2(os.path.join(folder, name), path, follow_symlinks=False)
        os.rename(folder, _aside(folder))
        os.rename(new, folder)
        storage.sync(os.path.dirname(folder) or ".")
        shutil.rmtree(_aside(folder))
