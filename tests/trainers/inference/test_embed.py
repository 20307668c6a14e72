"""`clozemill embed`: the encoder's own layers, token by token or pooled, whatever stands beside a text in its batch."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.model.task_model import Task
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.finetuning.reading import tables
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.inference import embed
from tests.model import sources
from tests.slow import mostly_slow
from tests.trainers.models import checkpoint

TEXTS = ["The unbelievable mill!", "e\u0301 \u200bNai\u0308ve", "", "a river in 東京", "the corpus of the mill " * 9, "\u200b"]
SPECIAL = [sources.TOKENS.index(token) for token in ("[CLS]", "[SEP]")]
LENGTH = 16
COLUMNS = ["row", "token", "word_number", "word", "start", "end", "features"]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("run") / "pretrained", "mlm+nsp")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    path.write_text("text\n" + "".join(f'"{text}"\n' for text in TEXTS), "utf-8")
    return path


def run(source: Path, path: Path, output: Path, *arguments: object) -> int:
    more = ("--max-seq-length", LENGTH, "--no-progress", *arguments)
    return clozemill.main(["embed", str(source), "--input", str(path), "--output", str(output), *map(str, more)])


def records(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


def apart(found: Any, expected: Any) -> float:
    """The largest difference, in parts of the largest value, which is 2 to 5 here."""
    expected = np.asarray(expected)
    return float(np.abs(np.reshape(found, expected.shape) - expected).max(initial=0) / np.abs(expected).max(initial=1))


def called(name: str, layers: tuple[int, ...], **index: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """(tokens, layers side by side [tokens, layers x H]) of each text by itself, special tokens among them, unpadded."""
    model = sources.source(name, index or None).model
    pieces, found = WordPiece(Vocabulary.from_tokens(list(sources.TOKENS))), []
    for text in TEXTS:
        ids = np.array([[SPECIAL[0], *pieces.encode([text.replace("e\u0301", "é")]).ids[: LENGTH - 2], SPECIAL[1]]])
        outputs = model.encoder(ids, np.ones_like(ids), np.zeros_like(ids))["all_layers"]
        found.append((ids[0], np.concatenate([outputs[layer][0] for layer in layers], axis=-1)))
    return found


@pytest.mark.parametrize(
    ("layers", "numbers"),
    [
        ("1,-3,2", (1, 0, 2)),
        pytest.param("-1,-2", (2, 1), marks=pytest.mark.slow),
        pytest.param("0", (0,), marks=pytest.mark.slow),
    ],
)
def test_tokens(layers: str, numbers: tuple, pretrained: Path, texts: Path, tmp_path: Path) -> None:
    """Without special tokens; a text without any has no row."""
    assert run(pretrained, texts, tmp_path / "a.parquet", f"--layers={layers}") == 0
    found, expected = records(tmp_path / "a.parquet"), called("mlm+nsp", numbers)
    assert list(found[0]) == COLUMNS
    assert {row["row"] for row in found} == {0, 1, 3, 4}
    for number, (ids, values) in enumerate(expected):
        rows = [row for row in found if row["row"] == number]
        assert [row["token"] for row in rows] == [sources.TOKENS[one] for one in ids[1:-1]]
        assert apart([row["features"] for row in rows], values[1:-1]) < 1e-6
    assert pq.read_schema(tmp_path / "a.parquet").field("features").type.list_size == 16 * len(numbers)


def test_words_and_their_places_are_literal(pretrained: Path, texts: Path, tmp_path: Path) -> None:
    """Pieces of one word have its number; places are those in the text as it is in the file, accents apart."""
    assert run(pretrained, texts, tmp_path / "a.parquet") == 0
    found = [tuple(row[name] for name in COLUMNS[:-1]) for row in records(tmp_path / "a.parquet") if row["row"] in (0, 1, 3)]
    assert found == [
        (0, "the", 0, "The", 0, 3),
        (0, "un", 1, "unbelievable", 4, 16),
        *[(0, token, 1, "unbelievable", 4, 16) for token in WORD[1:]],
        (0, "mill", 2, "mill", 17, 21),
        (0, "!", 3, "!", 21, 22),
        (1, "e", 0, "e\u0301", 0, 2),
        *[(1, token, 1, "Nai\u0308ve", 4, 10) for token in ("n", "##a", "##i", "##v", "##e")],
        (3, "a", 0, "a", 0, 1),
        (3, "river", 1, "river", 2, 7),
        (3, "in", 2, "in", 8, 10),
        (3, "東", 3, "東", 11, 12),
        (3, "京", 4, "京", 12, 13),
    ]


WORD = ("un", "##b", "##e", "##l", "##i", "##e", "##v", "##able")


@pytest.mark.parametrize("pool", mostly_slow(("cls", "mean"), "mean"))
def test_pooled(pool: str, pretrained: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A row for every text; the mean is over all of its tokens, special ones among them."""
    assert run(pretrained, texts, tmp_path / "a.parquet", "--pool", pool, "--layers=-1,-2") == 0
    found = records(tmp_path / "a.parquet")
    assert [(row["row"], row["text"]) for row in found] == list(enumerate(TEXTS)) and list(found[0]) == [
        "row",
        "text",
        "features",
    ]
    for row, (_, values) in zip(found, called("mlm+nsp", (2, 1)), strict=True):
        assert apart(row["features"], values[0] if pool == "cls" else values.mean(axis=0)) < 1e-6
    told = f"wrote {tmp_path}/a.parquet: 6 rows of 6 texts; 1 were empty; 1 were truncated to 16 tokens; "
    told += "vectors of 32 values (layers -1, -2 joined)\n"
    assert capsys.readouterr().out.endswith(told)


@pytest.mark.parametrize("pool", mostly_slow(("none", "mean"), "none"))
def test_batches_and_parts_change_nothing(pool: str, pretrained: Path, texts: Path, tmp_path: Path, monkeypatch) -> None:
    assert run(pretrained, texts, tmp_path / "a.parquet", "--pool", pool) == 0
    monkeypatch.setattr(embed, "CHUNK", 2)
    assert run(pretrained, texts, tmp_path / "b.parquet", "--pool", pool, "--batch-size", 3) == 0
    one, two = records(tmp_path / "a.parquet"), records(tmp_path / "b.parquet")
    features = [[row.pop("features") for row in rows] for rows in (one, two)]
    assert one == two and apart(*features) < 1e-6


@pytest.mark.slow
def test_texts_are_read_as_they_are_needed(pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory is a part of the texts, and its features: the first are written before the others are read."""
    taken, seen = [], []

    def rows(path: str, layout: Layout, answers: bool) -> Any:
        for number in range(40):
            taken.append(number)
            yield "x", {"text": "the mill"}

    class Seen:
        def write(self, written: list) -> None:
            seen.append((len(taken), len(written)))

        def close(self) -> None: ...

    monkeypatch.setattr(tables, "rows", rows)
    monkeypatch.setattr(embed, "CHUNK", 16)
    monkeypatch.setitem(embed.writers.SINKS, ".parquet", lambda *_: Seen())
    (tmp_path / "in").touch()  # `rows` stands for its contents
    assert run(pretrained, tmp_path / "in", tmp_path / "a.parquet") == 0
    assert seen == [(16, 32), (32, 32), (40, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bare", "encoder", "tags"])
def test_any_model_s_encoder(name: str, texts: Path, tmp_path: Path) -> None:
    """That of an import without heads or pooler, and of a fine-tuned model."""
    without = "encoder/pooler/" if name == "bare" else "-"
    one = checkpoint(tmp_path / name, name, without)
    assert run(one, texts, tmp_path / "a.parquet", "--layers=-1", "--pool", "cls") == 0
    found = [row["features"] for row in records(tmp_path / "a.parquet")]
    assert apart(found, [values[0] for _, values in called(name, (2,))]) < 1e-6


@pytest.mark.slow
def test_half_precision_gives_float32(pretrained: Path, texts: Path, tmp_path: Path) -> None:
    assert run(pretrained, texts, tmp_path / "a.parquet", "--layers=-1", "--pool", "cls", "--precision", "bfloat16") == 0
    found = np.array([row["features"] for row in records(tmp_path / "a.parquet")])
    expected = np.array([values[0] for _, values in called("mlm+nsp", (2,))])
    assert 1e-6 < np.abs(found - expected).max() < 0.5


@pytest.mark.slow
def test_texts_that_all_lack_tokens_keep_their_columns(pretrained: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("\u200b\n\u200b\n", "utf-8")
    assert run(pretrained, tmp_path / "in.txt", tmp_path / "a.parquet") == 0
    assert records(tmp_path / "a.parquet") == [] and pq.read_schema(tmp_path / "a.parquet").names == COLUMNS


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--layers=3"], "--layers 3: {run} has layers 0 (the embeddings) to 2: choose from these"),
        (["--layers=-1,-4"], "--layers -1,-4: {run} has layers 0 (the embeddings) to 2: choose from these"),
        (["--layers=last"], "--layers 'last' is not a list of layers: give numbers, such as --layers=-1,-2,-3,-4"),
        (["--max-seq-length", "49"], "--max-seq-length is 49, but {run} accepts at most 48 tokens: give no more"),
        (["--text-column", "body"], "in.csv, line 1: no column 'body' (columns: text): give one of these with --text-column"),
        (["--output", "a.jsonl"], "--output a.jsonl: give a name that ends in .parquet"),
    ],
)
def test_mistakes_are_one_sentence(
    arguments: list, sentence: str, pretrained: Path, texts: Path, tmp_path: Path, capsys
) -> None:
    assert run(pretrained, texts, tmp_path / "a.parquet", "--layers=-1", *arguments) == 2
    told = capsys.readouterr().err
    assert sentence.format(run=pretrained) in told and told.startswith("clozemill: ") and told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_single_text_is_printed(pretrained: Path, texts: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--text", TEXTS[0], "--layers=-1", "--max-seq-length", str(LENGTH), "--pool", "mean"]
    assert clozemill.main(["embed", str(pretrained), *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["row"], found["text"], len(found["features"])) == (0, TEXTS[0], 16)
    assert apart(found["features"], called("mlm+nsp", (2,))[0][1].mean(axis=0)) < 1e-6
    assert clozemill.main(["embed", str(pretrained), *arguments, "--output", str(tmp_path / "a.parquet")]) == 0
    told = capsys.readouterr()
    assert told.out.endswith("1 rows of 1 texts; vectors of 16 values (layer -1)\n") and told.err == ""  # no progress bar
    more = ["--overwrite", "--layers=0,-1", "--output", str(tmp_path / "a.parquet")]
    assert clozemill.main(["embed", str(pretrained), *arguments, *more]) == 0
    assert capsys.readouterr().out.endswith("(layers 0 (the embeddings), -1 joined)\n")
    assert clozemill.main(["embed", str(pretrained), "--text", "a", "--input", str(texts)]) == 2
    assert "--input and --text: give exactly one of them" in capsys.readouterr().err


def test_no_texts_leave_nothing(pretrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "in.csv").write_text("text\n", "utf-8")
    assert run(pretrained, tmp_path / "in.csv", tmp_path / "a.parquet", "--layers=-1") == 2
    assert "in.csv has no texts: give a file with one text per line" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


@pytest.mark.slow
def test_layers_of_a_frozen_head_s_model_are_the_encoder_s(texts: Path, tmp_path: Path) -> None:
    task = {"task": Task("tags", ("O", "B"), head="bilstm", layers=(-1, -2), frozen=True).to_dict()}
    one = checkpoint(tmp_path / "one", "tags", **task)
    assert run(one, texts, tmp_path / "a.parquet", "--layers=0", "--pool", "mean") == 0
    found = [row["features"] for row in records(tmp_path / "a.parquet")]
    assert apart(found, [values.mean(axis=0) for _, values in called("tags", (0,), **task)]) < 1e-6
