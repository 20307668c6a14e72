"""Records lie under the file's name when all are written, in the types of the task, and nothing lies there otherwise."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.inference import writers

COLUMNS = pa.schema([("id", pa.int64()), ("text", pa.string()), ("tags", pa.list_(pa.string())), ("score", pa.float64())])
RECORDS = [
    {"id": 1, "text": 'é\u2028\n"', "tags": ["O", "B-X"], "score": 0.1},
    {"id": 2, "text": "", "tags": [], "score": 2.0},
    {"id": 1 << 40, "text": "😀", "tags": ["O"], "score": 1 / 3},
]


def written(path: Path, *parts: list[dict], columns: pa.Schema = COLUMNS) -> Path:
    with writers.opened(str(path), columns) as sink:
        for part in parts:
            sink.write(part)
            assert not path.exists()
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    return path


def test_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "new/deep/a.jsonl", RECORDS[:2], [], RECORDS[2:])
    text = path.read_text("utf-8")
    assert [json.loads(line) for line in text.removesuffix("\n").split("\n")] == RECORDS and "é" in text and "😀" in text


def test_no_records_are_a_file_without_any(tmp_path: Path) -> None:
    assert written(tmp_path / "a.jsonl").read_bytes() == b""


def test_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", RECORDS[:2], [], RECORDS[2:])
    assert pq.read_schema(path).equals(COLUMNS) and pq.read_table(path).to_pylist() == RECORDS
    assert pq.ParquetFile(path).num_row_groups == 2


@pytest.mark.parametrize("parts", [[], [[]], [[{"id": 1, "text": None, "tags": [], "score": None}], RECORDS]])
def test_types_are_the_task_s_whatever_comes_first(parts: list, tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", *parts)
    assert pq.read_schema(path).equals(COLUMNS)
    assert pq.read_table(path).to_pylist() == [record for part in parts for record in part]


def test_what_a_record_lacks_is_null_in_parquet(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [{"id": 1}, {"text": "a"}])
    assert pq.read_table(path).column("id").to_pylist() == [1, None]
    assert pq.read_table(path).column("text").to_pylist() == [None, "a"]


def test_numpy_rows_become_lists_of_a_fixed_size(tmp_path: Path) -> None:
    columns = pa.schema([("features", pa.list_(pa.float32(), 3))])
    rows = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    path = written(
        tmp_path / "a.parquet",
        [{"features": row} for row in rows[:2]],
        [{"features": row} for row in rows[2:]],
        columns=columns,
    )
    table = pq.read_table(path)
    assert table.schema.equals(columns)
    assert (np.array(table.column("features").to_pylist(), np.float32) == rows).all()


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
@pytest.mark.parametrize("records", [[], RECORDS])
def test_nothing_is_left_of_what_went_wrong(ending: str, records: list, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^the reason$"), writers.opened(f"{tmp_path}/a{ending}", COLUMNS) as sink:
        sink.write(records)
        raise UserError("the reason")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_what_a_kill_left_is_no_hindrance(ending: str, tmp_path: Path) -> None:
    (tmp_path / f"a{ending}.tmp").write_text("half of it, and more than there will be" * 99)
    path = written(tmp_path / f"a{ending}", RECORDS[:1])
    read = pq.read_table(path).to_pylist() if ending == ".parquet" else [json.loads(path.read_text("utf-8"))]
    assert read == RECORDS[:1]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_file_that_came_meanwhile_is_not_overwritten(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    with pytest.raises(UserError, match=r"can't be written \(.*\): fix that and run the command again$"):  # noqa: SIM117
        with writers.opened(str(path), COLUMNS) as sink:
            sink.write(RECORDS)
            path.write_text("another's")
    assert path.read_text() == "another's" and [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_a_place_that_cannot_be_written(ending: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"can't be written \(.*\): fix that and run the command again$") as told:  # noqa: SIM117
        with writers.opened(f"{tmp_path}/file/a{ending}", COLUMNS):
            pass
    assert str(told.value).startswith(f"{tmp_path}/file/a{ending} can't") and "\n" not in str(told.value)


def test_names_are_checked_first(tmp_path: Path) -> None:
    writers.check(f"{tmp_path}/a.jsonl")
    with pytest.raises(UserError, match=r"^--output a\.txt: give a name that ends in \.jsonl, \.csv, \.tsv or \.parquet$"):
        writers.check("a.txt")
    with pytest.raises(UserError, match=r"^--output a\.jsonl: give a name that ends in \.parquet$"):
        writers.check("a.jsonl", False, (".parquet",))
    (tmp_path / "a.parquet").write_text("")
    with pytest.raises(UserError, match=r"a\.parquet already exists: give --overwrite to replace it, or another --output$"):
        writers.check(f"{tmp_path}/a.parquet")
    writers.check(f"{tmp_path}/a.parquet", overwrite=True)
    (tmp_path / "b.parquet").mkdir()
    with pytest.raises(UserError, match=r"b\.parquet is a folder: give the name of the file to write$"):
        writers.check(f"{tmp_path}/b.parquet", overwrite=True)


def test_a_file_is_replaced_when_the_new_one_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), writers.opened(str(path), COLUMNS, overwrite=True) as sink:
        sink.write([{"row": 1}])
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with writers.opened(str(path), COLUMNS, overwrite=True) as sink:
        sink.write([{"row": 1}])
        assert path.read_text() == "old"
    assert path.read_text() == '{"row": 1}\n' and [each.name for each in tmp_path.iterdir()] == ["a.jsonl"]


NESTED = pa.schema([("row", pa.int64()), ("text", pa.string()), ("label", pa.string()), ("tags", pa.list_(pa.string())),
                    ("probabilities", pa.struct([("no", pa.float64()), ("a,b", pa.float64())]))])  # fmt: skip
ANSWERS = [
    {"row": 0, "text": 'a "b"\tc\nd', "label": "no", "tags": ["é", "x"], "probabilities": {"no": 0.75, "a,b": 0.25}},
    {"row": 1, "label": "a,b", "tags": []},
]


def test_csv(tmp_path: Path) -> None:
    """Dicts become columns, lists JSON."""
    text = written(tmp_path / "a.csv", ANSWERS[:1], ANSWERS[1:], columns=NESTED).read_text("utf-8")
    assert list(csv.reader(io.StringIO(text, newline=""))) == [
        ["row", "text", "label", "tags", "probabilities.no", "probabilities.a,b"],
        ["0", 'a "b"\tc\nd', "no", '["é", "x"]', "0.75", "0.25"],
        ["1", "", "a,b", "[]", "", ""],
    ]


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    text = written(tmp_path / "a.tsv", ANSWERS, columns=NESTED).read_text("utf-8")
    assert text.splitlines()[1:] == ['0\ta "b" c d\tno\t["é", "x"]\t0.75\t0.25', "1\t\ta,b\t[]\t\t"]
