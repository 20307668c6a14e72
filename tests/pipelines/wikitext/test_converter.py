"""The wikitext converter: literal expectations, mwparserfromhell as the reference, broken and malicious pages."""

import doctest
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clozemill.pipelines.wikitext import apostrophes, converter, punctuation
from clozemill.pipelines.wikitext.converter import TEMPLATES, to_text
from clozemill.pipelines.wikitext.wikis import Wiki
from tests.slow import mostly_slow

PAGE = """{{Short description|Toy that flies}}
{{Infobox toy
| name  = Kite
| image = [[File:Kite.jpg|200px|A [[kite]] {{nowrap|at dawn}}]]
| list  = {{plainlist|
* {{lang|nl|vlieger}}
* [[Wau bulan|wau]]
}}
}}
<!-- The lead follows. -->
[[File:Box kite.jpg|thumb|A ''box kite'' ([[Hargrave|his]]), [http://a.example b]]]
A '''kite''' ({{lang-nl|vlieger}}; {{IPAc-en|k|aɪ|t}}; {{lang|ms|wau}}) is a [[Tether|tethered]]
[[aircraft]]s' kin.<ref
name="first">{{cite book|title=Kites|page=3}}</ref><ref name="first" /> It lifts
{{convert|5|to|6|kg|lb|abbr=on}} at {{cvt|30|km/h|mph}} , in wind&nbsp;&ndash; or none .

== History ==
{{Main|History of kites}}
Kites were flown {{circa|500 BC}} in [[China]]{{sfn|Needham|1965|p=127}}, {{as of|2008|lc=y}} everywhere.
:An indented line
* [[Fighter kite]]s
** ''Patang'' in [[India|the north]]
# First
; Term : its meaning

{| class="wikitable"
! Year !! Event
|-
| 1903 || {| nested
| cell {{x|y}}
|}
|}
=== Records ===
{{Empty section}}

== References ==
{{reflist|30em}}
The standard work is ''Kites.''<ref>x</ref>

'''Books'''
* Smith, ''A Kite'', 1901
=== Web ===
* [http://kites.example Kites]
== External links ==
* [http://kites.example Kites]
{{Authority control}}
[[Category:Kites| ]]
[[Category:Toys]]
[[fr:Cerf-volant]]
[[zh-min-nan:Hong-chhoe]]
__NOTOC__
"""
LEAD = "A kite (vlieger; wau) is a tethered aircrafts' kin. It lifts 5 to 6 kg at 30 km/h, in wind – or none."
HISTORY = ["Kites were flown c. 500 BC in China, as of 2008 everywhere.", "An indented line", "Fighter kites"]
HISTORY += ["Patang in the north", "First", "Term : its meaning"]
SOURCES = "The standard work is Kites."


def test_page() -> None:
    assert to_text(PAGE).split("\n") == [LEAD, *HISTORY, SOURCES]


def test_headings_only_before_text() -> None:
    assert to_text(PAGE, headings=True).split("\n") == [LEAD, "History", *HISTORY, "References", SOURCES]
    assert to_text("== A ==\n=== ''B'' ===\nc\n== D ==", headings=True) == "A\nB\nc"


def test_docstring() -> None:
    assert doctest.testmod(converter).failed == doctest.testmod(apostrophes).failed == doctest.testmod(punctuation).failed == 0


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # Links
        ("[[a]] [[a|b]] [[a]]s [[a|b]]s", "a b as bs"),
        ("[[Kite (toy)|]] [[Kiel, Germany|]] [[Help:Kites|]]", "Kite Kiel Kites"),
        ("[[:Category:Kites]] [[:File:Kite.jpg|the picture]]", "Category:Kites the picture"),
        ("[[#History|above]] [[Kite#History|there]] [[wikt:kite|kite]]", "above there kite"),
        ("[[:fr:Kite|le cerf]] [[CSI: NY]] [[Alien: Covenant]]", "le cerf CSI: NY Alien: Covenant"),
        ("a [[fr:Cerf]] b [[Category:C|k]] c [[Kategorie:C]] d [[zh-yue:X|y]] e", "a b c d e"),
        ("[[re:publica|Republica]] [[mix:tape]] [[sub:culture]] [[doi:10.1|b]]", "Republica mix:tape sub:culture b"),
        ("a [[simple:Kite]] b [[zh-min-nan:X]] c [[be-x-old:X|y]] d [[ceb:X]] e [[no:]]", "a b c d e"),
        ("a [[Billede:a.jpg]] b [[រូបភាព:c.SVG ]] c [[X:y.stl]] [[:X:y.pdf]] [[x.jpg]]", "a b c X:y.pdf x.jpg"),
        ("a [[file:A.png]] [[Image:A.png|x]] [[Media:A.ogg|x]] [[Datei:A.png|x [[y]] z]] b", "a b"),
        ("a [[Unheard of namespace:A.JPG|thumb|x]] b", "a b"),
        ("[[File:A.jpg|thumb|x [[y|z]] {{w|[[v]]}} [http://a.example b]]]c", "c"),
        ("[[File:A.jpg|[[a]], [[b|[c]]]]]d", "d"),
        ("[http://a.example label] [//a.example ''b''] [mailto:a@b.example us]", "label b us"),
        ("[https://a.example] a [http://a.example] b [http://a.example a [pdf] b]", "a b a [pdf] b"),
        ("[http://a.example see [[b|c]]] [[http://a.example x]]", "see c x"),
        ("He said [sic] [that] [...] http://a.example", "He said [sic] [that] [...] http://a.example"),
        # Quotes
        ("''a'' '''b''' '''''c''''' ''d '''e''' f''", "a b c d e f"),
        ("''Animal Farm'''s '''A'''s d'''art'' '''A''' and ''b''", "Animal Farm's As d'art A and b"),
        ("the 1990s' kites, ''''a'''", "the 1990s' kites, 'a"),
        ("Il dit qu'<nowiki/>''Amélie'' vient, '''L'<nowiki/>''Oréal'' '''", "Il dit qu'Amélie vient, L'Oréal"),
        ("dell'<nowiki />''Arte'' e dell'''Opera''\nnell'''a'' '''b'''", "dell'Arte e dell'Opera nell'a b"),
        ("'''Kite'''s, ''Farm''<nowiki/>'s ''''four'''' un'''even''' ''x''", "Kites, Farm's 'four' uneven x"),
        # Tags, comments, blocks
        ("a<ref>x</ref>b<ref name=y/>c<ref name='z'>x [[y]] {{z}}</ref>d<REF>x</REF>", "abcd"),
        ("a<ref group=n>x<!-- </ref> --> y</ref> b<!-- [[ {{ -->c", "a bc"),
        ("H<sub>2</sub>O<br/>x<br>y<span style='a: b'>z</span><small>w</small>", "H2O x yzw"),
        ("<ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp></ruby>字", "漢字"),
        ("<blockquote>a</blockquote>b<p>c</p>", "a\nb\nc"),
        ("a <math>x_{1}^{[[2]]} < {{3}}</math> b <code>c</code> d <gallery>\nA.jpg|x\n</gallery>", "a b d"),
        ("a<syntaxhighlight lang='c'>if (a[[1]]) {{</syntaxhighlight> b<pre>c\n\n==d==\n</pre>", "a b"),
        ("<nowiki>[[a]] ''b'' {{c}} <d> * e</nowiki> ''f''", "[[a]] ''b'' {{c}} <d> * e f"),
        ("1 < 2 and 3 > 2 <3", "1 < 2 and 3 > 2 <3"),
        ("__NOTOC__ a __FORCETOC__ __init__", "a __init__"),
        # Entities
        ("a&nbsp;b &amp; &lt;c&gt; &#8211; &#x2013; &eacute; &unknown;", "a b & <c> – – é &unknown;"),
        ("a" + "&#" + "9" * 5000 + "; b", "a b"),
        # Lists and paragraphs
        ("* a\n** b\n#c\n:: d\n;e", "a\nb\nc\nd\ne"),
        ("one\ntwo\n\nthree\n* four\nfive\n----\nsix", "one two\nthree\nfour\nfive\nsix"),
        (" as typed\n here", "as typed\nhere"),
        # Repairs
        ("a ( ; ) b () c ( , ) d (; e) f (g ; ) h", "a b c d (e) f (g) h"),
        ("a (({{x}})) b ({{x}}, born {{y}}, 1900; {{z}})", "a b (born, 1900)"),
        ("a , b . c,, d, .", "a, b. c, d."),
        ("a [ ] b [] c { } d    e", "a b c d e"),
        (" .5 and ... so", ".5 and ... so"),
        ("李白（{{bd|701年}}）是（{{x}}、1990年）詩人（唐，{{x}}）。", "李白是（1990年）詩人（唐）。"),
        ("他在{{x}}、{{y}}。又，{{z}}，好、{{z}}；", "他在。又，好、"),
        ("{{x}}，好「{{x}}」的《{{x}}》是『』〈〉【】〔〕（：{{x}} / {{y}}）也", "好的是也"),
        ("読点「、」と句点「。」、（a、b）。", "読点「、」と句点「。」、（a、b）。"),
        ("قال ({{x}}؛ {{y}}) نعم ({{x}}، b)، {{x}}، ثم", "قال نعم (b)، ثم"),
        ("(({{x}})) 甲（（{{x}}））乙（{{x}}）", "甲乙"),
    ],
)
def test_markup(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (
            "{{lang|fr|chat}} {{Lang-de|Katze}} {{langx|es|gato}} {{lang|fr|text=chien}}",
            "chat Katze gato chien",
        ),
        ("{{transl|ar|DIN|qiṭṭ}} {{transliteration|ru|kot}}", "qiṭṭ kot"),
        ("{{convert|5|km|mi|0}} {{cvt|5|km2}} {{convert|-3|C|F|abbr=on}}", "5 km 5 km² -3 °C"),
        ("{{convert|5|to|6|km}} {{convert|5|-|6|m}} {{convert|2|x|3|x|4|m}}", "5 to 6 km 5–6 m 2 × 3 × 4 m"),
        ("{{convert|6|ft|2|in|m}} {{convert|5}} {{convert|5|to}} {{convert}}", "6 ft 2 in 5 5 to"),
        ("{{nowrap|a ''b''}} {{small|c}} {{abbr|d|e}} {{small|1=f=g}}", "a b c d f=g"),
        (
            "{{as of|2008}} {{as of|2008|5|lc=y}} {{As of|2008|5|1|since=y}}",
            "As of 2008 as of May 2008 Since 1 May 2008",
        ),
        ("{{as of|2008|alt=in 2008}} {{circa|1900}} {{c.|1900|1910}}", "in 2008 c. 1900 c. 1900 – c. 1910"),
        ("{{ill|Kite maker|de|Drachenbauer}} {{ill|de|Drachenbauer}}", "Kite maker Drachenbauer"),
        ("{{interlanguage link|Kite maker|lt=maker|fr|Facteur}}", "maker"),
        ("a{{quote|b|Somebody}}c {{cquote|text=d}}", "a\nb\nc\nd"),
        ("{{nihongo|kite|凧|tako}} {{nihongo|kite||tako}}", "kite (凧, tako) kite (tako)"),
        ("{{sic|teh}} {{sic}} {{sic|hide=y|recieve}}", "teh [sic] [sic] recieve"),
        ("{{val|5.2|0.1|u=km}} {{val|3|e=8|u=m/s}}", "5.2±0.1 km 3×10^8 m/s"),
        ("{{frac|2}} {{frac|1|4}} {{frac|3|1|2}}", "1/2 1/4 3 1/2"),
        ("1{{ndash}}2{{mdash}}3{{snd}}4{{spaced ndash}}5{{nbsp}}6", "1–2—3 – 4 – 5 6"),
        ("{{formatnum:1234}} {{nowrap|{{small|{{lang|fr|[[a|b]]}}}}}} a{{!}}b", "1234 b a|b"),
        ("a {{Unknown|b}} {{citation needed|date=May 2008}} {{{1|}}} {{#if:x|y}} c", "a c"),
    ],
)
def test_templates_with_prose(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    ("language", "source", "text"),
    [
        ("de", "__KEIN_INHALTSVERZEICHNIS__ a __ABSCHNITTE_NICHT_BEARBEITEN__", "a"),
        ("de", "__ohneinhaltsverzeichnis__ a __Kein_Inhaltsverzeichnis__ __inhaltsverzeichnis__", "a"),
        ("pl", "__bezspisu__ a __Без_Оглавления__ __SekcjaX__", "a __SekcjaX__"),
        ("tr", "__İÇİNDEKİLERYOK__ a __içindekileryok__", "a"),
        ("ru", "__БЕЗ_ОГЛ__ a __БЕЗОГЛ__ b", "a b"),
        ("fr", "a __SECTIONNONÉDITABLE__ __AUCUNSOMMAIRE__", "a"),
        ("ja", "a __目次非表示__ ＿＿目次強制＿＿", "a"),
        ("he", "__ללא_תוכן_עניינים__ a", "a"),
        ("hi", "__विषय_सूची_हीन__ a", "a"),
        ("ka", "__უსარჩევო__ a", "a"),
        ("en", "__NOTOC__ a __NoToc__ __toc__ __EXPECTED_UNCONNECTED_PAGE__", "a"),
        ("", "__init__ __Foo__ __x__ __A1__ ____ __AB__", "__init__ __Foo__ __x__ __A1__ ____ __AB__"),
        ("en", "__VA_ARGS__ and __über__ and snake__CASE", "__VA_ARGS__ and __über__ and snake__CASE"),
        ("de", "__init__ und __neu__", "__init__ und __neu__"),
    ],
)
def test_switches_of_any_language(language: str, source: str, text: str) -> None:
    assert to_text(source, wiki=Wiki(language)) == text


def test_links_to_local_files_and_categories_produce_no_text() -> None:
    wiki = Wiki("xx", ((-2, "Mīdija"), (6, "Fails Jauns"), (14, "Ryhmä"), (4, "Wikia")))
    source = "a [[Fails_jauns:b|thumb|c [[d]]]] [[ryhmä:e|f]] [[Mīdija:g.ogg]] [[:Ryhmä:h]] [[Wikia:i|j]] [[Image:k]]"
    assert to_text(source, wiki=wiki) == "a Ryhmä:h j"
    assert to_text("a [[Ryhmä:e]]") == "a Ryhmä:e"


def test_every_template_renders_any_number_of_arguments() -> None:
    for names in TEMPLATES:
        for name in names.replace("*", "x").split("|"):
            for arguments in (
                "",
                "|",
                "|to|to|to",
                "|a=b|2=c",
                "|" * 50,
                "|-" * 50,
                "|1|2|3|4|5|6|7|8|9|10|11|12",
            ):
                assert "{" not in to_text("{{" + name + arguments + "}}")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a {{b c\n\nd [[e]] {{small|f}}", "a b c\nd e f"),
        ("a {{b c\n\n== D ==\ne}} f", "a b c\ne f"),
        ("{{Infobox\n| a = b\n\nc {{small|d}}", "Infobox\nc d"),
        ("a [[b c\n\nd [[e|f]]", "a b c\nd f"),
        ("a [[b\n\n== C ==\n{{small|d}} e]] f", "a b\nd e f"),
        ("[[File:A.jpg|thumb|a [[b]\n\nc ]] d", "a b]\nc d"),
        ("[[File:A.jpg|thumb|a\n\nc [[d]] e]] f", "c d e f"),
        ("[[File:A.jpg|thumb|a b\n\nc [[d|e f", "a b\nc e f"),
        ("{{{{small|a}}}} {{{b}}} [[[c]]] {d} e", "[c] {d} e"),
        ('a\n{| class="b"\n| c\n|-\n| d\n\ne', "a\ne"),
        ("a\n{|\n| b\n== C ==\nd\n|}\ne", "a\nd\ne"),
        ("a<ref>b [[c|d]]\n\ne<ref>f</ref> g", "ab d\ne g"),
        ("a<ref>b\n== C ==\nd</ref> e", "ab\nd e"),
        ("a<ref name=b c", "a name=b c"),
        ("a<!-- b", "a b"),
        ("a <math>b [[c]]", "a b c"),
        ("a }} b ]] c |} d </ref> e --> f", "a b c d e --> f"),
        ("{{small|[[a}} b", "a b"),
        ("[http://a.example b", "b"),
    ],
)
def test_broken_markup_keeps_the_text(source: str, text: str) -> None:
    assert to_text(source) == text


UNITS = [
    "{",
    "[",
    "{{",
    "[[ ",
    "{{ a|",
    "[[a|",
    "}}",
    "]]",
    "{|",
    "{|\n| ",
    "|}",
    "<ref",
    "<ref>",
    "<ref><math>",
]
UNITS += [
    "<!--",
    "<a ",
    "'",
    "''a",
    "''a'''s",
    "(",
    "( ;",
    "（、",
    "、 ",
    ", ",
    ";",
    "[http://",
    "[//a [b] ",
    "&#9",
    "&",
    "=",
    "=a=\n",
]
UNITS += ["__", "\n", " ", "* ", "[ ", "{ ", "<nowiki>", "{{small|a}} ", "[[File:a|", "{{a|[["]


@pytest.mark.parametrize("unit", mostly_slow(UNITS, *UNITS[::6]))
def test_a_megabyte_of_openings(unit: str) -> None:
    """Each takes well under a second; in quadratic time it would take minutes to hours."""
    text = to_text("first\n\n" + unit * (1_000_000 // len(unit)) + "\n\nlast")
    assert text.startswith("first")
    assert text.endswith("last")


@pytest.mark.parametrize(
    "page",
    [
        "[[a|" * 100_000 + "x" + "]]" * 100_000,
        "{{small|" * 100_000 + "x" * 500_000 + "}}" * 100_000,
        "{|\n|" * 100_000 + "x" + "\n|}" * 100_000,
        "<ref>" * 100_000 + "x" + "</ref>" * 100_000,
        "{{convert|1" + "|-" * 500_000 + "}}",
        "{{" + "[ " * 500_000 + "}}",
        "[[:a(" + " " * 1_000_000 + "|]]",
        "&#x" + "f" * 1_000_000 + ";",
    ],
    ids=["links", "templates", "tables", "references", "arguments", "singles", "spaces", "entity"],
)
def test_deep_and_long_constructs(page: str) -> None:
    assert to_text(page + "\n\nlast").endswith("last")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def oracle(source: str) -> list[str]:
    parser = pytest.importorskip("mwparserfromhell")
    code = parser.parse(source)
    for reference in code.filter_tags(matches=lambda tag: tag.tag == "ref"):  # strip_code would keep it
        code.remove(reference)
    return words(code.strip_code())


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("<section begin=x />Kites fly.<section end=x /> High.", "Kites fly. High."),
        ("<section begin='a b'/>a<section end='a b'/>", "a"),
        ('<קטע התחלה="פתיח"/>עפיפון עף.<קטע סוף="פתיח"/>', "עפיפון עף."),
        ("<קטע התחלה=פתיח />א<קטע סוף=פתיח />", "א"),
        ("<Abschnitt Anfang=eins />a<Abschnitt Ende=eins /> <sección comienzo=b />c", "a c"),
        ("<अनुभाग आरंभ=क />पतंग", "पतंग"),
        ("<ветер> дует, <я = ты>, x <б и y>б", "<ветер> дует, <я = ты>, x <б и y>б"),
        ("a <style>.b { color: red }</style>c <STYLE type='x'>\n.b > d {}\n</STYLE>e", "a c e"),
        ("a <youtube>dQw4</youtube>b<youtube width=200>x</youtube> c", "a b c"),
        ("a <DynamicPageList>\ncategory = Kites\ncount = 5\n</DynamicPageList> b", "a b"),
        ("a <timeline>\nImageSize = 1\n</timeline> <graph>{\"a\": 1}</graph> b", "a b"),
        ("a <inputbox>\ntype=search\n</inputbox> <maplink zoom=9>{ }</maplink> b", "a b"),
        ("a <categorytree mode=pages>Kites</categorytree> <templatestyles src='a.css' /> b", "a b"),
        ("a <indicator name=x>[[File:A.png]]</indicator> b", "a b"),
        ("a <style> b", "a b"),
        ("a <poem>b</poem> <stylish>c</stylish>", "a\nb\nc"),
    ],
)  # fmt: skip
def test_extension_tags_keep_their_visible_text(source: str, text: str) -> None:
    assert to_text(source) == text


@pytest.mark.parametrize(
    "source",
    [
        "A '''kite''' is a [[tether]]ed ''craft'' with [[Wing|surfaces]] that react against the [[air]].",
        "Kites{{cite book|title=[[Kites]]|author={{smith|a}}}} have [[Bridle|lines]]{{fact}}, [[tail]]s.",
        "{{Infobox\n| a = {{b|c=[[d|e]]}}\n}}\n'''''Bold''''' [http://a.example labelled] links &amp; so on.",
        "One line<ref>dropped</ref> and<!-- dropped --> another<ref name=x />.\n\nA [[second (x)|next]] one.",
    ],
)
def test_matches_the_words_of_mwparserfromhell(source: str) -> None:
    assert words(to_text(source)) == oracle(source)


WORD = st.text("bcdghklm", min_size=4, max_size=7)
INLINE = st.recursive(
    WORD,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(" ".join),
        inner.map("''{}''".format),
        inner.map("<b>{}</b>".format),
        WORD.map("[[{}]]s".format),
        st.builds("[[{}|{}]]".format, WORD, WORD),
        st.builds("{} {{{{Dropped|{}|x={}}}}}".format, inner, inner, inner),
        st.builds("{}<ref>{}</ref>".format, inner, WORD),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(INLINE)
def test_matches_the_words_of_mwparserfromhell_for_any_nesting(source: str) -> None:
    source = re.sub(r"'{3,}", "''", source)  # runs of quotes are ambiguous
    assert words(to_text(source)) == oracle(source)


PIECES = [
    *"[]{}|<>'=*#:;_- \n!/&a0",
    "[[",
    "]]",
    "{{",
    "}}",
    "{|",
    "|}",
    "''",
    "'''",
    "<ref>",
    "</ref>",
    "<ref",
    "/>",
]
PIECES += [
    "<!--",
    "-->",
    "<nowiki>",
    "</nowiki>",
    "==",
    "\n==",
    "\n\n",
    "File:",
    "[http://",
    "convert|",
    "small|",
    "&#",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join))
@example("{''{ a ]{}]")
@example("[{[ ]{[")
def test_any_markup_is_cleaned(source: str) -> None:
    text = to_text(source)
    assert not re.search(r"\n\n|  |^\s|\s$", text)
    if "<nowiki>" not in source and "&" not in source:
        assert not re.search(r"\[\[|\]\]|\{\{|\}\}|\{\||\|\}|''", text)
        assert len(text) <= 2 * len(source)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_accepted(source: str) -> None:
    to_text(source, headings=True)
