"""Answers at the precision of pieces: a model that names the right tokens is right, in scripts with and without spaces."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.model.task_model import MAX_ANSWER, Task
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.finetuning.metrics import METRICS
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.base import Example, Rows
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from tests.trainers import squads

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def perfect(rows: Rows) -> np.ndarray:
    """Logits of a model that names exactly the tokens of the targets."""
    logits = np.full((*rows.features["input_ids"].shape, 2), -9, np.float32)
    for row, edges in enumerate(zip(rows.features["starts"], rows.features["ends"], strict=True)):
        logits[row, edges, (0, 1)] = 9
    return logits


def answered(context: str, answer: str, pieces: list[str], cased: bool = False, **task: int) -> str:
    """What a perfect model answers with a vocabulary of these pieces."""
    encoder = TextEncoder(Vocabulary.from_tokens(SPECIAL + pieces), cased, 128)
    one = Task("spans", max_seq_length=128, **task)
    examples = [Example("", "?", context, answer=((answer, context.index(answer)),), id="q")]
    rows = Spans().encode(examples, one, encoder, answers=True)
    return Spans().answers(examples, rows, perfect(rows), one)[0]["answer"]


@pytest.mark.parametrize(
    ("context", "answer", "pieces", "given_answer"),
    [
        ("in the 1980s", "1980", ["in", "the", "1980", "##s"], "1980"),
        ("in the 1980s", "1980", ["in", "the", "1980s"], "1980s"),  # nothing finer than a piece can be named
        ("in the 1980s", "1980", ["in", "the"], "1980s"),  # an unknown word is one token
        ("20km.", "20", ["20", "##km", "."], "20"),
        ("파리에서", "파리", ["파리", "##에서"], "파리에서"),  # uncased, these match nothing: Hangul is taken apart
        ("パリにある", "パリ", ["ハ", "##リ", "##にある"], "パリ"),
        ("เชียงใหม่ใน", "เชียงใหม่", [], "เชียงใหม่ใน"),
        ("a café, e\u0301te\u0301", "café", ["a", "ca", "##fe", ",", "et", "##e"], "café"),
        ("a café, e\u0301te\u0301", "e\u0301t", ["a", "ca", "##fe", ",", "et", "##e"], "e\u0301t"),
        ("a café, e\u0301te\u0301", "e\u0301te\u0301", ["a", "ca", "##fe", ",", "et", "##e"], "e\u0301te\u0301"),
        ("x" * 201 + "y", "xy", ["x", "##x", "##y"], "x" * 201 + "y"),  # longer than 200: [UNK]
        ("😀👍🏽!", "👍🏽", ["😀", "##👍", "##🏽", "!"], "👍🏽"),
        ("👩\u200d👧s", "👩\u200d👧", ["👩", "##👧", "##s"], "👩\u200d👧"),
    ],
)
def test_answers_are_literal(context: str, answer: str, pieces: list[str], given_answer: str) -> None:
    assert answered(context, answer, pieces) == given_answer


def test_cased_answers_are_literal() -> None:
    assert answered("파리에서", "파리", ["파리", "##에서"], cased=True) == "파리"
    assert answered("파리에서", "에서", ["파리", "##에서"], cased=True) == "에서"
    assert answered("x\u0303y", "x\u0303", ["x", "##\u0303", "##y"], cased=True) == "x\u0303"


def test_a_piece_of_parts_of_characters_stands_for_them() -> None:
    """Uncased, a Hangul syllable is two or three letters, which pieces join at will."""
    letters = ["\u1111", "##\u1161\u1105", "##\u1175", "##\u110b\u1166", "##\u1109\u1165"]  # ㅍ ㅏㄹ ㅣ ㅇㅔ ㅅㅓ
    assert answered("파리에서", "리", letters) == "파리"  # ㅏㄹ is a part of both
    assert answered("파리에서", "파리", letters) == "파리"
    assert answered("파리에서", "에", letters) == "에"


@pytest.mark.parametrize("cased", [False, True])
@pytest.mark.parametrize("unanswered", [0.0, 0.3], ids=["v1.1", "v2.0"])
def test_a_perfect_model_is_right_on_a_file_of_many_scripts(unanswered: float, cased: bool, tmp_path: Path) -> None:
    """Exact match and F1 are 1.0 by the official rules; of another model both are what the official rules give."""
    data = squads.questions(400, unanswered=unanswered)
    (tmp_path / "a.json").write_text(json.dumps(data), "utf-8")
    task = Task("spans", max_seq_length=96, no_answer=bool(unanswered), doc_stride=30)
    examples = list(Spans().read(str(tmp_path / "a.json"), Layout(), {}, True))
    rows = Spans().encode(examples, task, TextEncoder(squads.vocabulary(data, cased), cased, 96), answers=True)
    assert len(examples) == 400 and len(rows) > 500  # several windows
    scores = []
    random = np.random.default_rng(3).normal(size=(*rows.features["input_ids"].shape, 2)).astype(np.float32) * 6
    for logits in (perfect(rows), perfect(rows) + random):
        answers = Spans().answers(examples, rows, logits, task)
        compared = Spans().references_and_predictions(examples, answers, task)
        found = {name: METRICS[name](*compared) for name in ("exact_match", "f1")}
        assert found == pytest.approx(squads.official(data, {answer["id"]: answer["answer"] for answer in answers}))
        scores.append(found)
        assert all(a["start"] == -1 or a["context"][a["start"] :].startswith(a["answer"]) for a in answers)
    assert scores[0] == {"exact_match": 1.0, "f1": 1.0} and Spans().out_of_reach(examples, rows, task) == {}
    assert 0.1 < scores[1]["exact_match"] < scores[1]["f1"] < 0.9


PIECES = ["a", "##b", "c", "b", "e", "##e", "##é", "é", "1", "##980", "19", "##8", "##0", ".", ",", "중", "가", "\u1100",
          "##\u1161", "パ", "##か", "พ", "##\u0e35", "न", "##\u0940", "😀", "##❤", "=", "i", "σ", "##ς", "f"]  # fmt: skip
SINGLES = sorted(set("abceéß1980.,!≠=中東가パかがพनिfiıΣσς😀❤ﬁ\u0338\u0e35\u0e48\u0940\ufe0f\u1100\u1161\u11a8"))
SOME, ALL = (
    {cased: TextEncoder(Vocabulary.from_tokens(SPECIAL + pieces), cased, 64) for cased in (False, True)}
    for pieces in (PIECES, [*SINGLES, *(f"##{char}" for char in SINGLES)])
)
CHARACTERS = st.sampled_from("abcéÉe\u0301\u0323ß ﬁ1980 .,!≠\n\t中東가\u1100\u1161パか\u3099พี่नी😀❤\ufe0fİıΣσ\u200b\xad")


@settings(max_examples=150, deadline=None)
@given(st.text(CHARACTERS, min_size=1, max_size=20), st.data(), st.booleans())
def test_answers_of_pieces_come_back(context: str, data: st.DataObject, cased: bool) -> None:
    """For any pieces of an answer, it is cut from the original text, and its target is these pieces or equal ones."""
    pieces = ["a", "##b", "c", "b", "e", "##e", "##é", "é", "1", "##980", "19", "##8", "##0", ".", ",", "中", "가", "\u1100",
              "##\u1161", "パ", "##か", "พ", "##\u0e35", "न", "##\u0940", "😀", "##❤", "=", "i", "σ", "##ς", "f"]  # fmt: skip
    encoder = TextEncoder(Vocabulary.from_tokens(SPECIAL + pieces), cased, 64)
    ((ids, starts, ends),) = encoder.with_offsets([context], by_piece=True)
    assert (np.diff(starts) >= 0).all() and (np.diff(ends) >= 0).all() and (starts < ends).all()
    assert ids.tolist() == encoder.ids([context])[0].tolist()
    if not len(ids):
        return
    first = data.draw(st.integers(0, len(ids) - 1))
    last = data.draw(st.integers(first, len(ids) - 1))
    begin, end = int(starts[first]), int(ends[last])
    task = Task("spans", max_seq_length=64)
    examples = [Example("", "a", context, answer=((context[begin:end], begin),), id="q")]
    rows = Spans().encode(examples, task, encoder, answers=True)
    [answer] = Spans().answers(examples, rows, perfect(rows), task)
    target = int(rows.features["starts"][0]) - rows.about[0][1], int(rows.features["ends"][0]) - rows.about[0][1]
    assert target[0] <= first and last <= target[1]
    if starts[first] >= ends[:first].max(initial=0) and ends[last] <= starts[last + 1 :].min(initial=len(context)):
        assert (target, answer["answer"], answer["start"]) == ((first, last), context[begin:end], begin)


@settings(max_examples=150, deadline=None)
@given(st.text(CHARACTERS, max_size=20), st.booleans())
def test_every_piece_points_at_the_characters_that_it_comes_from(text: str, cased: bool) -> None:
    """With a piece for each character: what a piece's characters are tokenized to by themselves holds the piece."""
    encoder = ALL[cased]
    ((ids, starts, ends),) = encoder.with_offsets([text], by_piece=True)
    tokens = encoder.vocabulary.tokens
    for number, begin, end in zip(ids.tolist(), starts.tolist(), ends.tolist(), strict=True):
        alone = [tokens[one].removeprefix("##") for one in encoder.ids([text[begin:end]])[0]]
        piece = tokens[number].removeprefix("##")
        assert piece in alone or {piece, *alone} <= {"σ", "ς"} or "[UNK]" in (piece, *alone)
    (_, word_starts, word_ends) = encoder.with_offsets([text])[0]
    assert (word_starts <= starts).all() and (ends <= word_ends).all()


def test_answers_that_no_model_can_give_are_counted_by_reason() -> None:
    pieces = Vocabulary.from_tokens([*SPECIAL, "a", "b", "ab", "?"])
    task = Task("spans", max_seq_length=12, max_answer=3, doc_stride=4)
    contexts = [("ab ab", "ab", 0), ("ab ab", "b", 1), ("a b a b", "a b a b", 0), ("b " * 30, ("b " * 12).strip(), 0)]
    examples = [Example("", "?", context, answer=((text, at),), id=text) for context, text, at in contexts]
    examples.append(Example("", "?", "b", answer=(), id="none"))
    rows = Spans().encode(examples, task, TextEncoder(pieces, False, 12), answers=True)
    assert Spans().out_of_reach(examples, rows, task) == {
        "begin or end within a token": 1,
        "are longer than --max-answer-length 3": 1,
        "don't fit a window of --max-seq-length 12": 1,
    }


def test_answers_are_as_long_as_the_task_says() -> None:
    context, pieces = "a " * 40 + "b", ["a", "b"]
    assert answered(context, context, pieces, max_answer=41) == context
    assert len(answered(context, context, pieces, max_answer=7).split()) <= 7
    assert FinetuneConfig().max_answer_length == MAX_ANSWER == Task("spans").max_answer == 30
