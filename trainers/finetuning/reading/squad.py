"""Reads questions of SQuAD JSON (1.1 or 2.0), local or on gs://, plain or compressed."""

from collections.abc import Iterator
from typing import Any

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.lines import lines, parse_json
from clozemill.trainers.finetuning.reading.tables import BadRow, Row


def _answers(where: str, asked: dict[str, Any]) -> list[tuple[str, int]]:
    """Return a question's answers as (text, start); none if it is impossible. Raises BadRow for another layout."""
    if asked.get("is_impossible") is True:  # its answers are ignored, as in the official script
        return []
    if not isinstance(asked.get("answers"), list):
        raise BadRow(where, "no answers", "it has no list 'answers'", "give one, or [] for a question without an answer")
    found = []
    for answer in asked["answers"]:
        try:
            text, start = answer["text"], int(answer["answer_start"])
        except (KeyError, TypeError, ValueError, OverflowError):
            text, start = None, 0
        if not isinstance(text, str):
            problem = f"its answer {str(answer)[:80]} lacks a text or an integer answer_start"
            raise BadRow(where, "malformed answer", problem, "fix it, or remove that question")
        found.append((text, start))
    return found


def _question(path: str, asked: dict[str, Any], context: Any, answers: bool) -> Row | BadRow:
    """Return a question as a row. Raises KeyError, TypeError or AttributeError if it isn't one."""
    id_, question = asked.get("id"), asked["question"]
    if other := [text for text in (question, context) if not isinstance(text, str)]:
        raise TypeError(f"{other[0]!r} is not a text, in question {id_}")
    if id_ is None:
        return BadRow(f"{path}, question {question[:60]!r}", "no id", "it has no id", "give one, or remove that question")
    where = f"{path}, question {id_}"
    try:
        found = _answers(where, asked) if answers else []
    except BadRow as bad:
        return bad
    return where, {"id": str(id_), "question": question, "context": context, "answers": found}


def questions(path: str, answers: bool) -> Iterator[Row | BadRow]:
    """Yield a file's questions: `id`, `question`, `context`, and `answers` as a list of (text, start), [] if not read.

    Raises UserError for a file with another layout.
    """
    try:
        data = parse_json("\n".join(lines(path)))
        for article in data["data"]:
            for paragraph in article["paragraphs"]:
                for asked in paragraph["qas"]:
                    yield _question(path, asked, paragraph["context"], answers)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path} is not SQuAD JSON ({type(error).__name__}: {error}): give a file with data, paragraphs, qas and answers"
        ) from None
