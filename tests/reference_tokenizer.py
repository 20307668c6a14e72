"""A slow, simple tokenizer equal to google-research/bert's FullTokenizer: the reference of test_wordpiece.py.

Written from its behaviour, character by character, sharing no code with the package under test.
"""

import unicodedata

MAX_WORD_CHARS = 200
_IDEOGRAPHS = [
    range(0x3400, 0x4DC0),  # extension A
    range(0x4E00, 0xA000),
    range(0xF900, 0xFB00),  # compatibility
    range(0x20000, 0x2A6E0),  # extension B, then C, D, E
    range(0x2A700, 0x2B740),
    range(0x2B740, 0x2B820),
    range(0x2B820, 0x2CEB0),
    range(0x2F800, 0x2FA20),  # compatibility, supplement
]


def _punctuation(char: str) -> bool:
    """ASCII symbols count as punctuation too, Unicode's symbols beyond ASCII don't."""
    if char.isascii():
        return char.isprintable() and not char.isalnum() and char != " "
    return unicodedata.category(char).startswith("P")


def _cleaned(text: str, chinese: bool = True) -> str:
    """Controls dropped, white space made plain, ideographs set apart."""
    out = []
    for char in text:
        if char in "\t\n\r" or unicodedata.category(char) == "Zs":
            out.append(" ")
        elif char in "\x00\ufffd" or unicodedata.category(char) in ("Cc", "Cf"):
            continue
        elif chinese and any(ord(char) in block for block in _IDEOGRAPHS):
            out.append(f" {char} ")
        else:
            out.append(char)
    return "".join(out)


def basic_tokens(text: str, cased: bool, strip: bool | None = None, chinese: bool = True) -> list[str]:
    """White space, punctuation and ideographs cut; lower case unless cased; accents stripped if `strip`, or unless cased."""
    words = []
    for token in _cleaned(text, chinese).split():
        token = token if cased else token.lower()
        if not cased if strip is None else strip:
            decomposed = unicodedata.normalize("NFD", token)
            token = "".join(char for char in decomposed if unicodedata.category(char) != "Mn")
        spaced = "".join(f" {char} " if _punctuation(char) else char for char in token)
        words += spaced.split()
    return words


def word_pieces(word: str, tokens: dict[str, int], unknown: str = "[UNK]") -> list[str]:
    """Repeatedly take the longest entry that starts the rest of the word; [UNK] for the complete word if there isn't one."""
    if len(word) > MAX_WORD_CHARS:
        return [unknown]
    pieces, rest = [], word
    while rest:
        candidates = ("##" * bool(pieces) + rest[:size] for size in range(len(rest), 0, -1))
        piece = next((candidate for candidate in candidates if candidate in tokens), None)
        if piece is None:
            return [unknown]
        rest = rest[len(piece) - 2 * bool(pieces) :]
        pieces.append(piece)
    return pieces


def tokenize(text: str, tokens: dict[str, int], cased: bool) -> list[int]:
    """Return the ids of a text; `tokens` maps entries to ids."""
    return [tokens[piece] for word in basic_tokens(text, cased) for piece in word_pieces(word, tokens)]
