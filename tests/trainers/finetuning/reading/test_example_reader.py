"""Rows that can't be used: an error at once, or counted, as long as few enough of them are allowed."""

from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES

ROWS = "text\tlabel\na\tx\nb\nc\t\nd\ty\tz\n\te\nf\ty\n"


def table(folder: Path) -> str:
    (folder / "a.tsv").write_text(ROWS)
    return str(folder / "a.tsv")


def test_none_is_allowed_unless_it_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        list(TASK_TYPES["classify"]().read(table(tmp_path), Layout(), {}, answers=True))
    sentence = "line 3: it has 1 column, and the header 2: fix that row, or remove it (--max-reject-rate skips such rows)"
    assert str(error.value) == f"{tmp_path}/a.tsv, {sentence}"
    assert {name for name, task in TASKS.items() if task.max_reject_rate} == {"qqp", "mnli", "spans", "squad", "squad2"}


def test_skipped_rows_are_counted_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = list(TASK_TYPES["classify"]().read(table(tmp_path), Layout(), {}, answers=True, max_reject_rate=0.7))
    assert [(example.text, example.answer) for example in found] == [("a", "x"), ("f", "y")]
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/a.tsv: 4 of 6 rows were skipped (empty label: 1, empty text: 1, wrong number of columns: 2); "
        f"first: {tmp_path}/a.tsv, line 3: it has 1 column, and the header 2: fix that row, or remove it\n"
    )


def test_too_many_of_them(tmp_path: Path) -> None:
    """As many as the rate allows are taken, one more isn't."""
    with pytest.raises(UserError) as error:
        list(TASK_TYPES["classify"]().read(table(tmp_path), Layout(), {}, answers=True, max_reject_rate=0.66))
    assert str(error.value) == (
        f"{tmp_path}/a.tsv: 4 of 6 rows are unusable, more than --max-reject-rate 0.66 allows; first: {tmp_path}/a.tsv, "
        "line 3: it has 1 column, and the header 2: fix that row, or remove it"
    )
    assert len(list(TASK_TYPES["classify"]().read(table(tmp_path), Layout(), {}, answers=True, max_reject_rate=4 / 6))) == 2


def test_without_answers_every_row_gives_an_example(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """So that predictions stay beside their rows; labels aren't read, and empty texts are texts."""
    found = list(TASK_TYPES["classify"]().read(table(tmp_path), Layout(), {}, answers=False, max_reject_rate=0.5))
    assert [example.text for example in found] == ["a", "", "c", "", "", "f"]
    assert "a.tsv: 2 of 6 rows were read as empty texts (wrong number of columns: 2); first" in capsys.readouterr().err
    path = tmp_path / "a.conll"
    path.write_text("a O\n\nNew York O\nb O\n\nc O\n")
    found = list(TASK_TYPES["tags"]().read(str(path), TASKS["tags"].layout, {}, answers=False, max_reject_rate=0.5))
    assert [example.words for example in found] == [("a",), (), ("c",)]


def test_words_of_wikiann(tmp_path: Path) -> None:
    tags = TASK_TYPES["tags"]()
    (tmp_path / "a.conll").write_text("en:Rome\tB-LOC\nen:is\tO\n\nen:old\tO\n")
    found = list(tags.read(f"{tmp_path}/a.conll", TASKS["tags"].layout, {}, answers=True))
    with pytest.raises(UserError, match=r"a\.conll, line 1: all words begin with 'en:', as in WikiANN: remove that"):
        tags.check(found)
    (tmp_path / "a.conll").write_text("en:Rome\tB-LOC\nis\tO\n")
    tags.check(list(tags.read(f"{tmp_path}/a.conll", TASKS["tags"].layout, {}, answers=True)))
