"""`clozemill finetune` as it is run: each kind of task is learnt, runs go on where they stopped, mistakes are one sentence."""

import contextlib
import io
import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import clozemill
from clozemill.pipelines.command_line.options import from_values
from clozemill.trainers.engines.engine import COLUMNS
from clozemill.trainers.engines.tensorflow_engine import TensorFlowEngine
from clozemill.trainers.finetuning import finetune
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.finetuning.dev_evaluation import DevEvaluation
from clozemill.trainers.training import checkpoints, pretrained
from clozemill.trainers.training.loop import Loop
from clozemill.trainers.training.run_page import RunPage
from tests.trainers import finetune_cases as finetuning
from tests.trainers import models

QUICK = (
    "--learning-rate",
    "3e-3",
    "--batch-size",
    "16",
    "--log-steps",
    "4",
    "--no-tensorboard",
    "--max-seq-length",
    "32",
    "--eval-steps",
    "1000",
)  # only at the end, since every evaluation that is the best writes a checkpoint
HELD_OUT = "no --dev: 6 of the 64 examples are held out to evaluate on (--dev-fraction 0.1, --dev-seed 0)"
ONE_STEP = ("--epochs", "1", "--learning-rate", "0")
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finetuning.checkpoint(tmp_path_factory.mktemp("init") / "checkpoint")


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`init` with one layer instead of two, for tests of runs: tracing a step takes half the time."""
    one = replace(finetuning.ENCODER, num_hidden_layers=1)
    return finetuning.checkpoint(tmp_path_factory.mktemp("shallow") / "checkpoint", encoder=one)


def run(init: Path, task: str, files: tuple[Path, Path], output: Path, *more: object, code: int = 0) -> None:
    paths = ("--init", init, "--task", task, "--train", files[0], "--dev", files[1], "--output", output)
    assert clozemill.main(["finetune", *map(str, paths), *QUICK, *map(str, more)]) == code


def best(output: Path) -> dict[str, Any]:
    return checkpoints.find(str(output), "best").index


def rows(output: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the rates."""
    found = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in RATES} for row in found]


def test_classification_is_learnt(shallow: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(shallow, "classify", finetuning.classification(tmp_path), tmp_path / "ft", "--epochs", "12")
    found = best(tmp_path / "ft")
    assert found["task"]["labels"] == ["bad", "good"] and found["eval"]["accuracy"] == found["eval"]["macro_f1"] == 1.0
    assert "best: accuracy 1.0000, macro_f1 1.0000, at step" in capsys.readouterr().out
    assert (tmp_path / "ft/curves.png").stat().st_size > 10_000 and (tmp_path / "ft/finetune.yaml").exists()
    assert clozemill.main(["predict", str(tmp_path / "ft"), "--text", "the old river is bad"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["label"] == "bad" and answer["probabilities"]["bad"] > 0.9


@pytest.mark.slow
def test_several_labels_are_learnt_and_none_too(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """With rare labels weighed, and a share held out; `predict` gives what its threshold lets through."""
    lines = []
    for text, label in finetuning.sentences(96):
        labels = ([label] if label == "good" else []) + (["water"] if "river" in text else [])
        lines.append({"text": text, "labels": labels})
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["finetune", "--init", init, "--task", "multilabel", "--train", path, "--output", tmp_path / "ft", *QUICK]
    words += ["--epochs", "15", "--class-weights", "balanced", "--threshold", "0.6"]
    assert clozemill.main(list(map(str, words))) == 0
    told = capsys.readouterr().out
    found = best(tmp_path / "ft")
    good, water = (found["class_weights"][name] for name in ("good", "water"))
    assert f"class weights: good {good:.4g}, water {water:.4g}\n" in told and "warning" not in told
    assert found["task"]["labels"] == ["good", "water"] and found["task"]["threshold"] == 0.6
    assert (good, water) == pytest.approx((1, 1), abs=0.2) and found["held_out"]["dev"] == 10
    assert found["eval"]["micro_f1"] > 0.9 and found["eval"]["subset_accuracy"] > 0.8
    texts = finetuning.table(tmp_path / "texts.tsv", [("the old river is good",), ("a bad mill",)], "text")
    output = tmp_path / "answers.jsonl"
    assert clozemill.main(["predict", str(tmp_path / "ft"), "--input", str(texts), "--output", str(output)]) == 0
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["labels"] for answer in answers] == [["good", "water"], []]
    assert set(answers[0]["probabilities"]) == {"good", "water"}
    capsys.readouterr()
    assert clozemill.main(["predict", str(tmp_path / "ft"), "--text", "a bad mill", "--threshold", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["labels"] == ["good", "water"]


@pytest.mark.slow
def test_a_pair_s_second_text_decides(init: Path, tmp_path: Path) -> None:
    """MRPC's columns: both texts are seen, each as what it is; the first one says the opposite half of the time."""
    stream = np.random.default_rng(3)
    lines = [
        (label, 1, 2, f"the mill is {('bad', 'good')[int(stream.integers(2))]}", f"a river is {('bad', 'good')[label]}")
        for label in (stream.integers(0, 2, 160).tolist())
    ]
    header = ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String")
    files = (
        finetuning.table(tmp_path / "a.tsv", lines[:128], *header),
        finetuning.table(tmp_path / "b.tsv", lines[128:], *header),
    )
    run(init, "mrpc", files, tmp_path / "ft", "--epochs", "20")
    assert best(tmp_path / "ft")["eval"]["binary_f1"] > 0.9
    assert best(tmp_path / "ft")["task"]["labels"] == ["not_equivalent", "equivalent"]


@pytest.mark.slow
def test_regression_is_learnt(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    lines = [(0, text, text, (0.0, 4.0)[label == "good"]) for text, label in finetuning.sentences(96)]
    header = ("index", "sentence1", "sentence2", "score")
    files = (
        finetuning.table(tmp_path / "a.tsv", lines[:64], *header),
        finetuning.table(tmp_path / "b.tsv", lines[64:], *header),
    )
    run(init, "stsb", files, tmp_path / "ft", "--epochs", "20")
    assert best(tmp_path / "ft")["eval"]["pearson"] > 0.9
    assert (
        "%"
        not in next(line for line in capsys.readouterr().out.splitlines() if "task" in line and "step" in line).split("lr")[0]
    )


TAGS = {"mill": "B-LOC", "river": "I-LOC", "good": "B-PER"}


def conll(path: Path, count: int, seed: int) -> Path:
    lines = []
    for text, _ in finetuning.sentences(count, seed):
        lines += [f"{word} x {TAGS.get(word, 'O')}" for word in text.split()] + [""]
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
@pytest.mark.parametrize("how", [(), ("--frozen", "--head", "bilstm", "--layers=-1,-2,-3")], ids=["whole", "bilstm"])
def test_tags_are_learnt(init: Path, tmp_path: Path, how: tuple) -> None:
    files = conll(tmp_path / "train.txt", 64, 0), conll(tmp_path / "dev.txt", 20, 1)
    run(init, "conll", files, tmp_path / "ft", "--epochs", "30" if how else "12", *how)
    found = best(tmp_path / "ft")
    assert found["eval"]["entity_f1"] > 0.95 and found["task"]["labels"][0] == "O" and len(found["task"]["labels"]) == 9
    begun, ended = pretrained.read(str(init)).weights, pretrained.read(str(tmp_path / "ft")).weights
    same = [np.array_equal(begun[name], ended[name]) for name in ended if name.startswith("encoder/layer_")]
    assert all(same) if how else not any(same)


def squad(path: Path, count: int, seed: int) -> Path:
    questions = []
    for number, (text, _) in enumerate(finetuning.sentences(count, seed)):
        context = f"{text} key {('mill', 'bread')[number % 2]} ."
        answer = {"text": f"key {context.split()[-2]}", "answer_start": context.index("key")}
        asked = {"id": str(number), "question": "which word ?", "answers": [] if number % 5 == 0 else [answer]}
        if number % 5 == 0:
            context = context.replace("key", "old")
        questions.append({"context": context, "qas": [asked]})
    path.write_text(json.dumps({"version": "v2.0", "data": [{"title": "", "paragraphs": questions}]}))
    return path


@pytest.mark.slow
def test_spans_are_learnt_and_none_is_an_answer(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = squad(tmp_path / "train.json", 100, 0), squad(tmp_path / "dev.json", 20, 1)
    run(init, "squad2", files, tmp_path / "ft", "--epochs", "25", "--doc-stride", "8", "--max-seq-length", "16")
    found = best(tmp_path / "ft")
    assert found["task"]["no_answer"] and found["eval"]["exact_match"] > 0.9 and found["eval"]["f1"] > 0.9
    capsys.readouterr()
    asked = ("--text", "which word ?", "--text-pair", "the river is good key bread .")
    assert clozemill.main(["predict", str(tmp_path / "ft"), *asked]) == 0
    assert json.loads(capsys.readouterr().out)["answer"] == "key bread"


@pytest.mark.slow
def test_a_killed_run_resumes_bit_identically(shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, order of the examples and evaluations are those of a run that was never stopped."""
    files = finetuning.classification(tmp_path)
    settings = ("--epochs", "3", "--checkpoint-steps", "3", "--eval-steps", "4", "--steps-per-call", "2")
    settings += ("--keep-checkpoints", "9")
    run(shallow, "classify", files, tmp_path / "whole", *settings)
    saved = []

    def save(self: Loop, figures: dict | None = None) -> None:
        if len(saved) == 3:
            raise KeyboardInterrupt
        saved.append(original(self, figures))

    original = Loop._save
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Loop, "_save", save)
        begun = pretrained.read(str(shallow))
        paths = ["--init", shallow, "--train", files[0], "--dev", files[1], "--output", tmp_path / "killed"]
        words = ["finetune", "--task", "classify", *map(str, paths), *QUICK, *settings]
        arguments = clozemill.parser().parse_args(words)
        finetune.run(clozemill.options.resolve(FinetuneConfig, arguments), begun)
    assert 0 < checkpoints.find(str(tmp_path / "killed")).step < 12
    run(shallow, "classify", files, tmp_path / "killed", *settings)
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")
    whole, killed = (checkpoints.weights(checkpoints.find(str(tmp_path / name))) for name in ("whole", "killed"))
    assert all(whole[name].tobytes() == killed[name].tobytes() for name in whole)


def test_a_run_without_improvement_stops_and_stays_stopped(
    shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The second of four evaluations is as good as the first: training steps that change nothing replace the real ones."""
    steps = SimpleNamespace(run=lambda first, count: (np.ones((count, len(COLUMNS)), np.float32), True))
    monkeypatch.setattr(TensorFlowEngine, "trainer", lambda *given: steps)
    files, output = finetuning.classification(tmp_path, 16, 8), tmp_path / "ft"
    settings = ("--epochs", "4", "--patience", "1", "--eval-steps", "1", "--log-steps", "1")
    for told in ("stopped early at step 2 of 4: no improvement in the last 1", "stopped early at step 2: nothing to do"):
        run(shallow, "classify", files, output, *settings)
        assert told in capsys.readouterr().out
        assert [row["step"] for row in rows(output)] == [1, 1, 2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("signalled", [False, True])
def test_a_run_that_stops_early_does_so_after_a_signal_too_and_stays_stopped(
    signalled: bool, shallow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """Without --dev. Nothing is learnt, so the second and the third evaluation bring nothing, and the run ends. A signal at the
    step of the second one delays that evaluation, and loses none.
    """
    train, output = finetuning.classification(tmp_path)[0], tmp_path / "ft"

    def begin(code: int = 0) -> str:
        words = ["finetune", "--init", shallow, "--task", "classify", "--train", train, "--output", output, *QUICK]
        words += ["--learning-rate", "0", "--epochs", "9", "--patience", "2", "--eval-steps", "4"]
        assert clozemill.main([*map(str, words)]) == code
        return capsys.readouterr().out

    if signalled:
        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_stopped", lambda self: "SIGTERM" if self.step == 8 else "")
            told = begin(code=75)
        assert HELD_OUT in told
        found = checkpoints.find(str(output)).index
        assert found["eval"] is None and found["stopping"]["waited"] == 0
    told = begin()
    assert signalled or HELD_OUT in told
    assert checkpoints.find(str(output)).index["held_out"] == {"fraction": 0.1, "seed": 0, "train": 58, "dev": 6}
    assert "stopped early at step 12 of 33: no improvement in the last 2 evaluations (--patience)" in told
    assert "baseline: accuracy 0.5000, macro_f1 0.3333 (always 'bad', the most frequent label)" in told
    assert [(row["step"], row.get("split", "train")) for row in rows(output)] == [
        (step, split) for step in (4, 8, 12) for split in ("train", "eval")
    ]
    assert checkpoints.find(str(output)).index["stopping"]["waited"] == 2
    assert "stopped early at step 12: nothing to do" in begin()


@pytest.mark.slow
def test_the_page_shows_the_answers_of_the_best_checkpoint(
    init: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three evaluations counts as the best; the process is stopped right after it, before a page is drawn."""
    train, dev = finetuning.classification(tmp_path)
    output, figures = tmp_path / "ft", DevEvaluation.figures
    more, evaluated = ("--epochs", "6", "--eval-steps", "8", "--steps-per-call", "1"), []

    def best_at_first(self: DevEvaluation) -> dict[str, Any]:
        evaluated.append(figures(self))
        return evaluated[-1] | {"criterion": float(len(evaluated))}

    with monkeypatch.context() as patched:
        patched.setattr(DevEvaluation, "figures", best_at_first)
        patched.setattr(RunPage, "write", lambda *_: None)
        patched.setattr(Loop, "_stopped", lambda self: "SIGTERM" if self.step == 9 else "")
        run(init, "classify", (train, dev), output, *more, code=75)
    with monkeypatch.context() as patched:
        patched.setattr(DevEvaluation, "figures", best_at_first)
        run(init, "classify", (train, dev), output, *more)
    assert checkpoints.find(str(output), "best").step == 8 and len(evaluated) == 3
    page = (output / "report.html").read_text("utf-8")
    assert page.count("Of the best checkpoint, at step 8.") == 2 and "with the highest accuracy, which later" in page
    (table, *_) = json.loads((output / "report.json").read_text())["exhibits"][0]["tables"]
    assert clozemill.main(["predict", str(output), "--input", str(dev), "--output", str(tmp_path / "answers.jsonl")]) == 0
    given = [json.loads(line)["label"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    expected = [line.split("\t")[1] for line in dev.read_text().splitlines()[1:]]
    assert evaluated[0]["accuracy"] < evaluated[-1]["accuracy"]
    counts = Counter(zip(expected, given, strict=True))
    assert table["rows"] == [[name, *(counts[name, other] for other in ("bad", "good"))] for name in ("bad", "good")]


@pytest.mark.slow
def test_open_options_are_chosen_printed_and_kept(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    train, dev = finetuning.classification(tmp_path, 16, 8)
    words = ["finetune", "--init", init, "--task", "classify", "--train", train, "--dev", dev, "--max-seq-length", "32"]
    words = [*map(str, [*words, "--no-tensorboard", "--log-steps", "20", "--eval-steps", "20", "--output", tmp_path / "ft"])]
    assert clozemill.main(words) == 0
    line = "chosen for you: batches of 16, 20 epochs for only 16 training rows, learning rate 0.001 for an encoder 32 wide"
    path = tmp_path / "ft/run.json"
    about = json.loads(path.read_text())
    chosen = {"learning_rate": 1e-3, "epochs": 20.0, "batch_size": 16}
    assert line in capsys.readouterr().out
    assert about["chosen"] == chosen
    for part in ("config", "identity"):
        assert {name: about[part][name] for name in chosen} == chosen
        about[part]["learning_rate"] = 2e-3  # as if another version had chosen it
    path.write_text(json.dumps(about))
    assert clozemill.main(words) == 0
    told = capsys.readouterr().out
    assert "peak learning rate 0.002" in told and "nothing to do" in told and "chosen for you" not in told


@pytest.fixture(scope="module")
def untrained(shallow: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a run of one step at rate 0, in `ft`, and of its files; and what it printed. Read it only."""
    folder, printed = tmp_path_factory.mktemp("untrained"), io.StringIO()
    with contextlib.redirect_stdout(printed):
        run(shallow, "classify", finetuning.classification(folder, 16, 8), folder / "ft", *ONE_STEP)
    return folder, printed.getvalue()


def test_a_result_that_is_no_better_than_the_baseline_comes_with_advice(untrained: tuple[Path, str]) -> None:
    [line] = [line for line in untrained[1].splitlines() if "is no better than without looking" in line]
    assert line.startswith("warning: accuracy 0.") and line.endswith(
        ": give a higher --learning-rate, such as 0.001 for this encoder"
    )


def test_another_run_in_the_same_folder_is_refused(
    shallow: Path, tmp_path: Path, untrained: tuple[Path, str], capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(untrained[0], tmp_path, dirs_exist_ok=True)
    files = finetuning.classification(tmp_path, 16, 8)
    path = tmp_path / "ft/run.json"
    older = json.loads(path.read_text())
    for name in ("patience", "dev_fraction", "class_weights"):  # options that an earlier version hadn't
        del older["identity"][name]
    path.write_text(json.dumps(older))
    run(shallow, "classify", files, tmp_path / "ft", *ONE_STEP)
    assert "nothing to do" in capsys.readouterr().out
    other = finetuning.checkpoint(tmp_path / "other", seed=2)
    run(other, "classify", files, tmp_path / "ft", *ONE_STEP, code=2)
    assert "was started with init" in capsys.readouterr().err
    finetuning.table(files[0], finetuning.sentences(15), "text", "label")
    run(shallow, "classify", files, tmp_path / "ft", *ONE_STEP, code=2)
    assert "was started with train" in capsys.readouterr().err


@pytest.mark.slow
def test_several_seeds_and_a_sweep_end_in_a_table(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = finetuning.classification(tmp_path, 16, 8)
    grid = ("--sweep", "learning_rate=1e-9,3e-3", "epochs=6", "--seeds", "2", "--no-tensorboard")
    run(init, "classify", files, tmp_path / "ft", *grid)
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("settings", "learning_rate "))]
    assert [line.split()[0] for line in table] == ["settings", "learning_rate", "learning_rate"] and "+-" in table[1]
    summary = json.loads((tmp_path / "ft/sweep.json").read_text())
    assert len(summary["runs"]) == 4 and summary["best"].startswith("learning_rate-0.003_epochs-6.0_seed-")
    scores = [row["accuracy"] for name, row in summary["runs"].items() if name.startswith("learning_rate-0.003")]
    assert f"{np.mean(scores):.4f} +- {np.std(scores, ddof=1):.4f}" in table[2]
    assert pretrained.read(str(tmp_path / "ft")).name.startswith(str(tmp_path / "ft" / summary["best"]))
    run(init, "classify", files, tmp_path / "ft", *grid)
    assert capsys.readouterr().out.count("nothing to do") == 4


@pytest.mark.slow
def test_a_sweep_leaves_out_what_diverges(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    files = finetuning.classification(tmp_path, 16, 8)
    run(init, "classify", files, tmp_path / "ft", "--sweep", "learning_rate=1e30,1e-3", "--no-tensorboard")
    found = capsys.readouterr()
    assert "warning: the loss became NaN or infinite in learning_rate-1e+30_seed-0: left out\n" in found.err
    assert list(json.loads((tmp_path / "ft/sweep.json").read_text())["runs"]) == ["learning_rate-0.001_seed-0"]
    run(init, "classify", files, tmp_path / "all", "--sweep", "learning_rate=1e30", "--no-tensorboard", code=1)
    assert not (tmp_path / "all/sweep.json").exists()


@pytest.mark.slow
def test_from_scratch_begins_with_other_weights(init: Path, tmp_path: Path) -> None:
    files = finetuning.classification(tmp_path, 16, 8)
    for name, more in (("scratch", ("--from-scratch",)), ("init", ())):
        run(init, "classify", files, tmp_path / name, "--epochs", "1", "--learning-rate", "0", *more)
    begun = pretrained.read(str(init)).weights
    for name, same in (("init", True), ("scratch", False)):
        ended = pretrained.read(str(tmp_path / name)).weights
        assert (
            np.array_equal(begun["encoder/layer_0/attention/query/kernel"], ended["encoder/layer_0/attention/query/kernel"])
            == same
        )


def test_a_sweep_over_a_switch() -> None:
    config = from_values(FinetuneConfig, {"sweep": ("frozen=true,false",), "task": "classify"})
    assert finetune._grid(config) == [{"frozen": True}, {"frozen": False}]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("--train", "LABEL"), "bad-label.tsv, line 3: its label 'fine' is not one of bad, good"),
        (("--train", "EMPTY"), "empty.tsv, line 2: its text is empty"),
        (("--text-column", "sentence"), "no column 'sentence' (columns: text, label): give one of these with --text-column"),
        (("--init", "FOREIGN"), "is not a SavedModel of clozemill export"),
        (("--init", "HF"), "is a Hugging Face folder: convert it with clozemill import first"),
        (("--init", "NOTHING"), "nothing doesn't exist: give the pretrained model"),
        (("--init", "VOCABULARY"), "has 21 tokens, but the model's embedding 20"),
        (("--metric", "bleu"), "for --task classify; choose from accuracy, macro_f1"),
        (("--max-seq-length", "64"), "accepts at most 32 tokens"),
        (("--init", "CAUSAL"), "has causal attention"),
        (("--layers=-4",), "has layers 0 (the embeddings) to 2"),
        (("--layers=last",), "is not a list of layers"),
        (("--head", "bilstm"), "use it with conll or tags"),
        (("--epochs", "0"), "--epochs"),
        (("--sweep", "learning=1"), "did you mean learning_rate?"),
        (("--sweep", "metric=accuracy,macro_f1"), "runs that differ in metric have results that can't be compared"),
        (("--task", "stsb", "--labels", "a,b"), "--labels: --task stsb has no labels to name: leave it out"),
        (("--sweep", "batch_size=16,none"), "--sweep batch_size is 'none': give a whole number"),
        (("--sweep", "batch_size=16", "batch-size=32"), "--sweep names batch_size twice: give all its values in one"),
        (("--sweep", "epochs=1,0"), "--epochs is 0: give a number above 0"),
        (("--sweep", "frozen=true,maybe"), "--sweep frozen is 'maybe': give true or false"),
        (("--labels", "good"), "its label 'bad' is not one of good"),
        (("--threshold", "0.2"), "--threshold are for texts with several labels: give --task multilabel"),
        (("--class-weights", "fine=2"), "unknown label 'fine' in --class-weights; choose from bad, good"),
        (("--class-weights", "heavy"), "--class-weights 'heavy': give none, balanced, or LABEL=WEIGHT"),
        (("--task", "stsb", "--class-weights", "balanced"), "--task stsb has no labels to weight"),
        (("--task", "multilabel", "--label-columns", "a", "--labels", "a"), "--label-columns names the labels"),
        (("--task", "multilabel"), "no column 'labels' (columns: text, label): give one of these with --label-column"),
        (("--dev-fraction", "0.2"), "--dev can't be combined with --dev-fraction"),
        (("--min-delta", "0.1"), "--min-delta has no effect without --patience"),
    ],
)
def test_a_mistake_is_one_sentence(init: Path, tmp_path: Path, capsys: pytest.CaptureFixture, change: tuple, told: str) -> None:
    files = finetuning.classification(tmp_path, 8, 8)
    finetuning.table(tmp_path / "bad-label.tsv", [("a mill", "good"), ("the mill", "fine")], "text", "label")
    finetuning.table(tmp_path / "empty.tsv", [(" ", "good"), ("the mill", "bad")], "text", "label")
    for name in ("foreign", "hf"):
        (tmp_path / name).mkdir()
    (tmp_path / "foreign/saved_model.pb").write_bytes(b"")
    (tmp_path / "hf/config.json").write_text("{}")
    if "CAUSAL" in change:
        finetuning.checkpoint(tmp_path / "causal", encoder=replace(finetuning.ENCODER, attention="causal"))
    shutil.copytree(init, tmp_path / "vocabulary")
    with open(tmp_path / "vocabulary/vocab.txt", "a") as file:
        file.write("more\n")
    size = (tmp_path / "vocabulary/vocab.txt").stat().st_size
    models.alter(tmp_path / "vocabulary", lambda index: index["files"].update({"vocab.txt": size}))
    models.alter(tmp_path / "vocabulary", lambda index: index["vocabulary"].pop("sha256"))
    paths = {"LABEL": "bad-label.tsv", "EMPTY": "empty.tsv"} | {
        name: name.lower() for name in ("FOREIGN", "HF", "NOTHING", "VOCABULARY", "CAUSAL")
    }
    given = [str(tmp_path / paths[word]) if word in paths else word for word in change]
    more = ["--labels", "bad,good"] if "LABEL" in change else []
    run(init, "classify", files, tmp_path / "ft", *given, *more, code=2)
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1 and error.startswith("clozemill: ")
    assert not (tmp_path / "ft").exists()


@pytest.mark.slow
def test_a_savedmodel_is_as_good_a_beginning_as_its_checkpoint(init: Path, tmp_path: Path) -> None:
    """The same digest, so that each can resume a run of the other; the checkpoint itself is no longer needed."""
    files = finetuning.classification(tmp_path, 16, 8)
    assert clozemill.main(["export", str(init), "--output", str(tmp_path / "out"), "--formats", "savedmodel"]) == 0
    moved = tmp_path / "moved"
    shutil.move(tmp_path / "out/savedmodel", moved)
    run(init, "classify", files, tmp_path / "ft", "--epochs", "1")
    run(moved, "classify", files, tmp_path / "other", "--epochs", "1")
    one, other = (checkpoints.weights(checkpoints.find(str(tmp_path / name))) for name in ("ft", "other"))
    assert one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)
    run(moved, "classify", files, tmp_path / "ft", "--epochs", "1")


TWO_DEVICES = """
import sys, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import clozemill
sys.exit(clozemill.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_devices_learn_what_one_does(init: Path, tmp_path: Path) -> None:
    """The same losses and scores to 1e-5, with rows of a word or two whose weights differ between the devices."""
    files = conll(tmp_path / "train.txt", 40, 0), conll(tmp_path / "dev.txt", 21, 1)
    still = ("--epochs", "3", "--dropout", "0", "--attention-dropout", "0")
    run(init, "conll", files, tmp_path / "one", *still)
    paths = ("--init", init, "--train", files[0], "--dev", files[1], "--output", tmp_path / "two")
    words = ["finetune", "--task", "conll", *map(str, paths), *QUICK, *still, "--strategy", "mirrored"]
    done = subprocess.run([sys.executable, "-c", TWO_DEVICES, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "on 2 x CPU" in done.stdout, done.stderr
    for one, two in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert [one.pop(name, "") for name in ("split", "remarks")] == [two.pop(name, "") for name in ("split", "remarks")]
        assert one == pytest.approx(two, rel=1e-5, abs=1e-6)
