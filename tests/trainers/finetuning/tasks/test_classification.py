"""Each kind of task: what is read becomes rows, and logits that know the answers bring them back."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.model.task_model import Task
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.text_encoder import TextEncoder, trimmed
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.base import Example, Rows, softmax
from clozemill.trainers.finetuning.tasks.classification import Classify, MultiLabel, Regress
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from clozemill.trainers.finetuning.tasks.token_classification import Tags
from tests.model.sources import TOKENS

VOCABULARY = Vocabulary.from_tokens(list(TOKENS))
PAD, CLS, SEP, UNK = (TOKENS.index(token) for token in ("[PAD]", "[CLS]", "[SEP]", "[UNK]"))
PAIRS = Layout("text", "pair", "label")
CLASSES = Task("classify", ("no", "yes", "maybe"), max_seq_length=12)
ENTITIES = Task("tags", ("O", "B-PER", "I-PER", "B-LOC"), max_seq_length=12)
ANSWERS = Task("spans", max_seq_length=16)
ALLOWED = " (--max-reject-rate skips such rows)"


def encoder(length: int, cased: bool = True) -> TextEncoder:
    return TextEncoder(VOCABULARY, cased, length)


def table(path: Path, *rows: dict) -> str:
    """A .jsonl or .parquet file."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(list(rows)), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return str(path)


def read(
    kind: Classify | Tags | Spans, path: str, layout: Layout = PAIRS, labels: dict | None = None, answers=True
) -> list[Example]:
    return list(kind.read(path, layout, labels or {}, answers))


def tokens(row: np.ndarray) -> list[str]:
    return [TOKENS[number] for number in row if number != PAD]


def test_softmax_of_large_logits() -> None:
    found = softmax(np.array([[1e4, 1e4, -1e4], [0, math.log(3), -np.inf]], np.float32))
    assert np.allclose(found, [[0.5, 0.5, 0], [0.25, 0.75, 0]], atol=1e-7) and found.dtype == np.float64


def test_sets_of_labels(tmp_path: Path) -> None:
    rows = [{"text": "the mill", "label": ["b", "a"]}, {"text": "the", "label": []}, {"text": "a", "label": "b"}]
    kind, layout = MultiLabel(), Layout()
    examples = read(kind, table(tmp_path / "a.jsonl", *rows), layout)
    assert [example.answer for example in examples] == [("b", "a"), (), ("b",)] and kind.names(examples) == ("a", "b")
    typed = [row | {"label": [row["label"]] if isinstance(row["label"], str) else row["label"]} for row in rows]
    assert [e.answer for e in read(kind, table(tmp_path / "a.parquet", *typed), layout)] == [e.answer for e in examples]
    task = Task("multilabel", ("a", "b"), max_seq_length=12, threshold=0.7)
    found = kind.encode(examples, task, encoder(12), answers=True)
    assert found.features["labels"].tolist() == [[[1, 1]], [[0, 0]], [[0, 1]]] and found.features["weights"].min() == 1
    assert trimmed(found.features, 4)["labels"].shape == (3, 1, 2)
    answers = kind.answers(examples, found, np.log(np.array([[3, 9], [1, 1 / 3], [1 / 4, 4]])), task)
    assert [answer["labels"] for answer in answers] == [["a", "b"], [], ["b"]]
    assert answers[1]["probabilities"] == pytest.approx({"a": 0.5, "b": 0.25})
    expected, given = kind.references_and_predictions(examples, answers, task)
    assert expected.tolist() == given.tolist() == [[1, 1], [0, 0], [0, 1]]
    with pytest.raises(UserError, match="its label 'a' is not one of b: fix it"):
        read(kind, str(tmp_path / "a.jsonl"), layout, {"b": "b"})


def test_pairs_are_classified(tmp_path: Path) -> None:
    rows = [{"text": "the mill", "pair": "a river", "label": "n"}, {"text": "the", "pair": "corpus", "label": "y"}]
    examples = read(Classify(), table(tmp_path / "a.jsonl", *rows), labels={"n": "no", "y": "yes"})
    assert examples == [
        Example(f"{tmp_path}/a.jsonl, line 1", "the mill", "a river", answer="no"),
        Example(f"{tmp_path}/a.jsonl, line 2", "the", "corpus", answer="yes"),
    ]
    assert Classify().names(examples) == ("no", "yes")
    found = Classify().encode(examples, CLASSES, encoder(12), answers=True)
    assert tokens(found.features["input_ids"][0]) == ["[CLS]", "the", "mill", "[SEP]", "a", "river", "[SEP]"]
    assert tokens(found.features["input_ids"][1]) == ["[CLS]", "the", "[SEP]", "corpus", "[SEP]"]
    assert found.features["labels"].tolist() == [0, 1] and found.features["weights"].tolist() == [1, 1] and len(found) == 2
    logits = np.log(np.array([[6, 1, 1], [1, 2, 1]], np.float32))
    answers = Classify().answers(examples, found, logits, CLASSES)
    assert [answer.pop("probabilities") for answer in answers] == [
        pytest.approx({"no": 0.75, "yes": 0.125, "maybe": 0.125}),
        pytest.approx({"no": 0.25, "yes": 0.5, "maybe": 0.25}),
    ]
    assert answers == [
        {"text": "the mill", "text_pair": "a river", "label": "no"},
        {"text": "the", "text_pair": "corpus", "label": "yes"},
    ]
    expected, given = Classify().references_and_predictions(
        examples, Classify().answers(examples, found, logits[:, ::-1], CLASSES), CLASSES
    )
    assert (expected, given) == ([0, 1], [2, 1])


@settings(deadline=None)
@given(st.lists(st.sampled_from(CLASSES.labels), min_size=1, max_size=9))
def test_labels_come_back(labels: list[str]) -> None:
    examples = [Example("", "the", answer=label) for label in labels]
    rows = Classify().encode(examples, CLASSES, encoder(8), answers=True)
    answers = Classify().answers(examples, rows, np.eye(3, dtype=np.float32)[rows.features["labels"]], CLASSES)
    assert [answer["label"] for answer in answers] == labels
    assert {tuple(answer) for answer in answers} == {("text", "label", "probabilities")}


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("values", [[False, True], [0, 1], [0.0, 1.0], ["0", "1"]])
def test_labels_of_any_type(ending: str, values: list, tmp_path: Path) -> None:
    path = table(tmp_path / f"a{ending}", *({"text": "a", "label": value} for value in values))
    assert [e.answer for e in read(Classify(), path, Layout(), {"0": "no", "1": "yes"})] == ["no", "yes"]
    assert [e.answer for e in read(Classify(), path, Layout())] == ["0", "1"]


def test_mrpc_s_pairs(tmp_path: Path) -> None:
    text = '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tThe "mill\tthe river\r\n'
    (tmp_path / "a.tsv").write_text(text, "utf-8", newline="")
    [example] = read(Classify(), f"{tmp_path}/a.tsv", TASKS["mrpc"].layout, dict(TASKS["mrpc"].labels))
    assert (example.text, example.pair, example.answer) == ('The "mill', "the river", "equivalent")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"text": "a", "pair": "b", "label": "2"},
            "its label '2' is not one of 0, 1: fix it, or give --label-column",
        ),
        (
            {"text": "a", "pair": "b", "label": 0.5},
            "its label '0.5' is not one of 0, 1: fix it, or give --label-column",
        ),
        ({"text": " ", "pair": "b", "label": 1}, "its text is empty: fix it, or remove that row"),
        ({"text": "a", "pair": "", "label": 1}, "its text is empty: fix it, or remove that row"),
        ({"text": "a", "label": 1}, "no column 'pair' (columns: text, label): give one of these with --pair-column"),
        ({"text": "a", "pair": "b"}, "no column 'label' (columns: text, pair): give one of these with --label-column"),
        ({"text": 3, "pair": "b", "label": 1}, "'text' is int, not a text: give --text-column"),
    ],
)
def test_mistakes_of_classification_are_one_sentence(row: dict, sentence: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError) as told:
        read(Classify(), path, labels={"0": "no", "1": "yes"})
    assert str(told.value) == f"{path}, line 1: {sentence}{ALLOWED}"


def test_empty_texts_are_answered(tmp_path: Path) -> None:
    """Only where there is something to learn from are they mistakes; no answer is read when none is asked for."""
    path = table(tmp_path / "a.jsonl", {"text": "", "pair": " "})
    examples = read(Classify(), path, answers=False)
    rows = Classify().encode(examples, CLASSES, encoder(12), answers=False)
    assert tokens(rows.features["input_ids"][0]) == ["[CLS]", "[SEP]"] and set(rows.features) == {
        "input_ids",
        "input_mask",
        "segment_ids",
    }


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=9))
def test_numbers_come_back(numbers: list[float]) -> None:
    task, examples = Task("regress"), [Example("", "the", answer=number) for number in numbers]
    rows = Regress().encode(examples, task, encoder(8), answers=True)
    answers = Regress().answers(examples, rows, rows.features["labels"][:, None], task)
    assert Regress().references_and_predictions(examples, answers, task) == (numbers, numbers)
    assert rows.features["labels"].dtype == np.float32 and Regress().names(examples) == ()


def test_scores_are_read_and_no_others(tmp_path: Path) -> None:
    good = table(tmp_path / "a.jsonl", *({"text": "a", "label": value} for value in ("3.8", 2, 1e-3, True)))
    assert [example.answer for example in read(Regress(), good, Layout())] == [3.8, 2.0, 0.001, 1.0]
    for value in ("high", "nan", float("inf"), [1], "1_000", "3,8", 10**400):
        path = table(tmp_path / "b.jsonl", {"text": "a", "label": value})
        with pytest.raises(UserError, match=r"b\.jsonl, line 1: its answer .* is not a number: fix it, or give --label-column"):
            read(Regress(), path, Layout())


@pytest.mark.parametrize("value", [7e41, "-4e38", 10**45])
def test_a_score_beyond_float32(value: object, tmp_path: Path) -> None:
    path = table(tmp_path / "b.jsonl", {"text": "a", "label": 3e38}, {"text": "b", "label": value})
    with pytest.raises(UserError) as told:
        read(Regress(), path, Layout())
    problem = f"its answer {value!r} is beyond 3.4e+38, the largest number of float32: fix it, or scale all answers"
    assert str(told.value).startswith(f"{path}, line 2: {problem}")


def test_vectors_of_two_labels() -> None:
    """[1, 0] may be two labels, but not where all examples have both."""
    vectors = [Example(f"a.jsonl, line {row}", "the", answer=answer) for row, answer in enumerate([("1", "0"), ("0", "1")], 1)]
    with pytest.raises(UserError, match=r"^a\.jsonl, line 1: every example has the labels 0 and 1, .*: write one column"):
        MultiLabel().names(vectors)
    assert MultiLabel().names([*vectors, Example("", "the", answer=("1",))]) == ("0", "1")


WORDS = st.one_of(
    st.sampled_from(
        ["the", "mill", "unbelievable", "\u200b", "é", "e\u0301", "x" * 300, "abcdefghijklmnopqrst", "...", "a b", "\u0301"]
    ),
    st.text(max_size=5),
)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.tuples(WORDS, st.sampled_from(ENTITIES.labels)), min_size=1, max_size=30), min_size=1, max_size=4),
    st.integers(8, 14),
)
def test_every_word_gets_its_tag(sentences: list, length: int) -> None:
    """However many words and pieces; rows are full of whole words, and other positions weigh nothing."""
    task = replace(ENTITIES, max_seq_length=length)
    examples = [Example("", words=tuple(w for w, _ in row), answer=tuple(t for _, t in row)) for row in sentences]
    rows = Tags().encode(examples, task, encoder(length), answers=True)
    labels, weights = rows.features["labels"], rows.features["weights"]
    answers = Tags().answers(examples, rows, 9 * np.eye(4, dtype=np.float32)[labels], task)
    expected, given_tags = Tags().references_and_predictions(examples, answers, task)
    assert given_tags == expected == [[tag for _, tag in row] for row in sentences]
    assert [answer["words"] for answer in answers] == [[word for word, _ in row] for row in sentences]
    assert weights.sum() == sum(map(len, sentences)) and set(np.unique(weights)) <= {0, 1} and (labels[weights == 0] == 0).all()
    assert ((rows.features["input_ids"] == CLS).sum(axis=1) == 1).all() and (rows.features["input_ids"][:, 0] == CLS).all()
    assert (weights * (1 - rows.features["input_mask"])).sum() == 0
    assert all((np.array(row["probabilities"]) > 0.99).all() for row in answers)


def test_first_pieces_answer() -> None:
    """A word without a piece is [UNK], one longer than a row is cut, one that doesn't fit begins the next row."""
    words = ("the", "ab", "\u200b", "c" * 20, "mill", "un")
    example = Example("", words=words, answer=("O", "B-PER", "I-PER", "B-LOC", "O", "O"))
    rows = Tags().encode([example], replace(ENTITIES, max_seq_length=8), encoder(8), answers=True)
    assert [tokens(row) for row in rows.features["input_ids"]] == [
        ["[CLS]", "the", "a", "##b", "[UNK]", "[SEP]"],
        ["[CLS]", "c", *["##c"] * 5, "[SEP]"],
        ["[CLS]", "mill", "un", "[SEP]"],
    ]
    assert rows.features["labels"].tolist() == [[0, 0, 1, 0, 2, 0, 0, 0], [0, 3, 0, 0, 0, 0, 0, 0], [0] * 8]
    assert rows.features["weights"].tolist() == [[0, 1, 1, 0, 1, 0, 0, 0], [0, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0, 0, 0]]


def test_tags_of_tables_and_of_columns(tmp_path: Path) -> None:
    own = table(tmp_path / "a.jsonl", {"words": ["EU", "mill"], "tags": ["B-LOC", "O"]}, {"words": [], "tags": []})
    layout, labels = TASKS["tags"].layout, {name: name for name in ENTITIES.labels}
    [example] = read(Tags(), own, layout, labels)
    assert (example.words, example.answer, example.where) == (("EU", "mill"), ("B-LOC", "O"), f"{own}, line 1")
    other = table(tmp_path / "a.parquet", {"tokens": ["EU", "mill"], "ner": [3, 0]})
    found = read(Tags(), other, layout.changed("tokens", "", "ner", "auto"), {"0": "O", "3": "B-LOC"})
    assert [(e.words, e.answer) for e in found] == [(example.words, example.answer)]
    (tmp_path / "a.conll").write_text("EU X B-LOC\nmill X O\n", "utf-8")
    found = read(Tags(), f"{tmp_path}/a.conll", layout, labels)
    assert [(e.words, e.answer) for e in found] == [(example.words, example.answer)]
    assert Tags().names([*found, Example("", answer=("I-PER", "B-PER"))]) == ("O", "B-LOC", "B-PER", "I-PER")
    assert Tags().names([Example("", answer=("NOUN", "ADJ"))]) == ("ADJ", "NOUN")


def test_words_without_tags(tmp_path: Path) -> None:
    text = table(tmp_path / "a.jsonl", {"text": " the  mill "}, {"words": ["a b", "c"], "tags": None})
    found = read(Tags(), text, TASKS["tags"].layout, answers=False)
    assert [(example.words, example.answer) for example in found] == [(("the", "mill"), None), (("a b", "c"), None)]
    (tmp_path / "a.conll").write_text("the\nmill\n\na\n", "utf-8")
    found = read(Tags(), f"{tmp_path}/a.conll", TASKS["tags"].layout, answers=False)
    assert [example.words for example in found] == [("the", "mill"), ("a",)]


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"words": ["a", "b"], "tags": ["O"]},
            "'tags' is not a list with one tag for each of its 2 words: fix it, or give --label-column",
        ),
        (
            {"words": ["a"], "tags": "O"},
            "'tags' is not a list with one tag for each of its 1 words: fix it, or give --label-column",
        ),
        ({"words": ["a"]}, "'tags' is not a list with one tag for each of its 1 words: fix it, or give --label-column"),
        ({"words": "a b", "tags": ["O"]}, "'words' is not a list of words: give one, or --text-column"),
        ({"words": [1], "tags": ["O"]}, "'words' is not a list of words: give one, or --text-column"),
        ({"text": "a", "tags": ["O"]}, "'words' is not a list of words: give one, or --text-column"),
        (
            {"words": ["a"], "tags": ["B-ORG"]},
            "its tag 'B-ORG' is not one of O, B-PER, I-PER, B-LOC: fix it, or give --label-column",
        ),
        ({"words": ["a"], "tags": [None]}, "its 'tags' is empty: fix it, or give --label-column"),
        ({"Words": ["a"], "WORDS": ["b"], "tags": ["O"]}, "2 columns are named 'words': give --text-column"),
        ({"words": ["a"], "Tags": ["O"], "TAGS": ["O"]}, "2 columns are named 'tags': give --label-column"),
        ({"words": ["a"], "tags": [["O"]]}, "its tag is a list: ['O']: fix it, or give --label-column"),
    ],
)
def test_mistakes_of_tags_are_one_sentence(row: dict, sentence: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError) as told:
        read(Tags(), path, TASKS["tags"].layout, {name: name for name in ENTITIES.labels})
    assert str(told.value) == f"{path}, line 1: {sentence}{ALLOWED}"


def squad(path: Path, context: str, *answers: tuple[str, int], question: str = "is a mill") -> str:
    asked = {"id": "q", "question": question, "answers": [{"text": text, "answer_start": start} for text, start in answers]}
    path.write_text(json.dumps({"data": [{"paragraphs": [{"context": context, "qas": [asked]}]}]}), "utf-8")
    return str(path)


def pointed(rows: Rows, score: float = 9.0) -> np.ndarray:
    """Logits that point where the targets do, and at [CLS] a little; float32 [rows, S, 2]."""
    logits = np.zeros((*rows.features["input_ids"].shape, 2), np.float32)
    logits[:, 0] = 1
    for row, (start, end) in enumerate(zip(rows.features["starts"], rows.features["ends"], strict=True)):
        logits[row, start, 0] += score
        logits[row, end, 1] += score
    return logits


CONTEXT_WORDS = st.sampled_from(
    ["the", "mill", "Ñandú", "N\u0303andu\u0301", "e\u0301", "x\u200by", "unable", "東京", "...", "(a)", "\u1100\u1161"]
)


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(8, 24), st.integers(1, 30), st.booleans(), st.booleans())
def test_answers_come_back_from_windows(data: st.DataObject, length: int, stride: int, cased: bool, no_answer: bool) -> None:
    words = data.draw(st.lists(CONTEXT_WORDS, min_size=8, max_size=40))
    spaces = data.draw(st.lists(st.sampled_from([" ", "\n", "  ", "\r\n"]), min_size=len(words), max_size=len(words)))
    context = "".join(word + space for word, space in zip(words, spaces, strict=True))
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, min(len(words) - 1, first + 4)))
    begin = sum(map(len, [*words[:first], *spaces[:first]]))
    text = context[begin:].rstrip() if last == len(words) - 1 else None
    text = text or context[begin : sum(map(len, [*words[:last], *spaces[:last]])) + len(words[last])]
    assert context[begin : begin + len(text)] == text
    task, texts = replace(ANSWERS, max_seq_length=length, doc_stride=stride, no_answer=no_answer), encoder(length, cased)
    example = Example("", "is the mill able", context, answer=((text, begin),), id="q")
    rows = Spans().encode([example], task, texts, answers=True)
    ids, starts, ends = texts.with_offsets([context], by_piece=True)[0]
    seen, places = [], []
    for row, (number, offset, begins, stops) in enumerate(rows.about):
        held = rows.features["input_ids"][row][offset : offset + len(begins)]
        place = len(seen) and next(at for at in range(places[-1] + 1, len(ids)) if _same(ids, starts, at, held, begins))
        places.append(place)
        seen = sorted({*seen, *range(place, place + len(held))})
        assert (
            number == 0 and (ids[place : place + len(held)] == held).all() and (ends[place : place + len(held)] == stops).all()
        )
        assert rows.features["segment_ids"][row].sum() == len(held) + 1
    assert seen == list(range(len(ids))) and (np.diff(places) > 0).all()

    target = np.flatnonzero((starts < begin + len(text)) & (ends > begin))
    if not len(target):
        assert not rows.features["starts"].any()
        return
    fits = [place <= target[0] and target[-1] < place + len(row[2]) for place, row in zip(places, rows.about, strict=True)]
    assert (rows.features["starts"] > 0).tolist() == (rows.features["ends"] > 0).tolist() == fits
    room = length - 3 - int((rows.features["segment_ids"][0] == 0).argmin() - 2)
    if len(target) <= room // 2:
        assert any(fits)
    if any(fits) and len(target) <= 30:
        [answer] = Spans().answers([example], rows, pointed(rows), task)
        assert text.strip("\u200b") in answer["answer"] or answer["answer"] in text
        assert answer["start"] == starts[target[0]] and answer["answer"] == context[starts[target[0]] : ends[target[-1]]]
        assert answer["probability"] > 0.5 and (answer["no_answer_probability"] < 0.5)


def _same(ids: np.ndarray, starts: np.ndarray, at: int, held: np.ndarray, begins: np.ndarray) -> bool:
    window = slice(at, at + len(held))
    return ids[window].tolist() == held.tolist() and starts[window].tolist() == begins.tolist()


@pytest.mark.parametrize("stride", [2, 3, 100])
def test_windows_are_literal(stride: int) -> None:
    """Half a window is the longest way from one to the next: no answer of half a window's length falls between two."""
    example = Example("", "is", "the mill of a river", answer=(("a river", 12),), id="q")
    rows = Spans().encode([example], replace(ANSWERS, max_seq_length=8, doc_stride=stride), encoder(8), answers=True)
    assert [tokens(row) for row in rows.features["input_ids"]] == [
        ["[CLS]", "is", "[SEP]", "the", "mill", "of", "a", "[SEP]"],
        ["[CLS]", "is", "[SEP]", "of", "a", "river", "[SEP]"],
    ]
    assert rows.features["starts"].tolist() == [0, 4] and rows.features["ends"].tolist() == [0, 5]
    assert rows.features["weights"].tolist() == [1, 1]
    assert [row[:2] for row in rows.about] == [(0, 3), (0, 3)] and rows.about[1][2].tolist() == [9, 12, 14]


def test_an_answer_is_cut_from_the_context_as_it_is_in_the_file(tmp_path: Path) -> None:
    """Accents apart, controls, Hangul in parts: before the answer, and in it."""
    context = "A\u0301e\u0301 \u1100\u1161\u200b said: Cafe\u0301 no\u0308, twice."
    begin = context.index("Cafe")
    path = squad(tmp_path / "a.json", context, ("Cafe\u0301 no\u0308", begin))
    examples = read(Spans(), path, Layout())
    rows = Spans().encode(examples, replace(ANSWERS, max_seq_length=40), encoder(40), answers=True)
    [answer] = Spans().answers(examples, rows, pointed(rows), ANSWERS)
    assert (answer["answer"], answer["start"]) == ("Cafe\u0301 no\u0308", begin)
    assert answer["context"] == context and answer["id"] == "q" and answer["no_answer_probability"] == 0
    assert Spans().references_and_predictions(examples, [answer], ANSWERS) == (
        [["Cafe\u0301 no\u0308"]],
        ["Cafe\u0301 no\u0308"],
    )


@pytest.mark.parametrize(
    ("context", "answer", "begin", "pointed_at"),
    [
        ("the (a) mill", "a", 5, ["a"]),  # neighbours without a space between aren't touched
        ("the mill.a", "mill", 4, ["mill"]),
        ("東京。the", "京", 1, ["京"]),
        ("the unable mill", "able", 6, ["##able"]),
        ("the unable mill", "una", 4, ["un", "##able"]),
        ("the unz\u0101ble mill", "ble", 8, ["[UNK]"]),  # unknown words can't be distinguished
        ("the mill , a", "mill ", 4, ["mill"]),
        ("the  mill", " ", 3, []),
    ],
)
def test_targets_are_the_tokens_that_an_answer_touches(context: str, answer: str, begin: int, pointed_at: list[str]) -> None:
    example = Example("", "is", context, answer=((answer, begin),), id="q")
    rows = Spans().encode([example], replace(ANSWERS, max_seq_length=20), encoder(20), answers=True)
    start, end = int(rows.features["starts"][0]), int(rows.features["ends"][0])
    found = [TOKENS[number] for number in rows.features["input_ids"][0][start : end + 1]] if start else []
    assert found == pointed_at and (start > 0) == (end > 0)


def test_a_question_without_an_answer() -> None:
    task = replace(ANSWERS, no_answer=True, max_seq_length=8, doc_stride=2)
    example = Example("", "is", "the mill of a river", answer=(), id="q")
    rows = Spans().encode([example], task, encoder(8), answers=True)
    assert rows.features["starts"].tolist() == rows.features["ends"].tolist() == [0, 0]
    [answer] = Spans().answers([example], rows, pointed(rows), task)
    assert (answer["answer"], answer["start"]) == ("", -1) and answer["no_answer_probability"] > 0.99
    logits = pointed(rows)
    logits[1, 0] = -30  # one window is sure that there is an answer: the least sure of no answer decides
    assert Spans().answers([example], rows, logits, task)[0]["answer"] == "the"
    [answer] = Spans().answers([example], rows, pointed(rows), replace(task, no_answer=False))
    assert answer["answer"] == "the" and answer["no_answer_probability"] == 0


def test_a_context_without_any_token_has_no_answer() -> None:
    example = Example("", "is", "\u200b \u200b", answer=(), id="q")
    for no_answer in (True, False):
        task = replace(ANSWERS, no_answer=no_answer)
        rows = Spans().encode([example], task, encoder(16), answers=True)
        [answer] = Spans().answers([example], rows, pointed(rows), task)
        assert (answer["answer"], answer["start"], answer["probability"]) == ("", -1, 0)


def test_probabilities_compare_all_spans_of_up_to_30_tokens() -> None:
    example = Example("", "is", "the " * 40, answer=(), id="q")
    rows = Spans().encode([example], replace(ANSWERS, max_seq_length=64), encoder(64), answers=True)
    logits = np.zeros((1, 64, 2), np.float32)
    logits[0, 3, 0], logits[0, 3 + 30, 1] = 50, 50  # 31 tokens: not together
    [answer] = Spans().answers([example], rows, logits, ANSWERS)
    assert len(answer["answer"].split()) <= 30
    [answer] = Spans().answers([example], rows, np.zeros((1, 64, 2), np.float32), ANSWERS)
    spans = sum(min(30, 40 - first) for first in range(40))
    assert answer["probability"] == pytest.approx(1 / spans) and answer["answer"] == "the" and answer["start"] == 0


@pytest.mark.parametrize(
    ("context", "answers", "question", "sentence"),
    [
        ("the mill", [("river", 0)], "is", "its answer 'river' is not at 0 in the context: fix it, or remove that question"),
        (
            "the mill",
            [("the", 1), ("mill", 3)],
            "is",
            "its answer 'the' is not at 1 in the context: fix it, or remove that question",
        ),
        ("the mill", [("ill", -3)], "is", "its answer 'ill' is not at -3 in the context: fix it, or remove that question"),
        ("the mill", [("", 2)], "is", "its answer '' is not at 2 in the context: fix it, or remove that question"),
        ("the mill", [], " \n", "its question or context is empty: fix it, or remove that question"),
        (" ", [], "is", "its question or context is empty: fix it, or remove that question"),
    ],
)
def test_mistakes_of_spans_are_one_sentence(context: str, answers: list, question: str, sentence: str, tmp_path: Path) -> None:
    path = squad(tmp_path / "a.json", context, *answers, question=question)
    with pytest.raises(UserError) as told:
        read(Spans(), path, Layout())
    assert str(told.value) == f"{path}, question q: {sentence}{ALLOWED}"


def test_the_first_answer_that_is_in_its_place_is_learnt(tmp_path: Path) -> None:
    """The others are kept for their texts, by which answers are scored."""
    path = squad(tmp_path / "a.json", "the old mill", ("old", 3), ("mill", 8), ("old mill", 4))
    [example] = read(Spans(), path, Layout())
    assert example.answer == (("mill", 8), ("old mill", 4), ("old", 3))


def test_answers_that_nobody_asks_for_are_not_looked_at(tmp_path: Path) -> None:
    [example] = read(Spans(), squad(tmp_path / "a.json", "the mill", ("river", 0), question=" is "), Layout(), answers=False)
    assert (example.text, example.pair, example.answer, example.id) == ("is", "the mill", None, "q")


@pytest.mark.parametrize("kind", TASK_TYPES)
def test_columns_have_the_names_of_the_answers(kind: str) -> None:
    labels = ("O", "B") if kind in ("classify", "multilabel", "tags") else ()
    task = Task(kind, labels, "mean" if kind == "embed" else "linear", max_seq_length=16)
    example = Example("", "the", "mill", words=("the", "mill"), id="q")
    rows = TASK_TYPES[kind]().encode([example], task, encoder(16), answers=False)
    shape = (len(rows), 16, task.outputs) if kind in ("tags", "spans") else (len(rows), task.outputs)
    [answer] = TASK_TYPES[kind]().answers([example], rows, np.zeros(shape, np.float32), task)
    columns = TASK_TYPES[kind]().columns(task)
    assert list(answer) == columns.names
    assert pa.Table.from_pylist([answer]).cast(columns).to_pylist() == [answer]
