"""The data of a small card: numbers that are easy to check, and text that would be harmful if it weren't escaped."""

from typing import Any

from clozemill.pipelines.data_card.sections import Dataset
from clozemill.pipelines.text.vocabulary import Vocabulary

SCRIPT = "</td><script>window.hit = 1</script><img src=x onerror='window.hit = 2'>"
ARABIC = "مرحبا"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "river", "##s", "<b>bold</b>", SCRIPT]
COUNTS = {
    "examples": 10, "tokens": 64, "padding": 16, "maskable": 34, "masked": 20, "masked_as_mask": 16, "masked_as_random": 2,
    "masked_as_kept": 2, "labels_random": 5, "unknown": 1, "forced_random": 3,
}  # fmt: skip
COPY = {
    "lengths": [0, 0, 0, 0, 2, 3, 0, 0, 5],
    "a_lengths": [[0, 2, 3, 0, 0, 0, 0, 0, 0], [0, 0, 5, 0, 0, 0, 0, 0, 0]],
    "b_lengths": [[0, 1, 2, 2, 0, 0, 0, 0, 0], [0, 1, 1, 3, 0, 0, 0, 0, 0]],
    "masked_positions": [0, 5, 5, 2, 3, 2, 2, 1],
    "masked_positions_expected": [0, 4.0, 5.0, 3.0, 3.0, 2.0, 2.0, 1.0],
    "masked_positions_variance": [0, 2.0, 2.5, 1.5, 1.5, 1.0, 1.0, 0.5],
    "random_tokens": [0, 0, 0, 0, 0, 6, 4, 5, 5, 0],
    "masked_tokens": [0, 0, 0, 0, 0, 9, 7, 2, 2, 0],
    "duplicate_examples": 0,
}
CHECKS = [
    {"name": "masked share", "where": "train copy 00", "found": 0.15, "low": 0.14, "high": 0.16, "passed": True,
     "sentence": "-"},
    {"name": "masked share", "where": "train copy 01", "found": 0.2, "low": 0.14, "high": 0.16, "passed": False,
     "sentence": "train copy 01: 20 % of tokens are masked, not within 14 % to 16 %"},
    {"name": "pair lengths", "where": "eval copy 00", "found": 0.0, "low": 0.0, "high": 0.0, "passed": True, "sentence": "-"},
]  # fmt: skip


def contract() -> dict[str, Any]:
    copies = {"00": COUNTS, "01": COUNTS}
    shard = {"name": "train/copy-00/examples-00000-of-00001.tfrecord", "examples": 10, "bytes": 4096, "sha256": "ab" * 32}
    return {
        "digest": "0123456789abcdef" * 4,
        "config": {"input": [f"corpus/{SCRIPT}.jsonl"], "pairs": "nsp", "masking": "subword", "seed": 7, "dedup": "exact",
                   "format": "auto", "num_groups": 1, "eval_fraction": 0.0},
        "vocabulary": {"sha256": "cd" * 32, "size": len(TOKENS), "cased": False},
        "max_seq_length": 8,
        "max_predictions": 2,
        "documents": {"read": 40, "kept": 30, "dropped": {"too_few_chars": 7, "near_duplicate": 2}, "defective": 0,
                      "duplicates": 1, "characters": 4000, "sentences": 90, "tokens": 1200, "unknown_tokens": 12,
                      "kept_sentences": 87, "kept_tokens": 1170},
        "splits": {"train": {"documents": 28, "examples": 20, "copies": copies},
                   "eval": {"documents": 2, "examples": 10, "copies": {"00": COUNTS}}},
        "shards": [shard],
        "datasheet": {"sources": [SCRIPT, "a second source"], "licenses": ["CC BY-SA 4.0"], "languages": []},
    }  # fmt: skip


def statistics() -> dict[str, Any]:
    first = COPY | {"tokens": [0, 3, 20, 20, 0, 30, 10, 5, 4, 1]}
    return {
        "format_version": 1,
        "splits": {"train": {"00": first, "01": dict(COPY)}, "eval": {"00": dict(first)}},
        "documents": {
            "token_lengths": [0, 0, 0, 1, 4, 20, 5],
            "unknown_words": [[SCRIPT, 9], [ARABIC, 3]],
            "samples": {"too_few_chars": [f"a.jsonl, line 3: {SCRIPT}\nnext | `line`", f"b: {ARABIC}\u202e end"]},
        },
        "probe": {"accuracy": 0.58, "chance": 0.5, "margin": 0.25, "strongest": {"a_length": 0.56, "a_stop": 0.55}},
        "gate": {"passed": False, "overridden": True, "checks": CHECKS},
    }


RUN = {
    "input": "x", "versions": {"clozemill": "0.1.0"}, "runner": "FnApiRunner", "workers": 2, "seconds": 2.5, "input_files": 1,
    "input_mb": 0.25, "stages": {"read": {"seconds": 0.5, "mb": 1.0, "of": "clean text"},
                                 "write": {"seconds": 0.01, "mb": 2.0, "of": "shards"}},
}  # fmt: skip


def dataset(**changes: Any) -> Dataset:
    """Return the data with some changes."""
    whole = statistics()
    parts = {"name": SCRIPT, "contract": contract(), "statistics": whole, "run": RUN, "samples": whole["documents"]["samples"]}
    return Dataset(**(parts | {"vocabulary": Vocabulary.from_tokens(TOKENS)} | changes))
