"""Every format of a table gives the rows that are in it, with where they stand, or one sentence about what is wrong."""

import bz2
import contextlib
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading import parquet_rows, tables
from clozemill.trainers.finetuning.task_presets import TASKS, Layout
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from tests.trainers.finetuning.reading.test_lines import written

HEADED, NUMBERED = Layout(), Layout("0", "", "1", header=False)
COLUMNS = Layout("0", "", "-1", header=False)


def rows(path: str, layout: Layout = HEADED, answers: bool = True) -> list[tuple[str, dict]]:
    """A file's rows, with where they are without the folder, and without the column -1. Raises those that can't be used."""
    kept, folder = [], str(Path(path).parent) + "/"
    for row in tables.rows(path, layout, answers):
        if isinstance(row, tables.BadRow):
            raise row
        kept.append((row[0].removeprefix(folder), {name: v for name, v in row[1].items() if name != "-1"}))
    return kept


def test_csv_with_quotes_line_breaks_and_a_mark_of_byte_order(tmp_path: Path) -> None:
    text = '\ufefftext,label\r\n"He said ""no"", twice",0\r\n\r\n"two\nlines, and\n\nmore",1\r\nlast,2'
    assert rows(written(tmp_path / "a.csv", text)) == [
        ("a.csv, line 2", {"text": 'He said "no", twice', "label": "0"}),
        ("a.csv, line 4", {"text": "two\nlines, and\n\nmore", "label": "1"}),
        ("a.csv, line 8", {"text": "last", "label": "2"}),
    ]


def test_tsv_takes_quotes_and_carriage_returns_as_they_are(tmp_path: Path) -> None:
    text = 'text\tlabel\n"Never closed\t0\nHe said "no"\t1\na "" b\rc\t0\n'
    assert [row for _, row in rows(written(tmp_path / "a.tsv", text))] == [
        {"text": '"Never closed', "label": "0"},
        {"text": 'He said "no"', "label": "1"},
        {"text": 'a "" b\rc', "label": "0"},
    ]


def test_columns_by_number(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "x\ty\tz\n\nu\tv\t\n")
    assert list(tables.rows(path, NUMBERED)) == [
        (f"{path}, line 1", {"0": "x", "1": "y", "2": "z", "-1": "z"}),
        (f"{path}, line 3", {"0": "u", "1": "v", "2": "", "-1": ""}),
    ]


def test_json_lines(tmp_path: Path) -> None:
    text = '\ufeff{"text": "a\\nb", "label": true}\n\n  \n'
    text += '{"text": "é\u2028", "label": 2, "more": [{"text": 1}], "x": 1, "x": "text"}'
    assert rows(written(tmp_path / "a.jsonl", text)) == [
        ("a.jsonl, line 1", {"text": "a\nb", "label": True}),
        ("a.jsonl, line 4", {"text": "é\u2028", "label": 2, "more": [{"text": 1}], "x": "text"}),
    ]


def test_halves_of_surrogate_pairs_are_replaced(tmp_path: Path) -> None:
    """JSON can hold them and no UTF-8 file can; a whole pair, and an escaped backslash, stay what they are."""
    text = r'{"text": "a\ud800b \ud83d\ude00 \\ud800 \udc00", "\ud800": 1}'
    assert rows(written(tmp_path / "a.jsonl", text))[0][1] == {"text": "a\ufffdb 😀 \\ud800 \ufffd", "\ufffd": 1}


def test_parquet_of_several_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{n}" for n in range(5000)], "label": list(range(5000)), "words": [["a", "b"]] * 5000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    found = rows(str(tmp_path / "a.parquet"), Layout("words", "", "label"))
    assert [row["label"] for _, row in found] == list(range(5000))
    assert found[4999] == ("a.parquet, row 5000", {"words": ["a", "b"], "label": 4999})


def test_plain_text_has_a_text_per_line_under_the_layout_s_name(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "one \n\n  \ntwo\ttwo\r\nthree")
    assert rows(path, Layout("sentence"), answers=False) == [
        ("a.txt, line 1", {"sentence": "one "}),
        ("a.txt, line 4", {"sentence": "two\ttwo"}),
        ("a.txt, line 5", {"sentence": "three"}),
    ]


@pytest.mark.parametrize(
    ("packed", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".ZST", zstandard.compress)], ids=lambda v: str(v)[:4]
)
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".txt"])
def test_compressed_is_the_same(ending: str, packed: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    data = {".csv": "text\na\n", ".tsv": "text\na\n", ".jsonl": '{"text": "a"}\n', ".txt": "a\n"}[ending].encode()
    zipped = rows(written(tmp_path / f"a{ending}{packed}", pack(data[:3]) + pack(data[3:])), answers=False)
    plain = rows(written(tmp_path / f"a{ending}", data), answers=False)
    assert [row for _, row in zipped] == [row for _, row in plain] == [{"text": "a"}]


ZIPPED = gzip.compress(b"text\n" + "".join(map(chr, range(300, 900))).encode() * 2, mtime=0)


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("a.csv", None, "a.csv doesn't exist: give a file of texts"),
        ("a.parquet", None, "a.parquet doesn't exist: give a file of texts"),
        ("a.csv", b"text\na\n\xff\xfe\n", "a.csv, line 3: it is not UTF-8: convert the file"),
        ("a.txt", b"\xffone\n", "a.txt, line 1: it is not UTF-8: convert the file"),
        ("a.csv", 'text,label\na,0\n"b,1\nc,2\n', "a.csv, line 3: unexpected end of data: fix that line"),
        ("a.csv", 'text,label\n"a"b,0\n', "a.csv, line 2: ',' expected after '\"': fix that line"),
        ("a.csv", "text,label\na,0\nb\n", "a.csv, line 3: it has 1 column, and the header 2: fix that row, or remove it"),
        ("a.tsv", "text\tlabel\nb 1\n", "a.tsv, line 2: it has 1 column, and the header 2: fix that row, or remove it"),
        ("a.jsonl", '{"text": "a"}\n{"text": \n', "a.jsonl, line 2: it is not a JSON object: fix that line"),
        ("a.jsonl", '["a"]\n', "a.jsonl, line 1: it is not a JSON object: fix that line"),
        ("a.jsonl", "[" * 99_999, "a.jsonl, line 1: it is not a JSON object: fix that line"),
        ("a.jsonl", '{"text":"a","label":1,"text":"b"}', "a.jsonl, line 1: it has the field 'text' twice: remove one of them"),
        ("a.jsonl", '{"text":"\\ud800","label":1,"label":2}', "a.jsonl, line 1: it has the field 'label' twice: remove one of"),
        ("a.jsonl", '{"text":"a","Label":1,"Label":2}', "a.jsonl, line 1: it has the field 'Label' twice: remove one of them"),
        (
            "a.jsonl",
            '{"Text":"a","label":1}\n\n{"text":"b","label":0}\n',
            "a.jsonl, line 3: it has 'text', and line 1 has 'Text': use one name in all rows",
        ),
        (
            "a.jsonl",
            '{"text":"a","label":1,"Label":5}\n{"text":"b","Label":6}\n',
            "a.jsonl, line 2: it has 'Label', and line 1 has 'label': use one name in all rows",
        ),
        ("a.xlsx", "", "a.xlsx has none of the endings .csv, .tsv, .jsonl, .parquet, .txt: rename it, or convert it"),
        ("a.csv.gz", ZIPPED[:-12], "a.csv.gz is not an intact gzip file (it is truncated): download it again"),
        ("a.csv.gz", b"text\na\n", "a.csv.gz is not an intact gzip file (Error -3 while decompressing data: incorrect header"),
        ("a.csv.gz", ZIPPED[:10] + b"\xff" * 40, "a.csv.gz is not an intact gzip file (Error -3 while decompressing data"),
        ("a.csv.bz2", bz2.compress(b"text\na\n")[:-3], "a.csv.bz2 is not an intact bz2 file (it is truncated in"),
        ("a.csv", ZIPPED, "a.csv is compressed with gzip: rename it to end with .gz"),
        ("a.tsv", bz2.compress(b"text\na\n"), "a.tsv is compressed with bzip2: rename it to end with .bz2"),
        ("a.txt", zstandard.compress(b"one\n"), "a.txt is compressed with Zstandard: rename it to end with .zst"),
        ("a.jsonl", zstandard.compress(b"{}\n"), "a.jsonl is compressed with Zstandard: rename it to end with .zst"),
        (
            "a.csv",
            "text\n川のそばに古い水車小屋があります。\n".encode("cp932"),
            "a.csv, line 2: it is not UTF-8: it looks like Shift_JIS: convert it with iconv -f SHIFT_JIS -t UTF-8 /",
        ),
        ("a.jsonl", b'{"text": "Caf\xe9"}\n', "a.jsonl, line 1: it is not UTF-8: it looks like Windows-1252: convert it with"),
        ("a.parquet", b"PAR1 and no more", "a.parquet can't be read ("),
    ],
)
def test_mistakes_are_one_sentence(name: str, data: str | bytes | None, sentence: str, tmp_path: Path) -> None:
    path = str(tmp_path / name) if data is None else written(tmp_path / name, data)
    with pytest.raises(UserError) as told:
        rows(path, answers="label" in str(data).lower())
    assert str(told.value).startswith(f"{tmp_path}/{sentence}") and "\n" not in str(told.value)


def test_a_parquet_file_cut_short(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 9}), tmp_path / "whole.parquet")
    path = written(tmp_path / "a.parquet", (tmp_path / "whole.parquet").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"a\.parquet can't be read \(.*\): give an intact Parquet file$"):
        rows(path)


@pytest.mark.parametrize(("ending", "told"), [(".csv", "is a folder: give"), (".parquet", "can't be read (")])
def test_a_folder_is_no_table(ending: str, told: str, tmp_path: Path) -> None:
    (tmp_path / f"a{ending}").mkdir()
    with pytest.raises(UserError, match="^" + re.escape(f"{tmp_path}/a{ending} {told}")):
        rows(f"{tmp_path}/a{ending}")


def test_a_row_without_the_last_columns_of_a_file_without_a_header(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tsv", "gj04\t1\t\tFine.\ngj04\t1\n")
    with pytest.raises(UserError) as told:
        list(TASK_TYPES["classify"]().read(path, TASKS["cola"].layout, {}, answers=True))
    assert str(told.value).startswith(f"{path}, line 2: it has 2 columns, and line 1 has 4: fix that row, or remove it")


@pytest.mark.parametrize(
    ("column", "names", "hint"),
    [
        ("lable", ["text", "topic"], "give one of these with --label-column"),
        ("lable", ["text", "Label"], "give one of these with --label-column; did you mean Label?"),
        ("10", ["0", "1"], "give one of these with --label-column"),
        ("label", [], "give --label-column"),
        ("label", [f"label {n}" for n in range(60)], "give one of these with --label-column"),  # too many to compare
    ],
)
def test_what_to_do_about_a_missing_column(column: str, names: list[str], hint: str) -> None:
    with pytest.raises(UserError) as told:
        tables.value(("a.jsonl, line 1", dict.fromkeys(names)), column, "--label-column")
    assert str(told.value) == f"a.jsonl, line 1: no column {column!r} (columns: {', '.join(names)}): {hint}"


def test_a_header_without_a_column_suggests_a_similar_one(tmp_path: Path) -> None:
    with pytest.raises(UserError) as told:
        rows(written(tmp_path / "a.csv", "text,label\na,b\n"), Layout("text", "", "lable"))
    hint = "give one of these with --label-column, or --header no if that line is no header; did you mean label?"
    assert str(told.value) == f"{tmp_path}/a.csv, line 1: no column 'lable' (columns: text, label): {hint}"


def test_columns_that_are_missing_or_empty_or_no_texts() -> None:
    row = ("a.jsonl, line 3", {"sentence": 5, "label": None, "-1": None})
    for column, sentence in {
        "text": "a.jsonl, line 3: no column 'text' (columns: sentence, label): give one of these with --x",
        "label": "a.jsonl, line 3: its 'label' is empty: fix it, or give --x",
        "sentence": "a.jsonl, line 3: 'sentence' is int, not a text: give --x",
    }.items():
        with pytest.raises(UserError) as told:
            tables.text(row, column, "--x")
        assert str(told.value) == sentence
    assert tables.value(row, "sentence", "--x") == 5


MNLI = (
    "index promptID pairID genre sentence1_binary_parse sentence2_binary_parse sentence1_parse sentence2_parse "
    "sentence1 sentence2 label1 gold_label"
)
PARSES = ("( a )", "( b )", "(ROOT a)", "(ROOT b)")
STSB = "index genre filename year old_index source1 source2 sentence1 sentence2 score"
GLUE = {  # a few rows in each task's own layout, and what is read of them
    "cola": (
        "gj04\t1\t\tOur friends won't buy this analysis.\ngj04\t0\t*\tThe box contains of 3 \"balls.\n",
        [("Our friends won't buy this analysis.", None, "acceptable"), ('The box contains of 3 "balls.', None, "unacceptable")],
    ),
    "sst2": (
        "sentence\tlabel\nhide new secretions from the parental units \t0\nit 's a charming journey . \t1\n",
        [("hide new secretions from the parental units ", None, "negative"), ("it 's a charming journey . ", None, "positive")],
    ),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t70\t71\tHe said "a.\tShe said b.\r\n0\t1\t2\tc\td\r\n',
        [('He said "a.', "She said b.", "equivalent"), ("c", "d", "not_equivalent")],
    ),
    "stsb": (
        "\t".join(STSB.split()) + "\n" + "0\tnews\tMSR\t2012\t1\tnone\tnone\tA \"plane.\tA jet.\t3.800\n",
        [('A "plane.', "A jet.", 3.8)],
    ),
    "qqp": (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n1\t2\t3\tHow?\tWhy?\t0\n"
        "4\t5\t6\ttorn\n7\t8\t9\t\tWhy?\t0\n7\t8\t9\tA?\tA ?\t1\n",
        [("How?", "Why?", "not_duplicate"), ("A?", "A ?", "duplicate")],
    ),
    "mnli": (
        "\t".join(MNLI.split()) + "\n" + "\t".join(["0", "1", "1n", "fiction", *PARSES, "Yes.", "No.", "neutral", "neutral"]),
        [("Yes.", "No.", "neutral")],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tWhen?\tIn 1.\tentailment\n1\tWho?\tx\tnot_entailment\n",
        [("When?", "In 1.", "entailment"), ("Who?", "x", "not_entailment")],
    ),
    "rte": ("index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n", [("a", "b", "not_entailment")]),
}  # fmt: skip


@pytest.mark.parametrize("task", GLUE)
def test_glue_as_it_comes(task: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    preset, (data, expected) = TASKS[task], GLUE[task]
    path = written(tmp_path / "train.tsv", data)
    found = list(TASK_TYPES[preset.kind]().read(path, preset.layout, dict(preset.labels), True, max_reject_rate=0.5))
    assert [(example.text, example.pair, example.answer) for example in found] == expected
    told = (
        f"warning: {path}: 2 of 4 rows were skipped (empty text: 1, wrong number of columns: 1); first: {path}, line 3: "
        "it has 4 columns, and the header 6: fix that row, or remove it\n"
    )
    assert capsys.readouterr().err == (told if task == "qqp" else "")


def test_every_task_is_of_a_known_kind() -> None:
    assert {preset.kind for preset in TASKS.values()} == set(TASK_TYPES) and set(TASK_TYPES) <= set(TASKS)
    assert {name for name, preset in TASKS.items() if preset.labels} == {*GLUE, "conll"} - {"stsb"}


@pytest.mark.parametrize(
    ("name", "data", "layout", "expected"),
    [
        ("a.csv", 'text;label\n"a; b";1\nc, d;2\n', HEADED, [("a; b", "1"), ("c, d", "2")]),  # Excel's, decimal comma
        ("a.csv", "text\tlabel\na, b\t1\n", HEADED, [("a, b", "1")]),
        ("a.csv", "sep=;\ntext;label\na;1\n", HEADED, [("a", "1")]),
        ("a.csv", "text,label;x\na,1\n", Layout("text", "", "label;x"), [("a", "1")]),
        ("a.csv", "\ufeff Text ,LABEL,\ra,1,\r", HEADED, [("a", "1")]),
        ("a.csv", "Text,text,label\na,b,1\n", HEADED, [("b", "1")]),  # the exact name first
        ("a.txt", "text\tlabel\na\t1\n", HEADED, [("a", "1")]),
        ("A.CSV", "text,label\r\na,1\r\n", HEADED, [("a", "1")]),
        ("a.jsonl", '{"Text": "a", "Label": 1}', HEADED, [("a", 1)]),
    ],
)
def test_tables_of_other_programs(name: str, data: str, layout: Layout, expected: list, tmp_path: Path) -> None:
    found = list(tables.rows(written(tmp_path / name, data), layout, answers=True))
    flags = ("--text-column", "--label-column")
    columns = (layout.text, layout.label)
    assert [tuple(tables.value(row, *pair) for pair in zip(columns, flags, strict=True)) for row in found] == expected


ONE_CELL = "columns '0' and '-1' are the same column: separate columns by commas (.csv) or tabs (.tsv), or give --label-column"


@pytest.mark.parametrize(
    ("name", "data", "layout", "sentence"),
    [
        ("a.csv", "text,text,label\na,b,1\n", HEADED, "line 1: 2 columns are named 'text': rename one of them, or give --text"),
        ("a.csv", "TEXT,Text,label\na,b,1\n", HEADED, "line 1: 2 columns are named 'text': rename one of them, or give --text"),
        ("a.csv", "text;label\na;1\n", Layout("0", "", "1", header=False), "line 1: no column '1' (columns: 0): "),
        ("a.csv", "label,text\n1,a\n", Layout("-1", "TEXT", "label"), "line 1: columns '-1' and 'TEXT' are the same column: "),
        ("a.csv", "good;pos\nbad;neg\n", COLUMNS, f"line 1: {ONE_CELL}"),
        ("a.tsv", "good pos\n", COLUMNS, f"line 1: {ONE_CELL}"),
        ("a.csv", "a,b\n", Layout("1", "", "-1", header=False), "line 1: columns '1' and '-1' are the same column: separate"),
        ("a.csv", "n,text\n1,a\n", Layout("Text", "", "-1"), "line 1: columns 'Text' and '-1' are the same column: separate"),
        ("a.csv", "text,label\na, b,1\n", HEADED, "line 2: it has 3 columns, and the header 2: fix that row, or remove it"),
        ("a.csv", "a,1\nb,2,c\n", NUMBERED, "line 2: it has 3 columns, and line 1 has 2: fix that row, or remove it"),
        ("a.tsv", "text\tlabel\n" + "\t" * 1_000_000, HEADED, "line 2: it has more than 1,000,000 columns: fix that line"),
        ("a.csv", "text,label\n" + "," * 1_000_001, HEADED, "line 2: it has more than 1,000,000 columns: fix that line"),
    ],
)
def test_columns_that_are_not_clear(name: str, data: str, layout: Layout, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        rows(written(tmp_path / name, data), layout)
    assert str(error.value).startswith(f"{tmp_path}/{name}, {sentence}")


def test_a_text_file_is_a_table_where_its_first_line_names_the_text(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "#1 String\t#2 String\nx\ty\n")
    assert rows(path, Layout("#1 String", "#2 String"), answers=False) == [
        ("a.txt, line 2", {"#1 String": "x", "#2 String": "y"})
    ]
    path = written(tmp_path / "b.txt", "sentence\tlabel\nx\ty\n")
    assert rows(path, Layout("sentence"), answers=False)[0][1]["sentence"] == "x"
    assert rows(path, Layout("text"), answers=False)[0][1]["text"] == "sentence\tlabel"


def test_a_quoted_cell_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_LINE", 1000)
    path = written(tmp_path / "a.csv", 'text,label\n"' + "a b c\n" * 150 + '",1\n"' + "a b c\n" * 200)
    with pytest.raises(UserError, match=r"a\.csv, line 352: its row is longer than 0 MB: close its quotes"):
        rows(path)


def test_parquet_that_expands_as_no_text_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two columns of one name neither is taken."""
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a" * 1500] * 3, "label": ["x", "y", "z"], "image": [b"0" * 100] * 3})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    monkeypatch.setattr(parquet_rows, "MAX_LINE", 4000)
    assert len(rows(str(path))) == 3
    pq.write_table(
        pa.table({"text": ["a" * 100_000] * 3, "label": ["x", "y", "z"]}), path, compression="zstd", use_dictionary=False
    )
    with pytest.raises(UserError, match=r"bytes expand to 300,\d\d\d in a row group, too much for text\): give another file"):
        rows(str(path))
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "Text"]).rename_columns(["TEXT", "Text"]), path)
    with pytest.raises(UserError, match="2 columns are named 'text': rename one of them"):
        rows(str(path), answers=False)


def test_an_unknown_time_zone_in_parquet(tmp_path: Path) -> None:
    times = pa.array([0], pa.timestamp("s", "Foo/Bar"))
    pq.write_table(pa.table({"text": ["a"], "label": times}), tmp_path / "a.parquet")
    with pytest.raises(UserError) as error:
        rows(f"{tmp_path}/a.parquet")
    assert str(error.value) == f"{tmp_path}/a.parquet: unknown time zone 'Foo/Bar': store times as text"


def test_a_damaged_column_of_parquet_does_not_end_the_process(tmp_path: Path) -> None:
    """pyarrow aborts where it is asked for the size of a column whose statistics of levels are damaged."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a", None], "label": ["x", "y"]}), path)
    data, tried = path.read_bytes(), 0
    for at in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data) - 8):
        path.write_bytes(data[:at] + bytes([data[at] ^ 8]) + data[at + 1 :])
        with contextlib.suppress(UserError):
            rows(str(path))
        tried += 1
    assert tried > 100
