"""Reads sentences in CoNLL columns: one word per line, an empty line after each sentence.

If the first word's line has a tab, only tabs separate columns, so that a word may contain spaces; otherwise spaces do. All
lines of a sentence have the same number of columns; if a column is counted from the end, all lines of the file do. The
following lines are not words:

- `-DOCSTART-` lines;
- comments: `#begin document`; `# key = value`, `# text<TAB>text`, unless they have as many columns as the words before them in
  the same sentence (`#foo=bar` may be a word); and other lines before a sentence that begin with `#`, if
  their number of columns isn't that of its words (a hashtag may be a word);
- CoNLL-U's ranges (1-2) and empty nodes (3.1), if the first column numbers the words.
"""

import itertools
import re
from collections import Counter
from collections.abc import Iterator

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading.lines import lines
from clozemill.trainers.finetuning.reading.tables import BadRow, Row
from clozemill.trainers.finetuning.task_presets import Layout

MAX_WORDS = 1_000_000  # per sentence
MAX_LENGTH = 1 << 20  # characters per line
_PROBED = 20  # blocks
_DOCUMENT = re.compile(r"#(begin|end) document")
_COMMENT = re.compile(r"#\s*[\w:.-]+\s*=|# [^\t]*\t")
_NUMBER = re.compile(r"\d+([-.]\d+)?")

_Line = tuple[int, list[str]]  # number in the file, cells


def _cells(line: str, tabbed: bool) -> list[str]:
    """Split a line into columns, without surrounding blanks and without empty columns at the end."""
    return [cell.strip(" ") for cell in line.split("\t")] if tabbed or "\t" in line else re.split(" +", line.lstrip(" "))


def _blocks(path: str, counts: Counter) -> Iterator[list[_Line]]:
    """Yield blocks of lines between empty lines, without unambiguous comments. Raises UserError for huge blocks."""
    found: list[_Line] = []
    tabbed = None  # whether tabs separate the columns of the first word, and so of every line
    width = 0  # columns of the sentence's first word, 0 before it
    for number, line in enumerate(itertools.chain(lines(path), [""]), 1):
        if len(line) > MAX_LENGTH:
            raise UserError(f"{path}, line {number}: it has {len(line):,} characters: give a file with one word per line")
        line = line.rstrip("\t ")
        cells = _cells(line, bool(tabbed))
        if _DOCUMENT.match(line) or (_COMMENT.match(line) and len(cells) != width):
            counts["comment lines"] += 1
        elif line and not line.startswith("-DOCSTART-"):
            if not width and not line.startswith("#"):
                width = len(cells)
                tabbed = "\t" in line if tabbed is None else tabbed
            found.append((number, cells))
        else:
            width = 0
            if found:
                yield found
                found = []
        if len(found) > MAX_WORDS:
            raise UserError(
                f"{path}, line {number}: its sentence has more than {MAX_WORDS:,} words: put empty lines between them"
            )


def _without_comments(block: list[_Line], width: int) -> list[_Line]:
    """Remove comments from a block. `width`: columns of the words so far, 0 before the first."""
    hashes = list(itertools.takewhile(lambda line: line[1][0].startswith("#"), block))
    if len(hashes) < len(block):
        width = len(block[len(hashes)][1])
        return [line for line in hashes if len(line[1]) == width] + block[len(hashes) :]
    widths = {len(cells) for _, cells in hashes}
    are_words = widths == {width} or (not width and len(widths) == 1 and hashes[0][1][0] != "#")  # hashtags only
    return block if are_words else []


def _without_ranges(block: list[_Line], counts: Counter) -> list[_Line]:
    """Remove lines of CoNLL-U that aren't words from a sentence, if its first column numbers the words."""
    numbers = [cells[0] for _, cells in block]
    if "1" not in numbers or not all(map(_NUMBER.fullmatch, numbers)):
        return block
    counts["ranges (1-2)"] += sum("-" in number for number in numbers)
    counts["empty nodes (3.1)"] += sum("." in number for number in numbers)
    return [line for line, number in zip(block, numbers, strict=True) if number.isdigit()]


class _Columns:
    """The columns of the words and the tags."""

    def __init__(self, path: str, layout: Layout) -> None:
        self.path, self.layout, self.width = path, layout, 0

    def places(self, line: _Line) -> tuple[int, int]:
        """Return (column of the words, column of the tags), from 0. Raises BadRow, or UserError if a column isn't a number."""
        number, cells = line
        text, label = self.layout.text, self.layout.label
        where, hint = f"{self.path}, line {number}", "fix it, or give --text-column and --label-column as numbers from 0"
        problem = f"it has {len(cells)} columns, and the words should be in column {text}, the tags in {label}"
        try:
            word, tag = (range(len(cells))[int(column)] for column in (text, label))
        except ValueError:
            raise UserError(f"{where}: {problem}: {hint}") from None
        except IndexError:
            raise BadRow(where, "wrong number of columns", problem, hint) from None
        if word == tag and text != label:
            raise BadRow(where, "wrong number of columns", problem, hint)
        return word, tag

    def check(self, block: list[_Line]) -> None:
        """Raise BadRow if a line has more or fewer columns than the line before it."""
        fixed = not {self.layout.text[:1], self.layout.label[:1]} & {"-"}  # otherwise columns may vary by sentence
        width = 0 if fixed else self.width
        for (before, _), (number, cells) in itertools.pairwise([(block[0][0] - 1, []), *block]):
            if width and len(cells) != width:
                than = f"line {before} has {width}" if before >= block[0][0] else f"those before have {width}"
                problem = f"it has {len(cells)} column{'s' * (len(cells) != 1)}, and {than}"
                raise BadRow(f"{self.path}, line {number}", "wrong number of columns", problem, "fix that line")
            width = len(cells)
        self.width = self.width or width

    def sentence(self, block: list[_Line]) -> Row:
        """Return a sentence as a row. Raises BadRow if it is unusable."""
        word, tag = self.places(block[0])
        self.check(block)
        for number, cells in block:
            if not cells[word] or not cells[tag]:
                what = "tag" if cells[word] else "word"
                raise BadRow(
                    f"{self.path}, line {number}", f"empty {what}", f"its {what} is empty", "fix it, or remove that line"
                )
        words, tags = ([cells[place] for _, cells in block] for place in (word, tag))
        return f"{self.path}, line {block[0][0]}", {"words": words, "tags": tags}


def _check_words(block: list[_Line], path: str) -> None:
    """Raise UserError if the first of several columns numbers the words, as in CoNLL-U, from 1 or from 0."""
    firsts = [cells[0] for _, cells in _without_ranges(block, Counter())]
    numbers = [str(number) for number in range(len(firsts) + 1)]
    if len(block[0][1]) > 2 and firsts in (numbers[1:], numbers[:-1]):
        where = f"{path}, line {block[0][0]}"
        raise UserError(f"{where}: column 0 holds the numbers of the words: give --text-column 1, and --label-column")


def check_words_per_line(path: str) -> None:
    """Raise UserError if a file of words without tags seems to have a sentence per line: it would be read as one word each."""
    found = list(itertools.islice(_blocks(path, Counter()), _PROBED))
    if found and all(len(block) == 1 and len(block[0][1]) > 1 for block in found) and not _has_tab(path):
        raise UserError(
            f"{path}, line {found[0][0][0]}: it has several words, and a line is one word with its columns: give one word per "
            "line and an empty line after each sentence, or JSON lines with text"
        )


def _has_tab(path: str) -> bool:
    return any("\t" in line for line in itertools.islice(lines(path), 2 * _PROBED))


def sentences(path: str, layout: Layout) -> Iterator[Row | BadRow]:
    """Yield a file's sentences as lists `words` and `tags`; an unusable sentence is a BadRow.

    Raises UserError if the column of the words holds their numbers.
    """
    counts: Counter = Counter()
    columns, numbered = _Columns(path, layout), layout.text == "0"
    for block in _blocks(path, counts):
        kept = _without_comments(block, columns.width)
        counts["comment lines"] += len(block) - len(kept)
        if not kept:
            continue
        if layout.text != "0":
            kept = _without_ranges(kept, counts)
        elif numbered and len(kept) > 1:
            numbered = False  # check one sentence only: a later one may really be 1 2 3
            _check_words(kept, path)
        try:
            yield columns.sentence(kept)
        except BadRow as bad:
            yield bad
    if found := [f"{number:,} {what}" for what, number in counts.items() if number]:
        print(f"note: {path}: not words: {', '.join(found)}", flush=True)
