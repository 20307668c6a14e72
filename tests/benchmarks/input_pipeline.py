"""Measure how many examples per second the trainer's input delivers, and whether that is enough for a TPU.

TrainReader reads a dataset in batches of 256, in a process on one core, then in one on all cores. Leaving out stages shows
where the time is spent: reading in order, parsing. The rate is compared with what one TPU v5e chip consumes
when it trains BERT-base on sequences of 128.

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
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BATCH = 256
PEAK_FLOPS = 197e12  # of a TPU v5e chip in bfloat16, by its data sheet
CORES = 16  # of its host, for a chip, as this project counts: see --cores-per-chip
LENGTH, PREDICTIONS, PRESET = 128, 20, "base"
STAGES = ("reading", "reading + parsing")


def streams(folder: str) -> dict:
    """Endless batches after each stage."""
    from clozemill.trainers.data import prepared_dataset
    from clozemill.trainers.data.input_pipeline import TrainReader

    reader = TrainReader(prepared_dataset.read(folder), 7, BATCH)
    made = (reader.records().rebatch(BATCH), reader.batches(BATCH))
    return dict(zip(STAGES, made, strict=True))


def work(folder: str, rounds: int, batches: int) -> dict[str, dict[str, float]]:
    """Examples per second and per CPU second after each stage, medians of rounds.

    Stages run one after another, because prefetching of one stream would be counted for another.
    """
    found = {}
    for name, stream in streams(folder).items():
        iterator, rates = iter(stream), []
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
    return found


def measure(cores: set[int], options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """`work` in a process of its own on some cores."""
    command = [sys.executable, "-m", "tests.benchmarks.input_pipeline", "--data", str(options.data.resolve()), "--worker"]
    done = subprocess.run(
        [*command, "--rounds", str(options.rounds), "--batches", str(options.batches)],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow"},
        preexec_fn=lambda: os.sched_setaffinity(0, cores), cwd=REPOSITORY, stdout=subprocess.PIPE, check=True, text=True,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def print_rates(title: str, rates: dict[str, dict[str, float]]) -> None:
    """A row per stage, with the CPU microseconds that it adds to an example."""
    print(f"\n{title:30}{'examples/s':>12}{'ex/CPU s':>12}{'CPU us added':>14}{'share':>7}")
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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=200, help=f"of {BATCH} examples, per round and stage")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)), help="the one core")
    parser.add_argument("--cores-per-chip", type=int, default=CORES, help="of the host, for one chip")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    """Measures on one core and on all, and prints both."""
    options = parse_arguments()
    if options.worker:
        print(json.dumps(work(str(options.data), options.rounds, options.batches)))
        return
    one = measure({options.core}, options)
    print_rates("one core", one)
    cores = os.sched_getaffinity(0)
    print_rates(f"all {len(cores)} cores", measure(cores, options))
    print_demand(one[STAGES[-1]]["wall"], options.cores_per_chip)


if __name__ == "__main__":
    main()
