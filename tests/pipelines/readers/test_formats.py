"""Readers: the documents of each format; no boundary of a split or stream loses or repeats a record."""

import bz2
import gzip
import json
import os
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.files import decompression, filesystem
from clozemill.pipelines.prepare.run_identity import input_digest
from clozemill.pipelines.readers import compression as readers_compression
from clozemill.pipelines.readers import document, formats
from clozemill.pipelines.readers.document import EXCERPT_CHARS, Document, Rejected
from clozemill.pipelines.readers.input_split import InputSplit, split_id
from tests import corpora

COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def splits_of(path: Path, split_bytes: int = 1 << 30, format_: str = "auto") -> list[InputSplit]:
    (info,) = filesystem.match([str(path)])
    format_, compression = formats.detect(info.path, format_)
    return formats.READERS[format_].plan(info, format_, compression, split_bytes)


def read(path: Path, split_bytes: int = 1 << 30, format_: str = "auto", **options) -> list[formats.Record]:
    config = PrepareConfig(**options)
    return [record for split in splits_of(path, split_bytes, format_) for record in formats.read(split, config)]


def bare(records: list[formats.Record]) -> list[tuple]:
    """Return records without their sources, whose line numbers depend on the split."""
    return [
        (record.title, record.text) if isinstance(record, Document) else (record.reason, record.detail, record.excerpt)
        for record in records
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("readers")


# What each format yields


@pytest.mark.parametrize("ending", COMPRESS)
def test_jsonl_yields_title_text_and_source(tmp_path, ending):
    data = b'{"id": 7, "title": "T", "text": "One."}\r\n\n  \n{"id": "x", "text": "Tw\xc3\xb6."}\n{"text": "No newline."}'
    path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](data))
    assert read(path) == [
        Document("One.", "T", f"{path}, line 1 (7)"),
        Document("Twö.", "x", f"{path}, line 4 (x)"),
        Document("No newline.", "", f"{path}, line 5"),
    ]


@pytest.mark.parametrize("ending", COMPRESS)
def test_bert_text_yields_one_document_per_block(tmp_path, ending):
    data = b"\n\nFirst one.\nFirst two.\r\n \nSecond.\n\n\n\nThird one.\nThird two."
    path = write(tmp_path / f"a.txt{ending}", COMPRESS[ending](data))
    assert read(path) == [
        Document("First one.\nFirst two.", "", f"{path}, line 3", "sentences"),
        Document("Second.", "", f"{path}, line 6", "sentences"),
        Document("Third one.\nThird two.", "", f"{path}, line 10", "sentences"),
    ]


@pytest.mark.parametrize("ending", COMPRESS)
def test_wikixml_yields_only_articles(tmp_path, ending):
    pages = [
        corpora.page("A & B", "'''A''' < \"B\"", number=12),
        corpora.page("Talk:A", "Hello", namespace=1, number=13),
        corpora.page("Old", "#REDIRECT [[A]]", redirect=True, number=14),
        corpora.page("C", "", number=15),
    ]
    path = write(tmp_path / f"a.xml{ending}", COMPRESS[ending](corpora.wikixml(pages)))
    assert read(path) == [
        Document("'''A''' < \"B\"", "A & B", f"{path}#12", "wikitext"),
        Rejected("other_namespace", f"{path}#13", "Talk:A", bad=False),
        Rejected("redirect", f"{path}#14", "Old", bad=False),
        Document("", "C", f"{path}#15", "wikitext"),
    ]


@pytest.mark.parametrize("ending", COMPRESS)
def test_document_format_yields_the_complete_file(tmp_path, ending):
    path = write(tmp_path / f"my.notes.md{ending}", COMPRESS[ending]("Eins.\n\nZwei – drei.\n".encode()))
    assert read(path, 4, "document") == [Document("Eins.\n\nZwei – drei.\n", "my.notes", str(path))]


def test_parquet_yields_rows_and_its_splits_are_row_groups(tmp_path):
    path = tmp_path / "a.parquet"
    rows = [f"Text {number}." for number in range(10)]
    table = pa.table({"text": rows, "title": [f"T{n}" for n in range(10)], "other": [["x"] * 50] * 10})
    pq.write_table(table, path, row_group_size=3)
    assert [(split.start, split.end) for split in splits_of(path, 1)] == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert [(split.start, split.end) for split in splits_of(path)] == [(0, 4)]
    records = read(path, 1)
    assert records == read(path)
    assert records[4] == Document("Text 4.", "T4", f"{path}, row group 1, row 1")
    assert [record.text for record in records] == rows


def ids(records: list) -> list[tuple[str, str]]:
    """(text or reason, id) of each record."""
    return [(record.text if isinstance(record, Document) else record.reason, record.id) for record in records]


def test_ids_of_jsonl(tmp_path):
    """A record that becomes no document has its id, too, so that it can be excluded before anything of it is quoted."""
    values = ["x", " y\u00a0", 7, 17.0, 0.5, 2**70, "", " ", None, True, ["z"], "a\nb", "\ud800", "k" * 2000, "k" * 2001]
    lines = [json.dumps({"text": "T", "uid": value, "id": "other"}) for value in values]
    more = ['{"text": "T", "id": "other"}', '{"uid": "q"}', '{"uid": "q", "text": 3}', '{"text": "T", "uid": NaN}']
    path = write(tmp_path / "a.jsonl", "\n".join(lines + more).encode())
    known = ["x", "y", "7", "17", "0.5", str(2**70), "", "", ""]
    bad = [("unusable_id", "")]
    expected = [*(("T", name) for name in known), *bad * 4, ("T", "k" * 2000), *bad, ("T", ""), ("missing_field", "q")]
    assert ids(read(path, id_field="uid")) == [*expected, ("field_is_no_text", "q"), *bad]
    assert {name for _, name in ids(read(path))} == {""}


def test_ids_of_the_other_formats(tmp_path):
    pages = [corpora.page("A", "Text.", number=12), corpora.page("B", "#REDIRECT [[A]]", redirect=True, number=13)]
    dump = write(tmp_path / "a.xml", corpora.wikixml(pages))
    assert ids(read(dump, id_field="id")) == [("Text.", "12"), ("redirect", "13")]
    assert ids(read(dump, id_field="title")) == [("Text.", "A"), ("redirect", "B")]
    notes = write(tmp_path / "n.txt", b"Eins.")
    assert ids(read(notes, format_="document", id_field="title")) == [("Eins.", "n")]
    columns = {"text": ["a", "b", "c"], "uid": pa.array([Decimal("3.00"), None, Decimal("0.5")], pa.decimal128(5, 2))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert ids(read(tmp_path / "a.parquet", id_field="uid")) == [("a", "3"), ("b", ""), ("c", "0.50")]


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("a.xml", corpora.wikixml([]), "has no field 'uid', because its format has id and title: give another --id-field"),
        ("a.txt", b"Eins.", "has no field 'uid', because its format has no fields: give another --id-field, or none"),
    ],
)
def test_formats_with_fixed_fields_refuse_others(tmp_path, name, data, why):
    with pytest.raises(UserError, match=why):
        read(write(tmp_path / name, data), id_field="uid")


def test_a_parquet_file_without_the_id_column_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has no column 'uid' .*see --id-field"):
        read(tmp_path / "a.parquet", id_field="uid")


def test_parquet_reads_only_the_columns_it_needs(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "title": ["t"], "noise": ["y" * 100], "id": [3]}), path)
    asked = []
    original = pq.ParquetFile.iter_batches

    def spy(self, *arguments, columns, **rest):
        asked.append(columns)
        return original(self, *arguments, columns=columns, **rest)

    with mock.patch.object(pq.ParquetFile, "iter_batches", spy):
        assert bare(read(path, text_field="body")) == [("t", "x")]
    assert asked == [["body", "title", "id"]]


def test_parquet_page_checksums_are_verified(tmp_path):
    table = pa.table({"text": [f"The mill of the year {1500 + number} still stands." for number in range(40)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False, write_statistics=False)
    assert len(read(path)) == 40
    data = path.read_bytes()
    path.write_bytes(data.replace(b"1517 still", b"1517 Still"))
    with pytest.raises(UserError, match=r"a\.parquet is not an intact Parquet file .*page integrity"):
        read(path)


def test_parquet_counts_the_bytes_of_columns_read(tmp_path):
    """A row group may be large because of other columns."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["short", "one"], "pixels": [b"\0" * 100_000] * 2}), path, use_dictionary=False)
    with mock.patch("clozemill.pipelines.readers.document.MAX_RECORD", 10_000):
        assert [record.text for record in read(path)] == ["short", "one"]


def test_titles_and_names_of_records_are_bounded(tmp_path):
    line = json.dumps({"text": "t", "title": "x" * 5000, "id": "y" * 5000, "z" * 5000: 1})
    (record,) = read(write(tmp_path / "a.jsonl", line.encode()))
    assert record.title == "x" * document.MAX_TITLE and len(record.source) < 1000
    (record,) = read(write(tmp_path / "b.jsonl", line.replace('"text"', '"body"').encode()))
    assert record.reason == "missing_field" and len(record.detail) < 1000


def test_parquet_supports_every_string_type(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {
        "text": pa.array(["a", "b"]).dictionary_encode(),
        "title": pa.array(["c", None], pa.large_string()),
        "id": [1, 2],
    }
    pq.write_table(pa.table(columns), path)
    assert bare(read(path)) == [("c", "a"), ("2", "b")]
    assert bare(read(path, title_field="text")) == [("a", "a"), ("b", "b")]


def test_a_parquet_row_with_invalid_utf8_is_rejected(tmp_path):
    offsets = pa.py_buffer(b"".join(n.to_bytes(4, "little") for n in (0, 2, 4, 6)))
    bad = pa.StringArray.from_buffers(3, offsets, pa.py_buffer(b"ok\xff\xfeok"))
    pq.write_table(pa.table({"text": bad}), tmp_path / "a.parquet")
    records = read(tmp_path / "a.parquet")
    assert [record.text for record in records if isinstance(record, Document)] == ["ok", "ok"]
    assert (records[1].reason, records[1].source) == ("invalid_utf8", f"{tmp_path}/a.parquet, row group 0, row 1")


def test_parquet_without_rows_is_an_empty_file(tmp_path):
    pq.ParquetWriter(tmp_path / "a.parquet", pa.schema({"text": pa.string()})).close()
    assert bare(read(tmp_path / "a.parquet")) == [("empty_file", "", "")]


def test_parquet_without_the_column_is_rejected(tmp_path):
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet has no column 'text' \(it has \['body'\]\): see --text-field"):
        read(tmp_path / "a.parquet")


# Input that changes between planning and reading


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"more")


def _replace(path: Path) -> None:
    """With as many bytes."""
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data)
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [_cut, _append, _replace, Path.unlink], ids=["cut", "appended", "replaced", "removed"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.txt.bz2", "a.xml", "a.parquet", "a.md"])
@pytest.mark.parametrize("when", ["before", "during"])
def test_a_file_that_changed_since_it_was_planned_is_named(tmp_path, change, name, when):
    path = tmp_path / name
    documents = corpora.texts(3)
    make = {".jsonl": corpora.jsonl, ".txt": corpora.bert, ".xml": corpora.dump, ".md": corpora.bert}
    if name == "a.parquet":
        pq.write_table(pa.table({"text": documents}), path)
    else:
        path.write_bytes(COMPRESS["".join(path.suffixes[1:])](make[path.suffixes[0]](documents)))
    (split,) = splits_of(path, format_="document" if name == "a.md" else "auto")
    if when == "before":
        change(path)
    what = "removed" if change == Path.unlink else "changed"
    records = formats.read(split, PrepareConfig())
    with pytest.raises(UserError) as caught:
        for number, _ in enumerate(records):
            if number == 0 and when == "during":
                change(path)
    assert (
        str(caught.value)
        == f"{path} was {what} while it was being read: run the same command again when no other program writes to it"
    )


def test_an_unchanged_file_is_read_twice(tmp_path):
    path = write(tmp_path / "a.jsonl", corpora.jsonl(corpora.texts(3)))
    (split,) = splits_of(path)
    assert split.stamp
    assert len(list(formats.read(split, PrepareConfig()))) == len(list(formats.read(split, PrepareConfig()))) == 3


# Malformed records


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"text": "cut', "malformed_json", "Unterminated string starting at column 10"),
        (b"[" * 100_000, "malformed_json", "recursion"),
        (b'{"text": "\x00"}', "malformed_json", "control character"),
        (b"\x00\x00\x00\x00", "malformed_json", "Expecting value"),
        (b'{"text": ' + b"9" * 5000 + b"}", "malformed_json", "more than 4,300 digits"),
        (b'{"text": "\xff"}', "invalid_utf8", "0xff"),
        (b'{"text": "\xed\xa0\x80"}', "invalid_utf8", "0xed"),
        ('{"text": "x"}'.encode("utf-16"), "invalid_utf8", "0xff"),
        (b'["text"]', "not_an_object", ""),
        (b"7", "not_an_object", ""),
        (b'{"body": "x"}', "missing_field", "'text' among ['body']: see --text-field"),
        (b'{"text": null}', "field_is_no_text", "text is NoneType"),
        (b'{"text": ["x"]}', "field_is_no_text", "text is list"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_malformed_line_is_rejected_alone(tmp_path, line, reason, detail):
    path = write(tmp_path / "a.jsonl", b'{"text": "before"}\n' + line + b'\n{"text": "after"}\n')
    before, dropped, after = read(path)
    assert (before.text, after.text) == ("before", "after")
    assert (dropped.reason, dropped.source, dropped.bad) == (reason, f"{path}, line 2", True)
    assert detail in dropped.detail
    assert len(dropped.excerpt) <= EXCERPT_CHARS


def test_a_byte_order_mark_is_accepted(tmp_path):
    assert bare(read(write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text": "x"}\n'))) == [("", "x")]


def test_a_malformed_page_is_rejected_alone(tmp_path):
    pages = [corpora.page(name, f"Text {name}", number=7) for name in "ABCD"]
    pages[1] = pages[1].replace("</text>", "")
    pages[2] = pages[2].replace("Text", "Text \x00&undefined;")
    path = write(tmp_path / "a.xml", corpora.wikixml(pages))
    records = read(path)
    assert [record.title for record in records if isinstance(record, Document)] == ["A", "D"]
    assert [(record.reason, record.bad) for record in records[1:3]] == [("malformed_xml", True)] * 2
    assert "<title>B</title>" in records[1].excerpt


def test_the_incomplete_page_of_a_truncated_dump_is_rejected(tmp_path):
    data = corpora.dump(["One", "Two", "Three"])
    path = write(tmp_path / "a.xml", data[: data.index(b"Three") + 2])
    records = read(path)
    assert [record.title for record in records[:2]] == ["Title 0", "Title 1"]
    assert (records[2].reason, records[2].detail) == ("malformed_xml", "the file ends within a page")
    assert len(records) == 3


def test_a_dump_that_is_cut_between_two_pages_has_one_rejected_record(tmp_path):
    """Whole dumps end with </mediawiki>, also their numbered parts; read in any number of splits."""
    data = corpora.dump(["One", "Two", "Three"])
    first, last = (at + len(b"</page>") for at in (data.index(b"</page>"), data.rindex(b"</page>")))
    for length in (len(data), len(data) - 3, last, first):
        path = write(tmp_path / "a.xml", data[:length])
        records = read(path)
        whole = b"</mediawiki" in data[:length]
        told = ("unclosed_dump", "the file ends without </mediawiki>, as if it was cut off", False)
        found = [(record.reason, record.detail, record.bad) for record in records if isinstance(record, Rejected)]
        assert found == ([] if whole else [told])


@pytest.mark.parametrize(("name", "format_"), [("a.txt", "auto"), ("a.md", "document")])
def test_a_document_with_invalid_utf8_is_rejected_alone(tmp_path, name, format_):
    (record,) = read(write(tmp_path / name, b"Caf\xe9 au lait."), format_=format_)
    assert (record.reason, record.bad) == ("invalid_utf8", True)
    assert "0xe9" in record.detail


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.xml"])
def test_an_empty_file_is_reported_but_not_malformed(tmp_path, name):
    path = write(tmp_path / name, b"")
    assert read(path) == [Rejected("empty_file", str(path), bad=False)]


# Names


@pytest.mark.parametrize(
    ("path", "format_", "expected"),
    [
        ("a.xml.bz2", "auto", ("wikixml", "bz2")),
        ("gs://b/a.JSONL.GZ", "auto", ("jsonl", "gzip")),
        ("a.parquet", "auto", ("parquet", "none")),
        ("a.txt.zst", "auto", ("bert", "zst")),
        ("dir.v1/part-0.bz2", "jsonl", ("jsonl", "bz2")),
        ("enwiki-20260101-pages-articles1.xml-p1p41242.bz2", "auto", ("wikixml", "bz2")),
        ("a.jsonl-00001-of-00010.gz", "auto", ("jsonl", "gzip")),
        ("a.txt.03", "auto", ("bert", "none")),
    ],
)
def test_detect(path, format_, expected):
    assert formats.detect(path, format_) == expected


@pytest.mark.parametrize("ending", COMPRESS)
def test_a_dump_is_detected_by_its_first_bytes(tmp_path, ending):
    path = write(tmp_path / f"pages-articles{ending}", COMPRESS[ending](corpora.dump(["One."])))
    assert formats.detect(str(path), "auto")[0] == "wikixml"
    other = write(tmp_path / f"other{ending}", COMPRESS[ending](b"<html><mediawik"))
    with pytest.raises(UserError, match="unknown file format"):
        formats.detect(str(other), "auto")


@pytest.mark.parametrize("path", ["noending", "a.csv", "a.csv.gz", "a.jsonl/part-0"])
def test_detect_asks_for_the_format_if_the_name_is_ambiguous(path):
    with pytest.raises(UserError, match="unknown file format"):
        formats.detect(path, "auto")


# Splits: no record lost or repeated

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
CUTS = st.lists(st.floats(0, 1), max_size=6)
SIZES = {"split_bytes": st.integers(1, 60), "chunk": st.integers(1, 40), "cuts": CUTS}


def stored(folder: Path, name: str, data: bytes, cuts: list[float] | None) -> Path:
    """Write the data as a plain file (`cuts` None) or as a .bz2 whose streams end at these places, even within records."""
    if cuts is None:
        return write(folder / name, data)
    return write(folder / f"{name}.bz2", corpora.multistream(data, [int(cut * len(data)) for cut in cuts]))


def read_in_pieces(path: Path, split_bytes: int, chunk: int) -> list[tuple]:
    # A bz2 stream takes at least 40 bytes, so its splits are a little larger.
    with mock.patch.object(readers_compression, "CHUNK_BYTES", chunk), mock.patch.object(decompression, "CHUNK_BYTES", chunk):
        return bare(read(path, split_bytes * (3 if path.suffix == ".bz2" else 1)))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bz2"])
@settings(max_examples=150, deadline=None)
@given(records=st.lists(st.tuples(TEXT, TEXT), max_size=8), newline=st.sampled_from(["\n", "\r\n", "\n\n"]), **SIZES)
def test_jsonl_splits_add_up(folder, packed, records, newline, split_bytes, chunk, cuts):
    data = newline.join(json.dumps({"title": title, "text": text}, ensure_ascii=False) for title, text in records).encode()
    path = stored(folder, "a.jsonl", data, cuts if packed else None)
    expected = records or ([] if packed else [("empty_file", "", "")])
    assert read_in_pieces(path, split_bytes, chunk) == bare(read(path)) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bz2"])
@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.sampled_from(["A b.", "cd", "é", "\n", "\n", "\n\n", "\r\n", " ", "\t"]), max_size=24), **SIZES)
@example(pieces=["cd", "\n\n", "cd"], split_bytes=3, chunk=1, cuts=[])
def test_bert_splits_add_up(folder, packed, pieces, split_bytes, chunk, cuts):
    data = "".join(pieces).encode()
    path = stored(folder, "a.txt", data, cuts if packed else None)
    lines = [line.removesuffix("\r") for line in "".join(pieces).split("\n")]
    blocks = "\n".join(line if line.strip() else "" for line in lines).strip("\n").split("\n\n")
    expected = [("", block.strip("\n")) for block in blocks if block.strip("\n")]
    if not data and not packed:
        expected = [("empty_file", "", "")]
    assert read_in_pieces(path, split_bytes, chunk) == bare(read(path)) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bz2"])
@settings(max_examples=150, deadline=None)
@given(names=st.lists(st.text("ab<&>é /", max_size=6), max_size=6), **SIZES)
def test_wikixml_splits_add_up(folder, packed, names, split_bytes, chunk, cuts):
    pages = [corpora.page(name, f"Text </page> of {name}", number=at) for at, name in enumerate(names)]
    path = stored(folder, "a.xml", corpora.wikixml(pages), cuts if packed else None)
    expected = [(name, f"Text </page> of {name}") for name in names]
    assert read_in_pieces(path, split_bytes * 4, chunk) == bare(read(path)) == expected


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "bz2"])
@settings(max_examples=150, deadline=None)
@given(
    pieces=st.lists(
        st.sampled_from([b"<page>", b"</page>", b"</pa", b"ge>", b"<", b"/", b"\n", b"<title>x</title>"]), max_size=24
    ),
    **SIZES,
)
def test_malformed_wikixml_splits_add_up(folder, packed, pieces, split_bytes, chunk, cuts):
    path = stored(folder, "a.xml", b"<mediawiki>" + b"".join(pieces), cuts if packed else None)
    assert read_in_pieces(path, split_bytes, chunk) == bare(read(path))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.xml"])
def test_streams_cut_within_records_are_split_and_add_up(tmp_path, name):
    documents = corpora.texts(60)
    make = {"a.jsonl": corpora.jsonl, "a.txt": corpora.bert, "a.xml": corpora.dump}[name]
    data = make(documents)
    path = write(tmp_path / f"{name}.bz2", corpora.multistream(data, range(997, len(data), 997)))
    parts = [bare(list(formats.read(split, PrepareConfig()))) for split in splits_of(path, 2000)]
    assert sum(bool(part) for part in parts) > 4
    records = [record for part in parts for record in part]
    assert records == bare(read(path))
    assert len(records) == 60


def test_a_single_stream_is_read_by_its_first_split(tmp_path):
    path = write(tmp_path / "a.jsonl.bz2", bz2.compress(corpora.jsonl(corpora.texts(60))))
    parts = [list(formats.read(split, PrepareConfig())) for split in splits_of(path, 500)]
    assert len(parts) > 3
    assert [len(part) for part in parts] == [60] + [0] * (len(parts) - 1)


@pytest.mark.parametrize("ending", [".gz", ".zst"])
def test_files_that_cannot_be_split_are_one_split(tmp_path, ending):
    path = write(tmp_path / f"a.jsonl{ending}", COMPRESS[ending](corpora.jsonl(corpora.texts(60))))
    assert len(splits_of(path, 100)) == 1


def test_splits_within_a_record_stop_early(tmp_path):
    path = write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 40_000 + b'"}')
    read_bytes = []

    def spy(split):
        for piece, owned in original(split):
            read_bytes.append(len(piece))
            yield piece, owned

    original = readers_compression.pieces
    with mock.patch.object(readers_compression, "pieces", spy), mock.patch.object(readers_compression, "CHUNK_BYTES", 100):
        assert len(read(path, 1000)) == 1
    assert sum(read_bytes) < 40_013 + 41 * 1200


def test_the_plan_covers_every_byte_once(tmp_path):
    for number, size in enumerate((0, 1, 5_000_000)):
        write(tmp_path / f"{number}.jsonl", b"\n" * size)
    plan = formats.plan(PrepareConfig(input=(str(tmp_path / "*.jsonl"),)))
    assert (plan.files, plan.size) == (3, 5_000_001)
    assert sum(split.size for split in plan.splits) == 5_000_001
    assert [split.end for split in plan.splits[2:-1]] == [split.start for split in plan.splits[3:]]


def test_a_file_with_several_names_is_planned_once(tmp_path, monkeypatch):
    """Spellings of its path and links give the same splits, as input_digest has them: an interrupted run can be resumed."""
    data = tmp_path / "data"
    data.mkdir()
    write(data / "a.jsonl", b"\n" * 2_500_000)
    write(data / "b.jsonl", b"\n")
    (tmp_path / "link").symlink_to(data)
    (tmp_path / "c.jsonl").symlink_to(data / "a.jsonl")
    monkeypatch.chdir(tmp_path)
    plans = [
        formats.plan(PrepareConfig(input=names))
        for names in (
            (str(data / "*.jsonl"),),
            ("data/*.jsonl",),
            ("./link/b.jsonl", "c.jsonl"),
            ("link/*.jsonl", "c.jsonl", "data/a.jsonl", str(data / "b.jsonl")),
        )
    ]
    assert {(plan.files, plan.size, plan.text_estimate) for plan in plans} == {(2, 2_500_001, 2_500_001)}
    names = [sorted(map(split_id, plan.splits)) for plan in plans]
    assert names == names[:1] * 4 and len(set(names[0])) == len(plans[0].splits) == 4
    assert len({input_digest(plan) for plan in plans}) == 1
    assert {split.path for split in plans[1].splits} == {"data/a.jsonl", "data/b.jsonl"}  # as typed, for messages
    (split,) = [split for split in plans[0].splits if split.path.endswith("b.jsonl")]
    assert split_id(split) == split_id(replace(split, real_path=""))  # as earlier versions named it


@pytest.mark.parametrize("name", ["dewiki-20260901-pages-articles-multistream-index.txt.bz2", "a-multistream-index27.txt"])
def test_the_index_of_a_multistream_dump_is_skipped(name: str) -> None:
    with pytest.raises(
        UserError, match="is the index of a multistream dump and contains no text: remove it from --input, or give --format"
    ):
        formats.detect(name, "auto")
    assert formats.detect(name, "bert")[0] == "bert"
    assert formats.detect("my-index.txt", "auto")[0] == "bert"


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl"])
def test_lines_that_end_with_only_a_carriage_return_are_rejected(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(b'{"text": "one"}\r{"text": "two"}\r')
    options = PrepareConfig(input=(str(path),), format="jsonl" if name.endswith("jsonl") else "bert")
    with pytest.raises(UserError, match="ends its lines with a carriage return alone, as old Mac files do: convert it"):
        [list(formats.read(split, options)) for split in formats.plan(options).splits]
    path.write_bytes(b'{"text": "one"}\r')  # a last line that ends so is one line
    assert len([record for split in formats.plan(options).splits for record in formats.read(split, options)]) == 1


def test_repeated_column_names_are_rejected(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(table, tmp_path / "a.parquet")
    options = PrepareConfig(input=(str(tmp_path / "a.parquet"),))
    with pytest.raises(UserError, match="has 2 columns named 'text': rename all but one of them"):
        [list(formats.read(split, options)) for split in formats.plan(options).splits]


@pytest.mark.parametrize(
    ("line", "detail"),
    [(b"[", "spans several lines"), (b"{", "jq -c"), (b'{"text": "a", "n": ' + b"1" * 5001 + b"}", "more than 4,300 digits")],
)
def test_errors_explain_a_malformed_json_line(line: bytes, detail: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(line + b"\n")
    options = PrepareConfig(input=(str(tmp_path / "a.jsonl"),))
    (record,) = [record for split in formats.plan(options).splits for record in formats.read(split, options)]
    assert record.reason == "malformed_json" and detail in record.detail


@pytest.mark.parametrize(
    ("pack", "message"),
    [(gzip.compress, "gzip: rename it to end with .gz"), (bz2.compress, "bzip2: rename it to end with .bz2"),
     (zstandard.compress, "Zstandard: rename it to end with .zst")],
)  # fmt: skip
def test_a_compressed_file_without_a_suffix_is_rejected(pack, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(pack(b'{"text": "one"}\n'))
    options = PrepareConfig(input=(str(tmp_path / "a.jsonl"),))
    with pytest.raises(UserError, match=f"a.jsonl is compressed with {message}"):
        [list(formats.read(split, options)) for split in formats.plan(options).splits]


def test_rows_of_less_than_a_byte_are_read(tmp_path: Path) -> None:
    """The last row group of a very compressible file: its share of the file's size is 0 bytes."""
    path = tmp_path / "logs.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())]), compression="zstd") as writer:
        for text in ("same line " * 200_000, "the last one"):
            writer.write_table(pa.table({"text": [text]}))
    splits = splits_of(path, 1)
    assert len(splits) == 2 and all(split.size for split in splits)
    assert read(path, 1)[-1].text == "the last one"
