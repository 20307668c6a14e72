"""Markup of language variants: flags, rules, nesting, and rules that show nothing."""

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clozemill.pipelines.wikitext import language_variants
from clozemill.pipelines.wikitext.converter import to_text
from clozemill.pipelines.wikitext.wikis import Wiki
from tests.slow import mostly_slow

ZH, SR, EN = Wiki("zh"), Wiki("sr"), Wiki("en")


def test_docstring() -> None:
    assert doctest.testmod(language_variants).failed == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("-{zh-hans:计算机; zh-hant:電腦}-好", "计算机好"),
        ("-{zh-tw:資訊;zh-hk:資訊2}-", "資訊"),  # no preferred variant: the first
        ("-{ zh-hant : 乙 ; zh-hans : 甲 ; }-", "甲"),
        ("a-{b}-c-{}-d", "abcd"),
        ("-{R|zh-hans:x}-", "zh-hans:x"),
        ("-{A|zh-hans:甲;zh-hant:乙}-", "甲"),
        ("-{T|x}-a-{H|zh-cn:b;zh-tw:c}--{-|zh-cn:b;zh-tw:c}--{+|zh-cn:b;zh-tw:c}--{N|zh-cn}-", "a"),
        ("-{zh;zh-hant|甲}-", "甲"),
        ("-{D|zh-cn:甲;zh-tw:乙}-", "甲"),
        ("-{H|甲=>zh-cn:乙;}-x-{甲=>zh-hans:乙}-", "x乙"),
        ("-{a -{b}- c}-", "a b c"),
        ("-{zh-hans:甲-{zh-cn:丙;zh-tw:丁}-;zh-hant:乙}-", "甲丙"),
        ("-{zh-hans:[[甲|丙]];zh-hant:[[乙|丁]]}-", "丙"),
        ("-{{{lang|zh|甲}}}-", "甲"),
        ("{{lang|zh|-{zh-hans:甲;zh-hant:乙}-}}", "甲"),
        ("-{zh-hans:{{lang|en|a}};zh-hant:b}-", "a"),
        ("{{x|-{A|zh-cn:甲;zh-tw:乙}-}}[[甲|-{zh-hans:丙;zh-hant:丁}-]]", "丙"),
        ("-{http://a.example/b;c}-", "http://a.example/b;c"),
        ("<nowiki>-{甲}-</nowiki>", "-{甲}-"),
        ("-{甲 and 乙}- -{丙", "甲 and 乙 丙"),
        ("一。\n-{T|二}-\n三。\n\n四。", "一。 三。\n四。"),
        ("-{H|zh-cn:甲}-\n一。", "一。"),
    ],
)
def test_one_variant_is_shown(source: str, text: str) -> None:
    assert to_text(source, wiki=ZH) == text


def test_each_language_prefers_one_variant_in_any_order() -> None:
    for source in ("-{sr-ec:река; sr-el:reka}-", "-{sr-el:reka; sr-ec:река}-", "-{sr-Latn:reka;sr-Cyrl:река}-"):
        assert to_text(source, wiki=SR) == "река"


def test_other_wikis_treat_it_as_text() -> None:
    assert to_text("2-{4-(x)amino}-ethanol", wiki=EN) == "2-{4-(x)amino}-ethanol"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["-{", "}-", "|", ";", ":", "zh-hans:", "A", "甲", "\n", " ", "{{", "}}", "H|", "=>"])).map(
        "".join
    )
)
def test_no_delimiter_is_left(source: str) -> None:
    text = to_text(source, wiki=ZH)
    assert "-{" not in text and "}-" not in text and "\0" not in text


ENDLESS = ("-{", "-{ ", "}-", "-{;", "-{a=>", "-{a;zh:", "-{|", "-{a}-", "; zh-hans:", "-{{{", "-{\n")


@pytest.mark.parametrize("unit", mostly_slow(ENDLESS, *ENDLESS[::4]))
def test_a_megabyte_of_it_takes_linear_time(unit: str) -> None:
    """In quadratic time it would take minutes to hours."""
    source = unit * (1_000_000 // len(unit))
    for page in (source, "-{" + source + "}-"):
        assert to_text("first\n\n" + page + "\n\nlast", wiki=ZH).startswith("first")
