"""Measure how many rows per second the trainer's readers deliver, and whether that is enough for a TPU.

TrainReader describes batches of 256 of a dataset. The reader in TensorFlow's graph and that of numpy read them in turn, each
in processes on one core, then in one on all cores. Leaving out stages shows where the time is spent: reading in order, parsing.
The rate is compared with what one TPU v5e chip consumes when it trains BERT-base on sequences of 128.

    clozemill prepare --input CORPUS --vocab vocab.txt --output DATASET --dupe-factor 1
    python -m tests.benchmarks.input_pipeline --data DATASET
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 256
PEAK_FLOPS = 197e12  # of a TPU v5e chip in bfloat16, by its data sheet
CORES = 16  # of its host, for a chip, as this project counts: see --cores-per-chip
LENGTH, PREDICTIONS, PRESET = 128, 20, "base"
STAGES = ("reading", "reading + parsing")
READERS = ("graph", "numpy")
Rates = dict[str, dict[str, float]]


def streams(folder: str, reader: str) -> dict[str, Iterator]:
    """Endless parts of about BATCH rows, or batches of that size, after each stage."""
    from clozemill.trainers.data import numpy_reader, prepared_dataset
    from clozemill.trainers.data.input_pipeline import TrainReader

    described = TrainReader(prepared_dataset.read(folder), 7, BATCH)
    if reader == "graph":
        from clozemill.trainers.data import graph_reader

        read, parsed = graph_reader.train_records(described).rebatch(BATCH), graph_reader.dataset_of(described.batches(BATCH))
    else:
        read, parsed = numpy_reader.train_records(described, 0, BATCH), numpy_reader.batches_of(described.batches(BATCH))
    return dict(zip(STAGES, (iter(read), iter(parsed)), strict=True))


def work(folder: str, reader: str, rounds: int, batches: int) -> Rates:
    """Rows per second and per CPU second after each stage, medians of rounds.

    Stages run one after another, because prefetching of one stream would be counted for another.
    """
    found = {}
    for name, iterator in streams(folder, reader).items():
        rates = []
        for number in range(rounds + 1):
            usage, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
            for _ in range(batches):
                next(iterator)
            wall_s, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF)
            cpu_s = after.ru_utime + after.ru_stime - usage.ru_utime - usage.ru_stime
            if number:  # the first round fills buffers and the page cache
                rates.append((batches * BATCH / wall_s, batches * BATCH / cpu_s))
        del iterator
        found[name] = {"wall": statistics.median(wall for wall, _ in rates), "cpu": statistics.median(cpu for _, cpu in rates)}
    found["memory"] = {"MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
    return found


def measure(cores: set[int], reader: str, options: argparse.Namespace) -> Rates:
    """`work` in a process of its own on some cores."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.input_pipeline",
        "--data",
        str(options.data.resolve()),
        "--worker",
        reader,
    ]
    done = subprocess.run(
        [*command, "--rounds", str(options.rounds), "--batches", str(options.batches)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2",
             "KERAS_BACKEND": "tensorflow" if reader == "graph" else "jax"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores), cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def middle(rates: list[Rates]) -> Rates:
    """Medians of several measurements."""
    return {
        stage: {name: statistics.median(each[stage][name] for each in rates) for name in rates[0][stage]} for stage in rates[0]
    }


def print_rates(title: str, rates: Rates) -> None:
    """A row per stage, with the CPU microseconds that it adds to a row."""
    print(
        f"\n{title:30}{'rows/s':>12}{'rows/CPU s':>12}{'CPU us added':>14}{'share':>7}{rates['memory']['MB']:14,.0f} MB at most"
    )
    whole, before = 1e6 / rates[STAGES[-1]]["cpu"], 0.0
    for name in STAGES:
        spent = 1e6 / rates[name]["cpu"]
        added = spent - before
        print(f"{name:30}{rates[name]['wall']:12,.0f}{rates[name]['cpu']:12,.0f}{added:14.1f}{added / whole:7.0%}")
        before = spent


def print_demand(delivered: float, cores: int) -> None:
    """Print what a chip consumes, and by what factor its host's cores exceed that."""
    from clozemill.model.config import preset
    from clozemill.model.flops import flops_per_row

    flops = flops_per_row(preset(PRESET), LENGTH, PREDICTIONS)
    print(f"\n{PRESET}, {LENGTH} tokens, {PREDICTIONS} predictions: {flops / 1e9:.1f} GFLOP per example, forward and backward")
    for utilisation in (1.0, 0.5):
        needed = PEAK_FLOPS * utilisation / flops
        supply = f"{cores} cores deliver {cores} x {delivered:,.0f} = {cores * delivered:,.0f}"
        print(
            f"a v5e chip at {utilisation:.0%} of {PEAK_FLOPS / 1e12:.0f} TFLOP/s consumes {needed:,.0f} examples/s; {supply}: "
            f"{cores * delivered / needed:,.1f} times that"
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DATASET")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each reader, in turn")
    parser.add_argument("--rounds", type=int, default=5, help="per process and stage")
    parser.add_argument("--batches", type=int, default=200, help=f"of {BATCH} rows, per round")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the one core")
    parser.add_argument("--cores-per-chip", type=int, default=CORES, help="of the host, for one chip")
    parser.add_argument("--worker", choices=READERS, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measures on one core and on all, and prints both, and the ratio of the readers."""
    options = parse_arguments()
    if options.worker:
        print(json.dumps(work(str(options.data), options.worker, options.rounds, options.batches)))
        return
    one: dict[str, list[Rates]] = {reader: [] for reader in READERS}
    for _ in range(options.repeats):
        for reader, found in one.items():
            found.append(measure({options.core}, reader, options))
    for reader, found in one.items():
        print_rates(f"{reader}, one core", middle(found))
    for stage in STAGES:
        ratios = [ours[stage]["cpu"] / graph[stage]["cpu"] for graph, ours in zip(one["graph"], one["numpy"], strict=True)]
        print(f"{stage}: numpy / graph, rows per CPU second, {', '.join(f'{ratio:.2f}' for ratio in ratios)}")
    cores = os.sched_getaffinity(0)
    for reader in READERS:
        print_rates(f"{reader}, all {len(cores)} cores", measure(cores, reader, options))
    print_demand(middle(one["numpy"])[STAGES[-1]]["wall"], options.cores_per_chip)


if __name__ == "__main__":
    main()
