"""Lock the folder of a run's intermediate files, so that a second run is rejected."""

import contextlib
import os
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.dataset.layout import WORK
from clozemill.pipelines.files import filesystem, locks, safe_paths

LOCK = "lock"

WORKERS_LOG = "workers.log"

_PATIENCE_SECONDS = 5.0  # seconds for the workers of a killed run to exit


@contextlib.contextmanager
def vocab_locked(output: str) -> Iterator[str]:
    """Lock a local output of `vocab`, and yield an empty folder for the files of this run; for a remote output, yield "".

    Raises UserError if the folder exists and wasn't created by `vocab`.
    """
    if filesystem.is_remote(output):
        yield ""
        return
    place = safe_paths.Inside(output + WORK, os.path.dirname(output) or ".")
    if os.path.islink(place):
        filesystem.remove(place)
    names = os.listdir(place) if os.path.isdir(place) else []
    if names and LOCK not in names:
        raise UserError(f"{place} contains files that clozemill didn't write: move it, or give another --output")
    with locked_folder(place, f"another clozemill vocab is writing {output}: wait for it to end"):
        filesystem.remove_tree(place, keep=LOCK)
        yield place


@contextlib.contextmanager
def locked_folder(place: str, busy: str) -> Iterator[None]:
    """Lock a local folder for intermediate files; remove it at the end if it is empty."""
    with filesystem.translate_errors(place, "written"), safe_paths.parent(filesystem.join(place, LOCK), make=True):
        pass
    try:
        with locks.locked(filesystem.join(place, LOCK), busy, _PATIENCE_SECONDS):
            yield
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(place)
