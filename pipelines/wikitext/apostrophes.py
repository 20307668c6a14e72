"""The apostrophes that mark italics and bold: ''italics'', '''bold'''.

>>> remove("'''Dell'Arte''' is dell'''Arte'' in ''Italian''")
"Dell'Arte is dell'Arte in Italian"
"""

import re

_RUN = re.compile("''+")
# ''Title'''s and l'''Étranger'': of three quotes against two, one is an apostrophe.
_POSSESSIVE = re.compile(r"''(?<!''')(?!')([^'\n]+)''(?='s\b)")
_ELISION = re.compile(r"'''(?<=[^\w'][a-zA-Z]''')([^'\n]+)''(?!')")
_WITHIN_WORD = re.compile(r"'''(?<=[^\W_]''')(?=[^\W_])")


def _is_unbalanced(line: str) -> bool:
    """Whether a line holds an odd mark of italics and an odd one of bold: MediaWiki takes a bold one for an apostrophe then."""
    runs = [len(run) for run in _RUN.findall(line)]
    return sum(run > 2 for run in runs) % 2 == 1 == sum(run == 2 or run > 4 for run in runs) % 2


def _elide(text: str) -> str:
    """Turns dell'''Arte'' into dell''''Arte'', where four quotes hold an apostrophe; once in an unbalanced line."""
    out, done, seen = [], 0, 0
    for match in _WITHIN_WORD.finditer(text):
        if match.start() < seen:
            continue
        begin, end = text.rfind("\n", 0, match.start()) + 1, text.find("\n", match.end())
        seen = end if end >= 0 else len(text)
        if _is_unbalanced(text[begin:seen]):
            out += [text[done : match.start()], "'"]
            done = match.start()
    return "".join(out) + text[done:]


def remove(text: str) -> str:
    """The text without the marks; with the apostrophes that readers see."""
    text = _ELISION.sub(r"'\1", _POSSESSIVE.sub(r"\1", text))
    if "'''" in text:
        text = _elide(text)
    return _RUN.sub(lambda run: "'" if len(run[0]) == 4 else "", text)
