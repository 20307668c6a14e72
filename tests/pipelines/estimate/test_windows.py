import bz2
import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import InputOptions
from clozemill.pipelines.estimate import sample, windows
from clozemill.pipelines.estimate.windows import ParquetFile, TextFile, cut
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.filesystem import FileInfo
from clozemill.pipelines.readers import compression, formats
from clozemill.pipelines.readers.document import Document
from tests.corpora import HEADER, bert, jsonl, page, texts


def chunks(data: bytes, size: int = 7) -> list[bytes]:
    return [data[low : low + size] for low in range(0, len(data), size)]


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_cut_takes_whole_records(size: int) -> None:
    data = b"one\ntwo\nthree\nfour"
    assert cut(chunks(data, size), "jsonl", 1) == ([b"one\n"], False)
    assert cut(chunks(data, size), "jsonl", 3) == ([b"one\n"], False)
    assert cut(chunks(data, size), "jsonl", 4) == ([b"one\n", b"two\n"], False)
    assert cut(chunks(data, size), "jsonl", 5, skip=True) == ([b"two\n"], False)
    assert cut(chunks(data, size), "jsonl", 3, skip=True) == ([], False)
    assert cut(chunks(data, size), "jsonl", 99, skip=True) == ([b"two\n", b"three\n", b"four\n"], True)
    assert cut(chunks(data, size), "jsonl", 99, skip=True, whole=False) == ([b"two\n", b"three\n"], True)
    assert cut(chunks(b"no end", size), "jsonl", 99, skip=True) == ([], True)
    pages = b"<mediawiki><page>a</page>\n<page>b</page>\n</mediawiki>\n"
    assert cut(chunks(pages, size), "wikixml", 99) == ([b"<mediawiki><page>a</page>", b"\n<page>b</page>"], True)
    assert cut(chunks(pages, size), "wikixml", 99, skip=True) == ([b"\n<page>b</page>"], True)


def test_windows_beside_each_other_take_every_record_once() -> None:
    data = b"".join(b"%d\n" % (7**number) for number in range(40))
    for width in (1, 3, 10, 50):
        found = [cut([data[low:]], "jsonl", width, skip=low > 0)[0] for low in range(0, len(data), width)]
        assert b"".join(record for records in found for record in records) == data


def test_cut_takes_paragraphs_between_empty_lines() -> None:
    data = b"a\nb\n\nc\r\n \r\nd\n"
    assert cut([data], "bert", 99) == ([b"a\nb\n\n", b"c\r\n \r\n", b"d\n\n\n"], True)
    assert cut([data], "bert", 99, skip=True) == ([b"c\r\n \r\n", b"d\n\n\n"], True)


def test_a_record_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "MAX_RECORD", 1000)
    seen = []

    def endless():
        while True:
            seen.append(1)
            yield b"x" * 100

    assert cut(endless(), "jsonl", 5) == ([], False)
    assert 10 < len(seen) < 13


def corpus(path: Path, data: bytes) -> FileInfo:
    path.write_bytes(data)
    return filesystem.match([str(path)])[0]


def ids(records: list[bytes]) -> list[int]:
    return [json.loads(record)["id"] for record in records]


def test_a_plain_file_is_entered_anywhere(tmp_path: Path) -> None:
    info = corpus(tmp_path / "a.jsonl", jsonl(texts(100)))
    file = TextFile(info, "jsonl", "none", str(tmp_path), 0)
    first, middle, last = (file.window(place, info.size / 20) for place in (0.0, 0.5, 0.99))
    assert ids(first.records)[:4] == [0, 1, 2, 3] and ids(last.records) == [99]
    assert 47 < ids(middle.records)[0] < 53
    assert middle.disk == sum(map(len, middle.records)) and middle.disk == pytest.approx(info.size / 20, rel=0.25)


def test_a_gzip_file_is_read_to_the_budget(tmp_path: Path) -> None:
    data = jsonl(texts(2000))
    info = corpus(tmp_path / "a.jsonl.gz", gzip.compress(data))
    file = TextFile(info, "jsonl", "gzip", str(tmp_path), len(data) // 2)
    found = [file.window(place, info.size / 100) for place in (0.0, 0.5, 0.999)]
    assert ids(found[0].records)[0] == 0
    assert 850 < ids(found[2].records)[-1] < 1300  # of 2,000: the second half was not read, and no record is cut
    assert 0.5 < file.share < 0.65
    for window in found[:2]:
        assert window.disk == pytest.approx(info.size / 100, rel=0.5)
        assert sum(map(len, window.records)) / window.disk == pytest.approx(len(data) / info.size, rel=0.1)


def test_streams_of_bz2_are_entered(tmp_path: Path) -> None:
    records = jsonl(texts(2000)).splitlines(keepends=True)
    streams = [bz2.compress(b"".join(records[low : low + 100])) for low in range(0, 2000, 100)]
    info = corpus(tmp_path / "a.jsonl.bz2", b"".join(streams))
    file = TextFile(info, "jsonl", "bz2", str(tmp_path), 1)
    window = file.window(0.5, info.size / 40)
    assert ids(window.records)[0] in range(1000, 1102) and file.share == 1
    assert window.disk == pytest.approx(info.size / 40, rel=0.4)
    assert file.window(0.999, 100) == windows.Window(ended=True)  # no stream begins there: the next file is read
    single = TextFile(corpus(tmp_path / "b.jsonl.bz2", bz2.compress(b"".join(records))), "jsonl", "bz2", str(tmp_path), 1000)
    assert ids(single.window(0.0, 10).records) == [0] and 0 < single.share <= 1


@pytest.mark.parametrize("ending", ["gz", "bz2"])
def test_a_damaged_file_is_reported(ending: str, tmp_path: Path) -> None:
    packed = (gzip if ending == "gz" else bz2).compress(jsonl(texts(300)))
    info = corpus(tmp_path / f"a.jsonl.{ending}", packed[:-100])
    file = TextFile(info, "jsonl", "gzip" if ending == "gz" else "bz2", str(tmp_path), 1 << 30)
    with pytest.raises(UserError, match="is not an intact"):
        file.window(0.3, 100)


def test_parquet_is_entered_at_any_row(tmp_path: Path) -> None:
    documents = texts(1000)
    pq.write_table(pa.table({"text": documents, "id": list(range(1000))}), tmp_path / "a.parquet", row_group_size=300)
    info = filesystem.match([str(tmp_path / "a.parquet")])[0]
    window = ParquetFile(info, InputOptions()).window(0.45, info.size / 10)
    rows = [row for batch in window.records for row in batch.column("id").to_pylist()]
    assert rows[0] == 450 and rows == list(range(450, 450 + len(rows)))
    assert window.disk == pytest.approx(len(rows) * info.size / 1000)
    with pytest.raises(UserError, match="has no column 'body'"):
        ParquetFile(info, InputOptions(text_field="body")).window(0.1, 100)


def test_what_is_no_dump_is_refused(tmp_path: Path) -> None:
    file = TextFile(corpus(tmp_path / "a.xml", b"<html><page>x</page></html>"), "wikixml", "none", str(tmp_path), 0)
    with pytest.raises(UserError, match="is not a MediaWiki XML dump"):
        file.window(0.0, 100)


class Endless(io.RawIOBase):
    """A terabyte of JSON lines that nobody has written; counts what is read of it."""

    LINE = json.dumps({"text": "The river moves under the old stone bridge. Small boats carry grain."}).encode() + b"\n"
    SIZE, read_bytes = 1 << 40, 0

    def __init__(self) -> None:
        self._at = 0

    def seek(self, to: int, whence: int = 0) -> int:
        self._at = to
        return to

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        assert size >= 0
        size = min(size, self.SIZE - self._at)
        offset = self._at % len(self.LINE)
        self._at += size
        Endless.read_bytes += size
        return (self.LINE * (size // len(self.LINE) + 2))[offset : offset + size]


def test_a_big_corpus_is_not_read_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in (filesystem, compression):
        monkeypatch.setattr(module, "open_read", lambda path: Endless())
    monkeypatch.setattr(Endless, "read_bytes", 0)
    info = FileInfo("big.jsonl", Endless.SIZE, "")
    drawn = sample.draw([info], InputOptions(), 4e6 / Endless.SIZE, str(tmp_path), lambda: None)
    assert sum(part.disk for part in drawn.parts) == pytest.approx(4e6, rel=0.01)
    assert Endless.read_bytes < 4e6 + sample.WINDOWS * 2 * (1 << 16)


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_the_sample_is_the_same_whatever_the_order_of_files(tmp_path: Path) -> None:
    paths = []
    for number in range(5):
        paths.append(str(tmp_path / f"{number}.jsonl"))
        Path(paths[-1]).write_bytes(jsonl(texts(200, seed=number)))
    found = []
    for number, order in enumerate((paths, paths[::-1], [str(tmp_path / "*.jsonl"), paths[2]])):
        folder = tmp_path / f"sample-{number}"
        sample.draw(filesystem.match(order), InputOptions(), 0.2, str(folder), lambda: None)
        found.append(listing(folder))
    assert found[0] == found[1] == found[2] and len(found[0]) == sample.PARTS


def test_every_format_is_sampled(tmp_path: Path) -> None:
    documents = texts(400, length=20)
    (tmp_path / "a.jsonl").write_bytes(jsonl(documents))
    (tmp_path / "b.txt").write_bytes(bert(documents))
    (tmp_path / "c.xml").write_text(HEADER + "".join(page(f"T{n}", text) for n, text in enumerate(documents)) + "</mediawiki>")
    pq.write_table(pa.table({"text": documents}), tmp_path / "d.parquet")
    (tmp_path / "e.jsonl").write_bytes(b"")
    infos = filesystem.match([str(tmp_path / "*.*")])
    drawn = sample.draw(infos, InputOptions(), 0.1, str(tmp_path / "sample"), lambda: None)
    splits = [split for part in drawn.parts for split in part.splits]
    assert {split.format for split in splits} == {"jsonl", "bert", "wikixml", "parquet"}
    records = [record for split in splits for record in formats.read(split, InputOptions())]
    assert 130 < len(records) < 230 and all(isinstance(record, Document) for record in records)
    assert sum(part.disk for part in drawn.parts) == pytest.approx(0.1 * sum(info.size for info in infos), rel=0.25)


def test_files_that_are_documents_are_taken_whole(tmp_path: Path) -> None:
    for number, text in enumerate(texts(100)):
        (tmp_path / f"{number}.txt").write_text(text)
    infos = filesystem.match([str(tmp_path / "*.txt")])
    drawn = sample.draw(infos, InputOptions(format="document"), 0.2, str(tmp_path / "sample"), lambda: None)
    count = sum(len(part.splits) for part in drawn.parts)
    assert 17 <= count <= 24
    assert sum(part.disk for part in drawn.parts) == sum(split.size for part in drawn.parts for split in part.splits)
