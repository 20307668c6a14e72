"""Load a tokenizer.json that is used unchanged, by the tokenizers library: for encoders whose tokenizer isn't WordPiece.

The file is untrusted, and the library trusts it: for damaged values it raises bare Exceptions or panics, and some make it abort
the process or fill the memory. So only parts that can't do that are accepted.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer

from clozemill.model.conversion.added_tokens import mapping
from clozemill.model.conversion.foreign_files import json_object
from clozemill.model.conversion.tokenizer_json import SPECIAL, TOKENIZER

_MODELS = ("BPE", "Unigram", "WordLevel")
_SEQUENCES = {"normalizer": "normalizers", "pre_tokenizer": "pretokenizers", "decoder": "decoders"}
_PARTS = {
    "normalizer": ("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Strip", "BertNormalizer", "Replace", "Prepend"),
    "pre_tokenizer": (
        "ByteLevel", "Metaspace", "Split", "Digits", "Punctuation", "Whitespace", "WhitespaceSplit", "BertPreTokenizer",
    ),
    "decoder": ("ByteLevel", "Metaspace", "ByteFallback", "Fuse", "Replace", "Strip", "BPEDecoder"),
}  # fmt: skip
MAX_GROWTH = 1000  # characters that all replacements together may make of one
_PROBES = ("a", "The mill stands by the river.", "Straße, 東京 \U0001f600\n  x\u0301")


@contextmanager
def library_errors() -> Iterator[None]:
    """Turn errors of the library into ValueErrors. Its PanicException is a BaseException, but not an Exception."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def _parts(part: Any, inner: str) -> Iterator[dict[str, Any]]:
    """Yield the parts of a normalizer, pre-tokenizer or decoder: itself, or those of a sequence, in `inner`."""
    if isinstance(part, dict) and part.get("type") == "Sequence" and isinstance(part.get(inner), list):
        for each in part[inner]:
            yield from _parts(each, inner)
    elif part is not None:
        yield mapping(part)


def _growth(part: dict[str, Any]) -> int:
    """Return how many characters a part makes of one, at most. Raises ValueError for a pattern that could match nothing."""
    pattern = part.get("pattern")
    prepends = part["type"] == "Prepend"
    found = part.get("prepend") if prepends else mapping(pattern).get("String")
    if not isinstance(found, str) or not found:
        told = f"{found if prepends else pattern!r:.60}"
        raise ValueError(f"{TOKENIZER} has a {part['type']} of {told}, and clozemill accepts only texts there")
    return 1 + len(found) if prepends else max(1, len(str(part.get("content"))))


def _check_parts(settings: dict[str, Any]) -> None:
    """Raise ValueError for parts that clozemill doesn't know to be safe, and for values for which the library would panic."""
    model = mapping(settings.get("model"))
    if model.get("type") not in _MODELS:
        raise ValueError(f"{TOKENIZER} has the model {model.get('type')!r:.40}, which clozemill doesn't support")
    if prefix := model.get("continuing_subword_prefix"):
        raise ValueError(f"{TOKENIZER} has the continuing_subword_prefix {prefix!r:.40}, which clozemill doesn't support")
    if dropout := model.get("dropout"):
        raise ValueError(f"{TOKENIZER} has a dropout of {dropout!r:.40}, which makes its ids random: set it to null")
    growth = 1
    for place, known in _PARTS.items():
        for part in _parts(settings.get(place), _SEQUENCES[place]):
            if part.get("type") not in known:
                raise ValueError(f"{TOKENIZER} has the {place} {part.get('type')!r:.40}, which clozemill doesn't support")
            if part["type"] in ("Replace", "Prepend"):
                growth *= _growth(part)
    if growth > MAX_GROWTH:
        raise ValueError(f"{TOKENIZER} replaces characters by more than {MAX_GROWTH:,}")


def for_texts(tokenizer: Tokenizer) -> Tokenizer:
    """Return a tokenizer without truncation and padding, for which special tokens in a text are text."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def load(data: bytes, matched: Collection[str] = ()) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json for complete texts, see `for_texts`.

    Args:
        data: the contents of tokenizer.json.
        matched: special tokens that match in a text after all.

    Raises ValueError for a damaged file.
    """
    settings = json_object(data, TOKENIZER) | {"truncation": None, "padding": None}
    try:
        _check_parts(settings)
    except RecursionError:
        raise ValueError(f"{TOKENIZER} is nested too deeply: copy it again") from None
    added = settings.get("added_tokens")
    for token in map(mapping, added if isinstance(added, list) else ()):
        if token.get("content") in matched:
            token |= {"special": False, "single_word": False, "normalized": False}
    try:
        with library_errors():
            return for_texts(Tokenizer.from_str(json.dumps(settings, ensure_ascii=False)))
    except ValueError as error:
        raise ValueError(f"{TOKENIZER} can't be read ({error}): copy it again") from None


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of SPECIAL's tokens by name. Raises ValueError if one is missing."""
    known = tokenizer.get_vocab()
    if missing := [token for token in SPECIAL.values() if token not in known]:
        raise ValueError(f"{TOKENIZER} lacks {', '.join(missing)}: clozemill needs special tokens with these names")
    return {token: known[token] for token in SPECIAL.values()}


def check_packing(tokenizer: Tokenizer, segments: int) -> None:
    """Raise ValueError unless a tokenizer packs `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, in `segments` if more than one.

    Special tokens in a text must be text.
    """
    ids = special_ids(tokenizer)
    cls, sep = [ids[SPECIAL["cls_token"]]], [ids[SPECIAL["sep_token"]]]
    try:
        with library_errors():
            for text in (*_PROBES, " ".join(SPECIAL.values())):
                bare = tokenizer.encode(text, add_special_tokens=False).ids
                one, two = tokenizer.encode(text), tokenizer.encode(text, text)
                fits = one.ids == cls + bare + sep and two.ids == one.ids + bare + sep
                if segments > 1:
                    fits = fits and one.type_ids + [1] * (len(bare) + 1) == two.type_ids and not any(one.type_ids)
                if not fits:
                    break
    except ValueError as error:
        raise ValueError(f"{TOKENIZER} can't tokenize {text!r} ({error}): copy it again") from None
    if not fits:
        raise ValueError(f"{TOKENIZER} doesn't pack texts as [CLS] a [SEP] b [SEP], which clozemill does")
    if set(bare) & ({*ids.values()} - {ids[SPECIAL["unk_token"]]}):  # of the last text
        raise ValueError(f"{TOKENIZER} takes {text!r} in a text for special tokens, and clozemill for text")
