"""A byte-level BPE tokenizer like those of published ModernBERTs, trained on a few lines, and models with it."""

import hashlib
from functools import cache
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from clozemill.model.export import huggingface
from clozemill.model.export.base import Source
from clozemill.trainers.engines import train_state
from tests.model import sources
from tests.model.small import scatter

LINES = (
    "The mill stands by the river, and its wheel turns day and night.",
    "Who built the old mill? It was built by two brothers; the river is good, the bread is bad.",
    "A good key, a bad key: which word is it?  def mill(river):\n    return river\n",
)
SPECIAL = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
UNNAMED = 3  # rows of the word embeddings without a token


@cache
def tokenizer_json() -> bytes:
    """Return a tokenizer.json: its added tokens are special ones after the others, runs of spaces, and [unused0]."""
    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    made.train_from_iterator(
        LINES * 3, trainers.BpeTrainer(vocab_size=340, special_tokens=["<|padding|>"], initial_alphabet=alphabet)
    )
    made.add_tokens([AddedToken(" " * size, normalized=True) for size in (4, 3, 2)])
    made.add_special_tokens([AddedToken(token, lstrip=token == "[MASK]") for token in SPECIAL])
    made.add_tokens(["[unused0]"])
    made.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    made.enable_truncation(4)  # as in some published files, which nothing follows
    made.enable_padding(length=8, pad_token="[PAD]", pad_id=made.token_to_id("[PAD]"))
    return made.to_str(pretty=True).encode()


@cache
def library() -> Tokenizer:
    """Return the library's tokenizer, as transformers uses it with `split_special_tokens`."""
    made = Tokenizer.from_str(tokenizer_json().decode())
    made.no_truncation()
    made.no_padding()
    made.encode_special_tokens = True
    return made


@cache
def tokens() -> tuple[str, ...]:
    """Return the vocabulary of an import: white space is quoted, and rows without a token have made-up names."""
    ids = library().get_vocab()
    found = dict(zip(ids.values(), ids, strict=True))
    named, free = [found.get(row, "") for row in range(len(found) + UNNAMED)], iter(range(1, 100))
    return tuple(token if token.strip() else f"['{token}']" if token else f"[unused{next(free)}]" for token in named)


def source(name: str = "mlm", **sizes) -> Source:
    """Return a ModernBERT with random weights and this tokenizer."""
    config = sources.SMALL.to_dict() | sources.MODERN | {"vocab_size": len(tokens())} | sizes
    told = {"size": len(tokens()), "tokenizer": hashlib.sha256(tokenizer_json()).hexdigest()}
    index = sources.INDEXES[name] | {"encoder": config, "step": 7, "vocabulary": told}
    model = scatter(train_state.model_for(index))
    return Source(model, tokens(), True, sources.LENGTH, index, tokenizer=tokenizer_json())


def folder(path: Path, name: str = "mlm", **sizes) -> Path:
    """Write a Hugging Face folder."""
    path.mkdir()
    huggingface.write(source(name, **sizes), str(path))
    return path
