"""`clozemill pretrain` and `evaluate` as they are run: what a run leaves, what it refuses, and how it stops."""

import contextlib
import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import tensorflow as tf
import yaml

import clozemill
from clozemill.model.config import PRESETS
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.data import prepared_dataset
from clozemill.trainers.data.input_pipeline import EvalBatches, TrainReader
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.engines import tensorflow_engine, train_state
from clozemill.trainers.pretraining import pretrain as pretraining
from clozemill.trainers.pretraining import pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Phase
from clozemill.trainers.training import checkpoints, pretrained, run_folder, run_page
from clozemill.trainers.training.loop import Loop
from tests.slow import mostly_slow
from tests.trainers import datasets, models, saved

pytestmark = pytest.mark.usefixtures("one_layer")
TINY = ["--preset", "tiny", "--max-position-embeddings", "64", "--batch-size", "8", "--log-steps", "1", "--no-tensorboard",
        "--initializer-range", "0.02", "--weight-decay", "0.01", "--dropout", "0.1", "--attention-dropout", "0.1"]  # fmt: skip
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")


def pretrain(run: Path, *arguments: object, code: int = 0) -> None:
    assert clozemill.main(["pretrain", *TINY, "--output", str(run), *map(str, arguments)]) == code


def rows(run: Path, split: str = "train") -> list[dict[str, Any]]:
    """metrics.jsonl's entries of a split."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row.get("split", "train") == split]


def figures(run: Path) -> list[dict[str, Any]]:
    """All of metrics.jsonl but the rates."""
    return [{name: row[name] for name in row if name not in RATES} for row in rows(run) + rows(run, "eval")]


def checkpoint(run: Path, step: int) -> Path:
    return run / f"checkpoints/step-{step:08d}"


def bits(run: Path, step: int) -> dict[str, bytes]:
    return saved.bits(checkpoint(run, step))


def forget(run: Path, copy: Path, step: int) -> Path:
    """A copy of a run as it was when `step` was saved, but for metrics.jsonl, which had gone on."""
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").iterdir():
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    return copy


def prepared(folder: Path, corpus: str, vocab: str, *arguments: str) -> Path:
    always = ["--num-groups", "3", "--eval-fraction", "0.2", "--seed", "7", "--no-progress"]
    paths = ["--input", corpus, "--vocab", vocab, "--output", str(folder)]
    assert clozemill.main(["prepare", *paths, *always, *arguments]) == 0
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory, demo_corpus: str, demo_vocab: str) -> Path:
    """The demo corpus in sequences of 32."""
    return prepared(tmp_path_factory.mktemp("short") / "short-32", demo_corpus, demo_vocab, "--max-seq-length", "32")


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, demo_corpus: str, demo_vocab: str) -> Path:
    """The demo corpus in sequences of 64, with the same vocabulary."""
    return prepared(tmp_path_factory.mktemp("long") / "long-64", demo_corpus, demo_vocab, "--max-seq-length", "64")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sequences of 12 random tokens of 40: two copies of four shards."""
    folder = tmp_path_factory.mktemp("small")
    datasets.write(folder, [[20, 30, 25, 40]] * 2, [24])
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory, short: Path) -> tuple[Path, list[str]]:
    """A run's folder, with evaluations along the way, and every page that it wrote; drawing was always due. Read it only."""
    run, pages, write = tmp_path_factory.mktemp("trained") / "run", [], storage.write

    def noted(path: str, data: bytes, overwrite: bool = True) -> None:
        write(path, data, overwrite)
        if path.endswith("report.html"):
            pages.append(data.decode())

    saving = ["--checkpoint-steps", 7, "--keep-checkpoints", 2, "--eval-steps", 8]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(storage, "write", noted)
        patched.setattr(run_page.RunPage, "due", lambda self: True)
        pretrain(run, "--data", short, "--steps", 15, "--learning-rate", 2e-3, "--steps-per-call", 4, "--tensorboard", *saving)
    return run, pages


@pytest.fixture(scope="module")
def trained(drawn: tuple[Path, list[str]]) -> Path:
    return drawn[0]


# What a run says of its evaluations


def test_evaluations_that_can_t_be_made_are_refused_before_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Without being asked for they are a warning, as are too few examples."""
    none, few = (datasets.write(tmp_path / name, [[20]], sizes).folder for name, sizes in (("none", []), ("few", [9])))
    for flag in ("--eval-steps", "--eval-examples"):
        pretrain(tmp_path / "run", "--data", few, none, "--config", phases(tmp_path), flag, 2, code=2)
        assert f"{none} has no eval examples: prepare with a larger --eval-fraction, or leave {flag} out" in (
            capsys.readouterr().err
        )
    assert not (tmp_path / "run").exists()
    config = PretrainConfig(output=str(tmp_path / "run"), phases=(Phase(few, 1), Phase(none, 1)))
    pretraining.warn_of_few_examples(pretraining_run.plan_run(config))
    told = capsys.readouterr().err
    assert f"warning: {few} has only 9 eval examples, too few to compare runs; prepare with a larger" in told
    assert f"warning: {none} has no eval examples: nothing is evaluated, and the newest checkpoint counts as the best" in told


def test_the_last_lines_of_a_run(capsys: pytest.CaptureFixture) -> None:
    """Its best result beside that of word frequencies, and a warning if it is no better; nothing without an evaluation."""
    figures = {"masked_lm_loss": 6.5, "unigram_loss": 6.25, "remarks": ["it is no better"]}
    pretraining.conclude(checkpoints.Checkpoint("", {"step": 1200, "eval": figures}))
    told = "best: masked LM loss 6.5000 nats at step 1,200 (word frequencies alone: 6.2500)\nwarning: it is no better\n"
    assert capsys.readouterr().out == told
    pretraining.conclude(checkpoints.Checkpoint("", {"step": 1200, "eval": None}))
    assert capsys.readouterr().out == ""


def phases(folder: Path) -> Path:
    path = folder / "phases.yaml"
    path.write_text("phases: [{steps: 1}, {steps: 1}]")
    return path


def test_a_run_that_knows_word_frequencies_alone_says_so(trained: Path) -> None:
    """15 steps: in its evaluations and its checkpoint."""
    row = rows(trained, "eval")[-1]
    index = json.loads((checkpoint(trained, 15) / "checkpoint.json").read_text())
    loss = row["masked_lm_loss"]
    compared = "no" if loss >= row["unigram_loss"] else "hardly"
    told = f"the masked LM loss of {loss:.3f} nats is {compared} better than that of word frequencies alone"
    assert row["remarks"][0].startswith(told) and index["eval"]["remarks"] == row["remarks"]


def test_initial_weights_are_those_of_the_seed(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that is stopped before its first step."""
    begun: list[train_state.TrainState] = []
    monkeypatch.setattr(Loop, "run", lambda self: begun.append(self.state) or 75)
    pretrain(tmp_path / "run", "--data", small, "--steps", 1, "--seed", 5, code=75)
    expected = train_state.make(begun[0].model.config, "mlm+nsp", "float32", 5)
    found, values = begun[0].weights(), expected.weights()
    assert found.keys() == values.keys() and all(np.array_equal(found[path], value) for path, value in values.items())


# What a run leaves


def test_the_run_s_folder(trained: Path, short: Path) -> None:
    names = {path.name for path in trained.iterdir()}
    assert names == {"run.json", "pretrain.yaml", "metrics.jsonl", "curves.png", "report.html", "report.json", "tensorboard",
                     "checkpoints"}  # fmt: skip
    told = json.loads((trained / "run.json").read_text())
    assert told["identity"]["phase 1"] == {
        "dataset": json.loads((short / "dataset.json").read_text())["digest"],
        "order": "of blocks",
        "steps": 15,
        "batch_size": 8,
        "learning_rate": 0.002,
        "warmup_steps": 2,
        "scheduled_steps": 15,
        "objective": "mlm+nsp",
    }
    assert told["config"]["preset"] == told["identity"]["preset"] == "tiny"
    assert (told["encoder"]["vocab_size"], told["encoder"]["max_position_embeddings"]) == (4000, 64)
    assert yaml.safe_load((trained / "pretrain.yaml").read_text()) == told["config"]


def test_metrics(trained: Path) -> None:
    train = rows(trained)
    assert [row["step"] for row in train] == list(range(1, 16))
    for row in train:
        assert row["loss"] == row["masked_lm_loss"] + row["next_sentence_loss"]
        assert 0 <= row["masked_lm_accuracy"] <= 1 and 0 <= row["next_sentence_accuracy"] <= 1
        assert row["gradient_norm"] > 0 and row["examples_per_second"] > 0 and 0 <= row["input_share"] <= 1
    assert train[0]["masked_lm_loss"] == pytest.approx(math.log(4000), abs=0.1)
    assert train[-1]["masked_lm_loss"] < train[0]["masked_lm_loss"] - 0.5
    assert [row["learning_rate"] for row in train[:4]] == pytest.approx([0.001, 0.002, 0.002, 0.002 * 12 / 13], rel=1e-6)
    evaluated = rows(trained, "eval")
    assert [(row["step"], row["examples"]) for row in evaluated] == [(8, 216), (15, 216)]
    assert evaluated[-1]["perplexity"] == pytest.approx(math.exp(evaluated[-1]["masked_lm_loss"]))


def test_curves_are_a_picture(trained: Path) -> None:
    height, width, _ = matplotlib.image.imread(trained / "curves.png").shape
    assert width > 2 * height > 500


def test_the_page_of_a_run(trained: Path, short: Path) -> None:
    page = (trained / "report.html").read_text("utf-8")
    last = rows(trained, "eval")[-1]
    assert f"Masked-LM loss {last['masked_lm_loss']:.3f} nats"[1:] in page and f"{last['unigram_loss']:.3f}" in page
    assert page.count("<svg") == 8 and 'id="next-sentence-accuracy-title"' in page  # on an axis of its own
    assert "word frequencies" in page and 'class="band"' in page and " better than that of word frequencies alone" in page
    titles = re.findall(r"<h2>([^<]+)</h2>", page)
    assert titles == ["Curves", "Evaluations", "Sample predictions", "Configuration", "Environment"]
    assert str(short) in page and "tensorflow" in page and "--learning-rate" not in page  # called from Python
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", page)
    assert "<script" not in page and "default-src 'none'" in page


def test_the_curve_of_a_recipe_is_shown_where_its_options_are_kept(tmp_path: Path, short: Path) -> None:
    def expected(**changes: Any) -> tuple:
        config = PretrainConfig(**RECIPES["demo"].options | {"recipe": "demo", "data": (str(short),)} | changes)
        return pretraining_run.plan_run(config).story().expected

    assert expected() == RECIPES["demo"].curve and len(expected()) == 10
    assert expected(steps=501) == expected(recipe="") == ()


def test_dates_are_in_the_page_and_in_no_checkpoint(trained: Path) -> None:
    session = json.loads((trained / "report.json").read_text())["sessions"][-1]
    day = session["began"][:10]
    assert (session["from_step"], session["to_step"]) == (0, 15) and day in (trained / "report.html").read_text("utf-8")
    for path in (trained / "checkpoints").rglob("*"):
        assert path.is_dir() or day.encode() not in path.read_bytes(), path


def test_sample_predictions_are_those_of_the_model(trained: Path, short: Path) -> None:
    """The most probable tokens at the masked positions of the first eval examples, by the weights of the last checkpoint."""
    (section,) = json.loads((trained / "report.json").read_text())["exhibits"]
    dataset = prepared_dataset.read(str(short))
    batch = next(batches_of(EvalBatches(dataset, 3)))
    found = pretrained.read(str(checkpoint(trained, 15)))
    model = pretrained.load_model(found, tensorflow_engine.default(), "float32")
    inputs, targets = model.prepare(batch)
    best = model(inputs)["masked_lm_logits"].numpy().argmax(-1)
    tokens = found.vocabulary.tokens
    assert len(section["examples"]) == 3
    for number, example in enumerate(section["examples"]):
        (table,) = example["tables"]
        assert table["head"] == ["position", "shown", "target", "1.", "2.", "3.", "4.", "5."]
        for at, row in enumerate(table["rows"]):
            assert row[0] == str(int(batch["masked_lm_positions"][number, at]))
            assert row[2] == tokens[int(targets["masked_lm_ids"][number, at])]
            assert row[3].split(" ")[0] == tokens[best[number, at]]
            shares = [float(cell.split(" ")[1]) for cell in row[3:]]
            assert shares == sorted(shares, reverse=True) and ("✓" in row[3]) == (tokens[best[number, at]] == row[2])


def test_the_page_is_drawn_while_it_trains(drawn: tuple[Path, list[str]]) -> None:
    """At evaluations and at checkpoints, whenever drawing is due; with the state of that moment."""
    *earlier, _ = drawn[1]
    chips = [re.search(r'class="chip (\w+)">\W*([^<:,]+)', page).groups() for page in drawn[1]]
    assert chips == [("open", "Training")] * len(earlier) + [("passed", "Complete")]
    assert [re.search(r"step (\d+) of 15", page).group(1) for page in earlier] == ["7", "8", "14"]
    assert ["Sample predictions" in page for page in earlier] == [False, True, True]


def test_a_page_that_can_not_be_drawn_costs_a_warning(
    tmp_path: Path, short: Path, trained: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/report.html").unlink()
    (tmp_path / "run/report.html").mkdir()
    (tmp_path / "run/report.html/file").touch()
    (tmp_path / "run/curves.png").unlink()
    (tmp_path / "run/report.json").write_text('{"sessions": [{"from_step": 0}], "exhibits": 7}')
    pretrain(tmp_path / "run", "--data", short, "--steps", 15, "--learning-rate", 2e-3)
    told = capsys.readouterr().err
    assert "report.html was not drawn (" in told and told.count("training is not affected") == 1
    shutil.rmtree(tmp_path / "run/report.html")
    pretrain(tmp_path / "run", "--data", short, "--steps", 15, "--learning-rate", 2e-3)
    assert "Complete, 15 steps" in (tmp_path / "run/report.html").read_text("utf-8")


def test_events_for_tensorboard(trained: Path) -> None:
    (path,) = (trained / "tensorboard").iterdir()
    seen: dict[str, list[int]] = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            seen.setdefault(value.tag, []).append(event.step)
    assert seen["train/masked_lm_loss"] == seen["train/learning_rate"] == list(range(1, 16))
    assert seen["eval/masked_lm_loss"] == [8, 15]


def test_checkpoints_of_a_run(trained: Path, short: Path) -> None:
    """The newest two, and the best, which is the last of all evaluations here."""
    assert sorted(path.name for path in (trained / "checkpoints").iterdir()) == ["step-00000014", "step-00000015"]
    for path in (trained / "checkpoints").iterdir():
        assert (path / "vocab.txt").read_bytes() == (short / "vocab.txt").read_bytes()
    index = json.loads((checkpoint(trained, 15) / "checkpoint.json").read_text())
    assert (index["step"], index["objective"], index["vocabulary"]["size"]) == (15, "mlm+nsp", 4000)
    assert {"step": 15, "split": "eval", **index["eval"]} == rows(trained, "eval")[-1]
    assert json.loads((checkpoint(trained, 14) / "checkpoint.json").read_text())["eval"] is None


def test_pretrain_yaml_is_a_configuration(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["pretrain", "--config", str(trained / "pretrain.yaml")]) == 0
    assert "is complete (15 steps): nothing to do" in capsys.readouterr().out


def test_curves_that_a_kill_left_out_are_drawn_later(trained: Path, tmp_path: Path, short: Path) -> None:
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run/curves.png").unlink()
    pretrain(tmp_path / "run", "--data", short, "--steps", 15, "--learning-rate", 2e-3)
    assert (tmp_path / "run/curves.png").read_bytes() == (trained / "curves.png").read_bytes()


def test_a_run_killed_while_it_began(trained: Path, tmp_path: Path, short: Path) -> None:
    """run.json half written, or without the pretrain.yaml that comes after it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one/run.json.tmp").write_text('{"identi')
    shutil.copytree(trained, tmp_path / "two")
    (tmp_path / "two/pretrain.yaml").unlink()
    pretrain(tmp_path / "one", "--data", short, "--batch-size", 7, "--gradient-accumulation-steps", 2, code=2)  # not started
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["run.json.tmp"]
    pretrain(tmp_path / "two", "--data", short, "--steps", 15, "--learning-rate", 2e-3)
    assert (tmp_path / "two/pretrain.yaml").exists()


@pytest.mark.slow
def test_output_options_and_the_way_of_calling_change_no_loss(tmp_path: Path, small: Path) -> None:
    """Steps per call, steps per line and checkpoints: same weights in the end, and lines that are means."""
    always = ("--data", small, "--steps", 7)
    pretrain(tmp_path / "one", *always, "--steps-per-call", 1)
    pretrain(tmp_path / "two", *always, "--steps-per-call", 100, "--log-steps", 3, "--checkpoint-steps", 5)
    assert bits(tmp_path / "one", 7) == bits(tmp_path / "two", 7)
    singly, jointly = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [row["step"] for row in jointly] == [3, 6, 7]
    for name in ("gradient_norm", "learning_rate", "next_sentence_loss"):
        means = [np.mean([row[name] for row in singly[begin:end]]) for begin, end in ((0, 3), (3, 6), (6, 7))]
        assert [row[name] for row in jointly] == pytest.approx(means, rel=1e-12)
    assert jointly[-1]["loss"] == singly[-1]["loss"]
    assert figures(tmp_path / "one")[-1] == figures(tmp_path / "two")[-1]  # the evaluation


# Evaluation


def test_evaluate(trained: Path, tmp_path: Path, short: Path, capsys: pytest.CaptureFixture) -> None:
    output = tmp_path / "figures.json"
    assert clozemill.main(["evaluate", str(trained), "--data", str(short), "--output", str(output)]) == 0
    found, told = json.loads(output.read_text()), capsys.readouterr().out
    assert told.startswith(f"{checkpoint(trained, 15)}, step 15, on the eval split of {short}\n")
    split = json.loads((short / "dataset.json").read_text())["splits"]["eval"]["examples"]
    assert f"examples                {split:,}, {found['predictions']:,} tokens to predict\n" in told
    loss = found["masked_lm_loss"]
    assert f"masked LM loss          {loss:.4f} nats (perplexity {math.exp(loss):,.1f})\n" in told
    assert f"masked LM accuracy      {100 * found['masked_lm_accuracy']:.2f} %\n" in told
    constant = f"(always the more frequent label: {100 * found['next_sentence_baseline']:.2f} %)"
    assert f"next sentence accuracy  {100 * found['next_sentence_accuracy']:.2f} % {constant}\n" in told
    assert f"{found['unigram_loss']:.4f} nats (of the train split, without any context)\n" in told
    assert f"{found['unigram_entropy']:.4f} nats (of these very tokens, " in told
    assert found["unigram_entropy"] < min(found["unigram_loss"], math.log(found["predictions"]))
    row = rows(trained, "eval")[-1]
    assert found == pytest.approx({name: row[name] for name in row if name not in ("split", "remarks")}, rel=1e-5)


@pytest.mark.slow
def test_evaluate_the_best(trained: Path, tmp_path: Path, short: Path) -> None:
    run, output = tmp_path / "run", tmp_path / "figures.json"
    shutil.copytree(trained, run)
    models.alter(checkpoint(run, 14), lambda index: index.update(eval={"masked_lm_loss": 0.1}))
    arguments = ["--data", str(short), "--output", str(output)]
    assert clozemill.main(["evaluate", str(run), *arguments, "--checkpoint", "best"]) == 0
    best = json.loads(output.read_text())
    assert clozemill.main(["evaluate", str(checkpoint(run, 14)), *arguments, "--overwrite"]) == 0
    assert best == json.loads(output.read_text()) and best["step"] == 14


def test_what_evaluate_refuses(trained: Path, tmp_path: Path, short: Path, small: Path, capsys: pytest.CaptureFixture) -> None:
    run = checkpoint(trained, 15)
    for arguments, sentence in (
        ([], "RUN and --data are missing: give the folder of a run and a dataset of clozemill prepare"),
        ([trained], "--data is missing: give a dataset of clozemill prepare"),
        ([trained, "--data", small], f"{small}'s vocabulary has 40 entries, that of {run} 4000: prepare the dataset with the"),
        ([trained, "--data", trained], f"{trained} has no dataset.json: give the folder that clozemill prepare wrote"),
        ([small, "--data", small], f"{small} has no checkpoint: give the folder of a run, or one of its checkpoints"),
        ([trained, "--data", short, "--checkpoint", "first"], "--checkpoint is 'first'"),
    ):
        assert clozemill.main(["evaluate", *map(str, arguments)]) == 2
        told = capsys.readouterr()
        assert told.err.startswith(f"clozemill: {sentence}") and told.err.count("\n") == 1
        assert told.out == ""


def test_another_vocabulary_of_the_same_size_is_refused(
    trained: Path, tmp_path: Path, demo_vocab: str, demo_corpus: str, capsys: pytest.CaptureFixture
) -> None:
    tokens = Path(demo_vocab).read_text().splitlines()
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in [*tokens[:-2], tokens[-1], tokens[-2]]))
    other = prepared(tmp_path / "other", demo_corpus, str(tmp_path / "vocab.txt"), "--max-seq-length", "32")
    capsys.readouterr()
    assert clozemill.main(["evaluate", str(trained), "--data", str(other)]) == 2
    assert re.match(
        rf"clozemill: {other}'s vocabulary has \w+ as its SHA-256, that of .+ \w+: prepare", capsys.readouterr().err
    )


def test_an_eval_shard_that_is_damaged(trained: Path, tmp_path: Path, short: Path, capsys: pytest.CaptureFixture) -> None:
    data = Path(shutil.copytree(short, tmp_path / "data"))
    shard = next(data.glob("eval/*"))
    shard.write_bytes(shard.read_bytes()[:-20])
    assert clozemill.main(["evaluate", str(trained), "--data", str(data)]) == 2
    told = capsys.readouterr().err
    assert re.match(rf"clozemill: {shard}: record \d+: the file is truncated within it: restore it or rebuild", told)
    assert told.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "preset"),
    [
        ("mlm", "modern-tiny"),
        ("mlm", "tiny"),
        ("causal", "tiny"),
    ],
)
def test_objectives_without_next_sentences(
    objective: str, preset: str, tmp_path: Path, short: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--steps", 12, "--learning-rate", 3e-3, "--objective", objective, "--preset", preset]
    pretrain(tmp_path / "run", "--data", short, *options)
    train, (evaluated,) = rows(tmp_path / "run"), rows(tmp_path / "run", "eval")
    assert all(row["loss"] == row["masked_lm_loss"] and "next_sentence_loss" not in row for row in train)
    assert train[-1]["loss"] < train[0]["loss"] - 0.5
    encoder = json.loads((tmp_path / "run/run.json").read_text())["encoder"]
    assert encoder["attention"] == {"mlm": "bidirectional", "causal": "causal"}[objective]
    assert encoder.get("architecture", "bert") == {"tiny": "bert", "modern-tiny": "modernbert"}[preset]
    capsys.readouterr()
    assert clozemill.main(["evaluate", str(tmp_path / "run"), "--data", str(short)]) == 0
    told = capsys.readouterr().out
    assert f"masked LM loss          {evaluated['masked_lm_loss']:.3f}" in told and "next sentence" not in told
    assert int(re.search(r"([\d,]+) tokens to predict", told).group(1).replace(",", "")) == evaluated["predictions"]


# Phases and recipes


@pytest.mark.slow
@pytest.mark.parametrize("step", [None, 4, 6])  # where the phases meet, and within the second
def test_two_phases_in_one_run(
    step: int | None, tmp_path: Path, short: Path, long: Path, capsys: pytest.CaptureFixture
) -> None:
    """Each with its dataset and batch size; the first with the run's schedule, which spans both, the second with its own."""
    phases = [
        {"data": str(short), "steps": 4},
        {"data": str(long), "steps": 4, "batch_size": 4, "learning_rate": 4e-3, "warmup_steps": 1},
    ]
    config = tmp_path / "phases.yaml"
    config.write_text(yaml.safe_dump({"phases": phases, "learning_rate": 1e-3, "warmup_steps": 2}))
    always = ("--config", config, "--checkpoint-steps", 2, "--keep-checkpoints", 9, "--eval-examples", 40)
    pretrain(tmp_path / "run", *always)
    told = capsys.readouterr().out
    assert "steps 1 to 4: batches of 8 x 32 tokens" in told and "steps 5 to 8: batches of 4 x 64 tokens" in told
    train = rows(tmp_path / "run")
    assert [row["step"] for row in train] == list(range(1, 9))
    first, second = [0.5e-3, 1e-3, 1e-3, 1e-3 * 5 / 6], [4e-3, 4e-3, 4e-3 * 2 / 3, 4e-3 / 3]
    assert [row["learning_rate"] for row in train] == pytest.approx(first + second, rel=1e-5)
    for data, part, size in ((short, train[:4], 8), (long, train[4:], 4)):
        epoch = sum(shard["examples"] for shard in prepared_dataset.read(str(data)).shards("train"))
        assert [row["epoch"] for row in part] == [round(size * (step + 1) / epoch, 4) for step in range(4)]
    assert [(row["step"], row["examples"]) for row in rows(tmp_path / "run", "eval")] == [(4, 40), (8, 40)]
    if step:
        again = forget(tmp_path / "run", tmp_path / f"from-{step}", step)
        pretrain(again, *always)
        told = capsys.readouterr().out
        assert f"resuming after step {step}\n" in told and "step 4/8" not in told
        assert bits(again, 8) == bits(tmp_path / "run", 8)
        assert figures(again) == figures(tmp_path / "run")
    pretrain(tmp_path / "run", "--data", short, "--steps", 8, "--learning-rate", 1e-3, "--warmup-steps", 2, code=2)
    assert (
        "was started with phases 2, not 1: give the same, --overwrite to start over, or another --output"
        in capsys.readouterr().err
    )


def test_phases_that_come_to_have_schedules_of_their_own_are_refused(tmp_path: Path, small: Path) -> None:
    """With the same peak and warm-up: what differs is where they fall to."""
    phases, rates = (Phase(steps=4), Phase(steps=4)), {"learning_rate": 1e-3, "warmup_steps": 1}
    jointly = PretrainConfig(data=(str(small), str(small)), phases=phases, preset="tiny", **rates)
    singly = replace(jointly, phases=tuple(replace(phase, **rates) for phase in phases))
    run_folder.claim_run_folder(pretraining_run.plan_run(jointly), str(tmp_path))
    run_folder.claim_run_folder(pretraining_run.plan_run(jointly), str(tmp_path))
    with pytest.raises(UserError, match="was started with phase 1's scheduled_steps 8, not 4: give the same"):
        run_folder.claim_run_folder(pretraining_run.plan_run(singly), str(tmp_path))


def test_the_same_shards_with_and_without_an_index_have_different_orders(tmp_path: Path) -> None:
    """A dataset of an earlier version has the digest of its update. Runs of that version recorded no order, and resume."""
    plans = []
    for name, indexed in (("earlier", False), ("updated", True)):
        dataset = datasets.write(tmp_path / name, [[600]], indexed=indexed)
        plans.append(pretraining_run.plan_run(PretrainConfig(data=(dataset.folder,), steps=4, batch_size=8, preset="tiny")))
    folder = tmp_path / "run"
    folder.mkdir()
    run_folder.claim_run_folder(plans[0], str(folder))
    run_folder.claim_run_folder(plans[0], str(folder))
    with pytest.raises(UserError, match="was started with phase 1's order of shards, not of blocks: give the same"):
        run_folder.claim_run_folder(plans[1], str(folder))
    recorded = json.loads((folder / "run.json").read_bytes())
    del recorded["identity"]["phase 1"]["order"]
    for name in run_folder.RETIRED:
        recorded["identity"][name] = recorded["config"][name] = 16
    (folder / "run.json").write_text(json.dumps(recorded))
    for plan in plans:
        run_folder.claim_run_folder(plan, str(folder))


def test_phases_with_different_vocabularies_are_refused(
    tmp_path: Path, short: Path, small: Path, capsys: pytest.CaptureFixture
) -> None:
    config = tmp_path / "phases.yaml"
    config.write_text(yaml.safe_dump({"phases": [{"steps": 4}, {"steps": 4}]}))
    pretrain(tmp_path / "run", "--config", config, "--data", short, small, code=2)
    sentence = f"clozemill: {small}'s vocabulary has 40 entries, that of {short} 4000: prepare the dataset with the vocab.txt"
    assert capsys.readouterr().err.startswith(sentence)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # of what is resolved, test_config.py shows the same
def test_a_recipe_is_resolved_and_flags_override_it(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / "run"
    arguments = ["--recipe", "demo", "--data", str(small), "--output", str(run), "--steps", "2", "--batch-size", "4"]
    assert clozemill.main(["pretrain", *arguments]) == 0
    assert "recipe demo: on the embedded corpus" in capsys.readouterr().out
    config = json.loads((run / "run.json").read_text())["config"]
    expected = RECIPES["demo"].options | {"recipe": "demo", "steps": 2, "batch_size": 4}
    assert {name: config[name] for name in expected} == expected
    assert config["optimizer"] == "adamw" and config["weight_decay"] == 0.01


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_configurations(name: str, small: Path, tmp_path: Path) -> None:
    """Every option that they name exists and accepts the value; they save all of their values."""
    saved = tmp_path / "saved.yaml"
    lengths = RECIPES[name].max_seq_lengths or (128,)
    arguments = ["--recipe", name, "--data", *[str(small)] * len(lengths), "--save-config", str(saved)]
    assert clozemill.main(["pretrain", *arguments]) == 2  # for want of --output
    found = yaml.safe_load(saved.read_text())
    assert found["recipe"] == name and len(found["data"]) == len(lengths)
    options = RECIPES[name].options
    assert {key: found[key] for key in options if key != "phases"} == {
        key: value for key, value in options.items() if key != "phases"
    }
    assert len(found["phases"]) == len(options.get("phases", ()))


# What is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "NONE"], "--data NONE doesn't exist: give datasets of clozemill prepare"),
        (["--output", ""], "--data and --output are missing: give datasets of clozemill prepare and the folder of the run"),
        ([], "--data is missing: give datasets of clozemill prepare, one per phase"),
        (["--data", "SMALL", "SMALL"], "phase 1 has no steps: give phases in --config"),
        (["--data", "SMALL", "--objective", "mlm+sop"], "SMALL has pairs nsp, but the objective mlm+sop needs sop: give --obj"),
        (["--data", "SMALL", "--max-position-embeddings", "8"], "SMALL has sequences of 12 tokens, but the model accepts 8"),
        (
            ["--data", "SMALL", "--gradient-accumulation-steps", "3"],
            "--batch-size 8 isn't divisible by 3 gradient accumulation steps",
        ),
        (["--data", "SMALL", "--objective", "causal", "--attention", "bidirectional"], "--objective causal with --attention b"),
        (["--data", "SMALL", "--recipe", "bert"], "--recipe is 'bert'"),
        (["--data", "SMALL", "--preset", "huge"], "--preset is 'huge'"),
        (["--data", "SMALL", "--steps", "0"], "--steps is 0: give a value between 1 and"),
        (["--data", "SMALL", "--learning-rate", "nan"], "--learning-rate is nan: give a number"),
        (["--data", "EMPTY"], "EMPTY has no train examples: prepare a larger corpus"),
        (["--data", "LOST"], "LOST/train/copy-01/examples-00001-of-00002.tfrecord is missing: copy the complete"),
        (["--data", "WORDS"], "WORDS/vocab.txt is not the vocabulary that the shards were built with: restore it, or rebuild"),
        (["--data", "SMALL", "--config", "PHASES"], "PHASES: phases, number 1: unknown option 'stepps'; did you mean steps?"),
    ],
)
def test_mistakes_are_one_sentence_before_anything_is_made(
    arguments: list[str], sentence: str, tmp_path: Path, small: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {name: tmp_path / name.lower() for name in ("NONE", "EMPTY", "LOST", "WORDS", "PHASES")} | {"SMALL": small}
    for name, sizes in (("EMPTY", [[0, 0]]), ("LOST", [[4, 4]] * 2), ("WORDS", [[4, 4]])):
        places[name].mkdir()
        datasets.write(places[name], sizes, [4])
    (places["LOST"] / "train/copy-01/examples-00001-of-00002.tfrecord").unlink()
    (places["WORDS"] / "vocab.txt").write_text("[PAD]\n")
    places["PHASES"].write_text("phases:\n- {stepps: 3}\n")
    run = tmp_path / "run"
    for name, path in places.items():
        arguments, sentence = [word.replace(name, str(path)) for word in arguments], sentence.replace(name, str(path))
    pretrain(run, *arguments, code=2)
    told = capsys.readouterr()
    assert told.err.startswith(f"clozemill: {sentence}") and told.err.count("\n") == 1
    assert told.out == "" and not run.exists()


@pytest.mark.parametrize("harm", mostly_slow(("a byte", "another dataset's", "a byte of the eval split"), "a byte"))
def test_a_shard_that_is_damaged(harm: str, tmp_path: Path, small: Path, short: Path, capsys: pytest.CaptureFixture) -> None:
    """Found while it is read: one sentence names the shard, the record and what to do."""
    data = Path(shutil.copytree(small, tmp_path / "data"))
    shard = next(data.glob("eval/*" if "eval" in harm else "train/copy-00/*-00001-*"))
    before = shard.read_bytes()
    if harm == "another dataset's":
        shutil.copy(next(short.glob("train/copy-00/*-00001-*")), shard)
    else:
        middle = len(before) // 2
        shard.write_bytes(before[:middle] + bytes([before[middle] ^ 1]) + before[middle + 1 :])
    always = ("--data", data, "--steps", 4, "--checkpoint-steps", 3)
    pretrain(tmp_path / "run", *always, code=2)
    warning, told = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: {data} has only 24 eval examples")
    assert told.startswith(f"clozemill: {shard}: ") and "record" in told
    assert f"restore it or rebuild the dataset; clozemill verify {data} lists all corrupt files" in told
    assert "File " not in told and "Graph execution" not in told
    if "eval" in harm:
        shard.write_bytes(before)
        pretrain(tmp_path / "run", *always)  # nothing was trained: the eval split is read first, for its word frequencies
        assert "steps 1 to 4" in capsys.readouterr().out


# The stop


def test_a_nan_loss_stops_the_run(tmp_path: Path, small: Path, capsys: pytest.CaptureFixture) -> None:
    """Weight decay times the learning rate is 1,000 at its peak, so that the weights grow a thousandfold with every step."""
    run = tmp_path / "run"
    harsh = ["--learning-rate", 100, "--weight-decay", 10, "--warmup-steps", 10, "--clip-norm", 0]
    pretrain(run, "--data", small, "--steps", 40, "--checkpoint-steps", 3, "--steps-per-call", 7, *harsh, code=1)
    _, told = capsys.readouterr().err.splitlines()  # after a warning of few eval examples
    stopped = json.loads((run / "diverged.json").read_text())
    step, last = stopped["step"], stopped["since_step"]
    assert 4 <= step <= 12 and last == (step - 1) // 3 * 3 > 0
    assert stopped["learning_rate"] == pytest.approx(10 * step)
    assert told.startswith(
        f"clozemill: loss or gradients became NaN or infinite at step {step} (learning rate {10 * step}); "
        f"the checkpoint of step {last} is kept; shards read since: "
    )
    assert told.endswith("restart with a lower --learning-rate, or check these files")
    reader = TrainReader(prepared_dataset.read(str(small)), 0, 8)
    assert stopped["shards"] == sorted(set(reader.shards_between(last, step)))
    assert 0 < len(stopped["shards"]) < 4
    assert all(name in told for name in stopped["shards"])
    assert [row["step"] for row in rows(run)] == list(range(1, step))
    assert all(math.isfinite(row["loss"]) for row in rows(run))
    assert sorted(one.step for one in checkpoints.saved(str(run))) == list(range(3, last + 1, 3))
    for folder in (run / "checkpoints").iterdir():
        assert all(np.isfinite(value).all() for value in saved.variables(folder).values())


def test_the_recipe_of_modern_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of it, on a dataset of pairs, with segment embeddings: its architecture, optimizer, schedule and masks."""
    monkeypatch.setitem(PRESETS, "modern-tiny", PRESETS["modern-tiny"] | {"num_hidden_layers": 1})
    data = datasets.write(tmp_path / "data", [[20, 24]], [6])
    options = ["--recipe", "modern", "--steps", 2, "--batch-size", 8, "--segment-embeddings"]
    arguments = ["pretrain", "--data", data.folder, "--output", tmp_path / "run", "--no-tensorboard", *options]
    assert clozemill.main([*map(str, arguments)]) == 0
    told = json.loads((tmp_path / "run/run.json").read_text())
    assert (told["encoder"]["architecture"], told["encoder"]["type_vocab_size"]) == ("modernbert", 2)
    config = told["config"]
    assert (config["optimizer"], config["schedule"], config["masks"], config["objective"]) == ("muon", "wsd", "fresh", "mlm")
    (evaluated,) = rows(tmp_path / "run", "eval")
    assert evaluated["step"] == 2 and math.isfinite(evaluated["masked_lm_loss"])
    names = checkpoints.weights(checkpoints.find(str(tmp_path / "run")))
    assert {"encoder/embeddings/segment_embeddings", "encoder/layer_0/gate/kernel"} <= names.keys()
    assert "encoder/embeddings/position_embeddings" not in names


@pytest.mark.parametrize(
    ("others", "processes", "sentence"),
    [
        ({}, 2, ""),
        ({5}, 2, "the workers plan different runs, because their datasets, memory or cores differ"),
        ({}, 3, r"small is read in the order of batches of 8, which 3 workers can't share: use fewer workers"),
    ],
)
def test_workers_plan_the_same_run(others: set[int], processes: int, sentence: str, tmp_path: Path) -> None:
    data = datasets.write(tmp_path / "small", [[20, 24]], [6]).folder
    planned = pretraining_run.plan_run(PretrainConfig(data=(data,), preset="tiny", batch_size=8, steps=2))
    engine = SimpleNamespace(
        processes=processes, raise_if_worker_lost=contextlib.nullcontext, gather=lambda mine: {mine, *others}
    )
    with pytest.raises(UserError, match=sentence) if sentence else contextlib.nullcontext():
        pretraining._check_plans(engine, planned)
