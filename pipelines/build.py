"""`clozemill prepare` and `clozemill vocab`: plan, refuse what doesn't fit, run or go on, sum up."""

import glob
import hashlib
import json
import os
import sys
import time
from dataclasses import replace
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import filesystem, launch, manifest, readers, report, runners, transforms
from pipelines.config import PrepareConfig, VocabConfig
from pipelines.launch import Progress
from pipelines.options import identity, require, to_yaml
from pipelines.readers import Plan
from pipelines.schema import MANIFEST, VOCAB, WORK, UserError, split_id
from pipelines.stages import GroupStage, Job, ManifestStage, SplitStage
from pipelines.wordpiece import Vocabulary

GROUP_TEXT_BYTES = 12 << 20  # of clean text, about 3 million tokens: a group fits into memory many times over
STATE = "state.json"


def vocab(config: VocabConfig, extra: list[str]) -> None:
    """Learns a vocabulary from the input and writes it, and the configuration beside it."""
    require(config, "input", "output")
    if os.path.isdir(config.output):
        raise UserError(f"--output {config.output} is a folder: give the name of the file to write, e.g. vocab.txt")
    plan = readers.plan(config)
    options = runners.pipeline_options(config, extra, runners.workers(config, plan.text_estimate))
    print(f"reading {plan.files:,} files, {plan.size / 1e6:,.1f} MB, to learn {config.vocab_size:,} tokens", flush=True)
    begin = time.perf_counter()
    marks = "" if filesystem.is_remote(config.output) else config.output + WORK
    if marks:  # an output that can't be written is told before the corpus is read
        filesystem.remove_tree(marks)
        filesystem.write_bytes(filesystem.join(marks, "workers.log"), b"")
    try:
        launch.launch(
            lambda pipeline: transforms.learn_vocabulary(pipeline, plan.splits, config, marks),
            options,
            lambda: [Progress("counting words", _size_done(plan, marks), plan.size, "B")],
            config.progress,
            filesystem.join(marks, "workers.log") if marks else "",
        )
    finally:
        filesystem.remove_tree(marks)
    filesystem.write_bytes(config.output + ".yaml", to_yaml(config).encode())
    print(f"wrote {config.output}: {config.vocab_size:,} tokens in {time.perf_counter() - begin:.1f} s")


def _resolve(config: PrepareConfig, plan: Plan) -> tuple[PrepareConfig, int]:
    """The configuration with its number of groups, and the number of eval groups."""
    groups = config.num_groups or max(1, -(-plan.text_estimate // GROUP_TEXT_BYTES))
    eval_groups = max(1, round(groups * config.eval_fraction)) if config.eval_fraction else 0
    return replace(config, num_groups=groups), eval_groups


def _shuffle(config: PrepareConfig) -> str:
    if config.shuffle != "auto":
        if config.shuffle == "files" and filesystem.is_remote(config.output):
            raise UserError(f"--shuffle files needs a local --output, not {config.output}: leave it out or give --shuffle beam")
        return config.shuffle
    runner = runners.RUNNERS.get(config.runner)
    return "files" if runner and runner.one_machine and not filesystem.is_remote(config.output) else "beam"


def _fingerprint(plan: Plan) -> str:
    """A digest of which bytes are read, by the files' names, sizes and times."""
    return hashlib.blake2b(
        "\n".join(sorted(f"{split.path} {split.stamp}" for split in plan.splits)).encode("utf-8", "surrogateescape"),
        digest_size=16,
    ).hexdigest()


def _check_output(job: Job, state: dict[str, Any]) -> bool:
    """Whether the dataset is there already, whole. Raises UserError when the folder holds something else."""
    folder = job.folder
    for name in (job.path(MANIFEST), job.work(STATE)):
        if not filesystem.exists(name):
            continue
        if name.endswith(MANIFEST):
            there = manifest.loads(filesystem.read_bytes(name), name)
            before = {
                "config": {key: value for key, value in there["config"].items() if key != "input"},
                "vocabulary": there["vocabulary"]["sha256"],
            }
        else:
            before = json.loads(filesystem.read_bytes(name))
        for key, value in state["config"].items():
            if before["config"].get(key) != value:
                raise UserError(
                    f"{folder} was begun with {key} = {before['config'].get(key)!r}, not {value!r}: "
                    "give the same configuration to go on, or another --output"
                )
        if before["vocabulary"] != state["vocabulary"]:
            raise UserError(f"{folder} was begun with another vocabulary: give the same --vocab to go on, or another --output")
        if before.get("input", state["input"]) != state["input"]:
            raise UserError(f"the input has changed since {folder} was begun: give another --output, or remove it first")
    if filesystem.exists(job.path(MANIFEST)):
        run = job.path("run.json")
        if filesystem.exists(run) and json.loads(filesystem.read_bytes(run))["input"] != state["input"]:
            raise UserError(f"{folder} holds a finished dataset made from other input: give another --output")
        return True
    if not filesystem.exists(job.work(STATE)) and filesystem.holds_files(folder):
        raise UserError(f"{folder} is there and holds other files: give a new folder as --output")
    return False


def _size_done(plan: Plan, folder: str) -> int:
    """Bytes of the splits whose markers lie in a folder."""
    done = {os.path.basename(path)[:-5] for path in glob.glob(glob.escape(folder) + "/*.json")}
    return sum(split.size for split in plan.splits if split_id(split) in done)


def _progress(job: Job, plan: Plan) -> list[Progress]:
    """What lies finished in the work folder (local runs with the `files` shuffle; groups alone for the other)."""
    if filesystem.is_remote(job.folder):
        return []
    read = _size_done(plan, job.work("spill"))
    groups = len(glob.glob(glob.escape(job.work("groups")) + "/*.json"))
    stages = [Progress("milling documents", read, plan.size, "B")] if job.shuffle == "files" else []
    if groups or read >= sum(split.size for split in plan.splits) or not stages:
        stages.append(Progress("writing shards", groups, job.total_groups, " groups"))
    return stages


def prepare(config: PrepareConfig, extra: list[str]) -> None:
    """Makes a dataset, or goes on with one that was begun. See the package's README for what is written."""
    require(config, "input", "vocab", "output")
    if config.language:
        from pipelines.filters import identifier

        identifier()
    data = filesystem.read_bytes(config.vocab)
    vocabulary = _read_vocabulary(data, config)
    plan = readers.plan(config)
    config, eval_groups = _resolve(config, plan)
    job = Job(config, data, eval_groups, _shuffle(config))
    state = {"config": identity(config), "vocabulary": vocabulary.sha256, "input": _fingerprint(plan)}
    if _check_output(job, state):
        print(f"{config.output} is whole already; nothing to do")
        filesystem.remove_tree(filesystem.join(job.folder, WORK))
        report.print_summary(manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST), None)
        return
    count = runners.workers(config, plan.text_estimate)
    _run(job, plan, state, count, runners.pipeline_options(config, extra, count))


def _read_vocabulary(data: bytes, config: PrepareConfig) -> Vocabulary:
    vocabulary = Vocabulary.from_bytes(data, config.vocab)
    if warning := vocabulary.casing_warning(config.cased):
        print(f"warning: {config.vocab}: {warning}", file=sys.stderr, flush=True)
    return vocabulary


def _run(job: Job, plan: Plan, state: dict[str, Any], count: int, options: PipelineOptions) -> None:
    config = job.config
    filesystem.write_bytes(job.work(STATE), json.dumps(state).encode())
    filesystem.write_bytes(job.path(VOCAB), job.vocabulary)
    filesystem.write_bytes(job.path("prepare.yaml"), to_yaml(config).encode())
    filesystem.remove_temporaries(job.folder)
    print(
        f"reading {plan.files:,} files, {plan.size / 1e6:,.1f} MB, into {config.num_groups:,} train groups x "
        f"{config.dupe_factor} copies and {job.num_eval_groups:,} eval groups, {count} workers",
        flush=True,
    )
    begin = time.perf_counter()
    try:
        launch.launch(
            lambda pipeline: transforms.prepare(pipeline, plan.splits, SplitStage(job), GroupStage(job), ManifestStage(job)),
            options,
            lambda: _progress(job, plan),
            config.progress,
            "" if filesystem.is_remote(job.folder) else job.work("workers.log"),
        )
    except BaseException:  # workers may have been ended in the middle of a write
        filesystem.remove_temporaries(job.folder)
        raise
    if not filesystem.exists(job.path(MANIFEST)):
        print(f"submitted to {config.runner}; the pipeline itself writes {job.path(MANIFEST)} when it is done")
        return
    run = {
        "input": state["input"],
        "runner": config.runner,
        "workers": count,
        "shuffle": job.shuffle,
        "seconds": time.perf_counter() - begin,
        "input_mb": plan.size / 1e6,
        "stages": json.loads(filesystem.read_bytes(job.work("times.json"))),
    }
    filesystem.write_bytes(job.path("run.json"), (json.dumps(run, indent=1) + "\n").encode())
    filesystem.remove_tree(filesystem.join(job.folder, WORK))
    report.print_summary(manifest.loads(filesystem.read_bytes(job.path(MANIFEST)), MANIFEST), run)
    print(f"wrote {config.output}")
