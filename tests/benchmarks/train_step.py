"""Compare the examples per second of BERT pretraining on a CPU with other libraries.

Every contender (contenders.py) is a process with the same sizes (4 layers, 256 wide, 4 heads, inner layer 1024, vocabulary
30,522), the same batches of a real dataset, dropout 0.1 on hidden activations and attention probabilities, float32, and as many
threads. A step is forward, backward, clipping to a global norm of 1, AdamW. Contenders take turns, with a round of steps each,
in an order that is reversed every time. Medians are printed. CPU seconds depend less on other jobs on the machine.

    python -m tests.benchmarks.train_step                                        # on the embedded corpus
    python -m tests.benchmarks.train_step --data DATASET --rounds 9 --steps 4
    python -m tests.benchmarks.train_step --only ours kerashub --threads 1

tf-models-official is in the environment that `peer.py` builds. For Hugging Face, create one:
    python -m venv WORK/hf-env && WORK/hf-env/bin/pip install torch==2.13.0 transformers==5.23.0 numpy
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import resources
from itertools import islice
from pathlib import Path

import numpy as np

from tests.benchmarks import contenders, peer, prepare

SCIPY = "scipy==1.17.1"  # also imported by tf-models-official's layers, not in peer.py's recipe


@dataclasses.dataclass
class Contender:
    """A running process, and the results of its rounds."""

    name: str
    process: subprocess.Popen
    about: dict = dataclasses.field(default_factory=dict)
    rounds: list[dict] = dataclasses.field(default_factory=list)

    def hear(self) -> dict:
        """Return the next line of its output. Raise RuntimeError if it has died."""
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}: see its log in the working folder")
        return json.loads(line)

    def step(self, steps: int) -> dict:
        """Make it run a round of steps."""
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.hear()

    def median(self, figure: str) -> float:
        return statistics.median(found[figure] for found in self.rounds)


def demo_dataset(work: Path) -> Path:
    """The embedded corpus as a dataset, made once."""
    vocab, dataset = work / "demo-vocab.txt", work / "demo-128"
    if not (dataset / "dataset.json").exists():
        corpus = str(resources.files("clozemill.pipelines") / "data" / "demo-corpus.xml")
        learn = ["vocab", "--input", corpus, "--output", str(vocab), "--vocab-size", "4000"]
        mill = ["prepare", "--input", corpus, "--vocab", str(vocab), "--output", str(dataset), "--seed", str(peer.SEED)]
        for arguments in (learn, mill):
            subprocess.run([*prepare.clozemill(), *arguments, "--no-progress"], check=True, cwd=prepare.REPOSITORY)
    return dataset


def read_batches(dataset: Path, batch_size: int, number: int) -> dict[str, np.ndarray]:
    """The first batches that our trainer would read, every feature as [number, batch_size, ...]."""
    from clozemill.trainers.data import prepared_dataset
    from clozemill.trainers.data.input_pipeline import TrainReader
    from clozemill.trainers.data.numpy_reader import batches_of

    stream = batches_of(TrainReader(prepared_dataset.read(str(dataset)), peer.SEED, batch_size).batches(batch_size))
    batches = list(islice(stream, number))
    stacked = {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}
    if stacked["input_ids"].max() >= contenders.VOCABULARY:
        raise ValueError(f"{dataset} has more than {contenders.VOCABULARY} words")
    return stacked


def print_data(dataset: Path, batches: dict[str, np.ndarray]) -> None:
    """Print statistics of the batches."""
    number, rows, length = batches["input_ids"].shape
    real, places = batches["masked_lm_weights"].sum(axis=-1).mean(), batches["masked_lm_weights"].shape[-1]
    padding = 1 - batches["input_mask"].mean()
    print(
        f"{dataset.name}: {number} batches of {rows} x {length} tokens, {padding:.1%} of them padding; of {places} places for "
        f"predictions {real:.1f} are filled on average"
    )


def garden_python(work: Path) -> Path:
    """Return the interpreter of peer.py's environment, with the other packages that the models need."""
    interpreter = peer.environment(work)
    quiet = {"env": peer.quiet_environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if subprocess.run([str(interpreter), "-c", "import scipy.linalg"], **quiet).returncode:
        subprocess.run([str(interpreter), "-m", "pip", "install", SCIPY], check=True, **quiet)
    return interpreter


def interpreter_for(name: str, options: argparse.Namespace) -> Path | None:
    """Return the interpreter for a contender; None if its library isn't installed."""
    if name == "garden":
        return garden_python(options.work)
    if name.startswith("hf"):
        python = options.hf_python or options.work / "hf-env" / "bin" / "python"
        return python if python.exists() else None
    return Path(sys.executable)


def start(name: str, python: Path, batches: Path, options: argparse.Namespace) -> Contender:
    """Start a contender; it initialises in the background."""
    environment = peer.quiet_environment() | {
        "KERAS_BACKEND": "tensorflow",
        "OMP_NUM_THREADS": str(options.threads),
        "OMP_WAIT_POLICY": "passive",  # torch's threads would burn CPU seconds waiting for cores that others use
    }
    if name.startswith("ours"):
        environment["PYTHONPATH"] = str(prepare.REPOSITORY)
    log = open(options.work / f"{name}.log", "w")  # noqa: SIM115  (the process's)
    process = subprocess.Popen(
        [str(python), contenders.__file__, name, str(batches), str(options.threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, cwd=options.work,
    )  # fmt: skip
    return Contender(name, process)


def compete(field: list[Contender], options: argparse.Namespace) -> None:
    """Run rounds in turns; the first one is a warm-up."""
    for contender in field:
        contender.about = contender.hear()
    for number in range(options.rounds + 1):
        for contender in field if number % 2 else reversed(field):
            figures = contender.step(options.steps)
            if number:
                contender.rounds.append(figures)
                record = {"time": time.strftime("%F %T"), "contender": contender.name, "steps": options.steps, **figures}
                with open(options.work / "train_step.jsonl", "a") as results:
                    results.write(json.dumps(record) + "\n")
        print(f"round {number} of {options.rounds}", end="\r", file=sys.stderr, flush=True)


def print_table(field: list[Contender], examples: int) -> None:
    """A row per contender, with the medians over rounds of what ours does for one of its examples."""
    reference = next((contender for contender in field if contender.name == "ours"), field[0])
    heads = ("ex/CPU s", "ex/s", "CPU s/step", "ours, CPU", "ours, wall", "weights", "last loss")
    print(" " * 10 + "".join(f"{head:>12}" for head in heads))
    for contender in field:
        ratios = [
            statistics.median(b[figure] / a[figure] for a, b in zip(reference.rounds, contender.rounds, strict=True))
            for figure in ("cpu_s", "wall_s")
        ]
        cpu_s, wall_s = contender.median("cpu_s"), contender.median("wall_s")
        print(
            f"{contender.name:10}{examples / cpu_s:12.1f}{examples / wall_s:12.1f}{cpu_s / contender.about['steps']:12.3f}"
            f"{ratios[0]:11.2f}x{ratios[1]:11.2f}x{contender.about['weights']:12,}{contender.rounds[-1]['loss']:12.3f}"
        )
    print(
        f"\nours: how many times the examples of {reference.name} per CPU second and per second, medians of the rounds' ratios"
    )
    for contender in field:
        print(f"{contender.name}: {contenders.CONTENDERS[contender.name].__doc__} [{contender.about['versions']}]")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a dataset of clozemill prepare; default: the embedded corpus")
    parser.add_argument("--work", type=Path, default=cache / "clozemill-bench", help="environments, logs and figures")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="per round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--only", nargs="+", choices=list(contenders.CONTENDERS), metavar="NAME", default=contenders.DEFAULT)
    parser.add_argument("--hf-python", type=Path, help="an interpreter that has transformers (default: WORK/hf-env/bin/python)")
    return parser.parse_args()


def main() -> None:
    """Makes the batches, starts the contenders, and compares them."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    options = parse_arguments()
    options.work = options.work.resolve()
    options.work.mkdir(parents=True, exist_ok=True)
    dataset = (options.data or demo_dataset(options.work)).resolve()
    batches, saved = read_batches(dataset, options.batch_size, number=16), options.work / "batches.npz"
    np.savez(saved, **batches)
    print_data(dataset, batches)
    field = []
    for name in options.only:
        python = interpreter_for(name, options)
        if python is None:
            print(f"{name}: left out, no interpreter has its library: see --hf-python")
        else:
            field.append(start(name, python, saved, options))
    try:
        compete(field, options)
    finally:
        for contender in field:
            contender.process.kill()
    for contender in field:
        contender.about["steps"] = options.steps
    print_table(field, options.steps * options.batch_size)


if __name__ == "__main__":
    main()
