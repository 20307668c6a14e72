"""Write the tokenizer files of a Hugging Face folder, which produce the ids of our WordPiece tokenizer."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from clozemill.model.conversion import tokenizer_rules_json
from clozemill.model.conversion.characters import Characters
from clozemill.pipelines.common.tokenizer_rules import REFERENCE, TextRules

VOCAB, TOKENIZER, SETTINGS = "vocab.txt", "tokenizer.json", "tokenizer_config.json"
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def build(vocabulary: tuple[str, ...], cased: bool, rules: TextRules = REFERENCE) -> Tokenizer:
    """Build our tokenizer with the tokenizers library.

    Its special tokens aren't added tokens, since the library would match those in texts: `[SEP]` in a text is text.
    Raises ValueError for a vocabulary that the library can't express.
    """
    ids = {token: index for index, token in enumerate(vocabulary)}
    model = models.WordPiece(ids, unk_token=SPECIAL["unk_token"], max_input_chars_per_word=rules.max_word_chars)
    tokenizer = Tokenizer(model)
    if rules.library:  # the value the model was imported with
        chinese, strips = rules.tokenize_chinese_chars, rules.strips(cased)
        tokenizer.normalizer = normalizers.BertNormalizer(True, chinese, strips, not cased)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    else:
        tokenizer.normalizer = tokenizer_rules_json.normalizer(Characters(tuple(vocabulary), cased, {}, rules))
        tokenizer.pre_tokenizer = tokenizer_rules_json.pre_tokenizer(rules.tokenize_chinese_chars)
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer
