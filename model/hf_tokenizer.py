"""The tokenizer's files of a Hugging Face folder: written to give our WordPiece's ids."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from model import hf_rules
from model.characters import Characters
from model.export import Source
from pipelines.tokenizer_rules import REFERENCE, TextRules

VOCAB, TOKENIZER, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def build(vocabulary: tuple[str, ...], cased: bool, rules: TextRules = REFERENCE) -> Tokenizer:
    """Our tokenizer as the library has it.

    Its special tokens are no added tokens, for the library would find those in texts: `[SEP]` in a text is text.
    Raises ValueError for a vocabulary that it can't express.
    """
    ids = {token: index for index, token in enumerate(vocabulary)}
    model = models.WordPiece(ids, unk_token=SPECIAL["unk_token"], max_input_chars_per_word=rules.max_word_chars)
    tokenizer = Tokenizer(model)
    if rules.library:  # its own, as the model was imported with
        chinese, strips = rules.tokenize_chinese_chars, rules.strips(cased)
        tokenizer.normalizer = normalizers.BertNormalizer(True, chinese, strips, not cased)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer.normalizer = hf_rules.normalizer(Characters(tuple(vocabulary), cased, {}, rules))
        tokenizer.pre_tokenizer = hf_rules.pre_tokenizer(rules.tokenize_chinese_chars)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def write(source: Source, folder: Path) -> None:
    """Writes tokenizer.json, vocab.txt and tokenizer_config.json."""
    built = build(source.vocabulary, source.cased, source.rules).to_str(pretty=True)
    (folder / TOKENIZER).write_text(built, "utf-8")  # its own save raises a bare Exception on a full disk
    (folder / VOCAB).write_bytes(("\n".join(source.vocabulary) + "\n").encode())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # takes tokenizer.json as it is; BertTokenizer would rebuild its own
        "do_lower_case": not source.cased,
        "strip_accents": source.rules.strips(source.cased),
        "tokenize_chinese_chars": source.rules.tokenize_chinese_chars,
        "model_max_length": source.config.max_position_embeddings,  # as trained: export.read has cut the rest
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "clean_up_tokenization_spaces": True,
        "split_special_tokens": True,  # as tokenizer.json has it: transformers adds them, and would find them in texts
        **SPECIAL,
    }
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
