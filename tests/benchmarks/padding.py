"""Compare CPU seconds of `finetune`, `predict` and `embed` with a transformers loop that pads batches to their longest row.

Both sides have the same sizes (4 layers, 256 wide, vocabulary 30,522 or that of the given file; random weights), texts, batch
sizes and threads; float32, dropout 0.1 in training. Each side is a separate process; they take turns, in an order that is
reversed every round. The CPU time of all threads, user and system, is counted with and without importing the libraries. The
ratio printed is clozemill / transformers: below 1 is better.

    python -m tests.benchmarks.padding --hf-python HF_PYTHON --train in_domain_train.tsv --vocab vocab.txt
"""

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peer import quiet_environment
from tests.benchmarks.prepare import REPOSITORY

DEV = 64  # rows
RUN = """
import json, sys, time
import keras, tensorflow
import clozemill
from clozemill.trainers.finetuning import finetune
from clozemill.trainers.inference import embed, predict
start = time.process_time()
code = clozemill.main(sys.argv[1:])
print(json.dumps({"start": start, "all": time.process_time()}), flush=True)
sys.exit(code)
"""
MAKE = "import sys; from tests.benchmarks.padding import make_checkpoint; make_checkpoint(sys.argv[1])"
VERBS = {  # name: our options
    "finetune": ["--init", "init", "--task", "classify", "--train", "train.tsv", "--dev", "dev.tsv", "--epochs", "1",
                 "--output", "ours", "--no-tensorboard"],
    "predict": ["tuned", "--input", "texts.tsv", "--output", "ours/a.jsonl", "--no-progress"],
    "embed": ["init", "--input", "texts.tsv", "--output", "ours/a.parquet", "--no-progress"],
    "embed, mean": ["init", "--input", "texts.tsv", "--output", "ours/a.parquet", "--no-progress", "--pool", "mean"],
}  # fmt: skip


def make_checkpoint(folder: str) -> None:
    """Writes a checkpoint of random weights in the sizes of settings.json; run in a process of its own."""
    from clozemill.model.config import EncoderConfig
    from tests.trainers.finetune_cases import checkpoint

    encoder = EncoderConfig(**json.loads((Path(folder) / "settings.json").read_text())["encoder"])
    checkpoint(Path(folder) / "init", encoder=encoder, vocabulary=(Path(folder) / "vocab.txt").read_bytes())


def cola(path: Path) -> list[tuple[str, str]]:
    """(text, label) of CoLA's file, which has no header."""
    with open(path, encoding="utf-8") as file:
        return [(row[3], row[1]) for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("text\tlabel\n" + "".join(f"{text}\t{label}\n" for text, label in rows), "utf-8")


def lay_out(folder: Path, rows: list[tuple[str, str]], options: argparse.Namespace) -> None:
    """Create a folder with all files that both sides read."""
    folder.mkdir(parents=True)
    shutil.copy(options.vocab, folder / "vocab.txt")
    size = (folder / "vocab.txt").read_bytes().count(b"\n")
    encoder = {"vocab_size": size, "hidden_size": options.width, "num_hidden_layers": options.layers,
               "num_attention_heads": options.width // 64, "intermediate_size": 4 * options.width,
               "max_position_embeddings": 512}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps({"encoder": encoder, "max_seq_length": 128}))
    write_table(folder / "train.tsv", rows)
    write_table(folder / "dev.tsv", rows[:DEV])
    write_table(folder / "texts.tsv", rows)
    run([sys.executable, "-c", MAKE, str(folder)], folder, options)


def run(command: list[str], folder: Path, options: argparse.Namespace) -> str:
    """Runs a command in the folder; returns what it printed. Raises RuntimeError when it fails."""
    environment = quiet_environment() | {"OMP_NUM_THREADS": str(options.threads), "OMP_WAIT_POLICY": "passive"}
    environment |= {"TF_NUM_INTRAOP_THREADS": str(options.threads), "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"PYTHONPATH": str(REPOSITORY)} if command[0] == sys.executable else {}
    with open(folder / "log.txt", "a") as log:
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=log, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}: see {folder}/log.txt")
    return done.stdout


def ours(verb: str, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of our command: {"start", "all"}."""
    shutil.rmtree(options.work / "ours", ignore_errors=True)
    printed = run([sys.executable, "-c", RUN, verb.split(",")[0], *VERBS[verb]], options.work, options)
    if verb == "finetune" and not (options.work / "tuned").exists():
        (options.work / "ours").rename(options.work / "tuned")
    return json.loads(printed.splitlines()[-1])


def theirs(verb: str, options: argparse.Namespace) -> dict[str, float]:
    """CPU seconds of the peer."""
    script = Path(__file__).with_name("hf_tasks.py")
    printed = run([str(options.hf_python), str(script), verb, str(options.work), str(options.threads)], options.work, options)
    return json.loads(printed.splitlines()[-1])


def print_verb(verb: str, used: dict[str, list[dict[str, float]]]) -> None:
    """The medians and spreads of both sides, and the ratios."""
    medians = {}
    for side, rounds in used.items():
        whole, rest = [one["all"] for one in rounds], [one["all"] - one["start"] for one in rounds]
        medians[side] = statistics.median(whole), statistics.median(rest)
        spread = f"{min(rest):.1f} to {max(rest):.1f}"
        print(f"{verb:12} {side:12} {medians[side][0]:8.1f} CPU s, without imports {medians[side][1]:8.1f} ({spread})")
    ratios = [a / b for a, b in zip(medians["clozemill"], medians["transformers"], strict=True)]
    print(f"{verb:12} clozemill / transformers {ratios[0]:.2f}, without imports {ratios[1]:.2f}", flush=True)


def main() -> None:
    """Runs all verbs in turns and prints the ratios."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hf-python", type=Path, required=True, help="an interpreter that has transformers and torch")
    parser.add_argument("--train", type=Path, required=True, help="CoLA's in_domain_train.tsv")
    parser.add_argument("--vocab", type=Path, required=True, help="a vocab.txt")
    parser.add_argument("--work", type=Path, default=cache / "clozemill-bench" / "padding", help="emptied at the start")
    parser.add_argument("--rows", type=int, default=8551)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(VERBS), default=list(VERBS), help="predict needs finetune")
    options = parser.parse_args()
    shutil.rmtree(options.work, ignore_errors=True)
    rows = cola(options.train)[: options.rows]
    lay_out(options.work, rows, options)
    sides = {"clozemill": ours, "transformers": theirs}
    print(f"{len(rows):,} rows; medians of {options.rounds} rounds (lowest to highest)", flush=True)
    for verb in sorted(options.only, key=list(VERBS).index):
        used: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in list(sides) if number % 2 else reversed(sides):
                used[side].append(sides[side](verb, options))
        print_verb(verb, used)


if __name__ == "__main__":
    main()
