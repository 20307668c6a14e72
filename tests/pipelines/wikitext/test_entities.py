"""Entities: decoded once, also in <nowiki>, and only where they are intended."""

import pytest

from clozemill.pipelines.wikitext.converter import to_text
from clozemill.pipelines.wikitext.entities import decode


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a&nbsp;b &lt; &#91; &#x5B; &eacute;", "a\xa0b < [ [ é"),
        ("a&nbsp b &lt 3 &eacute t", "a\xa0 b < 3 é t"),
        ("1&ndash 2&mdash, &hellip", "1– 2—, …"),
        ("&ndashes &mdash=1 &unknown;", "&ndashes &mdash=1 &unknown;"),
        ("http://a.example/?a=1&copy=2&para=3", "http://a.example/?a=1&copy=2&para=3"),
        ("&amp;nbsp; &amp;amp;lt;", "&nbsp; &amp;lt;"),  # as a browser shows it
        ("&#" + "9" * 5000 + ";&#x110000;", "\ufffd"),
        ("AT&T, Q&A", "AT&T, Q&A"),
    ],
)
def test_decode(source: str, text: str) -> None:
    assert decode(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<nowiki>&lt;</nowiki> <nowiki>&#91;</nowiki>a<nowiki>&nbsp;</nowiki>b <nowiki>&#39;&#39;</nowiki>", "< [a b ''"),
        ("<nowiki>&amp;lt;</nowiki> <nowiki>&amp;</nowiki>", "&lt; &"),
        ("<nowiki>'''a''' [[b]] &</nowiki> c<nowiki/>d<nowiki />e", "'''a''' [[b]] & cde"),
        ("<NOWIKI>__NOTOC__</NOWIKI>", "__NOTOC__"),
    ],
)
def test_nowiki_decodes_entities_and_keeps_markup(source: str, text: str) -> None:
    assert to_text(source) == text
