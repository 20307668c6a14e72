"""MediaWiki XML: pages are cut out and parsed one by one, headers are checked, entity bombs are rejected."""

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.readers import mediawiki
from clozemill.pipelines.readers.mediawiki import Page, cut_page, parse_page
from tests import corpora

BOMB = '<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>\n'


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"<mediawiki>\n<page><title>", b"<page><title>"),
        (b"\n  <page id='1'>x", b"<page id='1'>x"),
        (b"<pages/><pagelinks><page\n>x", b"<page\n>x"),
        (b"\n</mediawiki>\n", b""),
        (b"<pageant>", b""),
        (b"<page", b""),
        (b"", b""),
    ],
)
def test_cut_page(record, expected):
    assert cut_page(record) == expected


def test_parse_page_reads_the_fields_of_the_page():
    data = corpora.page("A & B", "x < y\nü", namespace=4, number=12).encode()
    assert parse_page(cut_page(data).split(mediawiki.CLOSE)[0]) == Page("A & B", "4", "12", False, "x < y\nü")


def test_parse_page_reads_the_last_revision_and_ignores_nested_elements():
    data = (
        b"<page><title>T</title><ns>0</ns><id>1</id><redirect title='U'/>"
        b"<revision><id>5</id><text>old</text></revision>"
        b"<revision><id>6</id><contributor><id>7</id><title>no</title></contributor><text>new</text></revision>"
        b"<x><title>no</title></x>"
    )
    assert parse_page(data) == Page("T", "0", "1", True, "new")


def test_parse_page_joins_long_text_and_accepts_empty_text():
    text = "line & line\n" * 20_000
    data = corpora.page("T", text).encode()
    assert parse_page(cut_page(data).split(mediawiki.CLOSE)[0]).text == text
    assert parse_page(b"<page><revision><text deleted='deleted' /></revision>").text == ""


@pytest.mark.parametrize(
    "data",
    [
        b"<page><title>T",
        b"<page><title>T</titel>",
        b"<page>&bomb;",
        b"<page><!DOCTYPE x [<!ENTITY bomb 'x'>]>&bomb;",
        b"<page>\x00",
        b"<page>\xff",
        b"<page a=1>",
        b"<page><page>",
        b"<page></page><page>",
    ],
)
def test_parse_page_rejects_malformed_pages(data):
    with pytest.raises(ValueError, match=r"line \d+, column \d+"):
        parse_page(data)


def test_deep_nesting_is_accepted():
    data = b"<page><title>T</title>" + b"<x>" * 50_000 + b"</x>" * 50_000
    assert parse_page(data).title == "T"


def test_a_header_is_accepted_without_reading_the_first_page():
    mediawiki.check_header(b"<?xml version='1.0'?><mediawiki><siteinfo/><page>&lt;!DOCTYPE <!DOCTYPE", "a.xml")


@pytest.mark.parametrize("header", [BOMB + "<mediawiki>", "<!DOCTYPE html><html>", "<mediawiki><!ENTITY x 'y'>"])
def test_entity_bombs_are_rejected(header):
    with pytest.raises(UserError, match=r"a\.xml declares a document type or entities"):
        mediawiki.check_header(header.encode() + b"<page>&b;", "a.xml")


@pytest.mark.parametrize("header", [b"", b"<html>", b"PK\x03\x04", "<mediawiki><page>".encode("utf-16")])
def test_other_kinds_of_files_are_rejected(header):
    with pytest.raises(UserError, match=r"a\.xml is not a MediaWiki XML dump"):
        mediawiki.check_header(header, "a.xml")
