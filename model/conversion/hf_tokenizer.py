"""Read the tokenizer of a foreign Hugging Face folder: BERT's with its flags, or one that isn't WordPiece, kept as a file.

transformers uses tokenizer.json unchanged only for its generic classes. For BertTokenizer and similar classes it builds BERT's
tokenizer from the vocabulary and the flags in tokenizer_config.json, and so does this module. A WordPiece tokenizer.json that
isn't BERT's is rejected with one sentence, because tokens would differ from those in training. Other models, such as byte-level
BPE, are used through the tokenizers library (tokenizer_file.py) if the file packs BERT's special tokens like BERT.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clozemill.model.conversion import added_tokens, tokenizer_file, tokenizer_json
from clozemill.model.conversion.added_tokens import content, mapping
from clozemill.model.conversion.foreign_files import MAX_VOCABULARY, is_file, optional_json, read_bytes
from clozemill.model.conversion.tokenizer_json import SETTINGS, SPECIAL, TOKENIZER, VOCAB
from clozemill.pipelines.common.tokenizer_rules import MAX_LIMIT, REFERENCE, TextRules, other_than_wordpiece

GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # use tokenizer.json unchanged (also with "Fast" appended)
BERTS = ("BertTokenizer", "BertTokenizerLegacy", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
MAX_TOKENIZER = MAX_VOCABULARY // 2  # bytes
LIBRARY_MAX_WORD_CHARS = 100  # default of the tokenizers library


@dataclass(frozen=True)
class ForeignTokenizer:
    """A folder's tokenizer.

    tokens: by id; "" for an id without a token. added: tokens added to the vocabulary, such as "[NEW]". cased: None if the
    files don't say. rules: differences from google-research/bert's tokenizer. notes: for the user. file: the contents of
    tokenizer.json if the library tokenizes with it, unchanged; then `cased` and `rules` mean nothing. kind: its model.
    """

    tokens: tuple[str, ...]
    added: tuple[str, ...] = ()
    cased: bool | None = None
    rules: TextRules = REFERENCE
    notes: tuple[str, ...] = ()
    file: bytes = b""
    kind: str = "WordPiece"


def read_lines(data: bytes) -> tuple[str, ...]:
    """Return the lines of a vocab.txt as transformers reads them: of a repeated token, all lines but the last are ""."""
    try:
        lines = data.decode("utf-8").removeprefix("\ufeff").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{VOCAB} is not UTF-8 (byte {error.start}): copy it again") from None
    tokens = [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]
    last = {token: index for index, token in enumerate(tokens)}
    return tuple(token if last[token] == index and token.strip() else "" for index, token in enumerate(tokens))


def _by_id(ids: dict[str, Any], hint: str) -> tuple[str, ...]:
    """Return tokens by id; "" for a gap. Raises ValueError, with a hint, for invalid ids."""
    room = 2 * len(ids) + 64  # ids are untrusted, and the size of the list is that of the largest id
    if not all(isinstance(index, int) and not isinstance(index, bool) and 0 <= index < room for index in ids.values()):
        raise ValueError(f"{TOKENIZER} has a vocabulary with gaps: {hint}")
    named = {index: token for token, index in ids.items()}
    if len(named) < len(ids):
        raise ValueError(f"{TOKENIZER} has a vocabulary with gaps: {hint}")
    return tuple(named.get(index, "") for index in range(max(named, default=-1) + 1))


def _vocabulary(folder: Path, tokenizer: dict[str, Any]) -> tuple[str, ...]:
    """Return the tokens of vocab.txt, which tokenizer.json must match, or those of tokenizer.json. Raises ValueError."""
    ids = mapping(tokenizer.get("model")).get("vocab")
    inner = _by_id(ids, f"give a {VOCAB}") if isinstance(ids, dict) else ()
    if not is_file(folder / VOCAB):
        if not tokenizer:
            raise ValueError(f"{VOCAB} or {TOKENIZER} is missing: copy it from where the weights come from")
        return inner
    lines = read_lines(read_bytes(folder / VOCAB, MAX_VOCABULARY))
    for number, (line, token) in enumerate(zip(lines, inner, strict=False), 1):
        if token != line and token and line:
            raise ValueError(
                f"{VOCAB}, line {number}: it is {line!r:.40}, and {TOKENIZER} has {token!r:.40} there: remove the one that "
                "doesn't belong to the weights"
            )
    if inner and abs(len(inner) - len(lines)) > 64:  # either may contain a few added tokens
        raise ValueError(
            f"{VOCAB} has {len(lines):,} tokens, and {TOKENIZER} {len(inner):,}: remove the one that doesn't belong"
        )
    return lines


def _check_class(settings: dict[str, Any], config: dict[str, Any], tokenizer: dict[str, Any]) -> bool:
    """Return whether tokenizer.json is used unchanged. Raises ValueError for a class that isn't BERT's tokenizer."""
    named = settings.get("tokenizer_class") or config.get("tokenizer_class") or "BertTokenizer"
    base = str(named).removesuffix("Fast")
    if "auto_map" in settings:
        raise ValueError(f"{SETTINGS} asks for code of its own (auto_map), which clozemill never runs")
    if base not in (*BERTS, *GENERIC):
        raise ValueError(f"its tokenizer is {named!r:.60}, which makes other words than BERT's")
    for name in ("word_tokenizer_type", "subword_tokenizer_type", "never_split"):
        if settings.get(name) not in (None, [], "basic", "wordpiece"):
            raise ValueError(f"{SETTINGS} has {name} {settings[name]!r:.60}, which BERT's tokenizer hasn't")
    if settings.get("do_basic_tokenize") is False:
        raise ValueError(f"{SETTINGS} has do_basic_tokenize false: its texts were cut into words by another program")
    return base in GENERIC and bool(tokenizer)


def _check_special(settings: dict[str, Any], named: dict[str, Any]) -> None:
    """Raise ValueError unless the special tokens have BERT's names."""
    for key, token in SPECIAL.items():
        found = content(settings.get(key, named.get(key)))
        if found not in (None, token):
            raise ValueError(f"its {key} is {found!r:.40}, and BERT's is {token}")


def _check_model(tokenizer: dict[str, Any]) -> int:
    """Return the maximum word length, in characters, of tokenizer.json's model. Raises ValueError if it isn't BERT's."""
    model = mapping(tokenizer.get("model"))
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        raise ValueError(f"{TOKENIZER} is not a WordPiece tokenizer, and BERT's is one")
    for name, wanted in (("unk_token", SPECIAL["unk_token"]), ("continuing_subword_prefix", "##")):
        if model.get(name, wanted) != wanted:
            raise ValueError(f"{TOKENIZER} has the {name} {model[name]!r:.40}, and BERT's is {wanted}")
    longest = model.get("max_input_chars_per_word", LIBRARY_MAX_WORD_CHARS)
    if isinstance(longest, bool) or not isinstance(longest, int) or not 1 <= longest <= MAX_LIMIT:
        raise ValueError(f"{TOKENIZER} has max_input_chars_per_word {longest!r:.40}: give one from 1 to {MAX_LIMIT:,}")
    return longest


def _check_words(tokenizer: dict[str, Any]) -> None:
    """Raise ValueError unless tokenizer.json splits texts into words and packs them like BERT."""
    found = mapping(tokenizer.get("pre_tokenizer")).get("type")
    if found != "BertPreTokenizer":
        raise ValueError(f"{TOKENIZER} cuts texts into words by {found}, and BERT's tokenizer by BertPreTokenizer")


def _flags(normalizer: dict[str, Any]) -> dict[str, Any] | None:
    """Return the flags of a BertNormalizer, alone or as the only one in a sequence; None for any other normalizer."""
    parts = normalizer.get("normalizers")
    if normalizer.get("type") == "Sequence" and isinstance(parts, list) and len(parts) == 1:
        normalizer = mapping(parts[0])
    return normalizer if normalizer.get("type") == "BertNormalizer" and normalizer.get("clean_text", True) else None


def _own(tokenizer: dict[str, Any], tokens: tuple[str, ...], longest: int) -> tuple[bool, TextRules] | None:
    """Return (cased, rules) of a tokenizer.json written by clozemill export; None for any other."""
    if not all(token in tokens for token in SPECIAL.values()):
        return None
    parts = mapping(tokenizer.get("normalizer")).get("normalizers")
    kinds = {str(mapping(part).get("type")) for part in parts} if isinstance(parts, list) else set()
    cased, stripped = "Lowercase" not in kinds, "NFD" in kinds
    for chinese in (True, False) if kinds else ():
        rules = TextRules(None if stripped != cased else stripped, chinese, False, longest)
        built = json.loads(tokenizer_json.build(tokens, cased, rules).to_str())
        if all(built[part] == tokenizer.get(part) for part in ("normalizer", "pre_tokenizer")):
            return cased, rules
    return None


def _check_packing(tokenizer: dict[str, Any]) -> None:
    """Raise ValueError unless tokenizer.json puts [CLS] and [SEP] around texts."""
    packing = mapping(tokenizer.get("post_processor"))
    told = json.dumps(packing)
    if packing.get("type") not in ("BertProcessing", "TemplateProcessing") or "[CLS]" not in told or "[SEP]" not in told:
        raise ValueError(f"{TOKENIZER} doesn't put [CLS] and [SEP] around texts (its post_processor is {packing.get('type')})")


def _notes(told: dict[str, Any], flags: dict[str, Any], generic: bool) -> tuple[str, ...]:
    """Return notes for the user about differences between the two files."""
    notes, used = [], TOKENIZER if generic else SETTINGS
    for name, value in told.items():
        if flags.get(name) is not None and value is not None and value != flags[name]:
            flag = _OPTIONS[name][bool(value) == generic]
            notes.append(
                f"{SETTINGS} and {TOKENIZER} disagree on {name}: {used} is followed, as by transformers (else: {flag})"
            )
    if flags.get("do_lower_case") is False and "do_lower_case" not in told and not generic:
        notes.append(
            f"{SETTINGS} lacks do_lower_case, so that transformers uses lower case: {TOKENIZER} is followed, it is cased"
        )
    return tuple(notes)


def _rules(
    settings: dict[str, Any], tokenizer: dict[str, Any], tokens: tuple[str, ...], longest: int, generic: bool
) -> tuple[bool | None, TextRules, tuple[str, ...]]:
    """Return (cased, rules, notes). Raises ValueError for a normalizer that isn't BERT's."""
    told = {name: settings[name] for name in _NAMES if name in settings}
    if odd := [name for name, value in told.items() if not isinstance(value, bool | None)]:
        raise ValueError(f"{SETTINGS} has {odd[0]} {told[odd[0]]!r:.40}, neither true nor false")
    found = _flags(mapping(tokenizer.get("normalizer"))) if tokenizer else {}
    if generic and found is None and (own := _own(tokenizer, tokens, longest)):
        cased, rules = own
        return cased, rules, _notes(told, {"do_lower_case": not cased} | rules.changes_words(cased), generic)
    if found is None:
        raise ValueError(f"{TOKENIZER} normalizes texts otherwise than BERT's tokenizer, which has a BertNormalizer alone")
    flags = {ours: found.get(theirs) for ours, theirs in _NAMES.items()}
    if odd := [name for name, value in flags.items() if not isinstance(value, bool | None)]:
        raise ValueError(f"{TOKENIZER} has {_NAMES[odd[0]]} {flags[odd[0]]!r:.40}, neither true nor false")
    if tokenizer:
        _check_words(tokenizer)
    if generic:
        _check_packing(tokenizer)
    merged = flags if generic else flags | told  # transformers uses these values
    lower, chinese = merged.get("do_lower_case"), merged.get("tokenize_chinese_chars")
    longest = longest if generic else LIBRARY_MAX_WORD_CHARS
    rules = TextRules(merged.get("strip_accents"), chinese is not False, True, longest)
    return (None if lower is None else not lower), rules, _notes(told, flags, generic)


_NAMES = {  # transformers' names of a BertNormalizer's flags
    "do_lower_case": "lowercase", "strip_accents": "strip_accents", "tokenize_chinese_chars": "handle_chinese_chars",
}  # fmt: skip
_OPTIONS = {  # options of `import` that set a flag to false, and to true
    "do_lower_case": ("--cased", "--no-cased"), "strip_accents": ("--no-strip-accents", "--strip-accents"),
    "tokenize_chinese_chars": ("--no-tokenize-chinese-chars", "--tokenize-chinese-chars"),
}  # fmt: skip


def _is_library(tokenizer: dict[str, Any]) -> bool:
    """Return whether a tokenizer.json is that of another model than WordPiece."""
    kind = mapping(tokenizer.get("model")).get("type")
    return isinstance(kind, str) and kind != "WordPiece"


def _check_prefix_space(settings: dict[str, Any], tokenizer: dict[str, Any]) -> None:
    """Raise ValueError for files that disagree on the space before a text: transformers' versions follow either of them."""
    before = mapping(tokenizer.get("pre_tokenizer"))
    parts = before.get("pretokenizers")
    for part in map(mapping, parts if isinstance(parts, list) else [before]):
        mine, theirs = settings.get("add_prefix_space"), part.get("add_prefix_space")
        if None not in (mine, theirs) and mine != theirs:
            raise ValueError(f"{SETTINGS} and {TOKENIZER} disagree on add_prefix_space: correct the one that is wrong")


def _library(
    folder: Path, settings: dict[str, Any], named: dict[str, Any], ids: dict[str, Any], tokenizer: dict[str, Any],
    config: dict[str, Any],
) -> ForeignTokenizer:  # fmt: skip
    """Return a tokenizer that isn't WordPiece, whose tokenizer.json is used unchanged. Raises ValueError."""
    modern = config.get("model_type") == "modernbert"
    if not _check_class(settings, {"tokenizer_class": GENERIC[0]} | config if modern else config, tokenizer):
        raise ValueError(f"{TOKENIZER} is not a WordPiece tokenizer, and BERT's is one")
    _check_special(settings, named)
    _check_prefix_space(settings, tokenizer)
    data = read_bytes(folder / TOKENIZER, MAX_TOKENIZER)
    loaded = tokenizer_file.load(data)
    tokenizer_file.check_packing(loaded, 0 if modern else config.get("type_vocab_size", 2))
    known = loaded.get_vocab()
    for token, index in added_tokens.listed(settings, named, ids, {}).items():
        if token not in known or index not in (None, known[token]):
            raise ValueError(
                f"{TOKENIZER} lacks the added token {token!r:.40} (id {index!r:.40}) of another file: copy it again"
            )
    return ForeignTokenizer(_by_id(known, "copy it again"), file=data, kind=tokenizer["model"]["type"])


def read_tokenizer(folder: Path, config: dict[str, Any]) -> ForeignTokenizer:
    """Return the tokenizer of a Hugging Face folder.

    Args:
        config: the folder's config.json.

    Raises:
        ValueError: it isn't BERT's, a file is missing or damaged, or two of them contradict each other.
    """
    settings, tokenizer = optional_json(folder / SETTINGS), optional_json(folder / TOKENIZER, MAX_TOKENIZER)
    named, ids = optional_json(folder / "special_tokens_map.json"), optional_json(folder / "added_tokens.json")
    if _is_library(tokenizer):
        return _library(folder, settings, named, ids, tokenizer, config)
    generic = _check_class(settings, config, tokenizer)
    _check_special(settings, named)
    longest = _check_model(tokenizer) if tokenizer else LIBRARY_MAX_WORD_CHARS
    tokens = _vocabulary(folder, tokenizer)
    if other := other_than_wordpiece(tokens):
        raise ValueError(f"its vocabulary is one of {other}, and BERT's is of WordPiece")
    cased, rules, notes = _rules(settings, tokenizer, tokens, longest, generic)
    tokens, added = added_tokens.merged(tokens, added_tokens.checked(added_tokens.listed(settings, named, ids, tokenizer)))
    return ForeignTokenizer(tokens, added, cased, rules, notes)
