"""Foreign tokenizer files: BERT's flags are read, and other tokenizers are rejected, each with one sentence."""

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from clozemill.model.conversion import tokenizer_json as conversion_tokenizer_json
from clozemill.model.conversion.hf_tokenizer import ForeignTokenizer, read_lines, read_tokenizer
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules
from tests.model import byte_level
from tests.slow import mostly_slow

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##a", "é", "中", "Σ")
LIBRARY = {"library": True, "max_word_chars": 100}
BERT = {"lowercase": True, "strip_accents": None, "handle_chinese_chars": True}
GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}


def tokenizer_json(flags: dict | None = None, words: int = 100, **changes) -> dict:
    """Return a tokenizer.json as transformers writes it for a BERT."""
    made = Tokenizer(
        models.WordPiece(
            vocab={token: row for row, token in enumerate(TOKENS)}, unk_token="[UNK]", max_input_chars_per_word=words
        )
    )
    made.normalizer = normalizers.BertNormalizer(clean_text=True, **BERT | (flags or {}))
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return json.loads(made.to_str()) | changes


def read(folder: Path, settings: dict | None = None, tokenizer: object = None, config: dict | None = None, **files):
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in TOKENS), "utf-8")
    named = {"tokenizer_config": settings, "tokenizer": tokenizer} | files
    for name, value in named.items():
        if value is not None:
            (folder / f"{name}.json").write_text(json.dumps(value), "utf-8")
    return read_tokenizer(folder, config or {})


@pytest.mark.parametrize(
    ("settings", "flags", "cased", "rules", "notes"),
    [
        (None, None, None, {}, 0),
        ({"do_lower_case": False}, None, True, {}, 0),
        ({"do_lower_case": True, "strip_accents": False}, None, False, {"strip_accents": False}, 0),
        ({"do_lower_case": False, "strip_accents": True}, None, True, {"strip_accents": True}, 0),
        ({"tokenize_chinese_chars": False, "do_lower_case": True}, None, False, {"tokenize_chinese_chars": False}, 0),
        ({"tokenizer_class": "ElectraTokenizerFast"}, {}, False, {}, 0),
        (None, {"lowercase": False}, True, {}, 1),  # transformers lower-cases if do_lower_case is missing
        ({"do_lower_case": False}, {"strip_accents": False}, True, {"strip_accents": False}, 1),  # and lower case in the other
        (GENERIC, {"lowercase": False}, True, {}, 0),
        (GENERIC | {"do_lower_case": True}, {"lowercase": False}, True, {}, 1),  # used unchanged
        (GENERIC, {"strip_accents": False, "handle_chinese_chars": False}, False,
         {"strip_accents": False, "tokenize_chinese_chars": False}, 0),
    ],
)  # fmt: skip
def test_flags(settings: dict | None, flags: dict | None, cased: bool | None, rules: dict, notes: int, tmp_path: Path) -> None:
    found = read(tmp_path, settings, None if flags is None else tokenizer_json(flags))
    assert (found.tokens, found.cased, found.rules) == (TOKENS, cased, TextRules(**LIBRARY | rules)) and len(
        found.notes
    ) == notes


def test_contradictions_between_files_are_reported_with_a_fix(tmp_path: Path) -> None:
    found = read(tmp_path, GENERIC | {"strip_accents": False}, tokenizer_json({"strip_accents": True}))
    assert found.rules.strip_accents is True and found.notes == (
        "tokenizer_config.json and tokenizer.json disagree on strip_accents: tokenizer.json is followed, as by transformers "
        "(else: --no-strip-accents)",
    )  # fmt: skip


@pytest.mark.parametrize("words", [50, 200])
def test_the_maximum_word_length_of_a_generic_class(words: int, tmp_path: Path) -> None:
    assert read(tmp_path, GENERIC, tokenizer_json({"strip_accents": False}, words)).rules.max_word_chars == words
    assert read(tmp_path, {}, tokenizer_json({}, words)).rules.max_word_chars == 100  # rebuilt, with the library's own value


@pytest.mark.parametrize("strip", [None, True, False])
@pytest.mark.parametrize("cased", [True, False])
@pytest.mark.parametrize("chinese", mostly_slow((True, False), True))
def test_our_exports_are_read_back(cased: bool, strip: bool | None, chinese: bool, tmp_path: Path) -> None:
    rules = TextRules(strip, chinese)
    made = json.loads(conversion_tokenizer_json.build(TOKENS, cased, rules).to_str())
    found = read(tmp_path, GENERIC, made)
    assert found.cased is cased and found.rules.changes_words(cased) == rules.changes_words(cased) and found.notes == ()
    assert found.rules.to_dict(cased) == rules.to_dict(cased)


NFKC = {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}


@pytest.mark.parametrize(
    ("settings", "tokenizer", "config", "sentence"),
    [
        ({"tokenizer_class": "BertJapaneseTokenizer"}, None, {}, "its tokenizer is 'BertJapaneseTokenizer', which makes other"),
        (None, None, {"tokenizer_class": "XLMRobertaTokenizerFast"}, "its tokenizer is 'XLMRobertaTokenizerFast'"),
        ({"word_tokenizer_type": "mecab"}, None, {}, "has word_tokenizer_type 'mecab'"),
        ({"subword_tokenizer_type": "character"}, None, {}, "has subword_tokenizer_type 'character'"),
        ({"do_basic_tokenize": False}, None, {}, "do_basic_tokenize false: its texts were cut into words by another program"),
        ({"never_split": ["<x>"]}, None, {}, "has never_split"),
        ({"auto_map": {"AutoTokenizer": ["x.Y", None]}}, None, {}, "code of its own"),
        ({"cls_token": "<s>"}, None, {}, r"its cls_token is '<s>', and BERT's is \[CLS\]"),
        ({"unk_token": {"content": "<unk>"}}, None, {}, "its unk_token is '<unk>'"),
        ({"do_lower_case": "yes"}, None, {}, "has do_lower_case 'yes', neither true nor false"),
        (GENERIC, tokenizer_json(normalizer=NFKC), {}, "normalizes texts otherwise than BERT's"),
        ({}, tokenizer_json(normalizer=NFKC), {}, "normalizes texts otherwise than BERT's"),
        (GENERIC, tokenizer_json(normalizer=None), {}, "normalizes texts otherwise than BERT's"),
        (GENERIC, tokenizer_json(normalizer=BERT | {"type": "BertNormalizer", "clean_text": False}),
         {}, "normalizes texts otherwise"),
        (GENERIC, tokenizer_json(pre_tokenizer={"type": "Whitespace"}), {}, "cuts texts into words by Whitespace"),
        (GENERIC, tokenizer_json(pre_tokenizer={"type": "Metaspace"}), {}, "cuts texts into words by Metaspace"),
        (GENERIC, tokenizer_json(pre_tokenizer=None), {}, "cuts texts into words by None"),
        (GENERIC, tokenizer_json(post_processor=None), {}, r"doesn't put \[CLS\] and \[SEP\] around texts"),
        (GENERIC, tokenizer_json(model={"type": "Unigram", "vocab": []}), {}, r"lacks \[PAD\], "),
        (None, tokenizer_json(model={"type": "Unigram", "vocab": []}), {}, "is not a WordPiece tokenizer"),
        (GENERIC, tokenizer_json(added_tokens=[{"id": 5, "content": ["a"]}]), {}, "can't be"),
        (GENERIC, tokenizer_json(model={"type": "WordPiece", "vocab": {"[UNK]": 0}, "continuing_subword_prefix": "@@"}), {},
         "has the continuing_subword_prefix '@@', and BERT's is ##"),
        (GENERIC, tokenizer_json(model={"type": "WordPiece", "vocab": {"[UNK]": 0}, "max_input_chars_per_word": 10**6}), {},
         "max_input_chars_per_word 1000000"),
        (GENERIC, tokenizer_json(model={"type": "WordPiece", "vocab": {"b": 5}}), {}, "vocab.txt, line 6: it is 'a', and "
         "tokenizer.json has 'b' there"),
        (GENERIC, [], {}, "tokenizer.json is not a JSON object"),
    ],
)  # fmt: skip
def test_other_tokenizers_are_rejected(
    settings: dict | None, tokenizer: object, config: dict, sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=sentence) as refused:
        read(tmp_path, settings, tokenizer, config)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("mark", "name"), [("\u2581", "sentencepiece"), ("\u0120", "byte-level BPE")])
def test_other_piece_prefixes_are_rejected(mark: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in (*TOKENS, f"{mark}the", mark)), "utf-8")
    with pytest.raises(ValueError, match=f"its vocabulary is one of {name}"):
        read_tokenizer(tmp_path, {})


def test_added_tokens_keep_their_ids(tmp_path: Path) -> None:
    """From every file that may name them. Tokens in the vocabulary don't count as added, and gaps are kept."""
    listed = [{"id": 4, "content": "[MASK]"}, {"id": 12, "content": "[TWO]"}]
    found = read(
        tmp_path,
        {"added_tokens_decoder": {"10": {"content": "zero"}}, "additional_special_tokens": ["[SEP]"]},
        tokenizer_json(added_tokens=listed),
        added_tokens={"two": 13},
        special_tokens_map={"additional_special_tokens": [{"content": "[LAST]"}]},
    )
    assert found.tokens == (*TOKENS, "zero", "", "[TWO]", "two", "[LAST]") and found.added == ("zero", "[TWO]", "two", "[LAST]")
    (tmp_path / "added_tokens.json").write_text('{"b": 5}')
    with pytest.raises(ValueError, match="its added token 'b' has the id 5, which is that of 'a'"):
        read_tokenizer(tmp_path, {})
    (tmp_path / "added_tokens.json").write_text('{"b": 1e300}')
    with pytest.raises(ValueError, match="it has an added token 'b' with the id 1e"):
        read_tokenizer(tmp_path, {})


def test_vocabulary_lines_match_transformers() -> None:
    assert read_lines("\ufeffa\r\nb\r\n".encode()) == ("a", "b")
    assert read_lines(b"a\nb\na\n\nc") == ("", "b", "a", "", "c")  # the last of two counts
    with pytest.raises(ValueError, match=r"vocab\.txt is not UTF-8 \(byte 1\)"):
        read_lines(b"a\xff\n")


def test_a_vocabulary_only_in_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer_json()), "utf-8")
    assert read_tokenizer(tmp_path, {}) == ForeignTokenizer(TOKENS, (), False, TextRules(**LIBRARY))
    assert ForeignTokenizer(TOKENS).rules == REFERENCE
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"vocab\.txt or tokenizer\.json is missing: copy it"):
        read_tokenizer(tmp_path, {})


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a plain file"):
        read(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with (tmp_path / "tokenizer.json").open("wb") as file:
        file.truncate(1 << 40)  # a sparse file: it takes no disk space
    with pytest.raises(ValueError, match=r"tokenizer\.json has more than [0-9,]+ bytes"):
        read(tmp_path)


def test_a_tokenizer_that_is_not_wordpiece_is_kept(tmp_path: Path) -> None:
    """Of a BERT too, if its pairs have two segments; without tokenizer_config.json only of a ModernBERT, as in transformers."""
    data = byte_level.tokenizer_json()
    (tmp_path / "tokenizer.json").write_bytes(data)
    known = byte_level.library().get_vocab()
    found = read_tokenizer(tmp_path, {"model_type": "modernbert"})
    assert (found.file, found.kind, found.cased, found.added) == (data, "BPE", None, ())
    assert {token: index for index, token in enumerate(found.tokens)} == known
    with pytest.raises(ValueError, match=r"tokenizer\.json is not a WordPiece tokenizer"):
        read_tokenizer(tmp_path, {"model_type": "bert"})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(GENERIC))
    assert read_tokenizer(tmp_path, {"model_type": "bert"}) == found
    told = json.loads(data)
    for token in told["post_processor"]["pair"]:
        next(iter(token.values()))["type_id"] = 0
    (tmp_path / "tokenizer.json").write_text(json.dumps(told))
    assert read_tokenizer(tmp_path, {"model_type": "modernbert"}).tokens == found.tokens
    with pytest.raises(ValueError, match=r"tokenizer\.json doesn't pack texts as \[CLS\] a \[SEP\] b \[SEP\]"):
        read_tokenizer(tmp_path, {"model_type": "bert"})
