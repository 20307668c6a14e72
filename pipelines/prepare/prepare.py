"""`clozemill prepare`: plan the input, reject what doesn't fit, run or resume, print a summary."""

import hashlib
import json
import os
import sys
import tempfile
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
from clozemill.pipelines.dataset import clusters, layout, manifest, summary
from clozemill.pipelines.dataset.layout import MANIFEST, PREVIOUS, RUN, VOCAB, WORK
from clozemill.pipelines.files import filesystem, safe_paths
from clozemill.pipelines.files.sealed_json import read_sealed, write_sealed
from clozemill.pipelines.filtering import decontamination
from clozemill.pipelines.prepare import dataset_folder, graph, progress
from clozemill.pipelines.prepare.dataset_stage import DatasetStage
from clozemill.pipelines.prepare.group_stage import GroupStage
from clozemill.pipelines.prepare.job import Job, resolved
from clozemill.pipelines.prepare.near_duplicate_stages import BandStage, ClusterStage, LinkStage
from clozemill.pipelines.prepare.split_stage import SplitStage
from clozemill.pipelines.quality import statistics
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.formats import Plan
from clozemill.pipelines.readers.input_split import split_id
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece

_CLUSTERS = "clusters.json"  # marks clusters.parquet as complete


def _job(config: PrepareConfig, vocabulary: bytes, plan: Plan) -> Job:
    """Return the resolved job. If the output is remote, the `files` shuffle spills to this machine's temporary folder."""
    if config.update and not config.num_groups:  # a larger corpus keeps its number of groups, or every document would move
        config = replace(config, num_groups=dataset_folder.groups_of(config.output))
    config, eval_groups = resolved(config, plan.text_estimate)
    runner = runners.RUNNERS.get(config.runner)
    shuffle = config.shuffle
    if shuffle == "auto":
        shuffle = "files" if runner and runner.one_machine else "beam"
    spill = filesystem.inside(config.output, f"{WORK}/spill")
    if filesystem.is_remote(config.output):
        name = hashlib.blake2b(f"{config.output} {dataset_folder.fingerprint(plan)}".encode(), digest_size=8).hexdigest()
        spill = safe_paths.private_folder(os.path.join(tempfile.gettempdir(), f"clozemill-{os.getuid()}-{name}"))
    splits = len({split_id(split) for split in plan.splits})
    return Job(config, vocabulary, eval_groups, shuffle, spill, splits=splits)


def prepare(config: PrepareConfig, extra: list[str]) -> None:
    """Build a dataset, or resume an unfinished one. docs/reference/dataset-format.md describes the output.

    Raises:
        CheckFailed: the statistical gate rejects the dataset.
    """
    plan, count, options = run_setup.plan_input(config, extra, "input", "vocab", "output")
    if config.language:
        from clozemill.pipelines.filtering.heuristics import identifier

        identifier()
    data = filesystem.read_bytes(config.vocab)
    vocabulary = Vocabulary.from_bytes(data, config.vocab)
    if warning := vocabulary.casing_warning(config.cased):
        print(f"warning: {config.vocab}: {warning}", file=sys.stderr, flush=True)
    if warning := language_warning(config.splitter, config.sentence_language):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    job = _job(config, data, plan)
    evaluation = _evaluation(config, vocabulary)
    job = replace(job, evaluation=evaluation.digest if evaluation else "")
    now = dataset_folder.describe(job, plan)
    job = replace(job, run=dataset_folder.run_id(now))
    safe_paths.refuse_links(job.folder)
    with dataset_folder.locked(job):  # before reading or removing anything that another run may use
        if dataset_folder.check(job, now):
            _sum_up_again(job)
            return
        write_sealed(job.work(dataset_folder.STATE), now, dataset_folder.STATE)
        # The configuration as given: numbers derived from this input would not fit another one.
        filesystem.write_bytes(job.path("prepare.yaml"), to_yaml(config).encode())
        filesystem.write_bytes(job.path(VOCAB), job.vocabulary)
        filesystem.remove_temporaries(job.folder)
        run = {key: now[key] for key in ("input", "evaluation", "versions")} | {"runner": config.runner, "workers": count}
        run["shuffle"] = job.shuffle
        filesystem.write_bytes(job.path(RUN), json.dumps(run, indent=1).encode())
        if evaluation:
            filesystem.write_bytes(job.work(decontamination.NAME), evaluation.dump(), sync=False)
        if job.config.clustered and not _clusters_found(job):
            _find_clusters(job, plan, options)
        _run(job, plan, run, options)


def _sum_up_again(job: Job) -> None:
    """Print the summary of a dataset that is complete already."""
    print(f"{job.folder} is complete; nothing to do")
    filesystem.remove_tree(job.work(""), keep=run_lock.LOCK)
    there = manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST)
    if not card.is_current(job.folder, there["digest"]):
        card.write_or_warn(job.folder)
    summary.print_summary(there, None)


def _clusters_found(job: Job) -> bool:
    """Return whether clusters.parquet exists as this run wrote it."""
    path, record = job.path(clusters.NAME), read_sealed(job.work(_CLUSTERS), job.run)
    return record is not None and filesystem.exists(path) and filesystem.sha256(path) == record["sha256"]


def _evaluation(config: PrepareConfig, vocabulary: Vocabulary) -> decontamination.BlockedNgrams | None:
    """Return the n-grams of the evaluation sets, or None without --decontaminate. Raise UserError."""
    if not config.decontaminate:
        return None
    found = decontamination.gather(
        config.decontaminate, WordPiece(vocabulary, config.cased, config.rules), config.decontaminate_words
    )
    if not len(found.hashes):
        raise UserError(
            f"no text of {', '.join(config.decontaminate)} has {found.size} known words in a row, so it can't be matched: "
            "lower --decontaminate-words, or remove --decontaminate"
        )
    print(
        f"removing documents that share {found.size} words in a row with {counted(len(found.places), 'evaluation text')}; "
        f"ignoring {counted(found.short, 'line')} too short to match",
        flush=True,
    )
    return found


def _find_clusters(job: Job, plan: Plan, options: PipelineOptions) -> None:
    """Run the first of two readings of the corpus: find near-duplicates."""
    if launcher.is_template(options):
        raise UserError("--dedup near and --eval-by cluster need two jobs in sequence: remove --template_location")
    bands, begin = filesystem.join(job.spill, "bands"), time.perf_counter()
    launcher.launch(
        lambda pipeline: graph.prepare(pipeline, plan.splits, BandStage(job), LinkStage(job), ClusterStage(job)),
        options,
        lambda: progress.compared(job, plan, bands),
        job.config.progress,
        _workers_log(job),
    )
    run_setup.check_landed(job.path(clusters.NAME), job.folder)
    write_sealed(job.work(_CLUSTERS), {"sha256": filesystem.sha256(job.path(clusters.NAME))}, job.run)
    filesystem.remove_tree(bands)
    found = clusters.read(job.path(clusters.NAME))
    print(
        f"compared all documents in {time.perf_counter() - begin:.1f} s: {len(found.keys):,} have near-duplicates, in "
        f"{counted(len(set(found.survivors.tolist())), 'cluster')}",
        flush=True,
    )


def _workers_log(job: Job) -> str:
    """Return the log file of the workers: on this machine, if their output is here; "" if they may be on others."""
    if not filesystem.is_remote(job.folder):
        return job.work(run_lock.WORKERS_LOG)
    return filesystem.join(job.spill, run_lock.WORKERS_LOG) if job.shuffle == "files" else ""


def _stopped(job: Job, error: UserError) -> UserError:
    """Return the error to raise for a failed worker. If the gate failed, print its reasons and write the data card."""
    back = f"; until then {job.folder} is incomplete; run --update with the original input to restore the previous dataset"
    back = back if filesystem.exists(job.path(PREVIOUS)) else ""
    if not str(error).startswith(layout.STOPPED):
        return UserError(f"{error}{back}")
    judged = job.work(layout.STOPPED_AT)
    told = json.loads(filesystem.read_bytes(filesystem.join(judged, statistics.STATISTICS)))
    for check in told["gate"]["checks"]:
        if not check["passed"]:
            print(check["sentence"], flush=True)
    card.write_or_warn(job.folder, judged)
    return CheckFailed(
        f"{layout.STOPPED}: the reasons are above, and {job.path(layout.HTML)} has all metrics; change the input or the "
        f"options, or run the same command with --no-gate to finish the dataset as it is{back}"
    )


def _run(job: Job, plan: Plan, run: dict[str, Any], options: PipelineOptions) -> None:
    config = job.config
    print(
        f"reading {formats.file_count(plan)}, into {counted(config.num_groups, 'train group')} x "
        f"{counted(config.dupe_factor, 'copy', 'copies')} and {counted(job.num_eval_groups, 'eval group')}",
        flush=True,
    )
    begin = time.perf_counter()
    try:
        launcher.launch(
            lambda pipeline: graph.prepare(pipeline, plan.splits, SplitStage(job), GroupStage(job), DatasetStage(job)),
            options,
            lambda: progress.stages_done(job, plan),
            config.progress,
            _workers_log(job),
        )
    except UserError as error:
        raise _stopped(job, error) from None
    finally:  # workers may have been killed during a write; some engines then continue without them
        filesystem.remove_temporaries(job.folder)
    if launcher.is_template(options):
        print(
            "wrote the job description; Dataflow writes the dataset, and then "
            f"clozemill inspect {config.output} --report writes its data card"
        )
        return
    run_setup.check_landed(job.path(MANIFEST), job.folder)
    run |= {
        "seconds": time.perf_counter() - begin,
        "input_files": plan.files,
        "input_mb": plan.size / 1e6,
        "stages": json.loads(filesystem.read_bytes(job.work("times.json"))),
    }
    filesystem.write_bytes(job.path(RUN), (json.dumps(run, indent=1) + "\n").encode())
    filesystem.remove_tree(job.work(""), keep=run_lock.LOCK)
    filesystem.remove_tree(job.spill, keep=run_lock.LOCK)
    card.write_or_warn(job.folder)
    summary.print_summary(manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST), run)
    print(f"wrote {config.output}")
