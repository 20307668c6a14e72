"""Claims a run's folder for one configuration, or rejects the folder of another run."""

import json
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks, safe_paths
from clozemill.trainers.common import storage
from clozemill.trainers.training.run_protocols import TrainingRun

RUN = "run.json"


def recorded_identity(folder: str) -> dict[str, Any] | None:
    """Return the identity in a folder's run.json; None if there is no such file, or it is not that of a run."""
    path = storage.join(folder, RUN)
    if RUN not in storage.listed(folder):
        return None
    try:
        found = json.loads(storage.read(path, "give another --output"))["identity"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def claim_run_folder(plan: TrainingRun, folder: str, writes: bool = True) -> None:
    """Write run.json into a new run's folder, if `writes`. Raises UserError if the folder belongs to another run.

    The caller must hold the folder's lock. Also raises UserError if files would be written through links in the folder.
    """
    path, mine, names = storage.join(folder, RUN), plan.identity(), set(storage.listed(folder)) - {locks.FOLDER}
    safe_paths.refuse_links(folder)
    if RUN in names:
        try:
            theirs = json.loads(storage.read(path, "give another --output"))["identity"]
            defaults = options.to_dict(type(plan.config)())  # for options that the run's version of clozemill didn't have yet
            pairs = [(name, theirs.get(name, defaults.get(name)), mine.get(name)) for name in {**theirs, **mine}]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path} is not that of a run: give another --output") from None
        for name, their, my in pairs:
            if their != my:
                if isinstance(their, dict) and isinstance(my, dict):
                    key = next(key for key in {**their, **my} if their.get(key) != my.get(key))
                    name, their, my = f"{name}'s {key}", their.get(key), my.get(key)
                raise UserError(f"{folder} was started with {name} {their}, not {my}: give the same, or another --output")
    elif names - {RUN + ".tmp"}:  # left by a process that was killed at the very start
        raise UserError(f"{folder} exists and is not a run: give a new folder as --output")
    elif writes:
        about = {"identity": mine, "config": options.to_dict(plan.config), **plan.about()}
        storage.write_json(path, about)
    if writes and f"{plan.stage}.yaml" not in names:
        storage.write(storage.join(folder, f"{plan.stage}.yaml"), options.to_yaml(plan.config).encode())
