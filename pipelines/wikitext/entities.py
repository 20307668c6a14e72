"""HTML character references in wikitext: decode them once, as a browser does, or protect them within <nowiki>."""

import html
import re

_HUGE = re.compile(r"&#(?:\d{8}|[xX][0-9a-fA-F]{7})[0-9a-fA-F]*;?")
# Typographic names that are often written without a semicolon; html.unescape knows those that HTML allows.
_OPEN = re.compile(r"&(ndash|mdash|hellip|[lr][sd]quo|[bs]dquo|sbquo|bull|minus|thinsp|ensp|emsp|euro)(?![;=A-Za-z0-9])")
_QUERY = re.compile(r"&(?=[A-Za-z]+=)")  # part of a bare address: ?a=1&copy=2 contains no entity name
_NOWIKI = {ord(c): f"&#{ord(c)};" for c in "&[]{}|<>'=*#:;_-/()＿"}


def decode(text: str) -> str:
    """Decode the entities of a text once; keep unknown ones."""
    if "&" not in text:
        return text
    text = _HUGE.sub("", text)  # int() rejects thousands of digits
    return html.unescape(_QUERY.sub("&amp;", _OPEN.sub(r"&\1;", text)))


def protect(text: str) -> str:
    """Replace possible markup in the text of a <nowiki> by entities. MediaWiki decodes entities there too."""
    return decode(text).translate(_NOWIKI)
