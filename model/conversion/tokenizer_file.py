"""Load a tokenizer.json that is used unchanged, by the tokenizers library: for encoders whose tokenizer isn't WordPiece.

The file is untrusted: for damaged values the library raises bare Exceptions, or panics.
"""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import Tokenizer

from clozemill.model.conversion.tokenizer_json import SPECIAL, TOKENIZER

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


def _settings(data: bytes) -> dict[str, Any]:
    """Return the contents of a tokenizer.json. Raises ValueError unless they are a JSON object."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def load(data: bytes, matched: Collection[str] = ()) -> Tokenizer:
    """Return the tokenizer of a tokenizer.json, as it tokenizes complete texts.

    Truncation, padding and dropout are ignored. Special tokens written in a text are text; other added tokens match.

    Args:
        data: the contents of tokenizer.json.
        matched: names of SPECIAL that match in a text after all.

    Raises ValueError for a damaged file.
    """
    try:
        settings = _settings(data) | {"truncation": None, "padding": None}
        if isinstance(model := settings.get("model"), dict) and model.get("dropout"):
            model["dropout"] = None
        added = settings.get("added_tokens")
        for token in added if isinstance(added, list) else ():
            if isinstance(token, dict) and token.get("content") in SPECIAL.values():
                alone = {"single_word": False, "normalized": False} if token["content"] in matched else {}
                token |= {"special": token["content"] not in matched, **alone}
        with library_errors():
            found = Tokenizer.from_str(json.dumps(settings, ensure_ascii=False))
            found.encode_special_tokens = True
    except ValueError as error:
        raise ValueError(f"{TOKENIZER} can't be read ({' '.join(str(error).split())}): copy it again") from None
    return found


def special_ids(tokenizer: Tokenizer) -> dict[str, int]:
    """Return the ids of SPECIAL's tokens by name. Raises ValueError if one is missing."""
    found = {token: tokenizer.token_to_id(token) for token in SPECIAL.values()}
    if missing := [token for token, index in found.items() if index is None]:
        raise ValueError(f"{TOKENIZER} lacks {', '.join(missing)}: clozemill needs special tokens with these names")
    return found


def check_packing(tokenizer: Tokenizer, segments: int) -> None:
    """Raise ValueError unless a tokenizer packs `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, in `segments` if more than one."""
    ids = special_ids(tokenizer)
    cls, sep = [ids[SPECIAL["cls_token"]]], [ids[SPECIAL["sep_token"]]]
    try:
        with library_errors():
            for text in _PROBES:
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
