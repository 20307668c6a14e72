"""Claims a run's folder for one configuration, or rejects the folder of another run."""

import json
import re
from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks, safe_paths
from clozemill.trainers.common import storage
from clozemill.trainers.training import checkpoints, run_page, trackers
from clozemill.trainers.training.metrics_log import METRICS
from clozemill.trainers.training.run_protocols import TrainingRun
from clozemill.trainers.training.trackers import IDS, TENSORBOARD

RUN = "run.json"
RETIRED = ("cycle_length", "shuffle_buffer")  # options of earlier versions, for another order of the examples
_CLEARED = {"overwritten": True}  # run.json while the files of a run are removed, until the next one is started
_STAGES = ("pretrain", "finetune", "contrast")
# The other files in a run's folder, besides checkpoints and TensorBoard's.
_FILES = (*(f"{stage}.yaml" for stage in _STAGES), METRICS, IDS, "diverged.json", *run_page.FILES)


def recorded(folder: str, part: str) -> dict[str, Any] | None:
    """Return a part of a folder's run.json; None if there is no such file, or it is not that of a run.

    Args:
        folder: the run's folder.
        part: "identity", "config", or "chosen".
    """
    path = storage.join(folder, RUN)
    if RUN not in storage.listed(folder):
        return None
    try:
        found = json.loads(storage.read(path, "give another --output"))[part]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return {name: value for name, value in found.items() if part == "config" or name not in RETIRED}


def resumed(config: Any, part: str) -> dict[str, Any] | None:
    """Return a part of the run.json, as `recorded`, of the run that a configuration resumes; None if it starts a new one."""
    return recorded(config.output, part) if config.output and not config.overwrite else None


def chosen_options(given: Any, completed: Any) -> dict[str, Any]:
    """Return the options that `given` left open, by name, with their values in `completed`.

    Those that the run in the folder was started with were not chosen, even if the command that resumes it leaves them out.
    """
    found = {name: value for name, value in options.to_dict(completed).items() if options.to_dict(given)[name] != value}
    earlier = resumed(completed, "chosen")
    return {name: value for name, value in found.items() if earlier is None or name in earlier}


def chosen_for_you(reasons: Sequence[str]) -> str:
    """Return the line that announces what was chosen for options that were left open."""
    return f"chosen for you: {', '.join(reasons)} (give these options to choose otherwise)"


def clear_run_folder(folder: str) -> None:
    """Remove the files of a run, for --overwrite; others stay. The caller must hold the folder's lock.

    run.json is replaced by a mark first: after an interruption, claiming the folder removes the rest, and no run resumes from a
    checkpoint of the old one. Raises UserError for a folder that has files, but isn't a run.
    """
    names = set(storage.listed(folder)) - {locks.FOLDER, f"{RUN}.tmp"}
    safe_paths.refuse_links(folder, trackers.FOLDERS)
    if names and recorded(folder, "identity") is None and not _is_cleared(folder):
        raise UserError(f"{folder} exists and is not a run: give a new folder as --output")
    if names:
        storage.write_json(storage.join(folder, RUN), _CLEARED)
        checkpoints.remove_all(folder)
        events = storage.join(folder, TENSORBOARD)
        for name in storage.listed(events):
            if name.startswith("events.out.tfevents."):
                storage.remove(storage.join(events, name))
        storage.remove_empty(events)
        for name in sorted(names & set(_FILES)):
            storage.remove(storage.join(folder, name))


def _is_cleared(folder: str) -> bool:
    """Return whether the folder's run.json is the mark of an interrupted `clear_run_folder`."""
    try:
        return json.loads(storage.read(storage.join(folder, RUN), "-")) == _CLEARED
    except (UserError, ValueError, RecursionError):
        return False


def _shown(value: Any) -> str:
    """Return a value for a message, with the first twelve characters of digests, as `compare` shows them."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", str(value))


def claim_run_folder(plan: TrainingRun, folder: str, writes: bool = True) -> None:
    """Write run.json into a new run's folder, if `writes`. Raises UserError if the folder belongs to another run.

    The caller must hold the folder's lock. Also raises UserError if files would be written through links in the folder.
    """
    safe_paths.refuse_links(folder, trackers.FOLDERS)
    cleared = _is_cleared(folder)
    if cleared and writes:
        clear_run_folder(folder)
    path, mine, names = storage.join(folder, RUN), plan.identity(), set(storage.listed(folder)) - {locks.FOLDER}
    if RUN in names and not cleared:
        if (theirs := recorded(folder, "identity")) is None:
            raise UserError(f"{path} is not that of a run: give another --output")
        others = [stage for stage in _STAGES if f"{stage}.yaml" in names]
        if others and plan.stage not in others:
            raise UserError(f"{folder} is a run of {others[0]}: give another --output")
        defaults = options.to_dict(type(plan.config)())  # for options that the run's version of clozemill didn't have yet
        for name in {**theirs, **mine}:
            their, my = theirs.get(name, defaults.get(name)), mine.get(name)
            if isinstance(their, dict) and isinstance(my, dict):  # likewise for what it didn't record of a phase
                their = {**my, **their}
            if their != my:
                if isinstance(their, dict) and isinstance(my, dict):
                    key = next(key for key in {**their, **my} if their.get(key) != my.get(key))
                    name, their, my = f"{name}'s {key}", their.get(key), my.get(key)
                raise UserError(
                    f"{folder} was started with {name} {_shown(their)}, not {_shown(my)}: give the same, --overwrite to start "
                    "over, or another --output"
                )
    elif names - {RUN + ".tmp"} and not cleared:  # left by a process that was killed at the very start
        raise UserError(f"{folder} exists and is not a run: give a new folder as --output")
    elif writes:
        about = {"identity": mine, "config": options.to_dict(plan.config), "chosen": plan.chosen, **plan.about()}
        storage.write_json(path, about)
    if writes and f"{plan.stage}.yaml" not in names:
        storage.write(storage.join(folder, f"{plan.stage}.yaml"), options.to_yaml(plan.config).encode())
