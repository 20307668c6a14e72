"""Confusions, entities and samples of a fine-tuned model's answers: literal tables."""

from typing import Any

from clozemill.model.task_model import Task
from clozemill.pipelines.pages.content import Table
from clozemill.trainers.finetuning import dev_exhibits
from clozemill.trainers.finetuning.tasks.base import Example
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES


def tables(task: Task, examples: list[Example], answers: list[dict[str, Any]]) -> dict[str, Table]:
    sections = dev_exhibits.exhibits(TASK_TYPES[task.kind](), task, examples, answers)
    assert [section.title for section in sections] == ["Answers to the dev examples", "Sample predictions"]
    return {table.title: table for section in sections for table in section.tables}


def label(name: str, sure: float) -> dict[str, Any]:
    return {"label": name, "probabilities": {"bad": 1 - sure, "good": 1 - sure} | {name: sure}}


def test_labels() -> None:
    examples = [Example("", text, answer=answer) for text, answer in zip("abcd", ("bad", "bad", "good", "good"), strict=True)]
    answers = [label("bad", 0.9), label("good", 0.6), label("bad", 0.8), label("good", 0.7)]
    found = tables(Task("classify", ("bad", "good")), examples, answers)
    assert found["Confusion matrix"].rows == [("bad", 1, 1), ("good", 1, 1)]
    assert found["Confusion matrix"].head == ("expected \\ given", "bad", "good")
    assert found["Scores by label"].rows[0] == ("bad", "2", "2", "1", "50.0 %", "50.0 %", "50.0 %")
    assert found["Errors, the most confident first"].rows == [("c", "good", "bad", "80.0 %"), ("b", "bad", "good", "60.0 %")]
    assert found["Right answers"].rows == [("a", "bad", "bad", "90.0 %"), ("d", "good", "good", "70.0 %")]


def test_many_labels_have_their_confusions_listed() -> None:
    names = tuple(f"l{number:02d}" for number in range(30))
    examples = [Example("", "t", answer=name) for name in ("l00", "l00", "l01", "l02")]
    answers = [{"label": name, "probabilities": {name: 0.5}} for name in ("l05", "l05", "l00", "l02")]
    found = tables(Task("classify", names), examples, answers)
    assert "Confusion matrix" not in found
    assert found["Most frequent confusions of labels"].rows == [("l00", "l05", "2"), ("l01", "l00", "1")]


def test_entities() -> None:
    words = ("Ann", "saw", "Bern")
    examples = [Example("", words=words, answer=("B-PER", "O", "B-LOC")), Example("", words=("Bern",), answer=("B-LOC",))]
    answers = [{"words": list(words), "tags": ["B-PER", "O", "B-PER"], "probabilities": [0.9, 0.8, 0.6]},
               {"words": ["Bern"], "tags": ["B-LOC"], "probabilities": [0.7]}]  # fmt: skip
    found = tables(Task("tags", ("O", "B-LOC", "B-PER")), examples, answers)
    assert found["Scores by entity type"].rows == [
        ("LOC", "2", "1", "1", "100.0 %", "50.0 %", "66.7 %"),
        ("PER", "1", "2", "1", "50.0 %", "100.0 %", "66.7 %"),
    ]
    assert found["Confusion matrix"].rows == [("O", 1, 0, 0), ("B-LOC", 0, 1, 1), ("B-PER", 0, 0, 1)]
    assert found["Errors, the most confident first"].rows == [
        ("Ann saw Bern", "Ann/B-PER saw Bern/B-LOC", "Ann/B-PER saw Bern/B-PER", "60.0 %")
    ]


def test_sets_of_labels() -> None:
    examples = [Example("", "a", answer=("x", "y")), Example("", "b", answer=())]
    answers = [{"labels": ["x"], "probabilities": {"x": 0.9, "y": 0.2}}, {"labels": [], "probabilities": {"x": 0.1, "y": 0.1}}]
    found = tables(Task("multilabel", ("x", "y")), examples, answers)
    assert found["Scores by label"].rows == [
        ("x", "1", "1", "1", "100.0 %", "100.0 %", "100.0 %"), ("y", "1", "0", "0", "-", "0.0 %", "0.0 %"),
    ]  # fmt: skip
    assert found["Right answers"].rows == [("b", "-", "-", "10.0 %")]


def test_numbers_are_drawn_against_the_expected_ones() -> None:
    examples = [Example("", "a", "b", answer=value) for value in (1.0, 2.0, 5.0)]
    answers = [{"score": value} for value in (1.5, 2.0, 3.0)]
    sections = dev_exhibits.exhibits(TASK_TYPES["regress"](), Task("regress"), examples, answers)
    (plot,) = sections[0].plots
    assert plot.series[0].x == [1.0, 2.0, 5.0] and plot.series[0].y == [1.5, 2.0, 3.0] and plot.series[1].y == [1.0, 5.0]
    assert sections[1].tables[0].rows[0] == ("a | b", "5", "3")


def test_spans() -> None:
    def one(answer: str, given: str) -> tuple[Example, dict[str, Any]]:
        answers = ((answer, 0),) if answer else ()
        return Example("", "who?", "a context", answer=answers), {"answer": given, "probability": 0.5}

    pairs = [one("The mill", "mill"), one("old mill", "mill"), one("mill", "river"), one("mill", ""), one("", ""), one("", "x")]
    found = tables(Task("spans"), [pair[0] for pair in pairs], [pair[1] for pair in pairs])
    assert {row[0]: row[1] for row in found["Answers"].rows} == dict.fromkeys(
        ("exact", "overlapping", "wrong", "no answer, but there is one", "no answer, rightly", "an answer, but there is none"),
        "1",
    )


def test_another_right_answer_is_no_error() -> None:
    """Any of the answers, as SQuAD counts them, and not only as the page shows the first."""
    example = Example("", "who?", "a context", answer=(("The Normans", 0), ("Normans", 4)))
    found = tables(Task("spans"), [example], [{"answer": "normans", "probability": 0.5}])
    assert found["Right answers"].rows == [("who?", "The Normans", "normans", "50.0 %")] and "Errors" not in str(list(found))


def test_an_error_at_the_end_of_a_long_sentence_is_one() -> None:
    """Beyond the part that the page shows."""
    words, tags = ("long",) * 200 + ("Bern",), ["O"] * 200
    answer = {"words": list(words), "tags": [*tags, "O"], "probabilities": [0.9] * 201}
    found = tables(Task("tags", ("O", "B-LOC")), [Example("", words=words, answer=(*tags, "B-LOC"))], [answer])
    assert len(found["Errors, the most confident first"].rows) == 1 and "Right answers" not in found


def test_nothing_was_evaluated_yet() -> None:
    assert dev_exhibits.exhibits(TASK_TYPES["regress"](), Task("regress"), [], []) == []
