"""`clozemill demo`: run all commands from a corpus to an encoder, a classifier and a prediction, as a user would.

clozemill demo --output demo-out --text "The windmill was repaired by an engineer."
"""

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources

from clozemill.pipelines.command_line.lazy_import import check_train
from clozemill.pipelines.command_line.options import OUTPUT, RUNNING, option, to_yaml
from clozemill.pipelines.command_line.overwriting import OverwriteOption, already_exists
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem, locks

CORPUS = "pipelines/data/demo-corpus.xml"
EXAMPLES = "trainers/data/demo-{}.tsv"  # sentences about nature, technology and culture
MARK = ".clozemill-demo"  # written first, so that a demo only replaces what an earlier demo wrote
MADE = ("dataset", "run", "exported", "fine-tuned")
_WRITING = ("vocab", "prepare", "pretrain", "export", "finetune")  # commands that know which of their files they may replace


@dataclass(frozen=True)
class DemoConfig(OverwriteOption):
    """`clozemill demo`"""

    output: str = option("demo-out", "the output folder", group=OUTPUT)
    vocab_size: int = option(4000, "number of entries in the demo's vocabulary", low=16, high=1 << 20)
    seed: int = option(7, "random seed", low=0, high=2**63 - 1)
    text: str = option("The old bridge was repaired by an engineer.", "sentence that the fine-tuned model classifies")
    progress: bool = option(True, "show a progress bar", group=RUNNING)


def _begin(folder: str, overwrite: bool) -> bool:
    """Mark the folder as that of a demo; return whether it has files to overwrite. Raises UserError if it has others."""
    mark = filesystem.join(folder, MARK)
    others = [name for name in filesystem.names_below(folder) if name != locks.FOLDER]
    if others and not filesystem.exists(mark):
        raise UserError(
            f"{folder} has files, but no demo created it (no {MARK} in it): nothing was removed; give a new folder as --output"
        )
    if others and not overwrite:
        raise already_exists(folder)
    filesystem.write_bytes(mark, b"clozemill demo made this folder; with --overwrite, it replaces what it wrote.\n")
    return bool(others)


def steps(config: DemoConfig) -> list[tuple[str, list[str]]]:
    """Return the titles and command lines of the demo."""
    package = resources.files("clozemill")
    corpus, train, dev = (str(package / path) for path in (CORPUS, EXAMPLES.format("train"), EXAMPLES.format("dev")))
    vocab, dataset, run, exported, tuned = (filesystem.join(config.output, name) for name in ("vocab.txt", *MADE))
    seed, progress = ["--seed", str(config.seed)], [] if config.progress else ["--no-progress"]
    return [
        (
            "vocab: count the words of the corpus and learn WordPieces",
            ["vocab", "--input", corpus, "--output", vocab, "--vocab-size", str(config.vocab_size), *progress],
        ),
        (
            "prepare: turn articles into shards of masked sentence pairs",
            ["prepare", "--input", corpus, "--vocab", vocab, "--output", dataset, "--masking", "whole_word",
             "--eval-fraction", "0.1", "--provenance", *seed, *progress],
        ),
        ("verify: read every record back", ["verify", dataset, *progress]),
        ("inspect: show examples as the model sees them", ["inspect", dataset, "--limit", "3"]),
        (
            "pretrain: train a tiny encoder on these shards",
            ["pretrain", "--recipe", "demo", "--data", dataset, "--output", run, *seed],
        ),
        ("evaluate: measure its predictions on held-out documents", ["evaluate", run, "--data", dataset]),
        (
            "export: write TensorFlow, Hugging Face and Keras models, and compare each with the checkpoint",
            ["export", run, "--output", exported],
        ),
        (
            "finetune: classify sentences as nature, technology or culture",
            ["finetune", "--init", run, "--output", tuned, "--task", "classify", "--train", train, "--dev", dev,
             *seed],
        ),
        (f"predict: {config.text}", ["predict", tuned, f"--text={config.text}"]),
    ]  # fmt: skip


def program() -> str:
    """Return how a shell starts this program: its name, or its path where PATH has no such name, as after `make demo`."""
    path = sys.argv[0]
    return "clozemill" if shutil.which("clozemill") or os.path.basename(path) != "clozemill" else shlex.quote(path)


def main(config: DemoConfig, run: Callable[[list[str]], int]) -> int:
    """Run the commands of the demo one after another, and print each first.

    Args:
        run: runs a command line, given without the program's name, and returns its exit code.
    Returns the exit code of the first command that fails, else 0.
    """
    check_train()
    os.makedirs(config.output, exist_ok=True)
    with locks.locked(f"{config.output}/{locks.FOLDER}", f"another demo is writing to {config.output}: wait for it to end"):
        overwrites = _begin(config.output, config.overwrite)
        for title, words in steps(config):
            words = [*words, "--overwrite"] if overwrites and words[0] in _WRITING else words
            print(f"\n== {title}\n$ clozemill {shlex.join(words)}", flush=True)
            if code := run(words):
                return code
        filesystem.write_bytes(filesystem.join(config.output, "demo.yaml"), to_yaml(config).encode())
    tuned = filesystem.join(config.output, "fine-tuned")
    dataset, other = (filesystem.join(config.output, name) for name in (MADE[0], "modern-run"))
    print(f'\nNext: {program()} predict {tuned} --text "Your sentence."; then run the same commands on your own corpus.')
    print(
        "A modern encoder learns more in as many steps (masked LM loss on the eval split about 5.9 instead of 6.5): "
        f"{program()} pretrain --recipe modern --steps 500 --data {dataset} --output {other}"
    )
    return 0
