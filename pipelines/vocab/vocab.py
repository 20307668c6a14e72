"""`clozemill vocab`: plan the input, count its words and learn a vocabulary."""

import sys
import time

from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import launcher, run_lock, run_setup
from clozemill.pipelines.beam.launcher import Progress
from clozemill.pipelines.command_line.options import to_yaml
from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.dataset.layout import WORK
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.text import left_out
from clozemill.pipelines.vocab import graph


def vocab(config: VocabConfig, extra: list[str]) -> None:
    """Learn a vocabulary from the input, and write it with its configuration."""
    plan, _, options = run_setup.plan_input(config, extra, "input", "output")
    check_new_file(config.output, config.overwrite)
    print(f"learning {config.vocab_size:,} tokens from {formats.file_count(plan)}", flush=True)
    begin = time.perf_counter()
    with run_lock.vocab_locked(config.output) as marks:
        if marks:  # report an unwritable output before reading the corpus
            for path in (config.output, config.output + ".yaml"):
                filesystem.remove_temporaries_of(path)
            filesystem.write_bytes(filesystem.join(marks, run_lock.WORKERS_LOG), b"", sync=False)
        lost = _learn(config, plan, options, marks)
        if launcher.is_template(options):
            print("wrote the job's description; Dataflow writes the vocabulary")
            return
        run_setup.check_landed(config.output, config.output)
        if config.overwrite or not filesystem.exists(config.output + ".yaml"):
            filesystem.write_bytes(config.output + ".yaml", to_yaml(config).encode())
    for line in lost:
        print(line, file=sys.stderr, flush=True)
    print(f"wrote {config.output}: {config.vocab_size:,} tokens in {time.perf_counter() - begin:.1f} s")


def _learn(config: VocabConfig, plan: Plan, options: PipelineOptions, marks: str) -> list[str]:
    """Run the pipeline; return warnings. marks: a local folder for the progress of workers, or ""."""
    left = "" if launcher.is_template(options) else filesystem.join(marks or config.output + WORK, "left-out.json")
    try:
        launcher.launch(
            lambda pipeline: graph.learn_vocabulary(pipeline, plan.splits, config, marks, left),
            options,
            lambda: [Progress("counting words", run_setup.size_done(plan, marks), plan.size, "B")],
            config.progress,
            filesystem.join(marks, run_lock.WORKERS_LOG) if marks else "",
        )
        if left and filesystem.exists(left):
            return left_out.warnings(*left_out.read_report(filesystem.read_bytes(left)), config)
        return []
    finally:
        filesystem.remove_tree(marks or config.output + WORK, keep=run_lock.LOCK)
