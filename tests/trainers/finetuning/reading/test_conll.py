"""CoNLL columns of every dialect: which lines are words, which aren't, and shifted columns."""

from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading import conll
from clozemill.trainers.finetuning.reading.tables import BadRow
from clozemill.trainers.finetuning.task_presets import Layout

COLUMNS = Layout("0", "", "-1", header=False)
UD = Layout("1", "", "3", header=False)


def read(path: Path, data: str, layout: Layout = COLUMNS) -> list[tuple[int, str, str]]:
    """(line, words, tags) of each sentence. Raises BadRow for the first that can't be used."""
    path.write_text(data, "utf-8", newline="")
    found = []
    for row in conll.sentences(str(path), layout):
        if isinstance(row, BadRow):
            raise row
        where, values = row
        assert where.startswith(f"{path}, line ")
        found.append((int(where.rsplit(" ", 1)[1]), "|".join(values["words"]), "|".join(values["tags"])))
    return found


CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O


\u200b NN I-NP O
New\xa0York NN I-NP B-LOC
-DOCSTART- -X- -X- O
Peter  NNP B-NP B-PER"""


@pytest.mark.parametrize("end", ["", "\n", "\n\n \n\t\n"])
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_sentences(end: str, ends: str, tmp_path: Path) -> None:
    data = "\ufeff" + (CONLL_2003 + end).replace("\n", ends)
    assert read(tmp_path / "a.txt", data) == [
        (3, "EU|rejects", "B-ORG|O"),
        (7, "\u200b|New\xa0York", "O|B-LOC"),
        (10, "Peter", "B-PER"),
    ]
    assert read(tmp_path / "a.txt", data, Layout("0", "", "2"))[0][2] == "B-NP|B-VP"


UD_FILE = """# newdoc
# sent_id = s1
# text = Du lac 26 000
1-2\tDu\t_\t_\t_\t_
1\tDe\tde\tADP\t_\t_
2\tle\tle\tDET\t_\t_
3\tlac\tlac\tNOUN\t_\t_
3.1\tvu\tvoir\tVERB\t_\t_
4\t26 000\t26000\tNUM\t_\t_

1\t#\t#\tSYM\t_\t_
2\t1-2\t1-2\tNUM\t_\t_
"""
GERMEVAL = """#\thttp://de.wikipedia.org/wiki/X\t[2009-10-17]
1\tAufgrund\tO\tO
2\tSan Francisco\tB-LOC\tO

#\thttp://de.wikipedia.org/wiki/Y\t[2010-01-02]
1\t#\tO\tB-OTH
"""


@pytest.mark.parametrize(
    ("data", "layout", "expected"),
    [
        pytest.param(UD_FILE, UD, [(5, "De|le|lac|26 000", "ADP|DET|NOUN|NUM"), (11, "#|1-2", "SYM|NUM")], id="UD"),
        pytest.param(
            GERMEVAL, Layout("1", "", "2"), [(2, "Aufgrund|San Francisco", "O|B-LOC"), (6, "#", "O")], id="GermEval"
        ),
        pytest.param(
            "# id 1f3a\tdomain=en\nanna _ _ B-PER\nruns _ _ O\n\n# id 2\tdomain=en\nbern _ _ B-LOC\n", COLUMNS,
            [(2, "anna|runs", "B-PER|O"), (6, "bern", "B-LOC")], id="MultiCoNER",
        ),
        pytest.param(
            "# id 1f3a\tdomain=en\nanna\tB-PER\n\n# id 2\tdomain=en\nbern\tB-LOC\n", COLUMNS,
            [(2, "anna", "B-PER"), (5, "bern", "B-LOC")], id="comments of as many columns",
        ),
        pytest.param(
            "#nowplaying\tO\nNew York\tB-LOC\t\n\t\n#\tO\n1\tO\t\n\t \n@x\tO", COLUMNS,
            [(1, "#nowplaying|New York", "O|B-LOC"), (4, "#|1", "O|O"), (7, "@x", "O")], id="WNUT-17",
        ),
        pytest.param(
            "#begin document (a); part 0\na 0 0 The DT\na 0 1 mill NN\n\nb 0 0 Go VB x\n\n#end document\n",
            Layout("3", "", "4"), [(2, "The|mill", "DT|NN"), (5, "Go", "VB")], id="CoNLL-2012, columns by sentence",
        ),
        pytest.param(
            "a\tO\n#foo=bar\tO\n#tag =\tB-X\n# x\tO\n\n# x = y\tz\nb\tO\n# text = c\td\te\n#end document\n", COLUMNS,
            [(1, "a|#foo=bar|#tag =|# x", "O|O|B-X|O"), (7, "b", "O")], id="words that look like comments",
        ),
        pytest.param("a X O\n#a=b X O\n# id = 7\n", COLUMNS, [(1, "a|#a=b", "O|O")], id="such words between spaces"),
        pytest.param("# O\na O\n", COLUMNS, [(1, "#|a", "O|O")], id="a hash is a word"),
        pytest.param("a O\n\n# a comment of words\n# x\n\nb O\n", COLUMNS, [(1, "a", "O"), (6, "b", "O")], id="comments alone"),
        pytest.param("#tag O\n#me B-X\n\na O\n", COLUMNS, [(1, "#tag|#me", "O|B-X"), (4, "a", "O")], id="hashtags alone"),
        pytest.param("# by us\n# CC-BY\n\na O\n", COLUMNS, [(4, "a", "O")], id="a licence first"),
        pytest.param("1 O\n2 O\n3 O\n", COLUMNS, [(1, "1|2|3", "O|O|O")], id="numbers are words"),
        pytest.param("EU\nrejects\n", Layout("0", "", "0"), [(1, "EU|rejects", "EU|rejects")], id="words alone"),
    ],
)  # fmt: skip
def test_dialects(data: str, layout: Layout, expected: list, tmp_path: Path) -> None:
    assert read(tmp_path / "a.conll", data, layout) == expected


def test_lines_that_are_no_words_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    read(tmp_path / "a.conllu", UD_FILE, UD)
    told = f"note: {tmp_path}/a.conllu: not words: 3 comment lines, 1 ranges (1-2), 1 empty nodes (3.1)\n"
    assert capsys.readouterr().out == told
    read(tmp_path / "a.txt", CONLL_2003)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("data", "layout", "sentence"),
    [
        ("a O\nNew York B-LOC\n", COLUMNS, "line 2: it has 3 columns, and line 1 has 2: fix that line"),
        ("a\tO\nb c\n", COLUMNS, "line 2: it has 1 column, and line 1 has 2: fix that line"),
        ("a\tO\nPeter NNP\tB-NP\tO\n", COLUMNS, "line 2: it has 3 columns, and line 1 has 2: fix that line"),
        ("a O\n\nNew York B-LOC\n", COLUMNS, "line 3: it has 3 columns, and those before have 2: fix that line"),
        ("a X\nb\n", Layout("0", "", "1"), "line 2: it has 1 column, and line 1 has 2: fix that line"),
        ("a X O\nb\tO\nc X O\n", COLUMNS, "line 2: it has 2 columns, and line 1 has 3: fix that line"),
        ("a O\n#b c d\n", COLUMNS, "line 2: it has 3 columns, and line 1 has 2: fix that line"),
        ("\tO\n", COLUMNS, "line 1: its word is empty: fix it, or remove that line"),
        ("a\t\tO\n", Layout("0", "", "1"), "line 1: its tag is empty: fix it, or remove that line"),
    ],
)
def test_columns_that_shift(data: str, layout: Layout, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(BadRow) as error:
        read(tmp_path / "a.conll", data, layout)
    assert str(error.value) == f"{tmp_path}/a.conll, {sentence}"


@pytest.mark.parametrize(
    ("line", "layout", "columns"),
    [("EU", COLUMNS, 1), ("EU", Layout("0", "", "3"), 1), ("EU B", Layout("0", "", "-3"), 2), ("a b c d", Layout("word"), 4)],
)
def test_columns_that_are_not_there(line: str, layout: Layout, columns: int, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path / "a.txt", f"{line}\n", layout)
    assert str(error.value) == (
        f"{tmp_path}/a.txt, line 1: it has {columns} columns, and the words should be in column {layout.text}, the tags in "
        f"{layout.label}: fix it, or give --text-column and --label-column as numbers from 0"
    )


def test_the_column_of_numbers_is_not_taken_for_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 4: column 0 holds the numbers of the words: give --text-column 1"):
        read(tmp_path / "a.conllu", UD_FILE)
    with pytest.raises(UserError, match=r"line 1: column 0 holds the numbers of the words: give --text-column 1"):
        read(tmp_path / "a.conll", "0\tEU\tB-ORG\n1\trejects\tO\n")
    assert read(tmp_path / "a.conll", "0\tO\n1\tO\n") == [(1, "0|1", "O|O")]


def test_huge_lines_and_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"a\.txt, line 2: it has 1,048,578 characters: give a file with one word per line"):
        read(tmp_path / "a.txt", "a O\n" + "b" * (1 << 20) + " O\n")
    monkeypatch.setattr(conll, "MAX_WORDS", 100)
    with pytest.raises(UserError, match=r"a\.txt, line 101: its sentence has more than 100 words: put empty lines"):
        read(tmp_path / "a.txt", "a O\n" * 200)
