"""`clozemill import`: convert a foreign BERT into a checkpoint, to fine-tune, pretrain further or export.

clozemill import HF_OR_TF1_FOLDER --output CHECKPOINT
clozemill import google-bert/bert-base-uncased --output CHECKPOINT
"""

import hashlib
import itertools
import json
import os
import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from clozemill.model.conversion import huggingface, tf1
from clozemill.model.conversion.imported import Imported
from clozemill.model.conversion.tokenizer_json import TOKENIZER
from clozemill.pipelines.command_line.overwriting import already_exists
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.common.tokenizer_rules import TextRules, described
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common import storage
from clozemill.trainers.common.replaced_folder import replace_folder, restore_folder
from clozemill.trainers.export.config import ImportConfig
from clozemill.trainers.export.hub import Source, find_source
from clozemill.trainers.training import checkpoint_index, checkpoints

SOURCES = {"hf": huggingface, "tf1": tf1}
_PADDING = 127  # rows without a token that are allowed: some projects pad the table to a multiple of up to 128
_RULES = ("strip_accents", "tokenize_chinese_chars")  # options
_SHOWN = 6  # names listed in a note
_ADVICE = re.compile(": (?:copy|correct|give|remove|save|set) ")  # in an error that says what to do
_WEIGHTS = "weights.safetensors"
_REPLACING = "replacing"  # in checkpoint.json: the files of an import that is being replaced


def _read(folder: str) -> Imported:
    """Read a model folder. Raises UserError with the name of the file or tensor that doesn't fit."""
    for reader in SOURCES.values():
        if reader.is_folder(Path(folder)):
            try:
                return reader.read(Path(folder))
            except (ValueError, MemoryError) as error:
                told = str(error) or "its weights need more memory than there is"
                more = "" if _ADVICE.search(told) else ": give the folder of another BERT or ModernBERT"
                raise UserError(f"{folder}: {told}{more}") from None
    raise UserError(
        f"{folder} has neither config.json nor bert_config.json: give a folder of a Hugging Face or google-research model"
    )


def row_names(found: Imported) -> tuple[list[str], str]:
    """Return (a token for every row of the word embeddings, a note for the user).

    Some projects pad the table to a round number; rows without a token get names that occur in no text. A kept tokenizer.json
    may have tokens that vocab.txt can't hold, such as spaces: they are quoted. Raises UserError if the vocabulary doesn't
    match the weights.
    """
    tokens, rows = list(found.tokenizer.tokens), found.config.vocab_size
    if len(tokens) > rows or rows - len(tokens) > max(_PADDING, rows // 10):
        raise UserError(
            f"the vocabulary has {len(tokens):,} tokens, but the word embeddings have {rows:,} rows: give the vocabulary that "
            "belongs to the weights"
        )
    tokens += [""] * (rows - len(tokens))
    have, free, added = set(tokens), itertools.count(), 0
    for row, token in enumerate(tokens):
        if token.strip() and _writable(token):
            continue
        if found.tokenizer.file and token and (quoted := f"[{token!r}]") not in have:
            tokens[row] = quoted
        else:
            tokens[row] = next(name for name in (f"[unused{number}]" for number in free) if name not in have)
            added += 1
    if not added:
        return tokens, ""
    return tokens, f"{added:,} of {rows:,} rows of the word embeddings have no token: they were named [unused...]"


def _writable(token: str) -> bool:
    """Return whether a token can be a line of vocab.txt."""
    try:
        return not {"\n", "\r"} & set(token) and bool(token.encode())
    except UnicodeEncodeError:
        return False


def _casing(found: Imported, vocabulary: Vocabulary, wanted: bool | None) -> tuple[bool, str]:
    """Return (cased, a note for the user)."""
    if found.tokenizer.file:
        return True, ""
    own = found.tokenizer.cased
    if wanted is not None:
        contrary = own is not None and own != wanted
        flag = "--cased" if wanted else "--no-cased"
        return (
            wanted,
            f"the model's files say it is {'cased' if own else 'uncased'}; ignored because of {flag}" if contrary else "",
        )
    if own is not None:
        return own, ""
    cased = bool(vocabulary.casing_warning(False))
    flag = "--no-cased" if cased else "--cased"
    return (
        cased,
        f"the files don't state the casing; by its vocabulary the model is {'cased' if cased else 'uncased'} (else: {flag})",
    )


def _check_options(config: ImportConfig, found: Imported) -> None:
    """Raise UserError for options of WordPiece if the tokenizer is another one."""
    given = [name for name in ("cased", *_RULES) if getattr(config, name) is not None]
    if given and found.tokenizer.file:
        flag = f"--{'' if getattr(config, given[0]) else 'no-'}{given[0].replace('_', '-')}"
        raise UserError(
            f"{flag} is for WordPiece, and {config.source} has another tokenizer ({found.tokenizer.kind}), which is used as it "
            "is: leave the option out"
        )


def _rules(found: Imported, config: ImportConfig) -> TextRules:
    """Return the tokenizer's rules with the given options applied."""
    given = {name: getattr(config, name) for name in _RULES}
    return replace(found.tokenizer.rules, **{name: value for name, value in given.items() if value is not None})


def _objective(found: Imported) -> tuple[str, tuple[str, ...]]:
    """Return (objective of the heads, parts that are kept)."""
    parts = found.converted.parts
    if "masked_lm" not in parts:
        return "", tuple(part for part in parts if part == "pooler")
    if "next_sentence" in parts:
        return "mlm+nsp", parts
    return ("causal" if found.config.attention == "causal" else "mlm"), parts


def _notes(found: Imported, kept: tuple[str, ...]) -> list[str]:
    """Return notes on what was not imported and what differs."""
    notes, names = (
        list(found.tokenizer.notes),
        {"next_sentence": "the next-sentence head, because the masked-LM head is missing"},
    )
    notes += [found.note] if found.note else []
    notes += [f"skipped: {names[part]}" for part in found.converted.parts if part not in kept]
    if others := found.converted.passed_over:
        more = f" and {len(others) - _SHOWN:,} more" if len(others) > _SHOWN else ""
        notes.append(f"skipped: {', '.join(others[:_SHOWN])}{more}")
    if added := found.tokenizer.added:
        more = ", ..." if len(added) > _SHOWN else ""
        notes.append(
            f"{len(added):,} added tokens ({', '.join(added[:_SHOWN])}{more}) are in the vocabulary, but clozemill matches "
            "them only as complete words without punctuation, whereas transformers matches them anywhere in a text"
        )
    if not found.config.pairs:
        notes.append("the model has only one segment (type_vocab_size 1): it supports single texts, but no pairs")
    notes.append("special tokens written in a text, such as [SEP], stay ordinary text, unlike in transformers by default")
    return notes


def _about(found: Imported, vocabulary: Vocabulary, cased: bool, rules: TextRules, source: Source) -> dict[str, Any]:
    """Return the contents of checkpoint.json, except the file sizes."""
    objective, kept = _objective(found)
    commit = {"commit": source.commit} if source.commit else {}
    told = {"sha256": vocabulary.sha256, "size": len(vocabulary)}
    if found.tokenizer.file:
        told |= {"tokenizer": hashlib.sha256(found.tokenizer.file).hexdigest()}
    else:
        told |= {"cased": cased, **rules.to_dict(cased)}
    return {
        "step": 0,
        "encoder": found.config.to_dict(),
        "objective": objective,
        **({"task": found.task.to_dict(), "preset": found.task.kind} if found.task else {}),
        "vocabulary": told,
        "imported": {"from": source.name, **commit, "format": found.format, "heads": list(kept)},
    }


def _own_files(folder: str) -> list[str]:
    """Return the files of an import that --overwrite may replace; none if there is no folder. Raises UserError for others."""
    if not storage.listed(folder):
        return []
    try:
        index = json.loads(storage.read(storage.join(folder, checkpoint_index.INDEX), "-"))
        names = index.get(_REPLACING) or list(index["files"] if index["imported"] else ())
    except (UserError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = []
    if not names or not all(isinstance(name, str) and "/" not in name for name in names):
        raise UserError(f"{folder} has files, but isn't an import: nothing was replaced; give another --output")
    return [checkpoint_index.INDEX, *names]


def _unfinished(folder: str) -> bool:
    """Return whether a folder in an object store has the files of an import that was killed before its checkpoint.json."""
    names = {name.removesuffix(".tmp") for name in storage.listed(folder)}
    return not storage.is_local(folder) and _WEIGHTS in names and names <= {_WEIGHTS, VOCAB, TOKENIZER}


def _put(folder: str, ours: list[str], write: Callable[[str], None]) -> None:
    """Write an import, in place of an old one with the files `ours`.

    A local folder appears, or is replaced, when the new one is complete. In an object store, the checkpoint.json of an old one
    marks it as incomplete until the new one is copied.
    """
    if storage.is_local(folder):
        parent, name = os.path.split(folder.rstrip("/"))
        temporary = os.path.join(parent, f".{name}.tmp")
        write(temporary)
        if ours:
            replace_folder(temporary, folder, ours)
        else:
            with storage.translate_errors(folder, "written"):
                if os.path.islink(folder.rstrip("/")):  # to an empty folder
                    os.unlink(folder.rstrip("/"))
                os.rename(temporary, folder)
                storage.sync(parent or ".")
        return
    if not ours:
        write(folder)
        return
    with tempfile.TemporaryDirectory(prefix="clozemill-") as scratch:
        write(os.path.join(scratch, "checkpoint"))
        storage.write_json(storage.join(folder, checkpoint_index.INDEX), {_REPLACING: ours[1:]})
        for name in ours[1:]:
            storage.remove(storage.join(folder, name))
        storage.upload(os.path.join(scratch, "checkpoint"), folder, checkpoint_index.INDEX)


def _write(found: Imported, folder: str, data: bytes, about: dict[str, Any]) -> None:
    """Write the model as a checkpoint of step 0."""
    weights = found.converted.weights
    if "next_sentence" not in about["imported"]["heads"]:
        weights = {path: value for path, value in weights.items() if not path.startswith("next_sentence/")}
    checkpoints.write(folder, {"weights": weights}, data, about, found.tokenizer.file)


def main(config: ImportConfig) -> int:
    """Read a folder, write a checkpoint, and print a summary."""
    with storage.locked(config.output, beside=True):
        return _import(config)


def _import(config: ImportConfig) -> int:
    if storage.is_local(config.output):
        restore_folder(config.output)
    again = _unfinished(config.output)
    if storage.listed(config.output) and not config.overwrite and not again:
        raise already_exists(config.output)
    ours = [] if again else _own_files(config.output)
    source = find_source(config.source, config.revision)
    found = _read(source.folder)
    _check_options(config, found)
    try:
        tokens, padding = row_names(found)
    except UserError as error:
        raise UserError(f"{config.source}: {error}") from None
    data = ("\n".join(tokens) + "\n").encode()
    vocabulary = Vocabulary.from_bytes(data, f"{config.source}'s vocabulary")
    cased, told = _casing(found, vocabulary, config.cased)
    about = _about(found, vocabulary, cased, _rules(found, config), source)
    _put(config.output, ours, lambda folder: _write(found, folder, data, about))
    _tell(config, found, about, [padding, told])
    return 0


def _tell(config: ImportConfig, found: Imported, about: dict[str, Any], notes: list[str]) -> None:
    """Print a summary of the checkpoint."""
    size, encoder, vocabulary = sum(value.size for value in found.converted.weights.values()), found.config, about["vocabulary"]
    heads = about["imported"]["heads"]
    casing = f"tokenized by its tokenizer.json ({found.tokenizer.kind})"
    if not found.tokenizer.file:
        casing = described(vocabulary["cased"], TextRules.from_dict(vocabulary))
    print(
        f"{config.source}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, {encoder.vocab_size:,} entries, "
        f"{casing}, {size:,} weights; with {', '.join(heads) or 'no head'}"
    )
    if task := found.task:
        labels = f", {counted(len(task.labels), 'label')}" if task.labels else ""
        print(f"fine-tuned for {task.kind}{labels}, texts of up to {task.max_seq_length} tokens: its head is imported too")
    for note in filter(None, [*notes, *_notes(found, tuple(heads))]):
        print(f"note: {note}")
    print(f"done: {config.output}", flush=True)
