"""`clozemill import`: a checkpoint from someone else's BERT, to fine-tune, to go on pretraining, to export.

clozemill import HF_OR_TF1_FOLDER --output CHECKPOINT
"""

from pathlib import Path

import tensorflow as tf

from model import hf, tf1
from model.conversion import Imported
from pipelines.options import require
from pipelines.schema import UserError
from pipelines.wordpiece import Vocabulary
from trainers import checkpoints, files
from trainers.config_export import ImportConfig

READERS = {"hf": hf, "tf1": tf1}


def _read(folder: str) -> Imported:
    """What lies in a folder. Raises UserError, naming the file or the tensor that doesn't fit."""
    if not Path(folder).is_dir():
        raise UserError(f"{folder} is no folder: give one of Hugging Face's or google-research/bert's, on this machine")
    for reader in READERS.values():
        if reader.is_folder(Path(folder)):
            try:
                return reader.read(Path(folder))
            except ValueError as error:
                raise UserError(f"{folder}: {error}: give a folder of a BERT encoder") from None
    raise UserError(f"{folder} has neither config.json nor bert_config.json: give a folder of Hugging Face's or Google's")


def _casing(found: Imported, vocabulary: Vocabulary, wanted: bool | None) -> tuple[bool, str]:
    """(cased, what is to be told of it)."""
    if wanted is not None:
        contrary = found.cased is not None and found.cased != wanted
        return wanted, f"its files say it is {'cased' if found.cased else 'uncased'}: not heeded" if contrary else ""
    if found.cased is not None:
        return found.cased, ""
    cased = bool(vocabulary.casing_warning(False))
    flag = "--no-cased" if cased else "--cased"
    return cased, f"its files don't tell the casing; by the vocabulary it is {'cased' if cased else 'uncased'} (else: {flag})"


def _objective(found: Imported) -> tuple[str, tuple[str, ...]]:
    """(objective that the heads are of, parts that are kept)."""
    parts = found.converted.parts
    if "masked_lm" not in parts:
        return "", tuple(part for part in parts if part == "pooler")
    if "next_sentence" in parts:
        return "mlm+nsp", parts
    return ("causal" if found.config.attention == "causal" else "mlm"), parts


def _notes(found: Imported, kept: tuple[str, ...]) -> list[str]:
    """What was not taken over, and what differs."""
    notes, names = list(found.notes), {"next_sentence": "the next-sentence head, for want of the masked-LM head"}
    notes += [f"passed over: {names[part]}" for part in found.converted.parts if part not in kept]
    if found.converted.passed_over:
        notes.append(f"passed over: {', '.join(found.converted.passed_over)}")
    return notes


def write(found: Imported, folder: str, vocabulary: Vocabulary, cased: bool, name: str) -> tuple[str, ...]:
    """Writes what was read as a checkpoint of step 0; returns the parts that it holds beside the encoder."""
    objective, kept = _objective(found)
    weights = found.converted.weights
    if "next_sentence" not in kept:
        weights = {path: value for path, value in weights.items() if not path.startswith("next_sentence/")}
    about = {
        "step": 0,
        "encoder": found.config.to_dict(),
        "objective": objective,
        "vocabulary": {"sha256": vocabulary.sha256, "size": len(vocabulary), "cased": cased},
        "imported": {"from": name, "format": found.format, "heads": list(kept)},
    }
    variables = {f"pretraining/{path}": tf.Variable(value) for path, value in weights.items()}
    checkpoints.write(folder, {"weights": variables}, found.vocabulary, about)
    return kept


def main(config: ImportConfig) -> int:
    """Reads a folder, writes a checkpoint, and says what is in it."""
    require(config, "source", "output")
    with files.locked(config.output, beside=True):
        return _import(config)


def _import(config: ImportConfig) -> int:
    if files.listed(config.output):
        raise UserError(f"{config.output} is there already: remove it, or give another --output")
    found = _read(config.source)
    vocabulary = Vocabulary.from_bytes(found.vocabulary, f"{config.source}'s vocabulary")
    if len(vocabulary) != found.config.vocab_size:
        raise UserError(
            f"{config.source}: the vocabulary has {len(vocabulary):,} tokens, and the tensor of the word embeddings "
            f"{found.config.vocab_size:,} rows: give the vocabulary that belongs to the weights"
        )
    cased, told = _casing(found, vocabulary, config.cased)
    kept = write(found, config.output, vocabulary, cased, Path(config.source).resolve().name)
    size, encoder = sum(value.size for value in found.converted.weights.values()), found.config
    print(
        f"{config.source}: {encoder.num_hidden_layers} layers, {encoder.hidden_size} wide, {encoder.vocab_size:,} entries, "
        f"{'cased' if cased else 'uncased'}, {size:,} weights; with {', '.join(kept) or 'no head'}"
    )
    for note in filter(None, [told, *_notes(found, kept)]):
        print(f"note: {note}")
    print(f"done: {config.output}", flush=True)
    return 0
