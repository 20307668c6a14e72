"""Encodings other than UTF-8: read if the file declares one, otherwise rejected with one sentence."""

import bz2
import gzip

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.files.charsets import HEAD, encoding_of
from clozemill.pipelines.readers import formats
from clozemill.pipelines.readers.document import Document
from tests import corpora

TEXT = "Die Mühle — крај реке. 水車."
PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress}
MAKE = {
    "a.jsonl": lambda: corpora.jsonl([TEXT, "Second."]).decode(),
    "a.txt": lambda: f"{TEXT}\n\nSecond.\n",
    "a.md": lambda: TEXT,
    "a.xml": lambda: corpora.wikixml([corpora.page("T", TEXT), corpora.page("U", "Second.")]).decode(),
}


def read(path, split_bytes: int = 1 << 30) -> list[formats.Record]:
    (info,) = filesystem.match([str(path)])
    format_, compression = formats.detect(info.path, "document" if ".md" in path.name else "auto")
    splits = formats.READERS[format_].plan(info, format_, compression, split_bytes)
    return [record for split in splits for record in formats.read(split, PrepareConfig())]


@pytest.mark.parametrize("packed", PACK)
@pytest.mark.parametrize("name", MAKE)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_every_format_is_read_in_every_declared_encoding(tmp_path, name, encoding, packed):
    """In one split, or in splits as small as possible."""
    path = tmp_path / (name + packed)
    path.write_bytes(PACK[packed](MAKE[name]().encode(encoding)))
    texts = [record.text for record in read(path)]
    assert texts == [TEXT, "Second."][: 1 if name == "a.md" else 2]
    assert [record.text for record in read(path, 10)] == texts


@pytest.mark.parametrize("encoding", ["iso-8859-1", "windows-1252", "UTF-16", "koi8-r"])
def test_a_dump_is_read_in_its_declared_encoding(tmp_path, encoding):
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
        ("plain text".encode("utf-32-le"), False, ""),
        (b"a\0b\0", False, ""),
    ],
)  # fmt: skip
def test_encoding_of(head, xml, expected):
    assert encoding_of(head, "a.xml", xml) == expected


SCRIPTS = [
    "Über die Mühle am Fluß.", "Привет, мир: вот мельница.", "Ο μύλος είναι παλιός.", "הטחנה עומדת ליד הנהר.",
    "تدور الطاحونة كل يوم.", "नदी के किनारे एक पुरानी चक्की है।", "โรงสี อยู่ ริม แม่น้ำ\n", "강가에 오래된 방앗간이 있다.",
    "水车在河边转动。\n川のそばに古い水車小屋があります。\nAB",
]  # fmt: skip


@pytest.mark.parametrize("text", SCRIPTS, ids=lambda text: text[:4])
def test_utf16_without_a_mark_is_recognized_in_every_script(text):
    for encoding in ("utf-16-le", "utf-16-be"):
        for begin in (text, "\n" + text, text * 9):
            assert encoding_of(begin.encode(encoding)[:HEAD], "a.txt", False) == encoding
    assert encoding_of((text * 9).encode()[:HEAD], "a.txt", False) == ""


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=16), st.lists(st.integers(0, 99), max_size=3))
def test_utf8_with_a_stray_zero_is_not_utf16(text, places):
    head = bytearray(text.encode()[:HEAD])
    for place in places:
        head[place % len(head) : place % len(head)] = b"\0"
    controls = sum(byte < 0x20 for byte in head)
    assume(controls < len(head) / 4)  # otherwise it isn't text
    assert encoding_of(bytes(head[:HEAD]).decode("utf-8", "ignore").encode(), "a.txt", False) == ""


def test_a_declared_codec_that_is_not_a_text_encoding_is_named(tmp_path):
    (tmp_path / "a.xml").write_text("<?xml version='1.0' encoding='undefined'?><mediawiki>")
    with pytest.raises(UserError, match=r"a\.xml declares the unknown encoding 'undefined'"):
        read(tmp_path / "a.xml")


@pytest.mark.parametrize("name", ["klingon", "base64", "hex"])
def test_an_unknown_encoding_is_named(tmp_path, name):
    (tmp_path / "a.xml").write_text(f"<?xml version='1.0' encoding='{name}'?><mediawiki>")
    with pytest.raises(UserError, match=rf"a\.xml declares the unknown encoding '{name}': convert it to UTF-8"):
        read(tmp_path / "a.xml")


@pytest.mark.parametrize("data", ["Text".encode("utf-16")[:-1], b"\xff\xfe" + b"\x00\xdc" * 9])
def test_text_that_contradicts_its_mark_is_rejected(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.txt is not valid UTF-16 text \(.*\): convert it to UTF-8"):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("name", MAKE)
def test_undeclared_latin_1_is_explained(tmp_path, name):
    (tmp_path / name).write_bytes(MAKE[name]().replace(TEXT, "Die Mühle.").encode("latin-1"))
    dropped = next(record for record in read(tmp_path / name) if not isinstance(record, Document))
    assert (dropped.reason, dropped.bad) == ("invalid_utf8", True)
    assert dropped.detail.endswith(": it looks like Windows-1252: convert it with iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("declared", ["UTF-16", "utf-16le", "UTF-32"])
def test_a_dump_that_was_converted_to_utf8_but_declares_utf16_is_read(tmp_path, declared, mark):
    dump = f'{mark}<?xml version="1.0" encoding="{declared}"?>\n' + corpora.wikixml([corpora.page("T", TEXT)] * 30).decode()
    (tmp_path / "a.xml").write_bytes(dump.encode())
    assert [record.text for record in read(tmp_path / "a.xml", 100)] == [TEXT] * 30


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_utf16_dump_that_declares_utf8_is_read(tmp_path, encoding):
    dump = '<?xml version="1.0" encoding="UTF-8"?>\n' + corpora.wikixml([corpora.page("T", TEXT)] * 3).decode()
    (tmp_path / "a.xml").write_bytes(dump.encode(encoding))
    assert [record.text for record in read(tmp_path / "a.xml", 100)] == [TEXT] * 3


def test_a_dump_that_declares_utf16_and_is_neither(tmp_path):
    head = '<?xml version="1.0" encoding="UTF-16"?>\n'
    text = "川のそばに古い水車小屋があります。毎朝、粉屋の主人は麦を運びます。"
    (tmp_path / "a.xml").write_bytes((head + corpora.wikixml([corpora.page("T", text)]).decode()).encode("cp932"))
    (record,) = read(tmp_path / "a.xml")
    assert record.reason == "invalid_utf8" and "it looks like Shift_JIS: convert it with iconv -f SHIFT_JIS" in record.detail
