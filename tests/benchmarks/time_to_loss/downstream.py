"""Fine-tunes the encoders of the comparison: CoLA, and two tasks that are built from the corpus.

`adjacent`: whether the second sentence follows the first one, or comes from elsewhere in the same document. `source`: which of
the 20 largest works (documents with one title) a passage of two sentences is from. Documents are divided between train and dev,
and chosen by a hash, so the same corpus gives the same files. Encoders on torch are imported, so that one program fine-tunes
all. Settings are the defaults of `finetune`; the best epoch on dev counts, with one run per pretraining seed.
"""

import gzip
import hashlib
import json
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clozemill.pipelines.text import sentences
from tests.benchmarks.time_to_loss.experiment import Candidate, Plan
from tests.benchmarks.time_to_loss.jobs import PretrainingJob, run_child, write_json
from tests.benchmarks.time_to_loss.report import spread, table

DOCUMENTS, WORKS, PASSAGES = 5000, 20, 3  # of `adjacent`; of `source`, and passages per document
WORDS = range(5, 41)  # of a sentence
APART = 6  # least distance of sentences that don't count as adjacent
COLA_FILES = ("in_domain_dev.tsv", "out_of_domain_dev.tsv")  # GLUE's dev set is both


@dataclass(frozen=True)
class DownstreamTask:
    """Files, options of `finetune`, and the metric."""

    name: str
    train: Path
    dev: Path
    metric: str
    options: tuple[str, ...]


def read_documents(paths: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Yield (title, text) of JSON lines."""
    for path in paths:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            for line in file:
                record = json.loads(line)
                yield str(record.get("title", "")), record["text"]


def hashed(text: str) -> int:
    """Return a number of 64 bits that only depends on a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def suitable(text: str) -> list[str]:
    """Return the sentences of a text that have a usable length; others become ""."""
    found = (" ".join(text[begin:end].split()) for begin, end in sentences.split(text, "sentencex").tolist())
    return [sentence if len(sentence.split()) in WORDS else "" for sentence in found]


def adjacent_rows(texts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (sentence, sentence, yes or no), two rows per document that is long enough."""
    rows = []
    for text in texts:
        found, rng = suitable(text), np.random.default_rng(hashed(text))
        near = [at for at in range(len(found) - 1) if found[at] and found[at + 1]]
        if not near:
            continue
        at = int(rng.choice(near))
        far = [other for other in range(len(found)) if found[other] and abs(other - at) >= APART]
        if far:
            rows += [(found[at], found[at + 1], "yes"), (found[at], found[int(rng.choice(far))], "no")]
    return rows


def source_rows(documents: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return (passage, title) from the works with the most documents; ties are broken by title."""
    counts = Counter(title for title, _ in documents)
    works = {title for title, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:WORKS]}
    rows = []
    for title, text in documents:
        if title in works:
            found, rng = suitable(text), np.random.default_rng(hashed(text))
            near = [at for at in range(len(found) - 1) if found[at] and found[at + 1]]
            chosen = sorted(rng.permutation(near)[:PASSAGES].tolist())
            rows += [(f"{found[at]} {found[at + 1]}", title) for at in chosen]
    return rows


def write_rows(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    """Write a TSV."""
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), "utf-8")
    return path


def divided(documents: Sequence[Any], text_of=lambda document: document) -> tuple[list, list]:
    """Return the documents of train and of dev: a fifth, by hash."""
    dev = [hashed(text_of(document)) % 5 == 0 for document in documents]
    return tuple([one for one, is_dev in zip(documents, dev, strict=True) if is_dev == side] for side in (False, True))


def corpus_tasks(folder: Path, paths: Sequence[Path]) -> list[DownstreamTask]:
    """Build both tasks from a corpus."""
    documents = list(read_documents(paths))
    texts = sorted((text for _, text in documents), key=lambda text: (hashed(text), text))[:DOCUMENTS]
    parts = [adjacent_rows(part) for part in divided(texts)]
    files = [
        write_rows(folder / f"adjacent-{name}.tsv", ("text", "pair", "label"), rows)
        for name, rows in zip(("train", "dev"), parts, strict=True)
    ]
    columns = ("--text-column", "text", "--label-column", "label", "--max-seq-length", "64")
    tasks = [DownstreamTask("adjacent", *files, "accuracy", ("--task", "classify", *columns, "--pair-column", "pair"))]
    counts = Counter(title for title, _ in documents)
    if sum(count > 1 for count in counts.values()) > 1:
        parts = [source_rows(part) for part in divided(documents, lambda document: document[1])]
        kept = {title for _, title in parts[0]}
        files = [
            write_rows(folder / f"source-{name}.tsv", ("text", "label"), [row for row in rows if row[1] in kept])
            for name, rows in zip(("train", "dev"), parts, strict=True)
        ]
        tasks.append(DownstreamTask("source", *files, "accuracy", ("--task", "classify", *columns)))
    return tasks


def make_tasks(folder: Path, cola: Path | None, paths: Sequence[Path]) -> list[DownstreamTask]:
    """Return the tasks for which there are files."""
    folder.mkdir(parents=True, exist_ok=True)
    tasks = []
    if cola:
        dev = folder / "cola-dev.tsv"
        dev.write_bytes(b"".join((cola / name).read_bytes() for name in COLA_FILES))
        train = cola.resolve() / "in_domain_train.tsv"
        tasks.append(DownstreamTask("cola", train, dev, "matthews", ("--task", "cola", "--max-seq-length", "32")))
    return tasks + (corpus_tasks(folder, paths) if paths else [])


def checkpoint_of(plan: Plan, job: PretrainingJob) -> Path:
    """Return the run of a job; that of torch is imported first. Raises RuntimeError if that fails."""
    folder = job.folder(plan.workshop.work)
    if job.library == "clozemill":
        return folder / "run"
    imported = folder / "imported"
    if not imported.exists():
        command = [sys.executable, "-m", "clozemill", "import", str(folder / "hf"), "--output", str(imported)]
        run_child(command, folder, plan.threads, plan.workshop.work)
    return imported


def score(plan: Plan, task: DownstreamTask, job: PretrainingJob, seed: int, from_scratch: bool) -> float:
    """Return the best dev metric of a fine-tuning run, which is run unless it was."""
    name = f"{task.name}{'-random' if from_scratch else ''}"
    folder = job.folder(plan.workshop.work) / "downstream" / name
    if not (folder / "score.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = [sys.executable, "-m", "clozemill", "finetune", "--init", str(checkpoint_of(plan, job))]
        command += ["--train", str(task.train), "--dev", str(task.dev), *task.options, "--seed", str(seed)]
        command += ["--output", str(folder / "run"), "--no-tensorboard", *(["--from-scratch"] if from_scratch else [])]
        print(f"{job.name}: {name}, seed {seed}", file=sys.stderr, flush=True)
        run_child(command, folder, plan.threads, plan.workshop.work)
        written = map(json.loads, (folder / "run" / "metrics.jsonl").read_text().splitlines())
        write_json(folder / "score.json", max(line[task.metric] for line in written if line.get("split") == "eval"))
        shutil.rmtree(folder / "run")
    return json.loads((folder / "score.json").read_text())


def scores_of(plan: Plan, task: DownstreamTask, jobs: Mapping[int, PretrainingJob], from_scratch: bool) -> list[float]:
    """Return the best dev metrics of jobs (by seed), as many at once as the plan runs processes."""
    with ThreadPoolExecutor(plan.workshop.processes) as pool:
        return list(pool.map(lambda seed: score(plan, task, jobs[seed], seed, from_scratch), jobs))


def fine_tune(plan: Plan, candidates: Sequence[Candidate], tasks: Sequence[DownstreamTask]) -> dict[str, dict[str, Any]]:
    """Return {task: {candidate: the metric of each seed}}, with random weights of the first candidate and of `modern`."""
    ours = [one for one in candidates if one.entry.library == "clozemill" and "variant" not in one.entry.settings]
    random = {one.name for one in [*ours[:1], *(one for one in ours if one.name == "modern")]}
    found: dict[str, dict[str, Any]] = {}
    for task in tasks:
        scores = found[f"{task.name} ({task.metric})"] = {}
        for one in candidates:
            if "variant" in one.entry.settings:  # no checkpoint of an unknown architecture can be loaded
                continue
            try:
                scores[one.name] = scores_of(plan, task, one.jobs, False)
                if one.name in random:
                    scores[f"random weights as {one.name}"] = scores_of(plan, task, one.jobs, True)
            except RuntimeError as error:
                print(f"{one.name}: {task.name} skipped: {error}", file=sys.stderr, flush=True)
    return found


def lines(scores: Mapping[str, Mapping[str, Sequence[float]]]) -> list[str]:
    """Return a table with the mean and interval of each task."""
    names = list(dict.fromkeys(name for each in scores.values() for name in each))
    rows = [["fine-tuned, best epoch on dev", *scores]]
    rows += [[name, *(spread(each[name]) if name in each else "-" for each in scores.values())] for name in names]
    return [*table(rows), ""]
