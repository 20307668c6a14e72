"""`clozemill contrast` as it is run: vectors are learnt, runs resume, other commands use them, mistakes are one sentence."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.model.config import preset
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.contrast.config import ContrastConfig
from clozemill.trainers.contrast.contrast_run import distinct_rows, plan_contrast
from clozemill.trainers.contrast.defaults import choose_settings
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.similarity import Similarity, shared_words
from clozemill.trainers.training import checkpoints, pretrained
from clozemill.trainers.training.loop import Loop
from tests.model import sources
from tests.trainers import finetune_cases as cases

QUICK = ("--batch-size", "16", "--log-steps", "4", "--eval-steps", "4", "--learning-rate", "3e-3", "--no-tensorboard")
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")
PAIRS = Path(__file__).with_name("pairs.tsv")


@pytest.fixture(scope="module")
def init(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer of random weights: tracing a step takes half the time."""
    encoder = replace(cases.ENCODER, num_hidden_layers=1)
    return cases.checkpoint(tmp_path_factory.mktemp("init") / "checkpoint", encoder=encoder)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.txt"
    path.write_text("".join(f"{text}\n" for text, _ in cases.sentences(64)))
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graded by the words that they share, which vectors of random weights know already to some degree."""
    path, found = tmp_path_factory.mktemp("pairs") / "pairs.tsv", [text for text, _ in cases.sentences(80, seed=1)]
    rows = [(one, other, round(5 * shared_words(one, other), 2)) for one, other in zip(found[::2], found[1::2], strict=True)]
    return cases.table(path, rows)


def run(init: Path, texts: Path, output: Path, *more: object, code: int = 0) -> None:
    words = ("contrast", "--init", init, "--input", texts, "--output", output, *QUICK, *more)
    assert clozemill.main([*map(str, words)]) == code


@pytest.fixture(scope="module")
def embedder(init: Path, texts: Path, pairs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of three epochs; read-only."""
    output = tmp_path_factory.mktemp("run") / "embedder"
    run(init, texts, output, "--dev", pairs, "--epochs", "3")
    return output


def journal(output: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without the rates."""
    found = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in RATES} for row in found]


def test_a_text_learns_to_find_itself(embedder: Path) -> None:
    """The untrained encoder is evaluated first, at step 0, and its scores are recorded beside those of the best checkpoint."""
    rows, best = journal(embedder), checkpoints.find(str(embedder), "best").index
    losses = [row["task_loss"] for row in rows if row.get("split") != "eval"]
    evaluated = {row["step"]: row["spearman"] for row in rows if row.get("split") == "eval"}
    assert losses[-1] < 0.5 * losses[0] and list(evaluated) == [0, 4, 8, 12]
    assert best["baseline"] == {"answer": "mean pooling", "how": "without training", "spearman": evaluated[0],
                                "pearson": best["baseline"]["pearson"]}  # fmt: skip
    assert best["eval"]["spearman"] == max(evaluated[step] for step in (4, 8, 12)) and "loss" not in best["eval"]
    assert best["task"]["kind"] == "embed" and best["task"]["head"] == "mean" and best["task"]["temperature"] == 0.05
    assert best["task"]["max_seq_length"] == 32  # what the model accepts
    assert json.loads((embedder / "run.json").read_text())["config"]["max_seq_length"] == 32
    page = (embedder / "report.html").read_text("utf-8")
    assert "Contrastive run" in page and "Cosines of the dev pairs" in page and "spearman without training" in page


def test_spans_of_short_texts_are_the_texts(init: Path, texts: Path, tmp_path: Path) -> None:
    """It is said if most texts are so short; without dropout, both vectors of each would be the same."""
    config = ContrastConfig(str(init), input=str(texts), output=str(tmp_path / "run"), positives="crop", max_seq_length=8)
    (warning,) = plan_contrast(config, pretrained.read(str(init))).warnings
    assert warning.startswith("64 of 64 texts have at most 8 tokens, so that each of their spans is all of the text, and ")
    with pytest.raises(UserError, match="no text has more than 8 tokens, so each span is all of its text, and without dropout"):
        plan_contrast(replace(config, dropout=0.0, attention_dropout=0.0), pretrained.read(str(init)))


def test_recomputation_and_flops(texts: Path, tmp_path: Path) -> None:
    """As in fine-tuning: --remat is of pretraining, and all positions of the one layer count, in both copies of a text."""
    encoder = replace(cases.ENCODER, num_hidden_layers=1, remat=True)
    init = cases.checkpoint(tmp_path / "checkpoint", encoder=encoder)
    config = ContrastConfig(str(init), input=str(texts), output=str(tmp_path / "run"))
    planned = plan_contrast(config, pretrained.read(str(init)))
    length = round(planned.tokens_per_row)
    layer = 4 * length * 32 * 32 + 2 * length * length * 32 + 2 * length * 32 * 64
    assert not planned.encoder.remat and planned.flops(planned.phases[0]) == 2 * 6 * (layer + 32 * 32)


def test_what_is_printed(init: Path, texts: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """At rate 0 nothing is learnt, and the result says so. The same command finds nothing to do."""
    more = tmp_path / "more.txt"
    more.write_text(texts.read_text() + "  \n\u200b\n" + texts.read_text().upper())
    settings = ("--dev", pairs, "--epochs", "1", "--learning-rate", "0")
    run(init, more, tmp_path / "run", *settings)
    told = capsys.readouterr().out
    score = checkpoints.find(str(tmp_path / "run"), "best").index["eval"]["spearman"]
    assert f"contrast: mean pooling, dropout twice, temperature 0.05; from {init}; on 1 x CPU, float32" in told
    assert "more.txt: 1 empty texts left out" in told and "copies of other texts left out" in told
    assert f"40 graded pairs: without training, spearman {score:.4f}, pearson" in told
    assert "by comparing words, spearman 1.0000, pearson" in told and f"\nbest: spearman {score:.4f}, pearson" in told
    assert f"\nbefore: without training, spearman {score:.4f}" in told
    assert "warning: spearman is no better than without training: try --positives crop, or give more texts" in told
    run(init, more, tmp_path / "run", *settings)
    assert "is complete (4 steps): nothing to do" in capsys.readouterr().out


def vectors(source: Path, texts: list[str], tmp_path: Path, *more: str) -> np.ndarray:
    path, output = cases.table(tmp_path / "in.tsv", [(text,) for text in texts], "text"), tmp_path / "out.parquet"
    words = ["embed", source, "--input", path, "--output", output, "--overwrite", "--no-progress", *more]
    assert clozemill.main([*map(str, words)]) == 0
    return np.array([row["features"] for row in pq.read_table(output).to_pylist()])


def test_embed_and_evaluate(embedder: Path, pairs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`embed` writes vectors of length 1 by default, and their cosines are what `evaluate` correlates with the grades."""
    rows = [line.split("\t") for line in pairs.read_text().splitlines()]
    found = vectors(embedder, [text for row in rows for text in row[:2]], tmp_path)
    assert found.shape == (80, 32) and np.abs(np.linalg.norm(found, axis=1) - 1).max() < 1e-6
    capsys.readouterr()
    assert clozemill.main(["evaluate", str(embedder), "--data", str(pairs), "--output", str(tmp_path / "scores.json")]) == 0
    told, scores = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text())
    cosines = (found[0::2] * found[1::2]).sum(axis=1)
    grades = np.array([float(row[2]) for row in rows])
    assert scores["pearson"] == pytest.approx(np.corrcoef(cosines, grades)[0, 1], abs=1e-5)
    assert scores["spearman"] == pytest.approx(checkpoints.find(str(embedder), "best").index["eval"]["spearman"], abs=1e-6)
    assert "baseline: spearman 1.0000, pearson" in told and "(the share of words in common)" in told
    assert "is no better than by comparing words (the share of words in common: 1.0000)" in told
    plain = vectors(embedder, ["the old mill"], tmp_path, "--pool", "mean", "--layers=-1", "--max-seq-length", "16")
    alone = vectors(embedder, ["the old mill"], tmp_path, "--pool", "sentence", "--max-seq-length", "8")
    assert np.abs(plain / np.linalg.norm(plain) - alone).max() < 1e-6 and np.linalg.norm(plain) > 1.5


def test_cls_pooling_without_graded_pairs(init: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The result is the newest checkpoint. Spans of texts need no dropout."""
    crops = ("--positives", "crop", "--dropout", "0", "--attention-dropout", "0")
    run(init, texts, tmp_path / "run", "--pooling", "cls", "--epochs", "0.5", "--temperature", "0.1", *crops)
    told = capsys.readouterr().out
    assert "(not evaluated: --dev takes a file of graded pairs)" in told and "0 graded pairs" not in told
    one = checkpoints.find(str(tmp_path / "run"), "best")
    assert one.step == 2 and one.index["eval"] is None and "baseline" not in one.index
    assert [one.index["task"][name] for name in ("head", "temperature", "positives")] == ["cls", 0.1, "crop"]
    assert "contrast: cls pooling, two spans of each text, temperature 0.1; from" in told
    plain = vectors(tmp_path / "run", ["the old mill"], tmp_path, "--pool", "cls", "--layers=-1", "--max-seq-length", "16")
    assert np.abs(plain / np.linalg.norm(plain) - vectors(tmp_path / "run", ["the old mill"], tmp_path)).max() < 1e-6


def test_other_commands(embedder: Path, init: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """`predict` refuses, `embed --pool sentence` needs such a model, and its encoder can be fine-tuned like any other."""
    for words, sentence in (
        (
            ["predict", embedder, "--text", "a mill"],
            "makes vectors of texts and predicts nothing: write them with clozemill embed",
        ),
        (
            ["embed", init, "--text", "a mill", "--pool", "sentence"],
            "is not a model of contrast: train it with clozemill contrast",
        ),
        (
            ["embed", embedder, "--text", "a mill", "--pool", "sentence", "--layers=-1"],
            "--layers can't be combined with --pool",
        ),
    ):
        assert clozemill.main([*map(str, words)]) == 2
        error = capsys.readouterr().err
        assert sentence in error and error.count("\n") == 1
    found = pretrained.read(str(embedder))
    assert found.encoder_weights["encoder/layer_0/attention/query/kernel"].shape == (32, 32)
    for command, sentence in (("doctor", "this is a run of contrast, for which"), ("compare", "embed ")):
        assert clozemill.main([command, str(embedder)]) == 0
        assert sentence in capsys.readouterr().out


@pytest.mark.slow
def test_exports(embedder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """All formats have the vectors, and `embed` gives the same ones from the SavedModel."""
    assert clozemill.main(["export", str(embedder), "--output", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    for name in ("savedmodel", "hf", "keras"):
        assert re.search(rf"^{name} +sentence_embedding +\d", told, re.MULTILINE), told
    found = [vectors(source, ["the old mill", "bread"], tmp_path) for source in (embedder, tmp_path / "out/savedmodel")]
    assert np.abs(found[0] - found[1]).max() < 1e-6


@pytest.mark.slow
def test_a_killed_run_resumes_bit_identically(
    init: Path, texts: Path, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is stopped before an evaluation that is due."""
    settings = ("--dev", pairs, "--epochs", "2", "--steps-per-call", "2", "--keep-checkpoints", "9")
    run(init, texts, tmp_path / "whole", *settings)
    for stop in (2, 4):
        with monkeypatch.context() as patched:
            patched.setattr(Loop, "_stopped", lambda self, stop=stop: "SIGTERM" if self.step == stop else "")
            run(init, texts, tmp_path / "stopped", *settings, code=75)
    run(init, texts, tmp_path / "stopped", *settings)
    assert journal(tmp_path / "stopped") == journal(tmp_path / "whole")
    whole, stopped = (checkpoints.weights(checkpoints.find(str(tmp_path / name))) for name in ("whole", "stopped"))
    assert all(whole[name].tobytes() == stopped[name].tobytes() for name in whole)


@pytest.mark.slow
def test_engines_and_devices_agree(init: Path, pairs: Path, tmp_path: Path) -> None:
    """Two devices of JAX compare the texts of their own part of a batch, as two micro-batches of TensorFlow do.

    The texts have one length, so both engines draw the same dropout.
    """
    rows = [(f"the {one} {two} is {three}",) for one, two, three in product(cases.WORDS[:4], repeat=3)]
    texts = cases.table(tmp_path / "texts.tsv", rows, "text")
    always = ("--init", init, "--input", texts, "--dev", pairs, *QUICK, "--epochs", "1", "--log-steps", "1")
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    words = ("--output", tmp_path / "devices", "--engine", "jax", "--strategy", "mirrored")
    command = [sys.executable, "-m", "clozemill", "contrast", *map(str, (*always, *words))]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run(init, texts, tmp_path / "parts", *always[4:], "--gradient-accumulation-steps", "2")
    scores = {"step", "task_loss", "task_accuracy", "spearman", "pearson"}
    found = [
        [{name: row[name] for name in scores & set(row)} for row in journal(tmp_path / one)] for one in ("devices", "parts")
    ]
    assert [row["step"] for row in found[0]] == [0, 1, 2, 3, 4, 4] and found[0][1]["task_loss"] < np.log(8)
    for mine, other in zip(*found, strict=True):
        assert mine == pytest.approx(other, rel=1e-3, abs=1e-4)


# Files.


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("stsb.tsv", "index\tsentence1\tsentence2\tscore\n0\ta mill\tthe \"old\" mill\t3.2\n1\ta river\tbread\t0\n", ()),
        ("plain.tsv", "a mill\tthe \"old\" mill\t3.2\na river\tbread\t0\n", ()),
        ("plain.csv", 'a mill,"the ""old"" mill",3.2\na river,bread,0\n', ()),
        ("stsb.csv", 'score,sentence1,sentence2\n3.2,a mill,"the ""old"" mill"\n0,a river,bread\n', ()),
        ("pairs.jsonl", '{"sentence1": "a mill", "sentence2": "the \\"old\\" mill", "score": 3.2}\n'
                        '{"sentence1": "a river", "sentence2": "bread", "score": 0}\n', ()),
        ("own.tsv", "id\tone\ttwo\tsim\n0\ta mill\tthe \"old\" mill\t3.2\n1\ta river\tbread\t0\n", ("one", "two", "sim")),
        ("plain.csv", '3.2,x,a mill,"the ""old"" mill"\n0,y,a river,bread\n', ("2", "3", "0")),
        ("plain.tsv", "x\ta mill\tthe \"old\" mill\t3.2\ny\ta river\tbread\t0\n", ("1", "2", "-1")),
    ],
)  # fmt: skip
def test_graded_pairs_are_read(name: str, content: str, columns: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    given = {"dev_columns": columns, "dev": name, "init": "x", "input": "x", "output": "x"}
    config = clozemill.options.from_values(clozemill.COMMANDS["contrast"].config, given)
    found = list(Similarity().read(str(tmp_path / name), config.layout("embed"), {}, answers=True))
    assert [(each.text, each.pair, each.answer) for each in found] == [
        ("a mill", 'the "old" mill', 3.2),
        ("a river", "bread", 0),
    ]


def test_the_graded_pairs_of_this_folder() -> None:
    """72 pairs of our own, as many of each grade; the words in common say much about the grade, but not all."""
    rows = [line.split("\t") for line in PAIRS.read_text("utf-8").splitlines()]
    assert [grade for _, _, grade in rows] == [grade for grade in "543210" for _ in range(12)]
    shared = [np.mean([shared_words(*row[:2]) for row in rows if row[2] == grade]) for grade in "012345"]
    assert shared[0] < shared[1] < shared[2] < shared[3] and shared[5] < 0.7


def test_shared_words() -> None:
    assert shared_words("The old mill.", "the OLD mill") == 1 and shared_words("a mill", "the river") == 0
    assert shared_words("a b c", "b c d") == 0.5 and shared_words("", "") == 0


def test_distinct_rows() -> None:
    """Copies are found among tokens, so case and what is cut off make no difference."""
    encoder = pretrained.PretrainedModel("x", {"encoder": sources.SMALL.to_dict(), "vocabulary": {"cased": False}}, {},
                                         ("\n".join(sources.TOKENS) + "\n").encode()).text_encoder(5)  # fmt: skip
    given = ["the mill", "a river", "The Mill", "", "the mill of a", "the mill of the", "\u200b"]
    found, (empty, copies) = distinct_rows([Example("", text) for text in given], encoder)
    rows = found.features
    assert found.truncated == 1  # and a copy of it
    assert (empty, copies) == (2, 2) and rows["labels"].tolist() == [0, 1, 2] and rows["weights"].tolist() == [1, 1, 1]
    assert rows["input_mask"].sum(axis=1).tolist() == [4, 4, 5] and rows["input_ids"].shape == (3, 5)


@pytest.mark.parametrize(
    ("name", "texts", "given", "expected"),
    [
        ("base", 1_000_000, {}, (3e-5, 1.0, 64)),
        ("tiny", 640, {}, (3e-4, 10.0, 64)),
        ("tiny", 50, {}, (3e-4, 10.0, 50)),
        ("tiny", 100_000, {"positives": "crop"}, (2e-3, 1.0, 64)),
        ("base", 100_000, {"positives": "crop"}, (6e-5, 1.0, 64)),
        ("tiny", 100_000, {"batch_size": 128, "epochs": 2.0, "learning_rate": 1e-4}, (1e-4, 2.0, 128)),
    ],
)
def test_choices(name: str, texts: int, given: dict, expected: tuple) -> None:
    open_ = {"batch_size": None, "epochs": None, "learning_rate": None}
    positives = {"positives": given.pop("positives")} if "positives" in given else {}
    settings, reasons = choose_settings(open_ | given, preset(name), texts, **positives)
    assert (settings.learning_rate, settings.epochs, settings.batch_size) == expected and len(reasons) == 3 - len(given)


@pytest.mark.parametrize(
    ("words", "texts", "pairs", "sentence"),
    [
        ("", "", "", "texts.txt has no texts, and every text is compared with others: give a file with more of them"),
        ("", " \n\u200b\n", "", "texts.txt has no texts, and every text is compared with others"),
        ("", "a mill\nA mill\n", "", "texts.txt has only one distinct text, and every text is compared with others"),
        ("--batch-size 4", "a mill\na river\na mill\n", "",
         "texts.txt has 2 distinct texts, fewer than a batch of 4: give more texts, or a --batch-size of at most 2"),
        ("--batch-size 4 --gradient-accumulation-steps 4", "a\nmill\nriver\nold\n", "",
         "--batch-size 4 leaves each device and micro-batch a single text to compare: give 8 or more, or fewer"),
        ("--dropout 0 --attention-dropout 0", "a mill\na river\n", "",
         "--dropout and --attention-dropout are both 0, so both vectors of a text would be the same: give one above 0, or "
         "--positives crop"),
        ("--max-seq-length 64", "a mill\na river\n", "", "--max-seq-length is 64, but "),
        ("--dev pairs.tsv", "a mill\na river\n", "a\tb\tx\n",
         "pairs.tsv, line 1: its answer 'x' is not a number: fix it, or give --dev-columns"),
        ("--dev pairs.tsv", "a mill\na river\n", "a\tb\n",
         "pairs.tsv, line 1: no column '2' (columns: 0, 1): give one of these with --dev-columns"),
        ("--dev pairs.tsv", "a mill\na river\n", "", "pairs.tsv has no examples: give a file with an example per line"),
        ("--dev pairs.tsv --dev-columns a b x", "a mill\na river\n", "a\tb\tc\n0\t1\t2\n",
         "pairs.tsv, line 1: no column 'x' (columns: a, b, c): give one of these with --dev-columns\n"),
        ("--dev pairs.tsv --dev-columns a b", "a mill\na river\n", "", "--dev-columns names 2 columns: give three, of two "),
        ("--dev pairs.tsv --dev-columns a a x", "a mill\na river\n", "",
         "--dev-columns 'a' 'a' 'x': give the names of three different columns"),
        ("--dev-columns a b c", "a mill\na river\n", "", "--dev-columns has no effect without --dev: give both"),
        ("--dev pairs.tsv", "a mill\na river\n", "a\tb\t1\n\tb\t1\n", "pairs.tsv, line 2: its text is empty: fix it, or "),
        ("--dev pairs.tsv", "a mill\na river\n", "a\tb\t2\nb\tc\t2\n", "pairs.tsv: all pairs are equally similar, so they "),
        ("--patience 2", "a mill\na river\n", "", "--patience has no effect without --dev: give both"),
        ("--epochs 0", "a mill\na river\n", "", "--epochs is 0: give a number above 0"),
        ("--init .", "a mill\na river\n", "", ". has no checkpoint: give the folder of a run, or one of its checkpoints"),
    ],
)  # fmt: skip
def test_mistakes_are_one_sentence(
    words: str,
    texts: str,
    pairs: str,
    sentence: str,
    init: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts.txt").write_text(texts)
    Path("pairs.tsv").write_text(pairs)
    command = ["contrast", "--init", str(init), "--input", "texts.txt", "--output", "run", "--no-tensorboard", *words.split()]
    assert clozemill.main(command) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1 and not Path("run").exists()


def test_a_causal_encoder_is_refused(tmp_path: Path, texts: Path, capsys: pytest.CaptureFixture) -> None:
    causal = replace(cases.ENCODER, attention="causal", num_hidden_layers=1)
    run(cases.checkpoint(tmp_path / "causal", encoder=causal), texts, tmp_path / "run", code=2)
    assert "has causal attention, so its [CLS] sees no text: give a bidirectional model" in capsys.readouterr().err
