"""The tokenizer's files of a Hugging Face folder: written to give our WordPiece's ids, read for vocabulary and casing."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, processors

from model import hf_rules
from model.characters import MAX_WORD_CHARS, Characters
from model.export import Source

VOCAB, TOKENIZER, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def build(vocabulary: tuple[str, ...], cased: bool) -> Tokenizer:
    """Our tokenizer as the library has it.

    Its special tokens are no added tokens, for the library would find those in texts: `[SEP]` in a text is text.
    Raises ValueError for a vocabulary that it can't express.
    """
    ids = {token: index for index, token in enumerate(vocabulary)}
    model = models.WordPiece(ids, unk_token=SPECIAL["unk_token"], max_input_chars_per_word=MAX_WORD_CHARS)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = hf_rules.normalizer(Characters(tuple(vocabulary), cased, {}))
    tokenizer.pre_tokenizer = hf_rules.pre_tokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def write(source: Source, folder: Path) -> None:
    """Writes tokenizer.json, vocab.txt and tokenizer_config.json."""
    build(source.vocabulary, source.cased).save(str(folder / TOKENIZER))
    (folder / VOCAB).write_bytes(("\n".join(source.vocabulary) + "\n").encode())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is; BertTokenizer would rebuild its own
        "do_lower_case": not source.cased,
        "strip_accents": not source.cased,
        "tokenize_chinese_chars": True,
        "model_max_length": source.config.max_position_embeddings,  # as trained: export.read has cut the rest
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": True,
        "split_special_tokens": True,  # as tokenizer.json has it: transformers adds them, and would find them in texts
        **SPECIAL,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")


def _json(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} can't be read ({' '.join(str(error).split())}): copy it again") from None
    return _mapping(found)


def _mapping(found: Any) -> dict[str, Any]:
    return found if isinstance(found, dict) else {}


def _vocabulary(folder: Path, tokenizer: dict[str, Any]) -> bytes:
    """vocab.txt, or the same from tokenizer.json. Raises ValueError when there is neither."""
    if (folder / VOCAB).exists():
        return (folder / VOCAB).read_bytes()
    model = _mapping(tokenizer.get("model"))
    if not tokenizer:
        raise ValueError(f"{VOCAB} is missing: copy it from where the weights come from")
    ids = model.get("vocab")
    if model.get("type", "WordPiece") != "WordPiece" or not isinstance(ids, dict):
        raise ValueError(f"{TOKENIZER} is no WordPiece tokenizer, and BERT's is one")
    named = {index: token for token, index in ids.items() if isinstance(index, int)}
    if sorted(named) != list(range(len(ids))):
        raise ValueError(f"{TOKENIZER} has a vocabulary with gaps: give a {VOCAB}")
    return ("\n".join(named[index] for index in range(len(ids))) + "\n").encode("utf-8", "replace")


def read(folder: Path) -> tuple[bytes, bool | None, tuple[str, ...]]:
    """A folder's vocab.txt, whether it is cased (None: its files don't say), and what is to be told. Raises ValueError."""
    settings, tokenizer = _json(folder / SETTINGS), _json(folder / TOKENIZER)
    normalizer = _mapping(tokenizer.get("normalizer"))
    parts = normalizer.get("normalizers")
    for part in map(_mapping, parts if isinstance(parts, list) else ()):
        if part.get("type") == "BertNormalizer":
            normalizer = part
        elif part.get("type") == "Lowercase":  # as `build` has it
            normalizer = {"lowercase": True}
    lower = settings.get("do_lower_case", normalizer.get("lowercase"))
    cased, notes = (None if lower is None else not lower), []
    stripped = settings.get("strip_accents", normalizer.get("strip_accents"))
    if lower is not None and stripped is not None and stripped != lower:
        notes.append(f"its tokenizer {'strips' if stripped else 'keeps'} accents, and clozemill's does the opposite")
    if not settings.get("tokenize_chinese_chars", normalizer.get("handle_chinese_chars", True)):
        notes.append("its tokenizer doesn't set Chinese characters apart, and clozemill's does")
    return _vocabulary(folder, tokenizer), cased, tuple(notes)
