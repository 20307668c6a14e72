"""Clean up the punctuation that removed markup leaves in a line: `( ; )`, `（、1990）`, ` ,`, double spaces.

>>> mend("Kite  ( ; toy) , 李白（）在、。")
'Kite (toy), 李白在。'
"""

import re

_WIDE_COMMAS = "，、；،؛"
# The regex engine searches fastest for a pattern that starts with a character class.
_DOUBLED = re.compile(rf"([;,{_WIDE_COMMAS}])(?:((?: ?[;,{_WIDE_COMMAS}])+)| ?(?=\.(?: |$)|[。؟۔]))")
_HOLE = re.compile(r"\([ ;,:/–—)-]")  # without one, neither _EMPTY nor the first half of _MARGIN matches
_EMPTY = re.compile(rf" ?\([ ;,:/–—{_WIDE_COMMAS}-]*\)")
_MARGIN = re.compile(rf"(\()[ ;,:{_WIDE_COMMAS}]+|(?<![ ;,{_WIDE_COMMAS}])[ ;,{_WIDE_COMMAS}]+(\))")
# The same for other scripts. Quotation marks may contain just a comma, but not nothing.
_WIDE_HOLE = re.compile(rf"[（(「『《〈【〔{_WIDE_COMMAS}][ ;,:/–—：{_WIDE_COMMAS}）)」』》〉】〕。؟۔.-]|[ ;,][）)]")
_WIDE_EMPTY = re.compile(rf"（[ ;,:/–—：{_WIDE_COMMAS}-]*）|「 *」|『 *』|《 *》|〈 *〉|【 *】|〔 *〕")
_WIDE_MARGIN = re.compile(rf"(（)[ ;,:：{_WIDE_COMMAS}]+|(?<![ ;,{_WIDE_COMMAS}])[ ;,{_WIDE_COMMAS}]+(）)")
_SPACE_BEFORE = re.compile(r" +([,.])(?=[ )]|$)")


def _undouble(line: str) -> str:
    """Keep the first of several commas, and none before a full stop."""
    return _DOUBLED.sub(lambda run: run[1] if run[2] else "", line)


def _mend_wide(line: str) -> str:
    line = _EMPTY.sub("", _WIDE_EMPTY.sub("", _WIDE_EMPTY.sub("", line)))
    line = _MARGIN.sub(r"\1\2", _WIDE_MARGIN.sub(r"\1\2", _undouble(line)))
    return line.lstrip(_WIDE_COMMAS + " ")


def mend(line: str) -> str:
    line = " ".join(line.split())
    if ";" in line or ",," in line or ", ," in line or ",." in line or ", ." in line:
        line = _undouble(line)
    if "(" in line:
        hole = _HOLE.search(line)
        line = _EMPTY.sub("", _EMPTY.sub("", line)) if hole else line
        if hole or " )" in line or ",)" in line or ";)" in line:
            line = _MARGIN.sub(r"\1\2", line)
    if not line.isascii() and (line[:1] in _WIDE_COMMAS or _WIDE_HOLE.search(line)):
        line = _mend_wide(line)
    if " ," in line or " ." in line:
        line = _SPACE_BEFORE.sub(r"\1", line)
    return line[2:] if line[:2] in (", ", ". ", "; ", ": ") else line.strip()
