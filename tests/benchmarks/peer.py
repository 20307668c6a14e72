"""The peer in the benchmark: `create_pretraining_data.py` of the TensorFlow Model Garden, in its own virtual environment.

tf-models-official requires everything for its vision and language models (OpenCV, TensorFlow Text, pandas, Kaggle ...). The
script and the data loader that we compare with import little of it. So the two packages with these requirements are installed
without them, and only what is imported is added. Nothing in the peer is patched or replaced by a stub.

    python -m tests.benchmarks.peer environment WORK        # only builds the environment (about 1.8 GB)
    PEER_PYTHON tests/benchmarks/peer.py loader DATASET     # the loader check, run by the peer's interpreter
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

VOCAB_SIZE, SEQ_LENGTH, PREDICTIONS, SEED = 30522, 128, 20, 7  # the settings of both sides
VERSION = "2.20.0"
SCRIPT = "official.nlp.data.create_pretraining_data"
WITH_REQUIREMENTS = (
    "tensorflow-cpu==2.20.0",  # requirements of tf-models-official 2.20.0, without GPU libraries
    "numpy==2.4.6",
    "keras==3.15.1",
    "protobuf==6.33.6",  # pinned because the writer spends much of its time in it
    "sentencepiece==0.2.3",
    "six==1.17.0",
    "pyyaml==6.0.3",
    "gin-config==0.5.0",  # the following ones are only for the data loader
    "tensorflow-datasets==4.9.10",
    "psutil==7.2.2",
)
WITHOUT_REQUIREMENTS = (
    f"tf-models-official=={VERSION}",
    "tf-keras==2.20.1",
)  # tf-keras would pull the GPU's tensorflow


def environment(work: Path) -> Path:
    """Builds the peer's environment below `work` unless it is there with the same recipe; returns its interpreter."""
    folder = work / "peer-env"
    interpreter = folder / "bin" / "python"
    stamp = folder / "recipe.txt"
    recipe = "\n".join((sys.version, *WITH_REQUIREMENTS, *WITHOUT_REQUIREMENTS))
    if stamp.exists() and stamp.read_text() == recipe:
        return interpreter
    print(f"building the peer's environment in {folder} (about 1.8 GB)", file=sys.stderr)
    if folder.exists():
        shutil.rmtree(folder)
    pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    with open(work / "peer-env.log", "w") as log:
        for step in (
            [sys.executable, "-m", "venv", str(folder)],
            [*pip, *WITH_REQUIREMENTS],
            [*pip, "--no-deps", *WITHOUT_REQUIREMENTS],
            [str(interpreter), "-c", f"import {SCRIPT}, official.nlp.data.pretrain_dataloader"],
        ):
            subprocess.run(step, check=True, stdout=log, stderr=log, env=quiet_environment(), cwd=work)
    stamp.write_text(recipe)
    return interpreter


def quiet_environment() -> dict[str, str]:
    """The process environment of both sides: no GPU, no TensorFlow chatter, nothing of this project's import path."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return {**kept, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}


def command(text: Path, vocab: Path, dataset: Path, dupe_factor: int, options: argparse.Namespace) -> list[str]:
    """The peer's command line; its feature names are the historical ones (`input_ids`, `segment_ids`) by default.

    It writes one shard at the same place as in our datasets, so that the loader check can read it.
    """
    shard = dataset / "train" / "copy-00" / "peer.tfrecord"
    shard.parent.mkdir(parents=True)
    return [
        str(environment(options.work)), "-m", SCRIPT,
        f"--input_file={text}", f"--output_file={shard}", f"--vocab_file={vocab}", "--do_lower_case=True",
        f"--max_seq_length={SEQ_LENGTH}", f"--max_predictions_per_seq={PREDICTIONS}",
        "--masked_lm_prob=0.15", "--short_seq_prob=0.1", f"--dupe_factor={dupe_factor}", f"--random_seed={SEED}",
    ]  # fmt: skip


def check_loader(work: Path, dataset: Path) -> None:
    """Run the loader check of this file in the peer's interpreter; raise if a batch isn't as expected."""
    arguments = [str(environment(work)), str(Path(__file__).resolve()), "loader", str(dataset.resolve())]
    subprocess.run(arguments, check=True, env=quiet_environment())


def _load_batches(pattern: str):
    """Load the dataset with tf-models-official's own BERT pretraining loader. Runs in the peer's interpreter."""
    from official.nlp.data import pretrain_dataloader

    config = pretrain_dataloader.BertPretrainDataConfig(
        input_path=pattern,
        global_batch_size=32,
        is_training=False,
        drop_remainder=False,
        seq_length=SEQ_LENGTH,
        max_predictions_per_seq=PREDICTIONS,
        use_next_sentence_label=True,
        use_v2_feature_names=False,
    )
    return pretrain_dataloader.BertPretrainDataLoader(config).load()


def _check_batch(batch: dict, expected: dict[str, tuple[int, str]]) -> None:
    """Raises ValueError unless the batch has the expected features, shapes and dtypes, and values in their ranges."""
    if set(batch) != set(expected):
        raise ValueError(f"features {sorted(batch)} instead of {sorted(expected)}")
    rows = len(batch["input_word_ids"])
    for name, (width, dtype) in expected.items():
        found = batch[name]
        if found.shape != (rows, width) or found.dtype.name != dtype:
            raise ValueError(f"{name} is {found.dtype} {found.shape}, not {dtype} {(rows, width)}")
    for name in ("input_mask", "input_type_ids", "masked_lm_weights", "next_sentence_labels"):
        if not ((batch[name] == 0) | (batch[name] == 1)).all():
            raise ValueError(f"{name} has values other than 0 and 1")
    real = batch["masked_lm_weights"] == 1
    lengths = batch["input_mask"].sum(axis=1, keepdims=True)
    if not real.any(axis=1).all() or (batch["masked_lm_positions"] >= lengths)[real].any():
        raise ValueError("an example without a prediction, or a prediction in the padding")


def _loader_main(dataset: Path) -> None:
    """Reads up to 50 batches of each split and prints the first one's shapes. Runs in the peer's interpreter."""
    expected = {
        **dict.fromkeys(("input_word_ids", "input_mask", "input_type_ids"), (SEQ_LENGTH, "int32")),
        **dict.fromkeys(("masked_lm_positions", "masked_lm_ids"), (PREDICTIONS, "int32")),
        "masked_lm_weights": (PREDICTIONS, "float32"),
        "next_sentence_labels": (1, "int32"),
    }
    splits = sorted({shard.parent.parent for shard in dataset.glob("*/copy-*/*.tfrecord")})
    if not splits:
        raise ValueError(f"no shards match {dataset}/SPLIT/copy-*/*.tfrecord")
    for split in splits:
        examples = 0
        batches = _load_batches(f"{split}/copy-*/*.tfrecord")
        for number, tensors in enumerate(itertools.islice(batches, 50)):
            batch = {name: tensor.numpy() for name, tensor in tensors.items()}
            _check_batch(batch, expected)
            examples += len(batch["input_word_ids"])
            if number == 0:
                print(f"{split.name}: first batch of tf-models-official {VERSION}'s pretrain_dataloader")
                print("\n".join(f"  {name:22} {batch[name].dtype.name:8} {batch[name].shape}" for name in expected))
        if not examples:
            raise ValueError(f"the loader gave no example of {split}")
        print(f"{split.name}: {examples} examples as expected")


def main() -> None:
    """Builds the environment, or checks a dataset with the peer's loader."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("environment").add_argument("work", type=Path)
    loader = verbs.add_parser("loader")
    loader.add_argument("dataset", type=Path)
    arguments = parser.parse_args()
    if arguments.verb == "environment":
        arguments.work.mkdir(parents=True, exist_ok=True)
        print(environment(arguments.work.resolve()))
    else:
        _loader_main(arguments.dataset)


if __name__ == "__main__":
    main()
