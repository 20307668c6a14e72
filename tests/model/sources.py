"""Sources of exports with random weights, one per kind of model, and texts to test them with."""

from pathlib import Path

import numpy as np

from clozemill.model.config import EncoderConfig
from clozemill.model.export.base import Source
from clozemill.model.inputs import assemble
from clozemill.model.task_model import Task
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.pipelines.text.wordpiece import WordPiece
from clozemill.trainers.engines import train_state
from tests.model.small import scatter

WORDS = [
    *(
        "the",
        "a",
        "of",
        "is",
        "and",
        "in",
        "was",
        "river",
        "mill",
        "corpus",
        "un",
        "believ",
        "don",
        "'",
        "t",
        ".",
        ",",
        "!",
        "?",
    ),
    *("straße", "ñandu", "naïve", "москва", "привет", "οδος", "東", "京", "。", "का", "😀", "-"),
]
LETTERS = [chr(code) for code in (*range(ord("a"), ord("z") + 1), *range(ord("0"), ord("9") + 1), *range(0x430, 0x450))]
GREEK = list("αβγδεζηθικλμνξοπρσςτυφχψωάέή")
CAPITALS = [letter.upper() for letter in LETTERS + GREEK]
CONTINUATIONS = [f"##{piece}" for piece in (*LETTERS, *GREEK, "ing", "able", "s", "ен", "ΑΣ")]
SPECIAL = ["[unused0]", "[UNK]", "[PAD]", "[CLS]", "[MASK]", "[SEP]"]  # not at their usual places
TOKENS = tuple(dict.fromkeys([*SPECIAL, *WORDS, *LETTERS, *GREEK, *CAPITALS, *CONTINUATIONS]))
TEXTS = [
    ("The river was in the mill, and singing!", ""),
    ("Straße, NAÏVE: Ñandú isn't unbelievable?", "Москва и ПРИВЕТ."),
    ("ΟΔΟΣ ΣΟΦΟΣ, ΑΣ είναι - Ὀδυσσεύς", "東京は。 का है"),
    ("x" * 150 + " " + "y" * 201 + " a", "😀 of 👩‍👩‍👧 \u00ad soft\u200bspace"),
    ("", ""),
    (" ".join(["the mill of a corpus"] * 20), " ".join(["in was is"] * 9)),
]
LENGTH = 48
SMALL = EncoderConfig(
    vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=32,
    max_position_embeddings=LENGTH,
)  # fmt: skip
MODERN = {  # sizes for `source`: a local layer follows the global one
    "architecture": "modernbert", "type_vocab_size": 0, "hidden_act": "gelu_erf", "layer_norm_eps": 1e-5, "local_attention": 8,
}  # fmt: skip
INDEXES = {
    "mlm+nsp": {"objective": "mlm+nsp"},
    "mlm": {"objective": "mlm"},
    "causal": {"objective": "causal"},
    "encoder": {"objective": ""},
    "bare": {"objective": "", "imported": {"from": "x", "format": "hf", "heads": []}},
    "classify": {"task": Task("classify", ("no", "yes", "maybe")).to_dict()},
    "multilabel": {"task": Task("multilabel", ("no", "yes", "maybe")).to_dict()},
    "regress": {"task": Task("regress").to_dict()},
    "tags": {"task": Task("tags", ("O", "B-PER", "I-PER")).to_dict()},
    "spans": {"task": Task("spans").to_dict()},
    "embed": {"task": Task("embed", head="mean").to_dict()},
}
OUTPUTS = {  # outputs of each, besides sequence_output
    "mlm+nsp": {"pooled_output", "masked_lm_logits", "next_sentence_logits"},
    "mlm": {"pooled_output", "masked_lm_logits"},
    "causal": {"pooled_output", "masked_lm_logits"},
    "encoder": {"pooled_output"},
    "bare": set(),  # its pooler has no values: formats may omit it
    **{name: {"pooled_output", "logits"} for name in ("classify", "multilabel", "regress", "tags", "spans")},
    "embed": {"pooled_output", "sentence_embedding"},
}


def source(name: str = "mlm+nsp", index: dict | None = None, cased: bool = False, **sizes) -> Source:
    """Return a source with random weights for which no value is 0, 1 or tiny."""
    attention = {"attention": "causal"} if name == "causal" else {}
    index = (INDEXES[name] if index is None else index) | {"encoder": SMALL.to_dict() | attention | sizes, "step": 7}
    return Source(scatter(train_state.model_for(index)), TOKENS, cased, LENGTH, index)


def features(cased: bool = False, texts: list[tuple[str, str]] = TEXTS) -> dict[str, np.ndarray]:
    """Return the texts encoded by our tokenizer."""
    pieces, ids = WordPiece(Vocabulary.from_tokens(list(TOKENS)), cased), TOKENS.index
    firsts, seconds = ([pieces.encode([text]).ids for text in side] for side in zip(*texts, strict=True))
    return assemble(firsts, seconds, (ids("[PAD]"), ids("[CLS]"), ids("[SEP]")), LENGTH)


def written(module, name: str, folder: Path, **options) -> Path:
    """Write a source in a format and return the folder."""
    folder.mkdir()
    module.write(source(name, **options), str(folder))
    return folder
