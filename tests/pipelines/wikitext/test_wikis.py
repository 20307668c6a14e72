"""Wikis of many languages and schema versions: the head of a dump determines what is text."""

import bz2

import pytest

from clozemill.pipelines.config import PrepareConfig
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.readers import formats, mediawiki
from clozemill.pipelines.readers.document import Document
from clozemill.pipelines.readers.input_split import InputSplit
from clozemill.pipelines.readers.input_warnings import input_warnings
from clozemill.pipelines.text.cleaning import clean
from clozemill.pipelines.wikitext.wikis import REDIRECTS, Wiki, language_of, normal_name
from tests import wikis


def read(path, split_bytes: int = 1 << 30) -> list[formats.Record]:
    (info,) = filesystem.match([str(path)])
    format_, compression = formats.detect(info.path, "auto")
    splits: list[InputSplit] = formats.READERS[format_].plan(info, format_, compression, split_bytes)
    return [record for split in splits for record in formats.read(split, PrepareConfig())]


def texts(records: list[formats.Record]) -> list[str]:
    return [clean(formats.plain_text(record, PrepareConfig())) for record in records if isinstance(record, Document)]


@pytest.mark.parametrize("sample", wikis.SAMPLES, ids=lambda sample: f"{sample.language}-{sample.version}")
def test_only_articles_are_read_and_contain_no_markup(tmp_path, sample):
    (tmp_path / "a.xml").write_bytes(wikis.dump(sample))
    records = read(tmp_path / "a.xml")
    assert texts(records) == [sample.text]
    assert [getattr(record, "reason", "") for record in records] == ["", *["other_namespace"] * 4, "redirect"]
    assert wikis.markup_characters(sample.text) == 0
    assert wikis.markup_characters(sample.source) > 10


def test_a_later_split_knows_the_wiki(tmp_path):
    """The head is only in the first stream, and the last splits of the file start far behind it."""
    sample = next(sample for sample in wikis.SAMPLES if sample.language == "fa")
    streams = [wikis.head(sample), *wikis.pages(sample, 40), "</mediawiki>\n"]
    path = tmp_path / "fawiki-20240101-pages-articles-multistream1.xml-p1p904.bz2"
    path.write_bytes(b"".join(bz2.compress(stream.encode()) for stream in streams))
    assert texts(read(path, 500)) == texts(read(path)) == [sample.text] * 40


def test_a_dump_without_a_head_uses_the_names_of_all_wikis(tmp_path):
    source = "<mediawiki><page><title>Talk:A</title><revision><text>x</text></revision></page>"
    source += (
        "<page><title>A</title><revision><text>Eins. [[Kategorie:B]] [[Файл:C]] -{a}-</text></revision></page></mediawiki>"
    )
    (tmp_path / "a.xml").write_text(source, "utf-8")
    assert texts(read(tmp_path / "a.xml")) == ["Eins. -{a}-"]


SITEINFO = (
    '<siteinfo><namespaces><namespace key="0" /><namespace key="1">Diskussion</namespace><namespace key="2">Benutzer'
    '</namespace><namespace key="4">Heft</namespace><namespace key="10">Vorlage</namespace></namespaces></siteinfo>'
)


def old_dump(path, head: str, titles: list[str], field: str = ""):
    """A dump before version 0.6, whose pages name no namespace (except for `field`)."""
    pages = "".join(f"<page><title>{title}</title>{field}<revision><text>Korn.</text></revision></page>" for title in titles)
    path.write_text(f"<mediawiki>{head}{pages}</mediawiki>", "utf-8")
    return path


@pytest.mark.parametrize(
    ("head", "others"),
    [
        (SITEINFO, ["Diskussion:Mühle", "Benutzer:Eva", "Heft:Regeln", "Vorlage:Rad", "Talk:Rad", "Template:Rad"]),
        ("", ["Talk:Mill", "User talk:Eva", "Wikipedia:Rules", "Wiktionary talk:A", "Template:Rad", "Portal:Mills",
              "Kategorie:Mühle", "Файл:Rad.jpg"]),
    ],
    ids=["with siteinfo", "without"],
)  # fmt: skip
def test_pages_without_a_namespace_are_classified_by_title(tmp_path, head, others):
    records = read(old_dump(tmp_path / "a.xml", head, ["Mühle", *others, "Rad: ein Film"]))
    assert [record.title for record in records if isinstance(record, Document)] == ["Mühle", "Rad: ein Film"]
    assert [record.reason for record in records[1:-1]] == ["other_namespace"] * len(others)


@pytest.mark.parametrize(
    ("head", "field", "warned"),
    [("", "", True), (SITEINFO, "", False), ("", "<ns>0</ns>", False), ("<siteinfo><dbname>x</dbname></siteinfo>", "", True)],
)
def test_a_dump_without_namespaces_causes_one_warning(tmp_path, head, field, warned):
    for name in ("a.xml", "b.xml"):
        old_dump(tmp_path / name, head, ["Mühle", "Diskussion:Mühle"], field)
    found = input_warnings(formats.plan(PrepareConfig(input=(str(tmp_path / "*.xml"),))))
    assert [line.startswith(f"{tmp_path}/a.xml lists no namespaces") for line in found] == [True] * warned
    assert all("give a dump with its <siteinfo>" in line for line in found)


def test_other_input_causes_no_warning(tmp_path):
    (tmp_path / "a.xml").write_text("<mediawiki></mediawiki>")
    (tmp_path / "b.txt").write_text("<page><title>A</title><revision>")
    (tmp_path / "c.xml.bz2").write_bytes(b"BZh9 damaged")
    assert input_warnings(formats.plan(PrepareConfig(input=(str(tmp_path / "*"),)))) == []


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ("<text>a</text>", True),
        ("<model>wikitext</model><format>text/x-wiki</format><text>a</text>", True),
        ("<format>text/x-wiki</format><text>a</text>", True),
        ("<model>json</model><format>application/json</format><text>{}</text>", False),
        ("<model>Scribunto</model><format>text/plain</format><text>return {}</text>", False),
        ("<model>flow-board</model><text>x</text>", False),
        ("<format>text/css</format><text>a {}</text>", False),
        ("<content><role>main</role><model>wikitext</model><text>a</text></content>", True),
        ("<content><role>main</role><model>css</model><text>a {}</text></content>", False),
        ("<content><role>other</role><model>json</model><text>{}</text></content><text>a</text>", True),
        ("<model>wikitext</model><text>a</text><content><role>other</role><model>json</model><text>{}</text></content>", True),
    ],
)
def test_only_wikitext_is_read(tmp_path, content, kept):
    (tmp_path / "a.xml").write_text(
        f"<mediawiki><page><title>T</title><ns>0</ns><id>1</id><revision>{content}</revision></page></mediawiki>", "utf-8"
    )
    (record,) = read(tmp_path / "a.xml")
    if kept:
        assert (record.text, record.title) == ("a", "T")
    else:
        assert (record.reason, record.bad) == ("other_content_model", False)
        assert record.detail.startswith("T: ")


def test_the_content_model_comes_from_the_last_revision():
    page = b"<page><title>T</title><revision><model>json</model><text>{}</text></revision><revision><text>new</text></revision>"
    assert mediawiki.parse_page(page).is_wikitext
    assert mediawiki.parse_page(page).text == "new"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("#REDIRECT [[A]]", True),
        (" \n#redirect: [[A#b|c]] {{R from x}}", True),
        ("#UMLEITUNG NACH [[A]]", True),  # only an unknown word
        ("#Foo [[A]]\n{{bar}}\n[[Category:B]]", True),
        ("#Foo [[A]] is the first of many.", False),
        ("#Foo [[A]]\n#Bar [[B]]", False),
        ("# [[A]]", False),
        ("#REDIRECT A", False),
        ("Text #REDIRECT [[A]]", False),
        ("", False),
    ],
)
def test_redirects_by_their_text(text, expected):
    assert mediawiki.is_redirect(text) is expected


def test_redirect_words_are_in_lower_case():
    assert {word.lower() for word in REDIRECTS} == REDIRECTS
    assert {"redirect", "weiterleitung", "重定向", "رجوع مکرر"} <= REDIRECTS


@pytest.mark.parametrize(
    ("title", "number"),
    [("A", 0), ("Alien: B", 0), ("Talk:A", 1), ("user_talk:A", 3), ("Razgovor:A", 1), (" RAZGOVOR :A", 1), ("Слика:A", 0)],
)
def test_a_title_s_prefix_names_its_namespace(title, number):
    assert Wiki("hr", ((0, ""), (1, "Razgovor"), (6, "Datoteka"))).namespace_of(title) == number


@pytest.mark.parametrize(
    ("declared", "database", "expected"),
    [("de", "", "de"), ("", "dewiktionary", "de"), ("", "zh_yuewiki", "zh"), ("zh-Hant", "x", "zh-hant"), ("", "commons", "")],
)
def test_language_of(declared, database, expected):
    assert language_of(declared, database) == expected


def test_names_are_compared_without_case_underscores_and_marks():
    assert normal_name("\u200fUser_Talk ") == "user talk"


def test_wikis_with_language_variants():
    assert [bool(Wiki(code).variants) for code in ("zh", "zh-tw", "sr", "sr-el", "zh-yue", "en", "")] == [True] * 4 + [
        False
    ] * 3
