"""SQuAD's JSON: questions with where they are, those that can't be used, and files of another layout."""

import json
import re
from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading import squad
from clozemill.trainers.finetuning.reading.tables import BadRow
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.question_answering import Spans
from tests.trainers.finetuning.reading.test_lines import written


def squad_file(path: Path, *paragraphs: dict, **more: object) -> str:
    return written(path, json.dumps({"data": [{"title": "t", "paragraphs": list(paragraphs)}], **more}))


def test_squad_of_both_versions(tmp_path: Path) -> None:
    one = {"id": "a", "question": "Who?", "answers": [{"text": "Ann", "answer_start": 0}, {"text": "Bo", "answer_start": 4}]}
    none = {"id": 7, "question": "When?", "answers": [], "is_impossible": True, "plausible_answers": [{"text": "Bo"}]}
    asked = {"id": "c", "question": "Why?", "is_impossible": True}
    path = squad_file(
        tmp_path / "a.json", {"context": "Ann Bo", "qas": [one, none]}, {"context": "x", "qas": [asked]}, version="2"
    )
    assert list(squad.questions(path, True)) == [
        (f"{path}, question a", {"id": "a", "question": "Who?", "context": "Ann Bo", "answers": [("Ann", 0), ("Bo", 4)]}),
        (f"{path}, question 7", {"id": "7", "question": "When?", "context": "Ann Bo", "answers": []}),
        (f"{path}, question c", {"id": "c", "question": "Why?", "context": "x", "answers": []}),
    ]


FLAT = {"data": [{"question": "Who?", "context": "Ann", "answers": []}]}
QAS = {"id": "a", "question": "Who?", "answers": []}


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (FLAT, "KeyError: 'paragraphs'"),
        ([], "TypeError: list indices"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": ["q"]}]}]}, "AttributeError: 'str'"),
        ({"data": [{"paragraphs": [{"context": "x", "qas": [{"id": "a"}]}]}]}, "KeyError: 'question'"),
        ({"data": [{"paragraphs": [{"context": 5, "qas": [QAS]}]}]}, "TypeError: 5 is not a text, in question a"),
    ],
)
def test_squad_of_another_layout(data: object, told: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps(data))
    with pytest.raises(UserError, match="^" + re.escape(f"{path} is not SQuAD JSON ({told}")) as found:
        list(squad.questions(path, True))
    assert str(found.value).endswith("): give a file with data, paragraphs, qas and answers")


def test_what_is_no_json_at_all(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", '{"data": [\n\n]')
    with pytest.raises(UserError, match=r"SQuAD JSON \(JSONDecodeError: .*line 3 column 2"):
        list(squad.questions(path, True))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"answers": [{"text": "Ann", "answer_start": 0.0}]}, [("Ann", 0)]),
        ({"answers": []}, []),
        ({"answers": [{"text": "", "answer_start": -1}], "is_impossible": True}, []),
        ({"answers": [{"text": "Ann", "answer_start": 0}], "is_impossible": True}, []),
        ({"answers": [{"text": "Ann", "answer_start": 0}], "is_impossible": False}, [("Ann", 0)]),
        ({"answers": None, "is_impossible": True}, []),
    ],
)
def test_answers_and_impossible_questions(more: dict, expected: list, tmp_path: Path) -> None:
    path = squad_file(tmp_path / "a.json", {"context": "Ann", "qas": [{"id": "a", "question": "Who?"} | more]})
    assert [values["answers"] for _, values in squad.questions(path, True)] == [expected]


LISTLESS = "question a: it has no list 'answers': give one, or [] for a question without an answer"
MALFORMED = "lacks a text or an integer answer_start: fix it, or remove that question"


@pytest.mark.parametrize(
    ("asked", "reason", "sentence"),
    [
        ({"answers": [{"text": "x"}]}, "malformed answer", f"question a: its answer {{'text': 'x'}} {MALFORMED}"),
        ({"answers": [{"text": "x", "answer_start": None}]}, "malformed answer", MALFORMED),
        ({"answers": [{"text": "x", "answer_start": float("inf")}]}, "malformed answer", MALFORMED),
        ({"answers": [{"text": "x", "answer_start": float("nan")}]}, "malformed answer", MALFORMED),
        ({"answers": [{"text": 5, "answer_start": 0}]}, "malformed answer", MALFORMED),
        ({"answers": ["x"]}, "malformed answer", f"question a: its answer x {MALFORMED}"),
        ({"answers": {"text": ["x"], "answer_start": [0]}}, "no answers", LISTLESS),
        ({"answers": None}, "no answers", LISTLESS),
        ({}, "no answers", LISTLESS),
        ({"answer": {"text": "x", "answer_start": 0}, "is_impossible": False}, "no answers", LISTLESS),
        ({"id": None, "answers": []}, "no id", "question 'Who?': it has no id: give one, or remove that question"),
    ],
)
def test_questions_that_can_not_be_used(asked: dict, reason: str, sentence: str, tmp_path: Path) -> None:
    """They are rows like any other: skipped where --max-reject-rate allows it."""
    asked = {"id": "a", "question": "Who?"} | asked
    path = squad_file(tmp_path / "a.json", {"context": "x", "qas": [asked, QAS | {"id": "b"}]})
    bad, (where, _) = squad.questions(path, True)
    assert isinstance(bad, BadRow) and bad.reason == reason and where == f"{path}, question b"
    assert str(bad).startswith(f"{path}, question ") and str(bad).endswith(sentence)
    assert [example.id for example in Spans().read(path, Layout(), {}, True, max_reject_rate=0.5)] == ["b"]


def test_predictions_need_no_answers_and_keep_a_place_for_every_question(tmp_path: Path) -> None:
    asked = [{"id": "a", "question": "Who?", "answers": [{"text": "x"}]}, {"id": "b", "question": "Why?"}, {"question": "How?"}]
    path = squad_file(tmp_path / "a.json", {"context": "x", "qas": asked})
    found = list(Spans().read(path, Layout(), {}, False, max_reject_rate=0.5))
    assert [(example.id, example.text, example.pair) for example in found] == [
        ("a", "Who?", "x"),
        ("b", "Why?", "x"),
        ("", "", ""),
    ]
