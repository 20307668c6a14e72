"""Measure pretraining with `--engine jax` on this machine's GPU or TPU: is it right, how fast is it, and where does time go?

Needs JAX for the device and Keras, no TensorFlow. Three parts, in this order, so that a wrong result is seen before a fast one:

1. Equality: a tiny encoder in float32, trained for a few steps on the CPU and on the device, with the device's attention kernel
   and with the plain form. The largest relative difference between the losses is printed; above TOLERANCE it is an error.
2. Speed: the preset in bfloat16 on each dataset, for each batch size, with and without the kernel: examples and real tokens per
   second, MFU by the model's FLOPs, share of time that waited for input. The last third of the steps counts. A batch that
   doesn't fit into memory is a row too.
3. A profile of the fastest of each dataset: time on the device by kind of operation, and the longest operations.

    clozemill prepare --input CORPUS --vocab vocab.txt --max-seq-length 512 --packing on --output packed-512
    python -m tests.benchmarks.device --data packed-512 --batch-sizes 64 128 256
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clozemill.pipelines.common.formatting import aligned
from tests.benchmarks import prepare

TOLERANCE = 1e-4  # of losses in float32, whose sums have another order on another device
CHECKED_STEPS = 8
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}  # else GPUs multiply float32 with 10 bits
CPU = {"JAX_PLATFORMS": "cpu"}
KERNELS = ("auto", "plain")
HEAD = ["dataset", "batch size", "attention", "examples/s", "real tokens/s", "MFU", "input"]
KINDS = {  # kind of operation -> pattern of its names, the first that fits
    "attention kernel": r"fmha|flash|cudnn.*(sdpa|attn)|splash|mha",
    "matrix products": r"gemm|cutlass|cublas|nvjet|dot|matmul|convolution",
    "copies": r"memcpy|memset|copy|transpose",
    "communication": r"nccl|all-reduce|all-gather|reduce-scatter",
    "sums and norms": r"reduce|softmax|norm",
    "element-wise": r"fusion|loop|add|multiply|select|wrapped|input_",
}
PROFILED = """
import sys, jax, clozemill
folder, words = sys.argv[1], sys.argv[2:]
options = jax.profiler.ProfileOptions()
options.python_tracer_level = 0
with jax.profiler.trace(folder, profiler_options=options):
    code = clozemill.main(words)
sys.exit(code)
"""


def pretrain(
    words: Sequence[str], environment: Mapping[str, str] = {}, profile: Path | None = None
) -> tuple[list[dict[str, Any]], str]:
    """Run `clozemill pretrain --engine jax` in a process; return the lines of its training steps, or its error."""
    with tempfile.TemporaryDirectory() as output:
        own = ["pretrain", "--engine", "jax", "--output", output, "--overwrite", "--no-tensorboard", "--checkpoint-steps", "0"]
        start = ["-c", PROFILED, str(profile)] if profile else ["-m", "clozemill"]
        command = [sys.executable, *start, *own, "--eval-steps", "0", "--eval-examples", "64", *words]
        done = subprocess.run(command, env=os.environ | environment, cwd=prepare.REPOSITORY, capture_output=True, text=True)
        if done.returncode:
            return [], (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        lines = map(json.loads, (Path(output) / "metrics.jsonl").read_text().splitlines())
        return [line for line in lines if "split" not in line], ""


def largest_difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the largest relative difference between two equally long lists of losses."""
    return max(abs(a - b) / abs(b) for a, b in zip(one, other, strict=True))


def check(dataset: Path) -> bool:
    """Print how far losses on the device are from those on a CPU; return whether that is close enough."""
    words = ["--data", str(dataset), "--preset", "tiny", "--precision", "float32", "--dropout", "0", "--attention-dropout", "0"]
    words += ["--steps", str(CHECKED_STEPS), "--batch-size", "8", "--log-steps", "1", "--learning-rate", "1e-3"]
    places = [("CPU", "plain", CPU), *((f"device, attention {kernel}", kernel, {}) for kernel in KERNELS)]
    found: dict[str, list[float]] = {}
    for name, kernel, environment in places:
        lines, error = pretrain([*words, "--attention-kernel", kernel], EXACT | environment)
        if error:
            print(f"equality: {name}: {error}")
            return False
        found[name] = [line["loss"] for line in lines]
    differences = {name: largest_difference(losses, found["CPU"]) for name, losses in found.items() if name != "CPU"}
    for name, value in differences.items():
        print(
            f"equality: {name}: losses of {CHECKED_STEPS} steps within {value:.1e} of the CPU's (bound {TOLERANCE:g})",
            flush=True,
        )
    return max(differences.values()) <= TOLERANCE


def speed_words(options: argparse.Namespace, dataset: Path, batch_size: int, kernel: str) -> list[str]:
    """Return the options of a run that is measured."""
    words = ["--data", str(dataset), "--preset", options.preset, "--precision", "bfloat16", "--batch-size", str(batch_size)]
    words += ["--steps", str(options.steps), "--log-steps", str(max(1, options.steps // 3)), "--attention-dropout", "0"]
    return [*words, "--learning-rate", "1e-4", "--attention-kernel", kernel, *options.more]


def measure(options: argparse.Namespace, dataset: Path) -> list[dict[str, Any]]:
    """Return the last line of each run on a dataset, or its error, with what was run."""
    found = []
    for batch_size in options.batch_sizes:
        for kernel in KERNELS:
            lines, error = pretrain(speed_words(options, dataset, batch_size, kernel))
            about = {"dataset": dataset.name, "batch_size": batch_size, "attention_kernel": kernel}
            found.append(about | (lines[-1] if lines else {"error": error}))
            print(" ".join(cells(found[-1])), file=sys.stderr, flush=True)
    return found


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table of speeds."""
    about = [row["dataset"], f"{row['batch_size']:,}", row["attention_kernel"]]
    if "error" in row:
        return [*about, "-", "-", "-", row["error"][:100]]
    mfu = f"{100 * row['mfu']:.1f} %" if "mfu" in row else "give --more --peak-tflops"
    rates = [f"{row['examples_per_second']:,.0f}", f"{row['tokens_per_second']:,.0f}", mfu, f"{100 * row['input_share']:.1f} %"]
    return [*about, *rates]


def device_seconds(events: Sequence[Mapping[str, Any]]) -> Counter[str]:
    """Return the seconds of each operation on devices in the events of a trace (Chrome's format, durations in microseconds).

    A GPU's operations are in lanes of streams, a TPU's in the lane "XLA Ops"; other lanes repeat them by module or name scope.
    """
    told = [event for event in events if event.get("ph") == "M"]
    devices = {event["pid"] for event in told
               if event["name"] == "process_name" and re.match("/device:(GPU|TPU)", event["args"]["name"])}  # fmt: skip
    lanes = {(event["pid"], event["tid"]) for event in told
             if event["name"] == "thread_name" and re.match("Stream|XLA Ops", event["args"]["name"])}  # fmt: skip
    found: Counter[str] = Counter()
    for event in events:
        if event.get("ph") == "X" and event["pid"] in devices and (event["pid"], event["tid"]) in lanes:
            found[event["name"]] += event.get("dur", 0) / 1e6
    return found


def kind_of(name: str) -> str:
    """Return the kind of an operation, by its name."""
    return next((kind for kind, pattern in KINDS.items() if re.search(pattern, name, re.IGNORECASE)), "others")


def profile_lines(found: Counter[str], most: int = 12) -> list[str]:
    """Return the table of kinds of operations, and of the longest ones, with their shares of the device's time."""
    total = sum(found.values())
    if not total:
        return ["no operations of a GPU or TPU in the profile"]
    kinds: Counter[str] = Counter()
    for name, seconds in found.items():
        kinds[kind_of(name)] += seconds
    rows = [[name[:80], f"{100 * seconds / total:.1f} %"] for name, seconds in (*kinds.most_common(), *found.most_common(most))]
    return aligned([["time on the device, with warm-up", f"{total:.2f} s"], *rows], [False, True])


def profile(options: argparse.Namespace, row: Mapping[str, Any], dataset: Path) -> list[str]:
    """Run the steps of a row once more, profiled; return the lines that are printed about it."""
    with tempfile.TemporaryDirectory() as folder:
        words = speed_words(options, dataset, row["batch_size"], row["attention_kernel"])
        _, error = pretrain(words, profile=Path(folder))
        if error:
            return [f"profile: {error}"]
        found: Counter[str] = Counter()
        for path in sorted(Path(folder).rglob("*.trace.json.gz")):
            found += device_seconds(json.loads(gzip.decompress(path.read_bytes()))["traceEvents"])
    return [f"{row['dataset']}, {row['batch_size']} rows, attention {row['attention_kernel']}", *profile_lines(found)]


def main(words: list[str] | None = None) -> int:
    """Run the three parts; return the exit code: 1 if the device computes something else than the CPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, nargs="+", required=True, help="prepared datasets, packed or not")
    parser.add_argument("--preset", default="base", help="size of the encoder")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 128, 256], help="rows of a batch")
    parser.add_argument("--steps", type=int, default=60, help="steps of each run")
    parser.add_argument("--output", type=Path, help="a JSON file for the figures")
    parser.add_argument("--more", nargs=argparse.REMAINDER, default=[], help="further options of pretrain, at the end")
    options = parser.parse_args(words)
    options.data = [path.resolve() for path in options.data]
    if not check(options.data[0]):
        return 1
    rows = []
    for dataset in options.data:
        found = measure(options, dataset)
        rows += found
        print("\n".join(aligned([HEAD, *map(cells, found)])), flush=True)
        done = [row for row in found if "error" not in row]
        if done:
            fastest = max(done, key=lambda row: row["tokens_per_second"])
            print("\n".join(profile(options, fastest, dataset)), flush=True)
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
