"""How far a run is, by the finished files on this machine's disk."""

import glob
import os
from collections.abc import Callable

from pipelines import filesystem
from pipelines.launch import Progress
from pipelines.readers import Plan
from pipelines.schema import Split, split_id
from pipelines.stages import Job


def size_done(plan: Plan, folder: str, name: Callable[[Split], str] = split_id) -> int:
    """Return the bytes of the splits whose markers are in a folder. name: of a split's marker."""
    done = {os.path.basename(path)[:-5] for path in glob.glob(glob.escape(folder) + "/*.json")}
    return sum(split.size for split in plan.splits if name(split) in done)


def compared(job: Job, plan: Plan, bands: str) -> list[Progress]:
    """Return how far the search for near-duplicates is, where its `files` shuffle shows it."""
    if job.shuffle != "files":
        return []
    return [Progress("comparing documents", size_done(plan, bands, job.split_name), plan.size, "B")]


def stages_done(job: Job, plan: Plan) -> list[Progress]:
    """Return how far each stage is: splits with the `files` shuffle, groups of a local dataset."""
    stages = []
    read = size_done(plan, job.spill, job.split_name)
    if job.shuffle == "files":
        stages.append(Progress("milling documents", read, plan.size, "B"))
    if not filesystem.is_remote(job.folder):
        groups = len(glob.glob(glob.escape(job.work("groups")) + "/*.json"))
        if groups or not stages or read >= sum(split.size for split in plan.splits):
            stages.append(Progress("writing shards", groups, job.total_groups, " groups"))
    return stages
