"""Checks of `vocab` and `prepare` before and after a run."""

import glob
import os
import sys
from collections.abc import Callable

from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import runners
from clozemill.pipelines.command_line.options import require
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from clozemill.pipelines.readers.input_warnings import input_warnings


def plan_input(config: VocabConfig | PrepareConfig, extra: list[str], *needed: str) -> tuple[Plan, int, PipelineOptions]:
    """Return the splits of the input, the number of workers, and Beam's options. Report errors before writing anything."""
    runners.check(config, extra)
    require(config, *needed)
    plan = formats.plan(config)
    count = runners.workers(config, plan.text_estimate)
    refuse_own_input(plan, config.output)
    for line in input_warnings(plan):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return plan, count, runners.pipeline_options(config, extra, count)


def refuse_own_input(plan: Plan, output: str) -> None:
    """Raise UserError if an input file is the output, or is within it."""
    if filesystem.is_remote(output):
        return
    out = os.path.realpath(output)
    for path in {split.path for split in plan.splits}:
        real = os.path.realpath(path)
        if real == out or real.startswith(out + os.sep):
            raise UserError(f"{path} is both input and --output {output}: remove it from --input, or give another --output")


def check_landed(path: str, output: str) -> None:
    """Raise UserError if a file that the workers wrote doesn't exist here."""
    if not filesystem.exists(path):
        raise UserError(f"the workers wrote {output} to their own disks: give an --output that all machines share")


def size_done(plan: Plan, folder: str, name: Callable[[InputSplit], str] = split_id) -> int:
    """Return the bytes of the splits whose markers are in a folder. name: of a split's marker."""
    done = {os.path.basename(path)[:-5] for path in glob.glob(glob.escape(folder) + "/*.json")}
    return sum(split.size for split in plan.splits if name(split) in done)
