"""Convert a MediaWiki page to plain text: one paragraph or list item per line.

    >>> to_text("'''Kites''' are [[toy]]s ({{lang|nl|vliegers}}; {{IPAc-en|k}}).<ref>A source</ref>")
    'Kites are toys (vliegers).'

Each stage scans the page a few times, in linear time:

1. Remove blocks without prose (comments, references, formulas, galleries, code).
2. Replace templates, links and tables by their text, from the inside out.
3. Remove inline markup.
4. Join lines into paragraphs and remove what is left of the markup.

Broken markup loses its delimiters; the text after it is kept.

A template is dropped unless `TEMPLATES` defines its text. Sections of references, external links and the like lose
their lists and keep the lines that end like a sentence. Lines without an empty line between them form one paragraph,
as on the rendered page.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable

from clozemill.pipelines.wikitext import apostrophes, entities, language_variants
from clozemill.pipelines.wikitext.punctuation import mend
from clozemill.pipelines.wikitext.wikis import LANGUAGES, REFERENCE_SECTIONS, SWITCHES, UNKNOWN_WIKI, Wiki, normal_name

Args = defaultdict[str, str]  # a template's arguments by number ("1", "2", …) or name; a missing one is ""
Renderer = Callable[[Args], str]
_words = str.split  # a table of words reads better without a pair of quotes for each

_IMAGES = tuple(_words(".jpg .jpeg .png .gif .svg .tif .tiff .webp .ogg .ogv .webm .pdf"))
_MEDIA = (*_IMAGES, *_words(".flac .wav .mp3 .mp4 .oga .opus .mid .midi .mpg .mpeg .djvu .xcf .bmp .stl"))
_MONTHS = _words("January February March April May June July August September October November December")
_RANGES = {"-": "–", "–": "–", "x": " × ", "+/-": " ± "} | {w: f" {w} " for w in _words("to and or by × ±")}
_UNITS = {"sqmi": "mi²", "sqkm": "km²", "km2": "km²", "m2": "m²", "m3": "m³", "C": "°C", "F": "°F"}


def _arg(*keys: str, form: str = "{}") -> Renderer:
    """Render the first of the arguments `keys` that is given, inside `form`; if none is given, render nothing."""
    return lambda args: next((form.format(args[key]) for key in keys if args[key]), "")


def _positional(args: Args) -> list[str]:
    return [value for key, value in args.items() if value and key.isdecimal()]


def _convert(args: Args) -> str:
    """Return the quantity as its author wrote it, without the conversion: `5 to 6 km`, `6 ft 2 in`."""
    text, *words = _positional(args)[:9] + [""] * 9
    while words[0] in _RANGES:
        text += _RANGES[words[0]] + words[1]
        words = words[2:]
    text += " " + _UNITS.get(words[0], words[0])
    return f"{text} {words[1]} {words[2]}" if words[0] + words[2] in ("ftin", "lboz", "stlb") else text


def _as_of(args: Args) -> str:
    month = _MONTHS[int(args["2"]) - 1] if args["2"] in map(str, range(1, 13)) else args["2"]
    opening = "since" if args["since"] else "as of"
    return args["alt"] or f"{opening if args['lc'] else opening.capitalize()} {args['3']} {month} {args['1']}"


def _fraction(args: Args) -> str:
    numbers = _positional(args)
    return " ".join([*numbers[:-2], "/".join(["1", *numbers][-2:])]) if numbers else ""


# How to render a template, by its lower-case names; `name-*` matches any other `name-…`. To keep the prose of
# another template, add an entry. Stray spaces, `()` and so on are removed later. Write a bar as an entity.
TEMPLATES: dict[str, Renderer] = {
    "small|smaller|midsize|big|larger|nowrap|no wrap|nobr|nobold|noitalic|em|strong|sc|smallcaps": _arg("1"),
    "abbr|tooltip|visible anchor|vanchor|linktext|keypress|mvar|math|var|angbr|chem2|not a typo": _arg("1"),
    "formatnum|lc|uc|ucfirst|lcfirst|nts|dts|flag|flagcountry|as written|underline|sup|sub": _arg("1"),
    "color|font color|resize|script|wikt-lang": _arg("2"),
    "lang|langx|rtl-lang": _arg("text", "2"),
    "lang-*": _arg("text", "1"),
    "quote|blockquote|cquote|quotation|bquote|poemquote": _arg("text", "quote", "1", form="\n\n{}\n\n"),
    "gloss|literal translation|lit": _arg("1", form="'{}'"),
    "floruit|fl.": _arg("1", form="fl. {}"),
    "us$": _arg("1", form="US${}"),
    "e": _arg("1", form="×10^{}"),
    "transl|transliteration|ipa": lambda args: "".join(_positional(args)[-1:]),
    "chem|gaps": lambda args: "".join(_positional(args)),
    "bibleverse|ship|oldstyledate": lambda args: " ".join(_positional(args)[:2]),
    "circa|c.|ca.": lambda args: "c. " + " – c. ".join(_positional(args)),
    "nihongo": lambda args: f"{args['1']} ({args['2']}, {args['3']})",
    "sic": lambda args: "".join(_positional(args)) + ("" if args["hide"] else " [sic]"),
    "val": lambda args: f"{'±'.join(_positional(args)[:2])}{args['e'] and '×10^' + args['e']} {args['u']}",
    "as of|asof": _as_of,
    "convert|cvt": _convert,
    "frac|fraction|sfrac": _fraction,
    # In an older form, {{ill|de|Titel}}, the language comes first: the title is the longer one.
    "ill|interlanguage link": lambda args: args["lt"] or max(_positional(args)[:2], key=len, default=""),
    "ndash|en dash|endash|–": lambda _: "–",
    "mdash|em dash|emdash|—": lambda _: "—",
    "snd|snds|spaced ndash|spaced en dash|spnd|dash|ndashb": lambda _: " – ",
    "mdashb|spaced mdash|spaced em dash": lambda _: " — ",
    "·|dot|middot|•|bull": lambda _: " · ",
    "nbsp|thinsp|space|spaces|sp|hair space": lambda _: " ",
    "okina": lambda _: "ʻ",
    "'": lambda _: "'",
    "'s": lambda _: "'s",
    "!": lambda _: "&#124;",
}
_RENDERERS = {name: renderer for names, renderer in TEMPLATES.items() for name in names.split("|")}

_MAX_NESTING = 20  # rounds over the page; brackets nested deeper count as unpaired
_BLOCKS = _words(
    "ref references nowiki math chem ce gallery code syntaxhighlight source pre score timeline hiero graph chart imagemap "
    "mapframe maplink googlemap templatedata inputbox rp rt includeonly templatestyles style script indicator dynamicpagelist "
    "dpl categorytree subpages splist charinsert rss youtube vimeo embedvideo gvideo graphviz mscgen uml ditaa abc asciimath"
)
_BLOCK = re.compile(rf"<(/?)({'|'.join(_BLOCKS)})\b(?:([^<>]*)(>))?", re.IGNORECASE)
# The inside of brackets: anything but double brackets. If three close, the first belongs to the inside.
_INSIDE = r"[^][{}]*+(?:(?:\[(?!\[)|\](?!\])|\](?=\]\](?!\]))|\{(?!\{)|\}(?!\}))[^][{}]*+){0,999}"
_INNERMOST = re.compile(rf"\[\[(?!\[){_INSIDE}\]\]|\{{\{{(?!\{{){_INSIDE}\}}\}}")
_LENIENT = re.compile(r"\{\{(?!\{)[^{}]*+(?:(?:\{(?!\{)|\}(?!\}))[^{}]*+){0,999}\}\}")  # ignores [[ and ]]
_TABLE = re.compile(r"\{\|[^{|]*+(?:(?:\{(?!\|)|\|(?!\}))[^{|]*+){0,99999}\|\}")
_UNPAIRED = re.compile(r"\[\[[^][\n]*\|")
_EXTERNAL = re.compile(
    r"\[\s*(?:(?:https?|ftp|irc|news):|mailto:|//)(?:[^][\s<>']|'(?!'))*[ \t]*"
    r"([^][\n]*(?:\[[^][\n]*\][^][\n]*)?)\]?"
)
_LETTERS = r"[^\W\d_][^\s\x00-@\[-`{-\x7f]{1,30}"  # vowel signs too
# <section begin=… /> is translated. So a word in other letters is a tag if it has an attribute, otherwise text.
_TAG = re.compile(rf"</?(?:([a-zA-Z][a-zA-Z0-9-]*)(?:[\s/][^<>]*)?|{_LETTERS}\s+{_LETTERS}\s*=[^<>]*)>")
_TAG_TEXT = {"br": " "} | dict.fromkeys(_words("p div li ul ol dl dd dt center blockquote poem hr"), "\n\n")
_SWITCH = re.compile(r"(?:__|＿＿)(?!_)([^\s<>\[\]{}|!-/:-@\\^`~＿]+?)(?:__|＿＿)")
# The regex engine searches fastest for a pattern that starts with a character class.
_LEFTOVER = re.compile(r"[][{}|'](?:[][{}|']+|(?<=\[)\s+\]|(?<=\{)\s+\})")
_ENDS = tuple(".!?。！？؟।॥۔։።…")
_WORD = re.compile(r"[^\W_]")


def _drop_blocks(text: str) -> str:
    """Remove comments and blocks without prose; replace what <nowiki> protects by entities."""
    # Only up to the last "-->": after it, a search from each "<!--" would scan to the end and find nothing.
    head, arrow, tail = text.rpartition("-->")
    text = re.sub(r"<!--.*?-->", "", head + arrow, flags=re.DOTALL) + tail.replace("<!--", "")
    tags = list(_BLOCK.finditer(text))
    # An opening tag is closed only if the next tag of the same name is a closing one.
    ends: list[re.Match | None] = []
    following: dict[str, re.Match] = {}
    for tag in reversed(tags):
        end = following.get(tag[2].lower())
        ends.append(end if end and end[1] else None)
        following[tag[2].lower()] = tag
    out, position = [], 0
    for tag, end in zip(tags, reversed(ends), strict=True):
        if tag.start() < position:
            continue
        out.append(text[position : tag.start()])
        position = tag.end()
        if tag[1] or not tag[4] or tag[3].endswith("/") or not end:
            out.append(tag[0] if tag[4] and tag[2].lower() == "nowiki" else "")  # removed later: it separates runs of quotes
            continue
        name, content = tag[2].lower(), text[position : end.start()]
        if name == "ref" and "\n==" in content:  # a reference can't span sections: this end belongs to another one
            continue
        if name == "nowiki":
            out.append(entities.protect(content))
        position = end.end()
    return "".join(out) + text[position:]


def _template(body: str) -> str:
    head, _, rest = body.partition("|")
    name, colon, first = head.strip().replace("_", " ").partition(":")
    name = name.lower()
    render = _RENDERERS.get(name) or _RENDERERS.get(name.partition("-")[0] + "-*")
    if render is None:
        return ""
    args: Args = defaultdict(str, {"1": first} if colon else {})
    count = len(args)
    for argument in rest.split("|"):
        key, equals, value = argument.partition("=")
        count += not equals
        args[key.strip() if equals else str(count)] = (value if equals else key).strip()
    return render(args)


def _link(body: str, wiki: Wiki) -> str:
    target, bar, label = body.partition("|")
    namespace, colon, title = target.partition(":")
    if title.startswith("//"):  # an external link in two pairs of brackets
        return f"[{body}]"
    hidden = (bar or colon) and namespace and "." in target and target.rstrip().lower().endswith(_MEDIA if colon else _IMAGES)
    if colon and not hidden:
        interwiki = namespace in LANGUAGES and title[:1] != " "
        hidden = interwiki or normal_name(namespace) in wiki.hidden
    if hidden:  # a caption can't span paragraphs: this end belongs to another link
        return body.partition("\n\n")[2]
    if "\n" in target:
        return body
    if not bar:
        return target.lstrip(":#")
    if label:
        return label.rpartition("|")[2]
    title = target.lstrip(":").partition(":")[2] or target  # the pipe trick
    return title.rpartition("(")[0].strip() if title.endswith(")") else title.partition(",")[0]


def _resolve(text: str, wiki: Wiki) -> str:
    """Replace templates, links and tables by their text, one level of nesting per round."""

    def replace(match: re.Match) -> str:
        kind, body = match[0][:2], match[0][2:-2]
        if "\n==" in body:  # brackets can't span sections: if they seem to, a closing bracket is missing
            return body
        return _link(body, wiki) if kind == "[[" else _template(body) if kind == "{{" else ""

    for pattern in (_INNERMOST, _LENIENT, _TABLE):
        for _ in range(_MAX_NESTING):
            if wiki.variants:  # before the surrounding template is split at its bars
                text = language_variants.resolve(text, wiki.variants)
            if "{{" not in text and "[[" not in text and "{|" not in text:
                break
            text, count = pattern.subn(replace, text)
            if not count:
                break
    text = _UNPAIRED.sub("", text)  # its label is kept
    text = text.replace("{|", "\n|")  # the first line of an unclosed table is dropped like its rows
    return language_variants.tidy(text) if wiki.variants else text


def _leftover(match: re.Match) -> str:
    run = match[0].replace("''", "") if match[0].strip("'") else "'" * (len(match[0]) == 4)
    return run if len(run) == 1 else ""


def _is_switch(word: str, wiki: Wiki) -> bool:
    """Return whether __WORD__ is a behaviour switch of any language: a known one, or three or more letters, none lower-case.

    In scripts other than ASCII, two letters are enough. So Python's __init__ is kept, and on an English wiki C's __VA_ARGS__
    too, because English switches contain no "_".
    """
    if word.lower() in SWITCHES:
        return True
    letters = word.replace("_", "").replace("\u200c", "")
    if not letters or any(unicodedata.category(char)[0] not in "LM" for char in letters):
        return False
    if any(char.islower() and not "\u10d0" <= char <= "\u10ff" for char in letters):  # Georgian text uses only one case
        return False
    return len(letters) > 2 and (letters == word or wiki.language[:2] not in ("", "en")) if word.isascii() else len(letters) > 1


def _inline(text: str, wiki: Wiki) -> str:
    """Remove quotes, external links, tags, switches and unpaired brackets."""
    text = apostrophes.remove(text) if "''" in text else text
    text = _TAG.sub(lambda tag: _TAG_TEXT.get((tag[1] or "").lower(), ""), _EXTERNAL.sub(r"\1", text))
    if "__" in text or "＿＿" in text:
        text = _SWITCH.sub(lambda match: "" if _is_switch(match[1], wiki) else match[0], text)
    return _LEFTOVER.sub(_leftover, text)


def _tidy(line: str) -> str:
    return mend(entities.decode(line))


def _paragraphs(text: str, headings: bool) -> str:
    out: list[str] = []  # each line, preceded by its separator from the previous line
    pending: list[tuple[int, str]] = []  # headings without text so far
    references = 0  # level of the heading of the current section of references
    joins = False  # whether a plain line would continue the last paragraph
    for raw in text.split("\n"):
        line = raw.strip()
        if not line:
            joins = False
            continue
        first = line[0]
        if first == "=" and line[-1] == "=" and (title := line.strip("= \t")):
            level = len(line) - len(line.lstrip("="))
            if not references or level <= references:
                references = level if title.lower() in REFERENCE_SECTIONS else 0
            pending = [heading for heading in pending if heading[0] < level] + [(level, _tidy(title))]
            joins = False
            continue
        item = first in ("*", "#", ":", ";")
        source = references and (item or not line.endswith(_ENDS))
        if first == "|" or source:  # a vertical bar starts a row of a broken table
            line = ""
        line = _tidy(line.lstrip("*#:; ") if item else line)
        plain = not item and raw[:1] != " "
        if not _WORD.search(line):
            joins = False
            continue
        if headings:
            out += ["\n" + title for _, title in pending]
            pending = []
        out += [" " if joins and plain else "\n", line]
        joins = plain
    return "".join(out)[1:]


def to_text(wikitext: str, *, headings: bool = False, wiki: Wiki = UNKNOWN_WIKI) -> str:
    """Return the plain text of a page, one paragraph or list item per line; with section titles if `headings`."""
    return _paragraphs(_inline(_resolve(_drop_blocks(wikitext), wiki), wiki), headings)
