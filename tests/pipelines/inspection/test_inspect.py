"""inspect shows the content of a record, and provenance points to its text."""

import html
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.pipelines.dataset.example_tokens import segment_tokens
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.inspection import text as inspection_text
from clozemill.pipelines.readers import mediawiki
from clozemill.pipelines.shards import tf_example, tfrecord
from clozemill.pipelines.shuffle import keys
from clozemill.pipelines.text import sentences
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.pipelines.wikitext import converter

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "##s", "run", "apple"]


def test_describe_is_literal() -> None:
    def row(*values: float) -> np.ndarray:
        return np.array([values])

    columns = Columns(
        row(2, 5, 4, 7, 3, 8, 9, 5, 3, 0), row(1, 1, 1, 1, 1, 1, 1, 1, 1, 0), row(0, 0, 0, 0, 0, 1, 1, 1, 1, 0),
        row(2, 6, 7, 0), row(6, 6, 5, 0), row(1.0, 1.0, 1.0, 0.0), np.array([1]),
    )  # fmt: skip
    assert inspection_text.describe(columns, 0, Vocabulary.from_tokens(TOKENS)) == {
        "A": "the {[MASK]<-river} ##s",
        "B": "run {apple<-river} {the}",
    }


def test_tokens_are_literal() -> None:
    """As on the page: pieces are joined without ##, masked positions are unchanged, special tokens are marked."""

    def row(*values: float) -> np.ndarray:
        return np.array([values])

    columns = Columns(
        row(2, 5, 4, 7, 3, 7, 8, 9, 5, 4, 3, 0), row(*[1] * 11, 0), row(*[0] * 5, *[1] * 6, 0),
        row(2, 7, 8, 9), row(6, 6, 5, 7), row(1.0, 1.0, 1.0, 1.0), np.array([1]),
    )  # fmt: skip
    found = segment_tokens(columns, 0, Vocabulary.from_tokens(TOKENS))
    assert {side: [astuple(token) for token in tokens] for side, tokens in found.items()} == {
        "A": [("[CLS]", "[CLS]", "special", False), ("the", "the", "", False), ("[MASK]", "river", "mask", False),
              ("s", "##s", "", True), ("[SEP]", "[SEP]", "special", False)],
        "B": [("##s", "##s", "", False), ("run", "run", "", False), ("apple", "river", "random", False),
              ("the", "the", "kept", False), ("[MASK]", "##s", "mask", True), ("[SEP]", "[SEP]", "special", False)],
    }  # fmt: skip


def test_inspect_writes_a_page(demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "new/records.html"
    assert clozemill.main(["inspect", str(demo_dataset), "--limit", "3", "--offset", "2", "--html", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    assert clozemill.main(["inspect", str(demo_dataset), "--html", str(path)]) == 2
    told = f"clozemill: {path} already exists: give --overwrite to replace it, or another --html\n"
    assert capsys.readouterr().err == told
    page = path.read_text("utf-8")
    assert [number for number in range(9) if f"<h2>Record {number}</h2>" in page] == [2, 3, 4]
    rows = pq.read_table(demo_dataset / "provenance/train/copy-00/examples-00000-of-00003.parquet").to_pylist()
    for row in rows[2:5]:
        assert f"<bdi>{html.escape(row['a_title'])}</bdi>, characters {row['a_start']:,} to {row['a_end']:,}" in page
    assert clozemill.main(["inspect", str(demo_dataset), "--offset", "9999", "--html", str(path), "--overwrite"]) == 0
    assert "There are no records from number 9999." in path.read_text("utf-8")
    contract = demo_dataset / "dataset.json"
    assert clozemill.main(["inspect", str(demo_dataset), "--html", str(contract), "--overwrite"]) == 2
    assert "dataset.json is not the name of an HTML file: give a name that ends in .html" in capsys.readouterr().err


def test_inspect_prints_records_labels_and_origins(demo_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["inspect", str(demo_dataset), "--limit", "2", "--offset", "1"]) == 0
    out = capsys.readouterr().out
    assert "record 1:" in out and "record 2:" in out and "record 3:" not in out
    assert "[MASK]<-" in out and "  A  " in out and "  B  " in out and "characters" in out


@pytest.mark.parametrize("arguments", [["--group", "9"], ["--copy", "7"], ["--split", "eval", "--copy", "1"]])
def test_missing_records_are_reported(demo_dataset: Path, arguments: list[str], capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["inspect", str(demo_dataset), *arguments]) == 2
    assert str(demo_dataset) in capsys.readouterr().err


def articles(corpus: str) -> dict[bytes, tuple[str, str]]:
    """key -> (title, cleaned text) of the articles of a dump."""
    pages = [
        mediawiki.parse_page(page) for page in map(mediawiki.cut_page, Path(corpus).read_bytes().split(b"</page>")) if page
    ]
    texts = {page.title: clean(converter.to_text(page.text)) for page in pages if page.namespace == "0" and not page.redirect}
    return {keys.document_key(text): (title, text) for title, text in texts.items()}


def test_provenance_points_at_the_text(demo_dataset: Path, demo_corpus: str, demo_vocab: str) -> None:
    """For every record of the dataset, the text at the span of A (and B), tokenized, contains the tokens of the record."""
    known = articles(demo_corpus)
    tokenizer = WordPiece(Vocabulary.from_bytes(Path(demo_vocab).read_bytes(), demo_vocab))
    shards = json.loads((demo_dataset / "dataset.json").read_text())["shards"]
    for shard in shards:
        columns = tf_example.decode(list(tfrecord.read((demo_dataset / shard["name"]).read_bytes())), 128, 20)
        name = "provenance/" + shard["name"].replace(".tfrecord", ".parquet")
        rows = pq.read_table(demo_dataset / name).to_pylist()
        assert len(rows) == len(columns) == shard["examples"]
        for number, row in enumerate(rows):
            ids = columns.input_ids[number].copy()
            used = columns.masked_lm_weights[number] > 0
            ids[columns.masked_lm_positions[number][used]] = columns.masked_lm_ids[number][used]
            inside = ids[: columns.input_mask[number].sum()]
            first = int((inside == tokenizer.vocabulary.sep_id).argmax())
            for side, tokens in (("a", inside[1:first]), ("b", inside[first + 1 : -1])):
                title, text = known[row[f"{side}_key"]]
                assert title == row[f"{side}_title"]
                span = text[row[f"{side}_start"] : row[f"{side}_end"]]
                again = tokenizer.encode([line for line in span.split("\n") if line]).ids
                lead = next(at for at in range(len(again)) if (again[at : at + len(tokens)] == tokens).all())
                # Extra tokens at both ends are only pieces of the first and the last word.
                assert all(tokenizer.vocabulary.is_continuation[again[1 : lead + 1]])
                assert all(tokenizer.vocabulary.is_continuation[again[lead + len(tokens) :]])


def test_sentence_spans_of_the_demo_corpus_cover_it(demo_corpus: str) -> None:
    for title, text in articles(demo_corpus).values():
        spans = sentences.split(text, "sentencex")
        assert "".join("".join(text[low:high] for low, high in spans).split()) == "".join(text.split()), title
