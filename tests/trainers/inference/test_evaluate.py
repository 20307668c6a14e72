"""`clozemill evaluate` on a fine-tuned model: the scores that predict gives."""

import json
from pathlib import Path

import pytest

import clozemill
from clozemill.model.task_model import Task
from tests.trainers.models import checkpoint

TASK = Task("classify", ("no", "yes", "maybe"), max_seq_length=24)
ROWS = "text\tlabel\nthe mill\tyes\na corpus\tno\nriver\tyes\nin the mill\tmaybe\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("runs") / "one", "classify", task=TASK.to_dict(), preset="classify")


def test_a_file_with_labels(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "test.tsv"
    data.write_text(ROWS, "utf-8")
    assert clozemill.main(["evaluate", str(trained), "--data", str(data), "--output", f"{tmp_path}/scores.json"]) == 0
    told, scores = capsys.readouterr().out, json.loads((tmp_path / "scores.json").read_text("utf-8"))
    labels = ["yes", "no", "yes", "maybe"]
    answers = [answer["label"] for answer in clozemill.predict(str(trained), [r.split("\t")[0] for r in ROWS.splitlines()[1:]])]
    assert scores["accuracy"] == sum(map(str.__eq__, labels, answers)) / 4
    assert f"on 4 labelled examples: accuracy {scores['accuracy']:.4f}, macro_f1 " in told
    assert "baseline: accuracy 0.5000, macro_f1 0.2222 (always 'yes', the most frequent label)" in told
    assert scores["examples"] == 4 and scores["baseline"]["accuracy"] == 0.5
    assert clozemill.evaluate(str(trained), str(data)) == scores
    again = ["evaluate", str(trained), "--data", str(data), "--output", f"{tmp_path}/scores.json"]
    (tmp_path / "scores.json").write_text("old")
    assert clozemill.main(again) == 2
    assert f"{tmp_path}/scores.json already exists: give --overwrite to replace it" in capsys.readouterr().err
    assert clozemill.main([*again, "--overwrite"]) == 0
    assert json.loads((tmp_path / "scores.json").read_text("utf-8")) == scores


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("classify", ["--data", "."], "--data . is a folder: one is fine-tuned, so give a file with labels"),
        (
            "classify",
            ["--data", "plain.tsv"],
            "plain.tsv, line 1: no column 'label' (columns: text): give one of these with --label-column",
        ),
        ("classify", ["--data", "other.tsv"], "other.tsv, line 2: its label 'x' is not one of no, yes, maybe"),
        (
            "mlm",
            ["--data", ".", "--text-column", "a"],
            "--text-column is for fine-tuned models, and one isn't one",
        ),
    ],
)
def test_mistakes_are_one_sentence(name: str, arguments: list, sentence: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    about = {"task": TASK.to_dict(), "preset": "classify"} if name == "classify" else {}
    checkpoint(tmp_path / "one", name, **about)
    (tmp_path / "plain.tsv").write_text("text\nthe mill\n")
    (tmp_path / "other.tsv").write_text("text\tlabel\nthe mill\tx\n")
    assert clozemill.main(["evaluate", "one", *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("clozemill: ") and told.count("\n") == 1
