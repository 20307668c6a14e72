"""Lines come as they are in the file, whatever ends them, or one sentence says why not."""

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.finetuning.reading import lines as module
from clozemill.trainers.finetuning.reading.lines import lines, parse_json


def written(path: Path, data: str | bytes) -> str:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def test_long_lines_and_the_edges_of_blocks(tmp_path: Path) -> None:
    """A file is read in blocks of 2^20 bytes."""
    texts = ["x" * ((1 << 20) - 1), "y", "é" * (1 << 20), "z\r\rz", ""]
    path = written(tmp_path / "a.txt", "\n".join(texts) + "\r\n")
    assert list(lines(path)) == texts
    assert list(lines(written(tmp_path / "none.txt", ""))) == []
    assert list(lines(written(tmp_path / "empty.txt", "\n\n"))) == ["", ""]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("a\rb\r\rc", ["a", "b", "", "c"]),
        ("\ufeffa\rb\r", ["a", "b"]),
        ("a\r", ["a"]),
        ("a\r\nb\rc\n", ["a", "b\rc"]),  # with a line feed in the file, a carriage return in a line is a character
        ("x" * ((1 << 20) - 1) + "\r\ny\r\n", ["x" * ((1 << 20) - 1), "y"]),  # CR LF over the edge of two blocks
        ("a\u2028b\x85c\x0bd\n", ["a\u2028b\x85c\x0bd"]),
    ],
)
def test_ends_of_lines(data: str, expected: list[str], tmp_path: Path) -> None:
    assert list(lines(written(tmp_path / "a.txt", data))) == expected


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("utf-16-le", "UTF-16-LE"), ("utf-16-be", "UTF-16-BE")],
)
def test_other_encodings_are_named(encoding: str, name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "text,label\na,1\n".encode(encoding))
    with pytest.raises(UserError) as error:
        list(lines(path))
    assert str(error.value) == f"{path} is {name}, not UTF-8: save it as UTF-8 (in Excel: CSV UTF-8)"


def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE", 3 << 20)
    path = written(tmp_path / "a.txt.gz", gzip.compress(b"a\n" + b"b" * (3 << 20) + b"\nc"))
    assert len(list(lines(path))) == 3
    path = written(tmp_path / "a.txt.gz", gzip.compress(b"a\n" + b"b" * (200 << 20)))
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        list(lines(path))
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
    assert str(error.value) == f"{path}, line 2: it is longer than 3 MB: split it into several lines"


def test_a_gzip_bomb_of_short_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is within the first megabytes is read: small files of equal rows are honest."""
    monkeypatch.setattr(module, "_SURE", 8 << 20)
    path = written(tmp_path / "a.txt.gz", gzip.compress(b"good\n" * (1 << 20)))
    assert sum(1 for _ in lines(path)) == 1 << 20
    path = written(tmp_path / "a.txt.gz", gzip.compress(b"good\n" * (1 << 22)))
    with pytest.raises(UserError, match=r"a\.txt\.gz expands to more than 300 times its size, too much for text"):
        list(lines(path))


def test_json_of_too_many_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas and brackets in a text are no values."""
    monkeypatch.setattr(module, "MAX_ITEMS", 1000)
    monkeypatch.setattr(module.exceeds, "__defaults__", (1000,))
    honest = {"text": '[{,\\"' * 2000, "more": [1] * 990}
    assert parse_json(json.dumps(honest)) == honest
    for bomb in ("[" + "{}," * 1000 + "1]", '{"a": [' + "[]," * 600 + '""]}', '["\\"",' + '",",' * 1001 + "1]"):
        with pytest.raises(ValueError, match="it has more than 1,000 values"):
            parse_json(bomb)
