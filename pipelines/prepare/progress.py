"""Progress of a run, by the finished files on this machine's disk."""

import glob

from clozemill.pipelines.beam import run_setup
from clozemill.pipelines.beam.launcher import Progress
from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.prepare.job import Job
from clozemill.pipelines.readers.formats import Plan


def compared(job: Job, plan: Plan, bands: str) -> list[Progress]:
    """Return the progress of the search for near-duplicates, if its `files` shuffle shows it."""
    if job.shuffle != "files":
        return []
    return [Progress("comparing documents", run_setup.size_done(plan, bands, job.split_name), plan.size, "B")]


def _groups_done(job: Job) -> int:
    """Return the number of finished groups of a local dataset."""
    return len(glob.glob(glob.escape(job.folder.work_file("groups")) + "/*.json"))


def resumed(job: Job, plan: Plan) -> str:
    """Return a sentence about what a run takes over from an interrupted one, by what a local disk shows; "" if nothing."""
    groups = 0 if filesystem.is_remote(job.folder.path) else _groups_done(job)
    if groups:
        return f"resuming: {groups:,} of {counted(job.total_groups, 'group')} are complete"
    read = run_setup.size_done(plan, job.folder.spill, job.split_name) if job.shuffle == "files" else 0
    return f"resuming: {read / 1e6:,.1f} of {plan.size / 1e6:,.1f} MB of the input are processed" if read else ""


def stages_done(job: Job, plan: Plan) -> list[Progress]:
    """Return the progress of each stage: splits with the `files` shuffle, groups of a local dataset."""
    stages = []
    read = run_setup.size_done(plan, job.folder.spill, job.split_name)
    if job.shuffle == "files":
        stages.append(Progress("processing documents", read, plan.size, "B"))
    if not filesystem.is_remote(job.folder.path):
        groups = _groups_done(job)
        if groups or not stages or read >= sum(split.size for split in plan.splits):
            stages.append(Progress("writing shards", groups, job.total_groups, " groups"))
    return stages
