"""The apostrophes that mark italics and bold: ''italics'', '''bold'''.

>>> remove("'''Dell'Arte''' is dell'''Arte'' in ''Italian''")
"Dell'Arte is dell'Arte in Italian"
"""

import re

_RUN = re.compile("''+")
# ''Title'''s and l'''Étranger'': where three quotes pair with two, one of the three is an apostrophe.
_POSSESSIVE = re.compile(r"''(?<!''')(?!')([^'\n]+)''(?='s\b)")
_ELISION = re.compile(r"'''(?<=[^\w'][a-zA-Z]''')([^'\n]+)''(?!')")
_WITHIN_WORD = re.compile(r"'''(?<=[^\W_]''')(?=[^\W_])")


def _is_unbalanced(line: str) -> bool:
    """Return whether a line has odd numbers of italic and bold marks: MediaWiki then reads one bold mark as an apostrophe."""
    runs = [len(run) for run in _RUN.findall(line)]
    return sum(run > 2 for run in runs) % 2 == 1 == sum(run == 2 or run > 4 for run in runs) % 2


def _elide(text: str) -> str:
    """Turn dell'''Arte'' into dell''''Arte'', where one of four quotes is an apostrophe; once per unbalanced line."""
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
    """Return the text without the marks, but with the apostrophes that readers see."""
    text = _ELISION.sub(r"'\1", _POSSESSIVE.sub(r"\1", text))
    if "'''" in text:
        text = _elide(text)
    return _RUN.sub(lambda run: "'" if len(run[0]) == 4 else "", text)
