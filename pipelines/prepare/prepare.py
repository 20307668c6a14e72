"""`clozemill prepare`: plan the input, reject what doesn't fit, run or resume, print a summary."""

import json
import sys
import time
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import launcher, run_lock, run_setup, runners
from clozemill.pipelines.command_line.options import to_yaml
from clozemill.pipelines.common.errors import CheckFailed, UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.common.sentence_languages import language_warning
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.data_card import card
from clozemill.pipelines.dataset import layout, summary
from clozemill.pipelines.dataset.layout import MANIFEST, RUN, VOCAB
from clozemill.pipelines.files import filesystem, safe_paths
from clozemill.pipelines.filtering import decontamination, exclusion
from clozemill.pipelines.filtering.decontamination import BlockedNgrams
from clozemill.pipelines.prepare import graph, progress
from clozemill.pipelines.prepare.dataset_folder import DatasetFolder, Status
from clozemill.pipelines.prepare.dataset_stage import RUN_FIGURES, DatasetStage
from clozemill.pipelines.prepare.group_stage import GroupStage
from clozemill.pipelines.prepare.job import Job, load_vocabulary, resolved
from clozemill.pipelines.prepare.near_duplicate_search import find_near_duplicates
from clozemill.pipelines.prepare.run_identity import RunIdentity, input_digest
from clozemill.pipelines.prepare.split_stage import SplitStage
from clozemill.pipelines.quality import statistics
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_split import split_id
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.vocab.recorded_rules import contradictions


def prepare(config: PrepareConfig, extra: list[str]) -> None:
    """Build a dataset, or resume an unfinished one. docs/reference/dataset-format.md describes the output.

    Raises:
        CheckFailed: the statistical gate rejects the dataset.
    """
    if config.overwrite and config.update:
        raise UserError("--overwrite starts over and --update keeps what hasn't changed: leave out one of them")
    plan, workers, options = run_setup.plan_input(config, extra, "input", "vocab", "output")
    job = _resolve(config, _read_vocabulary(config), plan)
    evaluation = _blocked_ngrams(job)
    excluded = exclusion.read_ids(config.exclude_ids) if config.exclude_ids else None
    identity = RunIdentity.of_run(
        job.config,
        job.vocabulary,
        evaluation.digest if evaluation else "",
        exclusion.digest(excluded) if excluded is not None else "",
        plan,
    )
    job = replace(job, evaluation=identity.evaluation, exclusion=identity.exclusion, run=identity.id)
    safe_paths.refuse_links(job.folder.path)
    changes = config.update or config.overwrite
    with job.folder.lock(changes):  # before reading or removing anything that another run may use
        if config.overwrite:
            job.folder.clear()
        if not job.folder.open(identity, config.update):
            _report_complete(job.folder)
            return
        run: dict[str, Any] = {"input": identity.input, "evaluation": identity.evaluation, "versions": identity.versions}
        run |= {"runner": config.runner, "workers": workers, "shuffle": job.shuffle}
        _write_inputs(job, config, evaluation, run)
        if excluded is not None:
            filesystem.write_bytes(job.folder.work_file(exclusion.NAME), exclusion.dump(excluded), sync=False)
        if job.config.clustered:
            find_near_duplicates(job, plan, options)
        _write_dataset(job, plan, run, options)


def _read_vocabulary(config: PrepareConfig) -> bytes:
    """Return the bytes of --vocab. Raise UserError if it is invalid; warn if the language or the vocabulary may not fit."""
    if config.language:
        from clozemill.pipelines.filtering.heuristics import identifier

        identifier()
    data = filesystem.read_bytes(config.vocab)
    vocabulary = Vocabulary.from_bytes(data, config.vocab)
    vocabulary.check_wordpiece(config.vocab)
    warnings = [f"{config.vocab}: {warning}" for warning in [vocabulary.casing_warning(config.cased)] if warning]
    for warning in contradictions(config, data) or warnings:
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if warning := language_warning(config.splitter, config.sentence_language):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    return data


def _resolve(config: PrepareConfig, vocabulary: bytes, plan: Plan) -> Job:
    """Return the job with everything that depends on the input's size or on the runner, but not on the evaluation sets."""
    folder = DatasetFolder.at(config.output, input_digest(plan))
    if config.update and not config.num_groups:  # a larger corpus keeps its number of groups, or every document would move
        config = replace(config, num_groups=folder.num_groups())
    config, eval_groups = resolved(config, plan.text_estimate)
    runner, shuffle = runners.RUNNERS.get(config.runner), config.shuffle
    if shuffle == "auto":
        shuffle = "files" if runner and runner.one_machine else "beam"
    return Job(config, vocabulary, eval_groups, shuffle, folder, splits=len({split_id(split) for split in plan.splits}))


def _blocked_ngrams(job: Job) -> BlockedNgrams | None:
    """Return the n-grams of the evaluation sets, or None without --decontaminate. Raise UserError."""
    config = job.config
    if not config.decontaminate:
        return None
    tokenizer = WordPiece(load_vocabulary(job.vocabulary), config.cased, config.rules)
    blocked = decontamination.gather(config.decontaminate, tokenizer, config.decontaminate_words)
    if not len(blocked.hashes):
        raise UserError(
            f"no text of {', '.join(config.decontaminate)} has {blocked.size} known words in a row, so it can't be matched: "
            "lower --decontaminate-words, or remove --decontaminate"
        )
    print(
        f"removing documents that share {blocked.size} words in a row with {counted(len(blocked.places), 'evaluation text')}; "
        f"ignoring {counted(blocked.short, 'line')} too short to match",
        flush=True,
    )
    return blocked


def _report_complete(folder: DatasetFolder) -> None:
    """Print the summary of a dataset that is complete already."""
    print(f"{folder.path} is complete; nothing to do")
    filesystem.remove_tree(folder.work_file(), keep=run_lock.LOCK)
    manifest = folder.read_manifest()
    if not card.is_current(folder.path, manifest["digest"]):
        card.write_or_warn(folder.path)
    summary.print_summary(manifest, None, folder.file("rejects"))


def _write_inputs(job: Job, config: PrepareConfig, evaluation: BlockedNgrams | None, run: dict[str, Any]) -> None:
    """Write what the workers and the next run read.

    Args:
        config: as given: numbers derived from this input would not fit another one.
    """
    folder = job.folder
    filesystem.write_bytes(folder.file("prepare.yaml"), to_yaml(config).encode())
    filesystem.write_bytes(folder.file(VOCAB), job.vocabulary)
    filesystem.remove_temporaries(folder.path)
    filesystem.write_bytes(folder.file(RUN), json.dumps(run, indent=1).encode())
    if evaluation:
        filesystem.write_bytes(folder.work_file(decontamination.NAME), evaluation.dump(), sync=False)


def _failure(folder: DatasetFolder, error: UserError) -> UserError:
    """Return the error to raise for a failed pipeline. If the gate rejected the dataset, print why and write the data card."""
    back = f"; until then {folder.path} is incomplete; run --update with the original input to restore the previous dataset"
    back = back if folder.status() is Status.UPDATING else ""
    rejected = folder.rejected()
    if not rejected:
        return UserError(f"{error}{back}")
    found = json.loads(filesystem.read_bytes(filesystem.join(rejected, statistics.STATISTICS)))
    for check in found["gate"]["checks"]:
        if not check["passed"]:
            print(check["sentence"], flush=True)
    card.write_or_warn(folder.path, rejected)
    return CheckFailed(
        f"the statistical gate rejected the dataset: the reasons are above, and {folder.file(layout.HTML)} has all metrics; "
        f"change the input or the options, or run the same command with --no-gate to finish the dataset as it is{back}"
    )


def _write_dataset(job: Job, plan: Plan, run: dict[str, Any], options: PipelineOptions) -> None:
    """Run the pipeline, then finish the folder and print a summary."""
    config, folder = job.config, job.folder
    print(
        f"reading {formats.file_count(plan)}, into {counted(config.num_groups, 'train group')} x "
        f"{counted(config.dupe_factor, 'copy', 'copies')} and {counted(job.num_eval_groups, 'eval group')}",
        flush=True,
    )
    if line := progress.resumed(job, plan):
        print(line, flush=True)
    updates = folder.status() is Status.UPDATING
    begin = time.perf_counter()
    try:
        launcher.launch(
            lambda pipeline: graph.prepare(pipeline, plan.splits, SplitStage(job), GroupStage(job), DatasetStage(job)),
            options,
            lambda: progress.stages_done(job, plan),
            config.progress,
            job.workers_log,
        )
    except UserError as error:
        raise _failure(folder, error) from None
    finally:  # workers may have been killed during a write; some engines then continue without them
        filesystem.remove_temporaries(folder.path)
    if launcher.is_template(options):
        print(
            "wrote the job description; Dataflow writes the dataset, and then "
            f"clozemill inspect {config.output} --report writes its data card"
        )
        return
    run_setup.check_landed(folder.file(MANIFEST), folder.path)
    run |= {"seconds": time.perf_counter() - begin, "input_files": plan.files, "input_mb": plan.size / 1e6}
    measured = json.loads(filesystem.read_bytes(folder.work_file(RUN_FIGURES)))
    run["stages"] = measured["stages"]
    if updates:
        run["groups"] = measured["groups"]
    folder.finish(run)
    card.write_or_warn(folder.path)
    summary.print_summary(folder.read_manifest(), run, folder.file("rejects"))
    print(f"wrote {config.output}")
