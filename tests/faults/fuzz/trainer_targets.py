"""The fuzz targets of the trainer: tables and other examples, and checkpoints in Hugging Face's layout.

This is a separate module because it loads TensorFlow; see targets.py.
"""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from clozemill.model.conversion import huggingface, weight_names, weight_table
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.data.library_tokenizer import LibraryTokenizer
from clozemill.trainers.export import import_checkpoint
from clozemill.trainers.finetuning.reading import tables
from clozemill.trainers.finetuning.task_presets import Layout
from clozemill.trainers.finetuning.tasks.registry import TASK_TYPES
from tests.faults.fuzz.targets import JSON, VOCABULARY, Target, blown_up, refusing, repeated, scratch

LAYOUTS = (
    Layout(),
    Layout("0", "", "-1", header=False),
    Layout("text", "title", "label"),
    Layout("3", "", "1", False),
)


def of_kind(kind: str, ending: str) -> Callable[[bytes], None]:
    """Return a target for a file of examples. First byte: layout, with or without answers, gzipped by us or in the input."""

    def run(data: bytes) -> None:
        if len(data) < 2:
            return
        layout, body = LAYOUTS[data[0] % 4], data[1:] if ending == ".parquet" else blown_up(data[1:])
        packed = data[0] & 8 and ending != ".parquet"
        path = scratch("examples" + ending + (".gz" if packed else ""), gzip.compress(body) if packed == 8 else body)
        with refusing():
            for _ in TASK_TYPES[kind]().read(path, layout, {}, bool(data[0] & 16), max_reject_rate=float(data[0] & 32 > 0)):
                pass
        with refusing():
            if kind == "classify":
                for row in tables.rows(path, layout):
                    if not isinstance(row, tables.BadRow):
                        tables.text(row, layout.text, "--text-column")

    return run


def seeds_of(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [bytes([first]) + seed for seed in repeated(*texts) for first in (0, 1, 16, 17, 24, 49)]


def _parquet() -> list[bytes]:
    found = []
    columns = (["a", None], [["a"], ["b", "c"]], [b"\xff", b""], [10**17, 1])
    for number, column in enumerate(columns):
        file = io.BytesIO()
        when = pa.array([1, 2**62], (pa.int64(), pa.timestamp("ns"), pa.date64(), pa.duration("ns"))[number])
        pq.write_table(pa.table({"text": column, "label": when, "words": [["a"], ["b"]], "tags": [["O"], ["O"]]}), file)
        found += [bytes([first]) + file.getvalue() for first in (0, 16)]
    return found


# Hugging Face's folders

_CONFIG = {
    **{"model_type": "bert", "vocab_size": len(VOCABULARY), "hidden_size": 2, "num_hidden_layers": 1, "hidden_act": "gelu"},
    **{"num_attention_heads": 1, "intermediate_size": 2, "max_position_embeddings": 8, "type_vocab_size": 2},
}
_VOCAB = ("\n".join(VOCABULARY.tokens) + "\n").encode()
_ENTRIES = weight_names.table(weight_names.config_from_hf(_CONFIG), ())
_SOUND = save(weight_table.to_hf({entry.ours: np.zeros(entry.shape, np.float32) for entry in _ENTRIES}, _ENTRIES))


def run_hf(data: bytes) -> None:
    """Read config.json, tokenizer_config.json, tokenizer.json, and two bytes: where in valid weights to write the rest.

    Two NULs separate the parts; if the first byte is 255, there is no vocab.txt.
    """
    config, settings, tokenizer, patch = [*data[1:].split(b"\0\0", 3), b"", b"", b""][:4]
    at = int.from_bytes(patch[:2], "big")
    weights = _SOUND[:at] + patch[2:] + _SOUND[at + max(len(patch) - 2, 0) :]
    files = {
        "config.json": config,
        "tokenizer_config.json": settings,
        "tokenizer.json": tokenizer,
        "model.safetensors": weights,
    }
    paths = [Path(scratch(f"hf/{name}", value)) for name, value in {**files, "vocab.txt": _VOCAB}.items()]
    if data[:1] == b"\xff":
        paths[-1].unlink()
    with refusing(ValueError):
        found = huggingface.read(paths[0].parent)
        Vocabulary.from_tokens(import_checkpoint.row_names(found)[0])
        if found.tokenizer.file:
            LibraryTokenizer(found.tokenizer.file).encode(["A b,  c\n", "", "\ud800 x"], offsets=True)


def _hf() -> list[bytes]:
    words = {token: index for index, token in enumerate(VOCABULARY.tokens)}
    tokenizers = [{}, {"model": {"type": "WordPiece", "vocab": words}, "normalizer": {"normalizers": [{"lowercase": True}]}}]
    files = [(_CONFIG, {"do_lower_case": True}, tokenizer) for tokenizer in tokenizers]
    files.append((_CONFIG, {"tokenizer_class": "TokenizersBackend"}, {
        "model": {"type": "BPE", "vocab": words, "merges": [], "unk_token": "[UNK]"},
        "added_tokens": [{"id": 7, "content": "bridge", "single_word": False, "lstrip": True, "rstrip": True,
                          "normalized": True, "special": False}],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "NFC"}, {"type": "Replace", "pattern": {"String": "b"}, "content": "xx"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": " ?x"}, "behavior": "Isolated", "invert": False},
            {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first", "split": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
    }))  # fmt: skip
    parts = [[json.dumps(value).encode() for value in values] for values in files]
    patches = (b"", b"\0\0" + b"\xff" * 8, b"\0\x08{}")
    return [first + b"\0\0".join([*part, patch]) for first in (b"\0", b"\xff") for part in parts for patch in patches]


SQUAD = json.dumps(
    {"data": [{"paragraphs": [{"context": "The old bridge.", "qas": [
        {"id": "1", "question": "What?", "answers": [{"text": "old", "answer_start": 4}]}]}]}]})  # fmt: skip
_ROWS = ['{"text": "The old bridge.", "label": 1, "words": ["a"], "tags": ["O"]}\n', '{"text": "\\ud800"}\n', '{"a": [\0[\0]}']
TARGETS = {
    "csv": Target(of_kind("classify", ".csv"), seeds_of('text,label\n"a ""b""\nc",1\nd,0\n', 'a,"b', "\0a,\0\n"), (b'"', b",")),
    "tsv": Target(
        of_kind("classify", ".tsv"), seeds_of("text\ttitle\tlabel\na\tb\t1\n", "a\t1\t\tb\n", "\r\n"), (b"\t", b"\n")
    ),
    "rows": Target(of_kind("classify", ".jsonl"), seeds_of(*_ROWS), JSON),
    "labels": Target(
        of_kind("multilabel", ".jsonl"),
        seeds_of('{"text": "a", "label": ["x", 1]}\n{"text": "a", "label": "[\'x\']"}\n', '{"text": "", "label": "x"}\n'),
        JSON,
    ),
    "regress": Target(of_kind("regress", ".tsv"), seeds_of("text\tlabel\na\t1.5\n", "a\tnan\n", "a\t1e999\n"), (b"\t", b"inf")),
    "tables": Target(of_kind("classify", ".parquet"), _parquet, (b"PAR1", b"text", b"label")),
    "tags": Target(of_kind("tags", ".jsonl"), seeds_of(*_ROWS), JSON),
    "conll": Target(
        of_kind("tags", ".txt"), seeds_of("-DOCSTART- O\n\na O\nb B-PER\n\n", "a b c O\n"), (b"\n\n", b"-DOCSTART-")
    ),
    "squad": Target(of_kind("spans", ".json"), seeds_of(SQUAD, '{"data": [\0[\0]}'), JSON),
    "hf": Target(
        run_hf,
        _hf,
        (
            b'"dtype":"F32"',
            b'"data_offsets":[0,8]',
            b'"shape":[2]',
            b'"hidden_act"',
            b"null",
            b'"type": "Split"',
            b'"Regex": ""',
        ),
    ),
}
