"""`clozemill prepare` and `clozemill vocab`: plan, refuse what doesn't fit, run or go on, sum up."""

import hashlib
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import (
    clusters,
    datacard,
    decontamination,
    filesystem,
    gate,
    launch,
    left_out,
    manifest,
    places,
    progress,
    readers,
    report,
    runners,
    state,
    statistics,
    transforms,
)
from pipelines.config import PrepareConfig, VocabConfig
from pipelines.deduplication import BandStage, ClusterStage, LinkStage
from pipelines.finish import ManifestStage
from pipelines.input_warnings import input_warnings
from pipelines.launch import Progress
from pipelines.options import require, to_yaml
from pipelines.readers import Plan
from pipelines.schema import MANIFEST, PREVIOUS, RUN, VOCAB, WORK, CheckFailed, UserError, split_id
from pipelines.sealed import read_sealed, write_sealed
from pipelines.sentence_languages import language_warning
from pipelines.stages import GroupStage, Job, SplitStage, resolved
from pipelines.wordpiece import Vocabulary, WordPiece

_CLUSTERS = "clusters.json"  # that clusters.parquet is complete


def _plan(config: VocabConfig | PrepareConfig, extra: list[str], *needed: str) -> tuple[Plan, int, PipelineOptions]:
    """The input's splits, the number of workers, and Beam's options. Tells mistakes before anything is written."""
    runners.check(config, extra)
    require(config, *needed)
    plan = readers.plan(config)
    count = runners.workers(config, plan.text_estimate)
    _refuse_own_input(plan, config.output)
    for line in input_warnings(plan):
        print(f"warning: {line}", file=sys.stderr, flush=True)
    return plan, count, runners.pipeline_options(config, extra, count)


def _refuse_own_input(plan: Plan, output: str) -> None:
    """Raises UserError when an input file is the output, or lies within it."""
    if filesystem.is_remote(output):
        return
    out = os.path.realpath(output)
    for path in {split.path for split in plan.splits}:
        real = os.path.realpath(path)
        if real == out or real.startswith(out + os.sep):
            raise UserError(f"{path} is both input and --output {output}: leave it out of --input, or give another --output")


def _landed(path: str, output: str) -> None:
    """Raises UserError when a file that the workers wrote isn't there."""
    if not filesystem.exists(path):
        raise UserError(f"the workers wrote {output} to disks of their own: give an --output that all machines see")


def vocab(config: VocabConfig, extra: list[str]) -> None:
    """Learns a vocabulary from the input and writes it, and the configuration beside it."""
    if os.path.isdir(config.output):
        raise UserError(f"--output {config.output} is a folder: give the name of the file to write, e.g. vocab.txt")
    plan, _, options = _plan(config, extra, "input", "output")
    print(f"reading {report.files(plan)}, to learn {config.vocab_size:,} tokens", flush=True)
    begin = time.perf_counter()
    with state.vocab_locked(config.output) as marks:
        if marks:  # an output that can't be written is told before the corpus is read
            for path in (config.output, config.output + ".yaml"):
                filesystem.remove_temporaries_of(path)
            filesystem.write_bytes(filesystem.join(marks, state.WORKERS_LOG), b"", sync=False)
        lost = _learn(config, plan, options, marks)
        if launch.is_template(options):
            print("wrote the job's description; Dataflow writes the vocabulary")
            return
        _landed(config.output, config.output)
        filesystem.write_bytes(config.output + ".yaml", to_yaml(config).encode())
    for line in lost:
        print(line, file=sys.stderr, flush=True)
    print(f"wrote {config.output}: {config.vocab_size:,} tokens in {time.perf_counter() - begin:.1f} s")


def _learn(config: VocabConfig, plan: Plan, options: PipelineOptions, marks: str) -> list[str]:
    """Runs the pipeline; returns what to warn of. marks: a local folder for the progress of workers, or ""."""
    left = "" if launch.is_template(options) else filesystem.join(marks or config.output + WORK, "left-out.json")
    try:
        launch.launch(
            lambda pipeline: transforms.learn_vocabulary(pipeline, plan.splits, config, marks, left),
            options,
            lambda: [Progress("counting words", progress.size_done(plan, marks), plan.size, "B")],
            config.progress,
            filesystem.join(marks, state.WORKERS_LOG) if marks else "",
        )
        if left and filesystem.exists(left):
            return left_out.warnings(*left_out.read_report(filesystem.read_bytes(left)), config)
        return []
    finally:
        filesystem.remove_tree(marks or config.output + WORK, keep=state.LOCK)


def _job(config: PrepareConfig, vocabulary: bytes, plan: Plan) -> Job:
    """The resolved job. Where the output is remote, the `files` shuffle spills to this machine's temporary folder."""
    if config.update and not config.num_groups:  # a corpus that grew keeps its groups, or every document would move
        config = replace(config, num_groups=state.groups_of(config.output))
    config, eval_groups = resolved(config, plan.text_estimate)
    runner = runners.RUNNERS.get(config.runner)
    shuffle = config.shuffle
    if shuffle == "auto":
        shuffle = "files" if runner and runner.one_machine else "beam"
    spill = filesystem.inside(config.output, f"{WORK}/spill")
    if filesystem.is_remote(config.output):
        name = hashlib.blake2b(f"{config.output} {state.fingerprint(plan)}".encode(), digest_size=8).hexdigest()
        spill = places.private_folder(os.path.join(tempfile.gettempdir(), f"clozemill-{os.getuid()}-{name}"))
    splits = len({split_id(split) for split in plan.splits})
    return Job(config, vocabulary, eval_groups, shuffle, spill, splits=splits)


def prepare(config: PrepareConfig, extra: list[str]) -> None:
    """Makes a dataset, or goes on with one that was begun. See the package's README for what is written.

    Raises CheckFailed when the statistical gate stops the dataset.
    """
    plan, count, options = _plan(config, extra, "input", "vocab", "output")
    if config.language:
        from pipelines.filters import identifier

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
    now = state.describe(job, plan)
    job = replace(job, run=state.run_id(now))
    places.refuse_links(job.folder)
    with state.locked(job):  # before anything is read or removed that another run may be at
        if state.check(job, now):
            _sum_up_again(job)
            return
        write_sealed(job.work(state.STATE), now, state.STATE)
        # The configuration as it was given: numbers that follow from this input would not fit another one.
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
    """What a command says whose dataset is there already."""
    print(f"{job.folder} is whole already; nothing to do")
    filesystem.remove_tree(job.work(""), keep=state.LOCK)
    there = manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST)
    if not datacard.stands(job.folder, there["digest"]):
        datacard.draw(job.folder)
    report.print_summary(there, None)


def _clusters_found(job: Job) -> bool:
    """Whether clusters.parquet is there as this run wrote it."""
    path, record = job.path(clusters.NAME), read_sealed(job.work(_CLUSTERS), job.run)
    return record is not None and filesystem.exists(path) and filesystem.sha256(path) == record["sha256"]


def _evaluation(config: PrepareConfig, vocabulary: Vocabulary) -> decontamination.Evaluation | None:
    """The n-grams of the evaluation sets that are kept out, if there are any. Raises UserError."""
    if not config.decontaminate:
        return None
    found = decontamination.gather(
        config.decontaminate, WordPiece(vocabulary, config.cased, config.rules), config.decontaminate_words
    )
    if not len(found.hashes):
        raise UserError(
            f"no text of {', '.join(config.decontaminate)} has {found.size} known words in a row, so nothing can be kept out: "
            "give a smaller --decontaminate-words, or leave out --decontaminate"
        )
    print(
        f"keeping out {report.counted(len(found.places), 'evaluation text')} by runs of {found.size} words; "
        f"{report.counted(found.short, 'line')} without such a run can't be told",
        flush=True,
    )
    return found


def _find_clusters(job: Job, plan: Plan, options: PipelineOptions) -> None:
    """The first of two readings: which documents are nearly the same."""
    if launch.is_template(options):
        raise UserError("--dedup near and --eval-by cluster take two jobs, one after the other: leave out --template_location")
    bands, begin = filesystem.join(job.spill, "bands"), time.perf_counter()
    launch.launch(
        lambda pipeline: transforms.prepare(pipeline, plan.splits, BandStage(job), LinkStage(job), ClusterStage(job)),
        options,
        lambda: progress.compared(job, plan, bands),
        job.config.progress,
        _workers_log(job),
    )
    _landed(job.path(clusters.NAME), job.folder)
    write_sealed(job.work(_CLUSTERS), {"sha256": filesystem.sha256(job.path(clusters.NAME))}, job.run)
    filesystem.remove_tree(bands)
    found = clusters.read(job.path(clusters.NAME))
    print(
        f"compared all documents in {time.perf_counter() - begin:.1f} s: {len(found.keys):,} have near-duplicates, in "
        f"{report.counted(len(set(found.survivors.tolist())), 'cluster')}",
        flush=True,
    )


def _workers_log(job: Job) -> str:
    """Where workers print to: beside what they write on this machine; "" where they may be on others."""
    if not filesystem.is_remote(job.folder):
        return job.work(state.WORKERS_LOG)
    return filesystem.join(job.spill, state.WORKERS_LOG) if job.shuffle == "files" else ""


def _stopped(job: Job, error: UserError) -> UserError:
    """What to raise for a worker's mistake; where the gate stopped the dataset, its reasons are printed and drawn."""
    back = f"; until then {job.folder} is no whole dataset: --update with the input as it was brings the old one back"
    back = back if filesystem.exists(job.path(PREVIOUS)) else ""
    if not str(error).startswith(gate.STOPPED):
        return UserError(f"{error}{back}")
    judged = job.work(gate.STOPPED_AT)
    told = json.loads(filesystem.read_bytes(filesystem.join(judged, statistics.STATISTICS)))
    for check in told["gate"]["checks"]:
        if not check["passed"]:
            print(check["sentence"], flush=True)
    datacard.draw(job.folder, judged)
    return CheckFailed(
        f"{gate.STOPPED}: the reasons stand above, and with all figures in {job.path(datacard.HTML)}; mend the input or the "
        f"options, or run the same command with --no-gate to finish it as it is{back}"
    )


def _run(job: Job, plan: Plan, run: dict[str, Any], options: PipelineOptions) -> None:
    config = job.config
    print(
        f"reading {report.files(plan)}, into {report.counted(config.num_groups, 'train group')} x "
        f"{report.counted(config.dupe_factor, 'copy', 'copies')} and {report.counted(job.num_eval_groups, 'eval group')}",
        flush=True,
    )
    begin = time.perf_counter()
    try:
        launch.launch(
            lambda pipeline: transforms.prepare(pipeline, plan.splits, SplitStage(job), GroupStage(job), ManifestStage(job)),
            options,
            lambda: progress.stages_done(job, plan),
            config.progress,
            _workers_log(job),
        )
    except UserError as error:
        raise _stopped(job, error) from None
    finally:  # workers may have been ended in the middle of a write; some engines then go on without them
        filesystem.remove_temporaries(job.folder)
    if launch.is_template(options):
        print(
            "wrote the job's description; Dataflow writes the dataset, and then "
            f"clozemill inspect {config.output} --report its data card"
        )
        return
    _landed(job.path(MANIFEST), job.folder)
    run |= {
        "seconds": time.perf_counter() - begin,
        "input_files": plan.files,
        "input_mb": plan.size / 1e6,
        "stages": json.loads(filesystem.read_bytes(job.work("times.json"))),
    }
    filesystem.write_bytes(job.path(RUN), (json.dumps(run, indent=1) + "\n").encode())
    filesystem.remove_tree(job.work(""), keep=state.LOCK)
    filesystem.remove_tree(job.spill, keep=state.LOCK)
    datacard.draw(job.folder)
    report.print_summary(manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST), run)
    print(f"wrote {config.output}")
