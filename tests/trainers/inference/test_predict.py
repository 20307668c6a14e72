"""`clozemill predict`: a file of answers, each that of the model by itself, or one answer on the screen."""

import csv
import functools
import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.model.task_model import Task
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from clozemill.trainers.inference import predict, scoring
from tests.model import sources
from tests.slow import mostly_slow
from tests.trainers.models import alter, checkpoint

TASKS = {
    "classify": Task("classify", ("no", "yes", "maybe"), max_seq_length=24),
    "multilabel": Task("multilabel", ("no", "yes", "maybe"), max_seq_length=24, threshold=0.25),
    "regress": Task("regress", max_seq_length=24),
    "tags": Task("tags", ("O", "B-PER", "I-PER"), max_seq_length=12),
    "spans": Task("spans", max_seq_length=24, no_answer=True, doc_stride=4),
}
TEXTS = [
    "The mill is a river!",
    "Straße",
    "a corpus of un believ able words in the mill",
    "",
    "\u200b",
    "и Москва was e\u0301 x " * 9,
]
CONTEXTS = [f"{text} e\u0301 in 東京 . " * (1 + number) for number, text in enumerate(TEXTS)]
ENCODER = TextEncoder(Vocabulary.from_tokens(list(sources.TOKENS)), False, 24)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint of each kind. Read them only."""
    folder = tmp_path_factory.mktemp("runs")
    return {kind: checkpoint(folder / kind, kind, task=task.to_dict(), preset=kind) for kind, task in TASKS.items()}


def examples(kind: str) -> list[Example]:
    """Spans and tags have no empty texts."""
    if kind == "spans":
        texts = [text if text.strip() else "is" for text in TEXTS]
        rows = zip(texts, CONTEXTS, strict=True)
        return [Example("", text.strip(), context, id=str(n)) for n, (text, context) in enumerate(rows)]
    if kind == "tags":
        return [Example("", words=tuple(text.split())) for text in TEXTS if text.split()]
    return [Example("", text) for text in TEXTS]


def table(folder: Path, kind: str) -> Path:
    """The examples, as a file."""
    path, found = folder / "in.jsonl", examples(kind)
    if kind == "spans":
        asked = [{"context": e.pair, "qas": [{"id": e.id, "question": e.text}]} for e in found]
        path.write_text(json.dumps({"data": [{"paragraphs": asked}]}), "utf-8")
    else:
        rows = [{"words": list(e.words)} if e.words else {"text": e.text} for e in found]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def run(*arguments: object) -> int:
    return clozemill.main(["predict", *map(str, arguments), "--no-progress"])


@functools.cache
def alone(kind: str) -> list[dict]:
    """Each example's answer from the model called with its rows alone, without padding rows or trimming."""
    task, model = TASKS[kind], sources.source(kind, {"task": TASKS[kind].to_dict()}).model
    texts = TextEncoder(ENCODER.vocabulary, False, task.max_seq_length)
    answers = []
    for example in examples(kind):
        rows = TASK_TYPES[kind]().encode([example], task, texts, answers=False)
        logits = np.concatenate(
            [model({k: v[n : n + 1] for k, v in rows.features.items()})["logits"] for n in range(len(rows))]
        )
        answers += TASK_TYPES[kind]().answers([example], rows, logits, task)
    return answers


def assert_same(found: list[dict], expected: list[dict]) -> None:
    """All but the last digits of floats."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in other:
            numbers = isinstance(other[name], float | dict) or name == "probabilities"
            assert one[name] == (pytest.approx(other[name], abs=1e-5) if numbers else other[name]), name


@pytest.mark.parametrize("kind", mostly_slow(TASKS, "classify"))
def test_every_kind_to_both_formats(kind: str, runs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """In several parts, each of several batches; a row's answer doesn't hang on the others."""
    path, expected = table(tmp_path, kind), alone(kind)
    assert run(runs[kind], "--input", path, "--output", tmp_path / "out/a.jsonl") == 0
    lines = (tmp_path / "out/a.jsonl").read_text("utf-8").splitlines()
    assert_same([json.loads(line) for line in lines], expected)
    monkeypatch.setattr(predict, "CHUNK", 4)
    assert run(runs[kind], "--input", path, "--output", tmp_path / "out/b.parquet", "--batch-size", 3) == 0
    found = pq.read_table(tmp_path / "out/b.parquet")
    assert found.schema.equals(pa.schema([("row", pa.int64()), *TASK_TYPES[kind]().columns(TASKS[kind])]))
    assert_same(found.to_pylist(), expected)
    assert found.column("row").to_pylist() == list(range(len(expected)))
    note = " (empty texts: 1, texts truncated to 24 tokens: 1)"
    empty = note if kind in ("classify", "multilabel", "regress") else ""
    told = f"wrote {tmp_path}/out/b.parquet: {len(expected)} answers{empty}\n"
    assert capsys.readouterr().out.endswith(told)
    assert len({json.dumps({**answer, "text": "", "words": []}) for answer in expected}) > 2  # they differ at all


def test_pairs(runs: dict, tmp_path: Path) -> None:
    """As columns that were named for training are read again, unless others are given."""
    layout = {"text": "a", "pair": "b", "label": "label", "header": True, "torn": False}
    trained = checkpoint(tmp_path / "trained", "classify", task=TASKS["classify"].to_dict(), preset="classify", layout=layout)
    path = tmp_path / "in.tsv"
    path.write_text("a\tb\tc\nthe mill\tin was\triver\n", "utf-8")
    assert run(trained, "--input", path, "--output", tmp_path / "a.jsonl") == 0
    assert (
        run(runs["classify"], "--input", path, "--output", tmp_path / "b.jsonl", "--text-column", "a", "--pair-column", "b")
        == 0
    )
    assert run(trained, "--input", path, "--output", tmp_path / "c.jsonl", "--pair-column", "c") == 0
    one, two, three = (json.loads((tmp_path / f"{name}.jsonl").read_text("utf-8")) for name in "abc")
    assert one == two and (one["text"], one["text_pair"]) == ("the mill", "in was")
    assert three["text_pair"] == "river" and three["probabilities"] != one["probabilities"]


def test_columns_of_conll_without_tags(runs: dict, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the\nmill\n\nriver\n", "utf-8")
    assert run(runs["tags"], "--input", tmp_path / "in.txt", "--output", tmp_path / "a.jsonl") == 0
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["words"] for line in lines] == [["the", "mill"], ["river"]]


def test_sentences_in_lines_are_not_taken_for_columns(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Only the first word of each would be tagged."""
    for text in ("the mill was\n", "the mill\n\nin the river\n"):
        (tmp_path / "in.txt").write_text(text, "utf-8")
        assert run(runs["tags"], "--input", tmp_path / "in.txt", "--output", tmp_path / "a.jsonl") == 2
        assert "in.txt, line 1: it has several words, and a line is one word with its columns: " in capsys.readouterr().err
    for text in ("the\tO\n", "the O\nmill O\n\nriver O\n"):  # columns all the same
        (tmp_path / "in.txt").write_text(text, "utf-8")
        assert run(runs["tags"], "--input", tmp_path / "in.txt", "--output", tmp_path / "a.jsonl", "--overwrite") == 0
    assert json.loads((tmp_path / "a.jsonl").read_text("utf-8").splitlines()[1])["words"] == ["river"]


def test_sentences_without_words(runs: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if a chunk of examples has no others."""
    monkeypatch.setattr(predict, "CHUNK", 2)
    path = tmp_path / "in.jsonl"
    path.write_text('{"words": ["mill"]}\n{"text": ""}\n{"words": []}\n{"text": " "}\n')
    assert run(runs["tags"], "--input", path, "--output", tmp_path / "a.jsonl") == 0
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [row["words"] for row in found] == [["mill"], [], [], []] and [len(row["tags"]) for row in found] == [1, 0, 0, 0]


def test_truncated_texts_are_counted(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    length = TASKS["classify"].max_seq_length
    (tmp_path / "in.txt").write_text(f"{'mill ' * (length - 2)}\n{'mill ' * (length - 1)}\n{'river ' * 5000}\n", "utf-8")
    assert run(runs["classify"], "--input", tmp_path / "in.txt", "--output", tmp_path / "a.jsonl") == 0
    assert f"3 answers (texts truncated to {length} tokens: 2)\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("preset", "labels", "expected"),
    [
        ("sst2", ("negative", "positive"), {"0": "negative", "1": "positive", "negative": "negative", "positive": "positive"}),
        ("sst2", ("bad", "good"), {"bad": "bad", "good": "good"}),
        ("classify", ("a", "b"), {"a": "a", "b": "b"}),
    ],
)
def test_labels_are_read_as_they_were_for_training(preset: str, labels: tuple, expected: dict) -> None:
    """By the names that --labels gave, also if they are those of the preset, or by the preset's numbers."""
    assert scoring.spellings(Task("classify", labels), preset) == expected


@pytest.mark.parametrize("kind", mostly_slow(TASKS, "tags"))
def test_typed_texts(kind: str, runs: dict, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--text", TEXTS[2], *(["--text-pair", CONTEXTS[2]] if kind == "spans" else [])]
    assert run(runs[kind], *arguments) == 0
    found, expected = json.loads(capsys.readouterr().out), alone(kind)[2]
    assert_same([found], [expected | {"id": ""} if kind == "spans" else expected])


def test_a_typed_pair_and_bytes_that_are_no_text(runs: dict, capsys: pytest.CaptureFixture) -> None:
    """The shell's bytes that are no UTF-8 come as halves of surrogate pairs."""
    assert run(runs["classify"], "--text", "the \udcff mill", "--text-pair", "river") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["text"], found["text_pair"]) == ("the \ufffd mill", "river")


def test_a_model_without_a_preset_reads_as_its_kind_does(tmp_path: Path) -> None:
    trained = checkpoint(tmp_path / "trained", "regress", task=TASKS["regress"].to_dict())
    assert run(trained, "--input", table(tmp_path, "regress"), "--output", tmp_path / "a.jsonl") == 0
    assert len((tmp_path / "a.jsonl").read_text("utf-8").splitlines()) == len(TEXTS)


def test_no_examples_leave_nothing(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in.txt").write_text("\n \n", "utf-8")
    for name in ("a.jsonl", "a.parquet"):
        assert run(runs["classify"], "--input", tmp_path / "in.txt", "--output", tmp_path / "out" / name) == 2
        assert f"{tmp_path}/in.txt has no examples: give a file with one text per line" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_long_texts_end_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a thousand texts of megabytes aren't in memory together."""
    monkeypatch.setattr(predict, "MAX_CHARS", 10)
    texts = ["abcd", "ef", "x" * 40, "g", "h", "i"]
    examples = [Example("", text) for text in texts]
    assert [[len(e.text) for e in chunk] for chunk in predict.chunks(examples, 4)] == [[4, 2, 40], [1, 1, 1]]
    pairs = [Example("", "abc", "def"), Example("", words=("ab", "c")), Example("", "a")]
    assert [len(chunk) for chunk in predict.chunks(pairs, 4)] == [2, 1]
    assert [len(chunk) for chunk in predict.chunks(list(enumerate(texts)), 2)] == [2, 1, 2, 1]


def test_rows_that_cannot_be_read_keep_their_place(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in.tsv").write_text("text\tmore\nthe mill\t1\ntorn\nriver\t2\n", "utf-8")
    paths = (runs["classify"], "--input", tmp_path / "in.tsv", "--output", tmp_path / "a.jsonl")
    assert run(*paths) == 2
    assert "in.tsv, line 3: it has 1 column, and the header 2: fix that row" in capsys.readouterr().err
    assert run(*paths, "--max-reject-rate", "0.5") == 0
    told = capsys.readouterr()
    assert "1 of 3 rows were read as empty texts (wrong number of columns: 1)" in told.err
    assert told.out.endswith("3 answers (empty texts: 1)\n")
    lines = (tmp_path / "a.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["the mill", "", "river"]


@pytest.mark.slow
def test_a_mistake_far_down_the_file_leaves_nothing(runs: dict, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(predict, "CHUNK", 2)
    (tmp_path / "in.jsonl").write_text('{"text": "a"}\n' * 3 + "{}\n", "utf-8")
    assert run(runs["classify"], "--input", tmp_path / "in.jsonl", "--output", tmp_path / "a.jsonl") == 2
    assert "in.jsonl, line 4: no column 'text' (columns: ): give --text-column" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize(
    ("kind", "arguments", "sentence"),
    [
        ("classify", [], "--input and --text: give exactly one of them"),
        ("classify", ["--text", "a", "--input", "b"], "--input and --text: give exactly one of them"),
        ("classify", ["--input", "b"], "--output is missing"),
        (
            "classify",
            ["--input", "b", "--output", "a.txt"],
            "--output a.txt: give a name that ends in .jsonl, .csv, .tsv or .parquet",
        ),
        ("classify", ["--input", "b", "--output", "a.parquet"], "b has none of the endings .csv"),
        ("classify", ["--text", "  "], "--text is empty: give a text to predict for"),
        ("spans", ["--text", "is"], "--text-pair is missing: give the context to predict for"),
    ],
)
def test_mistakes_are_one_sentence(
    kind: str, arguments: list, sentence: str, runs: dict, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b").touch()
    assert run(runs[kind], *arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("clozemill: ") and told.count("\n") == 1


def test_a_file_that_is_there_already_is_kept(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "a.jsonl").write_text("mine")
    assert run(runs["classify"], "--input", table(tmp_path, "classify"), "--output", tmp_path / "a.jsonl") == 2
    assert "a.jsonl already exists: give --overwrite to replace it, or another --output" in capsys.readouterr().err
    assert (tmp_path / "a.jsonl").read_text() == "mine"
    assert run(runs["classify"], "--input", table(tmp_path, "classify"), "--output", tmp_path / "a.jsonl", "--overwrite") == 0
    assert (tmp_path / "a.jsonl").read_text().startswith('{"row": 0')


def test_checkpoints_that_cannot_answer(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = checkpoint(tmp_path / "one", "mlm+nsp")
    assert run(one, "--text", "a") == 2
    assert "--text has no [MASK]: write it in place of the words to predict" in capsys.readouterr().err
    encoder = checkpoint(tmp_path / "encoder", "encoder")
    assert run(encoder, "--text", "a") == 2
    told = f"{encoder} has neither a task nor a masked-LM head: fine-tune it with clozemill finetune, or give another model"
    assert told in capsys.readouterr().err
    other = checkpoint(tmp_path / "other", "classify", without="head/dense/bias")
    assert run(other, "--text", "a") == 2
    told = f"{other} can't be used (head/dense/bias is missing): give another checkpoint"
    assert told in capsys.readouterr().err
    alter(other, lambda index: index["task"].update(kind="nonsense"))
    assert run(other, "--text", "a") == 2
    assert f"{other} can't be used (this version doesn't know its encoder, objective or task" in capsys.readouterr().err


def test_a_typed_text_to_a_file(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(runs["classify"], "--text", TEXTS[2], "--output", tmp_path / "a.jsonl") == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/a.jsonl: 1 answers\n"
    assert_same([json.loads((tmp_path / "a.jsonl").read_text("utf-8"))], [{"row": 0} | alone("classify")[2]])


def test_ids_and_labels_of_a_table(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A row without a known label is predicted, but not scored."""
    given = ["yes", "maybe", "unknown", "yes"]
    path, output = tmp_path / "in.csv", tmp_path / "a.csv"
    lines = [f"{label},q{number},{TEXTS[0]}\n" for number, label in enumerate(given)]
    path.write_text("label,key,text\n" + "".join(lines), "utf-8")
    assert run(runs["classify"], "--input", path, "--output", output, "--id-column", "key") == 0
    told = capsys.readouterr()
    answer = alone("classify")[0]["label"]
    right = sum(label == answer for label in given if label != "unknown")
    assert f"on 3 labelled examples: accuracy {right / 3:.4f}, macro_f1 " in told.out
    assert "baseline: accuracy 0.6667, macro_f1 0.4000 (always 'yes', the most frequent label)" in told.out
    assert "warning: the model answers" in told.out
    assert "1 of 4 rows were not scored (unknown label: 1); first: " in told.err
    with output.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["id"], row["label"]) for row in rows] == [(str(n), f"q{n}", answer) for n in range(4)]


@pytest.mark.parametrize("kind", mostly_slow(("multilabel", "regress", "tags", "spans"), "multilabel"))
def test_labels_of_every_kind(kind: str, runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The model's own answers are right."""
    path, answers = table(tmp_path, kind), alone(kind)
    if kind == "spans":
        data = json.loads(path.read_text("utf-8"))
        for asked, answer in zip(data["data"][0]["paragraphs"], answers, strict=True):
            asked["qas"][0]["answers"] = [{"text": answer["answer"], "answer_start": answer["start"]}]
            asked["qas"][0]["is_impossible"] = not answer["answer"]
        path.write_text(json.dumps(data), "utf-8")
    else:
        known = {"multilabel": "labels", "regress": "score", "tags": "tags"}[kind]
        column = {"multilabel": "labels", "regress": "label", "tags": "tags"}[kind]
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        rows = [line | {column: answer[known]} for line, answer in zip(lines, answers, strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    assert run(runs[kind], "--input", path, "--output", tmp_path / "a.jsonl") == 0
    first = {"multilabel": "micro_f1", "regress": "pearson", "tags": "entity_f1|token_accuracy", "spans": "f1"}[kind]
    found = re.search(rf"on \d labelled examples: .*?({first}) 1.0000", capsys.readouterr().out)
    assert found


def test_a_file_without_labels_has_no_scores(runs: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in.tsv").write_text("text\tlabel\nthe mill\t?\n", "utf-8")
    assert run(runs["classify"], "--input", tmp_path / "in.tsv", "--output", tmp_path / "a.jsonl") == 0
    told = capsys.readouterr().out
    assert "note: no scores, since none of the first 100 rows of" in told and "labelled examples" not in told
    (tmp_path / "labelled.tsv").write_text("text\tlabel\nthe mill\tgood\n", "utf-8")
    asked = ["--label-column", "lable", "--output", tmp_path / "none.jsonl"]
    assert run(runs["classify"], "--input", tmp_path / "labelled.tsv", *asked) == 2
    assert "no column 'lable' (columns: text, label)" in capsys.readouterr().err and not (tmp_path / "none.jsonl").exists()
    (tmp_path / "in.jsonl").write_text('{"text": "the mill"}\n', "utf-8")
    assert run(runs["classify"], "--input", tmp_path / "in.jsonl", *asked) == 0
    assert "note: no scores, since none of the first 100 rows" in capsys.readouterr().out
    assert run(runs["classify"], "--text", "the mill", "--label-column", "label") == 2
    assert "--label-column and --label-columns are for the files of fine-tuned models" in capsys.readouterr().err
    (tmp_path / "in.txt").write_text("text\nthe mill\n", "utf-8")  # a header, as finetune reads it
    assert run(runs["classify"], "--input", tmp_path / "in.txt", "--output", tmp_path / "b.jsonl") == 0
    assert capsys.readouterr().out == f"wrote {tmp_path}/b.jsonl: 1 answers\n"
