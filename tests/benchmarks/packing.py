"""Compare pretraining on packed and on unpacked rows of the same corpus: padding, and real tokens per CPU second.

Prepares each corpus twice, with and without `--packing on`, and trains the same encoder on batches of both, side by side in
one process: batches of the same number of rows, in memory, dropout 0, float32, a step as `pretrain` runs it. The two take
turns, in an order that is reversed every round; medians of the rounds' ratios are printed. Positions that are not padding
count as tokens. Then the cost of the block mask: forward and backward pass of an encoder with it, and with a mask of
padding alone, at the same shapes.

    python -m tests.benchmarks.packing --leads leads.jsonl.gz --articles pages.xml.bz2
    python -m tests.benchmarks.packing --only mask
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks import prepare

VOCABULARY, SEED = 4000, 7
TOKENS_PER_BATCH = 4096  # as `pretrain` chooses on a CPU
Step = Callable[[int], tuple[float, float]]  # runs some steps; returns tokens that are not padding, and CPU seconds


def datasets(name: str, corpus: Path, length: int, work: Path) -> dict[str, Path]:
    """Return the folders of a corpus's datasets by the value of --packing, made once."""
    vocab, made = work / f"{name}-vocab.txt", {}
    if not vocab.exists():
        learn = ["vocab", "--input", str(corpus), "--output", str(vocab), "--vocab-size", str(VOCABULARY), "--no-progress"]
        subprocess.run([*prepare.clozemill(), *learn], check=True)
    for packing in ("off", "on"):
        made[packing] = folder = work / f"{name}-{length}-{packing}"
        if not (folder / "dataset.json").exists():
            options = ["--max-seq-length", str(length), "--packing", packing, "--seed", str(SEED), "--no-progress"]
            paths = ["--input", str(corpus), "--vocab", str(vocab), "--output", str(folder)]
            subprocess.run([*prepare.clozemill(), "prepare", *paths, *options, "--overwrite"], check=True)
    return made


def padding(folder: Path) -> float:
    """Return the fraction of the train split's positions that is padding."""
    counts = json.loads((folder / "dataset.json").read_text("utf-8"))["splits"]["train"]["copies"]["00"]
    return counts["padding"] / (counts["padding"] + counts["tokens"])


def trainer(folder: Path, preset_name: str, size: int, batches: int) -> Step:
    """Return a function that trains on batches of `size` rows."""
    import tensorflow as tf

    from clozemill.model.config import preset
    from clozemill.trainers.data import prepared_dataset
    from clozemill.trainers.data.input_pipeline import TrainReader
    from clozemill.trainers.data.numpy_reader import batches_of
    from clozemill.trainers.engines import train_state
    from clozemill.trainers.engines.engine import COLUMNS, StepOptions
    from clozemill.trainers.engines.optimizer import Hyper, Schedule
    from clozemill.trainers.engines.tensorflow_step import Stepper

    dataset = prepared_dataset.read(str(folder))
    kept = list(islice(batches_of(TrainReader(dataset, SEED, size).batches(size)), batches))
    data = tf.data.Dataset.from_tensor_slices({name: np.stack([batch[name] for batch in kept]) for name in kept[0]})
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    encoder = preset(preset_name, vocab_size=dataset.vocabulary["size"], **rates)
    state = train_state.make(encoder, "mlm+nsp", "float32", seed=SEED)
    stepper = Stepper(tf.distribute.get_strategy(), state, StepOptions(Schedule(1e-4, 1, 1_000_000), Hyper()))
    iterator, done = iter(data.repeat()), 0

    def run(steps: int) -> tuple[float, float]:
        nonlocal done
        begin = time.process_time()
        rows = stepper.train(iterator, tf.constant(done), tf.constant(steps)).numpy()
        done += steps
        return float(rows[:, COLUMNS.index("tokens")].sum()), time.process_time() - begin

    return run


def compete(steps: dict[str, Step], rounds: int, count: int) -> dict[str, list[float]]:
    """Return tokens per CPU second in each round; the first round is a warm-up."""
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name in steps if number % 2 else reversed(steps):
            tokens, seconds = steps[name](count)
            if number:
                rates[name].append(tokens / seconds)
    return rates


def print_training(name: str, folders: dict[str, Path], length: int, preset_name: str, options: argparse.Namespace) -> None:
    """Print the rates of both datasets and their ratio."""
    size = options.batch_size or max(1, TOKENS_PER_BATCH // length)
    steps = {packing: trainer(folder, preset_name, size, options.batches) for packing, folder in folders.items()}
    rates = compete(steps, options.rounds, options.steps)
    ratios = [one / other for one, other in zip(rates["on"], rates["off"], strict=True)]
    off, on = (statistics.median(rates[packing]) for packing in ("off", "on"))
    print(
        f"{name:9} {length:4} {preset_name:6} batches of {size:3}: {off:10,.0f} -> {on:10,.0f} tokens per CPU s, "
        f"{statistics.median(ratios):.2f} times ({min(ratios):.2f} to {max(ratios):.2f})",
        flush=True,
    )


def encoder_step(preset_name: str, length: int, examples: int, rate: float, blocks: bool) -> Step:
    """Return a function that runs an encoder forward and backward on full rows of `examples` equal examples."""
    import tensorflow as tf

    from clozemill.model.config import preset
    from clozemill.model.encoder import Encoder

    rows, rng = TOKENS_PER_BATCH // length, np.random.default_rng(SEED)
    ids = np.repeat(np.arange(examples), -(-length // examples))[:length]
    begins = np.searchsorted(ids, np.arange(examples))
    masked = np.sort(rng.permuted(np.tile(np.arange(length), (rows, 1)), axis=1)[:, : length * 15 // 100], axis=1)
    given: dict[str, Any] = {"positions": np.concatenate([np.tile(begins, (rows, 1)), masked], axis=1)}
    if blocks:
        given |= {"example_ids": np.tile(ids + 1, (rows, 1)), "cls_positions": np.tile(begins, (rows, 1))}
    given = {key: tf.constant(values, tf.int32) for key, values in given.items()}
    tokens = tf.constant(rng.integers(5, VOCABULARY, (rows, length)), tf.int32)
    rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": rate}
    model = Encoder(preset(preset_name, vocab_size=VOCABULARY, **rates))
    model.build()
    variables = [variable.value for variable in model.trainable_variables]

    @tf.function
    def once(seed):
        with tf.GradientTape() as tape:
            outputs = model(tokens, tf.ones_like(tokens), tf.zeros_like(tokens), seed=seed if rate else None, **given)
            loss = tf.reduce_sum(outputs["sequence_output"] ** 2) + tf.reduce_sum(outputs["pooled_output"])
        return tf.add_n([tf.reduce_sum(tf.convert_to_tensor(each)) for each in tape.gradient(loss, variables)])

    def run(steps: int) -> tuple[float, float]:
        begin = time.process_time()
        for number in range(steps):
            once(tf.constant([number, 0])).numpy()
        return float(steps * rows * length), time.process_time() - begin

    return run


def print_mask(preset_name: str, length: int, rate: float, options: argparse.Namespace) -> None:
    """Print how much longer a pass takes with the block mask."""
    examples = {512: 6, 128: 2}.get(length, 4)
    steps = {name: encoder_step(preset_name, length, examples, rate, name == "blocks") for name in ("padding", "blocks")}
    rates = compete(steps, options.rounds, options.steps)
    costs = [one / other - 1 for one, other in zip(rates["padding"], rates["blocks"], strict=True)]
    print(
        f"block mask {length:4} {preset_name:6} dropout {rate}: {100 * statistics.median(costs):+.1f} % CPU time "
        f"({100 * min(costs):+.1f} to {100 * max(costs):+.1f})",
        flush=True,
    )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leads", type=Path, help="a corpus of short documents, such as lead sections")
    parser.add_argument("--articles", type=Path, help="a corpus of complete articles")
    parser.add_argument("--work", type=Path, default=cache / "clozemill-bench" / "packing", help="vocabularies and datasets")
    parser.add_argument("--presets", nargs="+", default=["tiny", "mini"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="per round")
    parser.add_argument("--batches", type=int, default=32, help="different batches, repeated")
    parser.add_argument("--batch-size", type=int, default=0, help="rows; 0: 4,096 positions")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=("training", "mask"), help="one of the two parts")
    return parser.parse_args()


def main() -> None:
    """Prints padding, rates and the cost of the mask."""
    os.environ |= {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    options = parse_arguments()
    import tensorflow as tf

    from clozemill.trainers.common import memory

    memory.keep_freed()
    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    options.work.mkdir(parents=True, exist_ok=True)
    cases = [("leads", options.leads, 512), ("articles", options.articles, 512), ("leads", options.leads, 128)]
    for name, corpus, length in cases if options.only != "mask" else ():
        if corpus is None:
            print(f"{name} at {length}: left out, give --{name}", file=sys.stderr)
            continue
        folders = datasets(name, corpus, length, options.work)
        shares = {packing: padding(folder) for packing, folder in folders.items()}
        print(f"{name:9} {length:4} padding {100 * shares['off']:.1f} % -> {100 * shares['on']:.2f} %", flush=True)
        for preset_name in options.presets:
            print_training(name, folders, length, preset_name, options)
    for preset_name in options.presets if options.only != "training" else ():
        for length in (128, 512):
            for rate in (0.0, 0.1):
                print_mask(preset_name, length, rate, options)


if __name__ == "__main__":
    main()
