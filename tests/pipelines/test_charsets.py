"""Other encodings than UTF-8: read where the file names its own, refused in a sentence where it can't be read."""

import bz2
import gzip

import pytest

from pipelines import filesystem, readers
from pipelines.charsets import encoding_of
from pipelines.config import PrepareConfig
from pipelines.schema import Document, UserError
from tests import corpora

TEXT = "Die Mühle — крај реке. 水車."
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
MAKE = {
    "a.jsonl": lambda: corpora.jsonl([TEXT, "Second."]).decode(),
    "a.txt": lambda: f"{TEXT}\n\nSecond.\n",
    "a.md": lambda: TEXT,
    "a.xml": lambda: corpora.wikixml([corpora.page("T", TEXT), corpora.page("U", "Second.")]).decode(),
}


def read(path, split_bytes: int = 1 << 30) -> list[readers.Record]:
    (info,) = filesystem.match([str(path)])
    format_, compression = readers.detect(info.path, "document" if ".md" in path.name else "auto")
    splits = readers.READERS[format_].plan(info, format_, compression, split_bytes)
    return [record for split in splits for record in readers.read(split, PrepareConfig())]


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_format_is_read_in_every_encoding_that_a_file_names(tmp_path, name, encoding, packed):
    """In one split or cut as small as can be."""
    path = tmp_path / (name + packed)
    path.write_bytes(PACK[packed](MAKE[name]().encode(encoding)))
    texts = [record.text for record in read(path)]
    assert texts == [TEXT, "Second."][: 1 if name == "a.md" else 2]
    assert [record.text for record in read(path, 10)] == texts


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "UTF-16", "koi8-r"])
def test_a_dump_is_read_in_the_encoding_that_its_declaration_names(tmp_path, encoding):
    text = "Мельница" if encoding == "koi8-r" else "Mühle"
    dump = f'<?xml version="1.0" encoding="{encoding}"?>\n' + corpora.wikixml([corpora.page("T", text)] * 30).decode()
    (tmp_path / "a.xml").write_bytes(dump.encode(encoding))
    assert [record.text for record in read(tmp_path / "a.xml", 100)] == [text] * 30


@pytest.mark.parametrize(
    ("head", "xml", "expected"),
    [
        (b"", True, ""),
        (b"plain text", True, ""),
        (b'<?xml version="1.0" encoding="utf-8"?>', True, ""),
        (b"<?xml version='1.0' encoding='US-ASCII'?>", True, ""),
        (b"\xef\xbb\xbf<?xml version='1.0' encoding='latin1'?>", True, "iso8859-1"),
        (b"<?xml version='1.0' encoding='latin1'?>", False, ""),
        (b"\xff\xfea\0", False, "utf-16"),
        (b"\xff\xfe\0\0a\0\0\0", False, "utf-32"),
        ("{\"text\": 1}".encode("utf-16-be"), False, "utf-16-be"),
        (bytes(300), False, ""),
        (b"a\0b\0", False, ""),
    ],
)  # fmt: skip
def test_encoding_of(head, xml, expected):
    assert encoding_of(head, "a.xml", xml) == expected


@pytest.mark.parametrize("name", ["klingon", "base64", "hex"])
def test_an_unknown_encoding_is_named(tmp_path, name):
    (tmp_path / "a.xml").write_text(f"<?xml version='1.0' encoding='{name}'?><mediawiki>")
    with pytest.raises(UserError, match=rf"a\.xml declares the unknown encoding '{name}': convert it to UTF-8"):
        read(tmp_path / "a.xml")


@pytest.mark.parametrize("data", ["Text".encode("utf-16")[:-1], b"\xff\xfe" + b"\x00\xdc" * 9])
def test_text_that_isn_t_what_its_mark_says_is_refused(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.txt is not intact UTF-16 text \(.*\): convert it to UTF-8"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("name", MAKE)
def test_latin_1_without_a_name_says_what_to_do(tmp_path, name):
    (tmp_path / name).write_bytes(MAKE[name]().replace(TEXT, "Die Mühle.").encode("latin-1"))
    dropped = next(record for record in read(tmp_path / name) if not isinstance(record, Document))
    assert (dropped.reason, dropped.bad) == ("invalid_utf8", True)
    assert dropped.detail.endswith(": convert the file to UTF-8")
