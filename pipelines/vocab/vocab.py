"""`clozemill vocab`: plan the input, count its words, and learn a vocabulary or extend one."""

import sys
import time
from dataclasses import replace

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import launcher, run_lock, run_setup
from clozemill.pipelines.beam.launcher import Progress
from clozemill.pipelines.command_line.options import to_yaml
from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.common.tokenizer_rules import described
from clozemill.pipelines.config import VocabConfig
from clozemill.pipelines.dataset.layout import WORK
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.vocab import graph
from clozemill.pipelines.vocab.extension import ExtensionStage
from clozemill.pipelines.vocab.recorded_rules import completed_rules, recorded_rules
from clozemill.pipelines.vocab.training import VocabStage


def vocab(config: VocabConfig, extra: list[str]) -> None:
    """Learn a vocabulary from the input, or extend one, and write it with its configuration."""
    plan, _, options = run_setup.plan_input(config, extra, "input", "output")
    check_new_file(config.output, config.overwrite)
    config, stage = _stage(config)
    general = _plan_general(config)
    source = formats.file_count(plan)
    if isinstance(stage, ExtensionStage):
        old = len(Vocabulary.from_bytes(stage.old, config.extend))
        size = old + (config.add or 0)
        casing = described(config.cased, config.rules)
        print(f"extending {config.extend} ({old:,} tokens, {casing}) by {size - old:,} from {source}", flush=True)
    else:
        size = config.size
        print(f"learning {size:,} tokens from {source}", flush=True)
    begin = time.perf_counter()
    with run_lock.vocab_locked(config.output) as marks:
        if marks:  # report an unwritable output before reading the corpus
            for path in (config.output, config.output + ".yaml"):
                filesystem.remove_temporaries_of(path)
            filesystem.write_bytes(filesystem.join(marks, run_lock.WORKERS_LOG), b"", sync=False)
        warnings, results = _learn(stage, plan, general, options, marks)
        if launcher.is_template(options):
            print("wrote the job's description; Dataflow writes the vocabulary")
            return
        run_setup.check_landed(config.output, config.output)
        if config.overwrite or not filesystem.exists(config.output + ".yaml"):
            filesystem.write_bytes(config.output + ".yaml", to_yaml(config).encode())
    for line in warnings:
        print(line, file=sys.stderr, flush=True)
    print("".join(f"{line}\n" for line in results), end="")
    print(f"wrote {config.output}: {size:,} tokens in {time.perf_counter() - begin:.1f} s")


def _stage(config: VocabConfig) -> tuple[VocabConfig, VocabStage]:
    """Return the configuration without open options, and the stage that makes the vocabulary. Raises UserError."""
    if not config.extend:
        config = replace(completed_rules(config), vocab_size=config.size)
        return config, VocabStage(config)
    data = filesystem.read_bytes(config.extend)
    old = Vocabulary.from_bytes(data, config.extend)
    old.check_wordpiece(config.extend)
    recorded = recorded_rules(config.extend, data)
    config = completed_rules(config, recorded)
    if not recorded and (warning := old.casing_warning(config.cased)):
        print(f"warning: {config.extend}: {warning}", file=sys.stderr, flush=True)
    return config, ExtensionStage(config, old=data)


def _plan_general(config: VocabConfig) -> list[InputSplit]:
    """Return the splits of the general corpus; [] without one. Raises UserError if the output is one of its files."""
    if not config.general:
        return []
    plan = formats.plan(replace(config, input=config.general))
    run_setup.refuse_own_input(plan, config.output)
    return plan.splits


def _learn(
    stage: VocabStage, plan: Plan, general: list[InputSplit], options: PipelineOptions, marks: str
) -> tuple[list[str], list[str]]:
    """Run the pipeline; return warnings and results. marks: a local folder for the progress of workers, or ""."""
    config = stage.config
    report = "" if launcher.is_template(options) else filesystem.join(marks or config.output + WORK, "report.json")
    stage = replace(stage, report=report)
    every = replace(plan, splits=[*plan.splits, *general], size=plan.size + sum(split.size for split in general))

    def build(pipeline: beam.Pipeline) -> beam.PCollection:
        if isinstance(stage, ExtensionStage):
            return graph.extend_vocabulary(pipeline, plan.splits, general, stage, marks)
        return graph.learn_vocabulary(pipeline, plan.splits, stage, marks)

    try:
        launcher.launch(
            build,
            options,
            lambda: [Progress("counting words", run_setup.size_done(every, marks), every.size, "B")],
            config.progress,
            filesystem.join(marks, run_lock.WORKERS_LOG) if marks else "",
        )
        if report and filesystem.exists(report):
            return stage.report_lines(filesystem.read_bytes(report))
        return [], []
    finally:
        filesystem.remove_tree(marks or config.output + WORK, keep=run_lock.LOCK)
