"""Compare time and memory of `clozemill prepare` with TensorFlow's `create_pretraining_data.py`.

Both get the same text (a sentence per line, an empty line between documents), vocabulary, lengths, rates and number of copies,
each in its own process, pinned to the same core. CPU seconds are those of the complete process tree, user and system. The
peer's environment (see `peer.py`), the text and the results (`results.jsonl`) are kept in the working folder, `--work`.

    python -m tests.benchmarks.prepare --corpus novels.jsonl.gz --size-mb 2             # a quick look
    python -m tests.benchmarks.prepare --corpus novels.jsonl.gz --dupe-factors 1 5 --stages
    python -m tests.benchmarks.prepare --corpus novels.jsonl.gz --memory --size-mb 10   # 10, 40 and 160 MB, clozemill only
    python -m tests.benchmarks.prepare --loader-check DATASET                           # shards read by the peer's loader
    python -m tests.benchmarks.prepare --stages DATASET                                 # where a finished job spent its time
"""

import argparse
import dataclasses
import gzip
import itertools
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests.benchmarks import peer

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """What one run took: `peaks_mb` is the peak RSS of each process, the largest first; `sum_mb` is the largest sum of RSS
    at one time, in which pages that processes share count once for each."""

    name: str
    cpu_s: float
    wall_s: float
    peaks_mb: tuple[float, ...]
    sum_mb: float
    examples: int = 0
    output_mb: float = 0.0


def read_documents(corpus: Path) -> Iterator[list[str]]:
    """The sentences of each document. JSON lines are split into sentences, paragraph by paragraph; a .txt is split already."""
    import sentencex

    with (gzip.open if corpus.suffix == ".gz" else open)(corpus, "rt", encoding="utf-8") as lines:
        if ".jsonl" in corpus.suffixes:
            for line in lines:
                paragraphs = json.loads(line)["text"].split("\n")
                # Joining with single spaces also removes separators that some readers treat as the end of a line.
                yield [" ".join(s.split()) for paragraph in paragraphs for s in sentencex.segment("en", paragraph) if s.strip()]
        else:
            yield from (list(group) for filled, group in itertools.groupby(map(str.strip, lines), key=bool) if filled)


def make_text(corpus: Path, work: Path, size_mb: float | None) -> Path:
    """Write the text that both sides read: complete documents, up to `size_mb`."""
    stem = corpus.name.split(".")[0]
    text = work / (f"{stem}.txt" if size_mb is None else f"{stem}-{size_mb:g}mb.txt")
    unfinished = text.with_suffix(".part")
    with open(unfinished, "wb") as output:
        for document in filter(None, read_documents(corpus)):
            output.write(("\n".join(document) + "\n\n").encode())
            if size_mb is not None and output.tell() >= size_mb * 1e6:
                break
    return unfinished.rename(text)


def vocabulary(given: Path | None, text: Path) -> Path:
    """The vocabulary file that was given, or one that `clozemill vocab` learns from the text (kept beside it)."""
    vocab = given or text.with_name(f"{text.stem}-vocab.txt")
    if not vocab.exists():
        learn = ["vocab", "--input", str(text), "--output", str(vocab), "--vocab-size", str(peer.VOCAB_SIZE)]
        subprocess.run([*clozemill(), *learn], check=True, cwd=REPOSITORY)
    return vocab.resolve()


def clozemill() -> list[str]:
    """Return the command installed next to this interpreter, or else on the PATH, or else the module."""
    folders = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which("clozemill", path=folders)
    return [found] if found else [sys.executable, "-m", "clozemill"]


def clozemill_command(text: Path, vocab: Path, dataset: Path, dupe_factor: int, options: argparse.Namespace) -> list[str]:
    """The command line of this project."""
    return [
        *clozemill(), "prepare", "--input", str(text), "--vocab", str(vocab), "--output", str(dataset),
        "--max-seq-length", str(peer.SEQ_LENGTH), "--max-predictions", str(peer.PREDICTIONS),
        "--dupe-factor", str(dupe_factor), "--seed", str(peer.SEED),
        "--num-workers", "1", "--eval-fraction", "0", *shlex.split(options.prepare_flags),
    ]  # fmt: skip


COMMANDS: dict[str, Callable[..., list[str]]] = {"clozemill": clozemill_command, "peer": peer.command}


def run_side(side: str, text: Path, vocab: Path, dupe_factor: int, options: argparse.Namespace) -> tuple[Measurement, Path]:
    """Measure one side and count what it wrote; return the results and the dataset."""
    dataset = options.work / f"{side}-{text.stem}-x{dupe_factor}"
    shutil.rmtree(dataset, ignore_errors=True)
    measured = measure(side, COMMANDS[side](text, vocab, dataset, dupe_factor, options), options)
    shards = sorted(dataset.glob("train/copy-*/*.tfrecord"))
    examples = sum(count_records(shard) for shard in shards)
    if not examples:
        raise ValueError(f"{side} wrote no examples in {dataset}")
    output_mb = sum(shard.stat().st_size for shard in shards) / 1e6
    return dataclasses.replace(measured, examples=examples, output_mb=output_mb), dataset


def measure(side: str, command: list[str], options: argparse.Namespace) -> Measurement:
    """Runs a command on one core and follows its process tree until it ends; raises when it fails."""
    log = options.work / f"{side}.log"
    print(f"{side}: {shlex.join(command)}  # log: {log}", file=sys.stderr, flush=True)
    sampler = TreeSampler()
    started = time.perf_counter()
    with open(log, "w") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=output, cwd=REPOSITORY if side == "clozemill" else options.work,
            env=peer.quiet_environment(), preexec_fn=lambda: os.sched_setaffinity(0, {options.core}),
        )  # fmt: skip
        finished = 0
        while not finished:
            sampler.sample(process.pid)
            time.sleep(0.1)
            finished, status, usage = os.wait4(process.pid, os.WNOHANG)
    wall_s = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{side} failed with {process.returncode}, see {log}")
    # wait4 has the exact sum over all processes that were waited for; the samples also include the others.
    cpu_s = max(usage.ru_utime + usage.ru_stime, sum(sampler.cpu_s.values()))
    # Its maxrss is the largest process's, to the end; the samples stop up to a tenth of a second before it.
    largest, *others = sorted(sampler.peak_bytes.values(), reverse=True)
    peaks = (max(largest, usage.ru_maxrss * 1024), *others)
    return Measurement(side, cpu_s, wall_s, tuple(round(peak / 1e6, 1) for peak in peaks), sampler.sum_bytes / 1e6)


class TreeSampler:
    """CPU seconds and peak resident memory of a process and its descendants, by process."""

    def __init__(self) -> None:
        self.cpu_s: dict[int, float] = {}
        self.peak_bytes: dict[int, int] = {}
        self.sum_bytes = 0

    def sample(self, pid: int) -> None:
        """Sample the tree once. Processes may end meanwhile; their last values are kept."""
        resident = 0
        try:
            root = psutil.Process(pid)
            tree = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in tree:
            try:
                used, times = process.memory_info().rss, process.cpu_times()
                # VmHWM is the kernel's own peak, which sampled sizes would miss; a zombie has none.
                fields = Path(f"/proc/{process.pid}/status").read_text().split("VmHWM:")[1:]
            except (psutil.NoSuchProcess, OSError):
                continue
            peak = int(fields[0].split()[0]) * 1024 if fields else 0
            resident += used
            self.cpu_s[process.pid] = times.user + times.system
            self.peak_bytes[process.pid] = max(self.peak_bytes.get(process.pid, 0), used, peak)
        self.sum_bytes = max(self.sum_bytes, resident)


def count_records(shard: Path) -> int:
    """Counts the records of a TFRecord file by their frames: length (8 bytes), its CRC (4), data, the data's CRC (4)."""
    records, position, size = 0, 0, shard.stat().st_size
    with open(shard, "rb") as data:
        while header := data.read(12):
            position = data.seek(struct.unpack("<Q4x", header)[0] + 4, os.SEEK_CUR)
            records += 1
    if position != size:
        raise ValueError(f"{shard} ends inside a record")
    return records


def print_comparison(title: str, runs: list[Measurement]) -> None:
    """Print a row per side and, if both ran, the ratio of the peer to clozemill.

    The ratio of wall seconds per example is also that of examples per second.
    """
    print(f"\n{title}")
    heads = ("CPU s", "wall s", "peak MB", "sum MB", "examples", "ex/s", "CPU us/ex", "output MB")
    print(" " * 10 + "".join(f"{head:>11}" for head in heads))
    for run in runs:
        print(
            f"{run.name:10}{run.cpu_s:11.1f}{run.wall_s:11.1f}{run.peaks_mb[0]:11.0f}{run.sum_mb:11.0f}{run.examples:11}"
            f"{run.examples / run.wall_s:11.0f}{1e6 * run.cpu_s / run.examples:11.1f}{run.output_mb:11.1f}"
        )
    if len(runs) < 2:
        return
    mill, other = sorted(runs, key=lambda run: run.name)
    print("\npeer / clozemill      whole run   per example")
    per_example = mill.examples / other.examples
    for label, ours, theirs in (
        ("CPU seconds", mill.cpu_s, other.cpu_s),
        ("wall seconds", mill.wall_s, other.wall_s),
        ("peak, largest", mill.peaks_mb[0], other.peaks_mb[0]),
        ("peak, sum", mill.sum_mb, other.sum_mb),
    ):
        print(f"  {label:18}{theirs / ours:11.2f}{theirs / ours * per_example:14.2f}")


def print_stages(dataset: Path) -> None:
    """The seconds and megabytes per stage that the job recorded in run.json."""
    stages = json.loads((dataset / "run.json").read_text())["stages"]
    total = sum(stage["seconds"] for stage in stages.values()) or 1.0
    print(f"\n{'stage of ' + dataset.name:40}{'seconds':>9}{'share':>7}{'MB':>10}")
    for name, stage in stages.items():
        print(f"{name:40}{stage['seconds']:9.2f}{stage['seconds'] / total:7.0%}{stage.get('mb') or 0:10.1f}")


def compare(text: Path, vocab: Path, options: argparse.Namespace) -> None:
    """Runs the sides for each number of copies, prints the tables and keeps the figures."""
    for dupe_factor in options.dupe_factors:
        best: list[Measurement] = []
        for side in options.sides:
            runs = []
            for _ in range(options.repeats):
                measured, dataset = run_side(side, text, vocab, dupe_factor, options)
                runs.append(measured)
                record = {"time": time.strftime("%F %T"), "text": text.name, "dupe_factor": dupe_factor}
                with open(options.work / "results.jsonl", "a") as results:
                    results.write(json.dumps(record | dataclasses.asdict(measured)) + "\n")
            # Other jobs on the machine can only add CPU seconds, so the minimum is the best estimate.
            best.append(min(runs, key=lambda run: run.cpu_s))
            if side == "clozemill" and options.stages:
                print_stages(dataset)
        print_comparison(f"{text.name}, {text.stat().st_size / 1e6:.1f} MB, dupe factor {dupe_factor}", best)


def measure_memory(text: Path, vocab: Path, options: argparse.Namespace) -> None:
    """Prints clozemill's peak RSS per process at 1, 4 and 16 times the text: it should hardly grow."""
    print(f"{'text':>6}{'MB':>9}{'examples':>10}{'CPU s':>8}{'sum MB':>9}  peak MB of each process")
    for factor in (1, 4, 16):
        multiplied = options.work / f"{text.stem}-times-{factor}.txt"
        with open(multiplied, "wb") as output:
            for copy in range(factor):
                # A sentence that names the copy keeps exact-duplicate removal from dropping all copies but one.
                for document in read_documents(text):
                    output.write("\n".join((f"This is telling number {copy} of the story.", *document, "", "")).encode())
        run, dataset = run_side("clozemill", multiplied, vocab, options.dupe_factors[0], options)
        peaks = " ".join(f"{peak:.0f}" for peak in run.peaks_mb)
        size_mb = multiplied.stat().st_size / 1e6
        print(f"{factor:>5}x{size_mb:9.1f}{run.examples:10}{run.cpu_s:8.1f}{run.sum_mb:9.0f}  {peaks}", flush=True)
        multiplied.unlink()
        shutil.rmtree(dataset)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="JSON lines with a field text (.jsonl, .jsonl.gz), or sentences (.txt)")
    parser.add_argument("--vocab", type=Path, help=f"default: {peer.VOCAB_SIZE} entries learnt from the text by clozemill")
    parser.add_argument("--dupe-factors", type=int, nargs="+", default=[1])
    parser.add_argument("--size-mb", type=float, help="cut the text to its first documents")
    parser.add_argument("--work", type=Path, default=cache / "clozemill-bench")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the core that both are pinned to")
    parser.add_argument("--repeats", type=int, default=1, help="runs per side; the one with the fewest CPU seconds counts")
    parser.add_argument("--sides", nargs="+", choices=sorted(COMMANDS), default=["peer", "clozemill"])
    parser.add_argument("--prepare-flags", default="", help="further flags of clozemill prepare, as one string")
    parser.add_argument("--memory", action="store_true", help="clozemill's memory at 1, 4 and 16 times the text instead")
    parser.add_argument("--stages", type=Path, nargs="?", const=Path(), help="the stages of each run, or of a finished DATASET")
    parser.add_argument("--loader-check", type=Path, metavar="DATASET", help="read a dataset with the peer's loader")
    options = parser.parse_args()
    if not (options.corpus or options.loader_check or options.stages):
        parser.error("--corpus is required")
    return options


def main() -> None:
    """Runs what the flags ask for."""
    options = parse_arguments()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.loader_check:
        peer.check_loader(options.work, options.loader_check)
    if options.stages and not options.corpus:
        print_stages(options.stages)
    if options.corpus:
        text = make_text(options.corpus, options.work, options.size_mb)
        vocab = vocabulary(options.vocab, text)
        (measure_memory if options.memory else compare)(text, vocab, options)


if __name__ == "__main__":
    main()
