"""Character references of HTML in wikitext: decoded once, as a browser shows them, and hidden where <nowiki> protects them."""

import html
import re

_HUGE = re.compile(r"&#(?:\d{8}|[xX][0-9a-fA-F]{7})[0-9a-fA-F]*;?")
# Typographic names that are often written without a semicolon; of those that HTML allows so, html.unescape knows.
_OPEN = re.compile(r"&(ndash|mdash|hellip|[lr][sd]quo|[bs]dquo|sbquo|bull|minus|thinsp|ensp|emsp|euro)(?![;=A-Za-z0-9])")
_QUERY = re.compile(r"&(?=[A-Za-z]+=)")  # of a bare address: in ?a=1&copy=2 nothing is a name
_NOWIKI = {ord(c): f"&#{ord(c)};" for c in "&[]{}|<>'=*#:;_-/()＿"}


def decode(text: str) -> str:
    """The text with its entities decoded once; unknown ones stay."""
    if "&" not in text:
        return text
    text = _HUGE.sub("", text)  # int() refuses thousands of digits
    return html.unescape(_QUERY.sub("&amp;", _OPEN.sub(r"&\1;", text)))


def protect(text: str) -> str:
    """The text of a <nowiki> with what could be markup behind entities. MediaWiki decodes entities there too."""
    return decode(text).translate(_NOWIKI)
