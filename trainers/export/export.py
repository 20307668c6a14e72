"""`clozemill export`: write a checkpoint as SavedModel, Hugging Face folder and Keras file, and compare each with it.

clozemill export RUN --output OUT --formats savedmodel,hf,keras
"""

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError

from clozemill.model.export.base import FORMATS, Source, answers, bounds, furthest
from clozemill.model.export.hf_process import ProcessDied
from clozemill.pipelines.command_line.overwriting import already_exists
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.dataset.layout import VOCAB
from clozemill.pipelines.text.vocabulary import Vocabulary
from clozemill.trainers.common import storage
from clozemill.trainers.common.replaced_folder import replace_folder, restore_folder
from clozemill.trainers.data.text_encoder import TextEncoder
from clozemill.trainers.engines import train_state
from clozemill.trainers.export.config import ExportConfig
from clozemill.trainers.training import checkpoint_index, checkpoints, pretrained
from clozemill.trainers.training.checkpoints import Checkpoint

EXIT_DIFFERS = 1
RECORD = ".clozemill-export.json"  # in the output folder: the files of each format, which --overwrite may replace
POSITIONS = "encoder/embeddings/position_embeddings"
SHORT = 128  # tokens: texts up to this length are compared at it, so that only long texts need the memory of long sequences

TEXTS = [  # (text, second text or "")
    ("The mill stands by the river, and its wheel turns day and night.", ""),
    ("Who built the bridge?", "It was built in 1887 by two brothers from a village nearby."),
    ("She didn't say \"no\"; she said: 'not yet' -- and left at 7:45 p.m. (or so).", ""),
    ("Der Müller mahlt das Korn, und die Straße führt über den Fluß.", "Ça coûte 12,50 € à l'entrée, n'est-ce pas ?"),
    ("Мельница стоит у реки, а за ней начинается лес.", ""),
    ("Ο ΜΥΛΟΣ ΕΙΝΑΙ ΠΑΛΙΟΣ, και ο ποταμός είναι βαθύς.", "İstanbul'da bir değirmen var."),
    ("水车在河边转动。", "川のそばに古い水車小屋があります。"),
    ("강가에 오래된 방앗간이 있다.", "नदी के किनारे एक पुरानी चक्की है।"),
    ("تدور الطاحونة كل يوم.", "הטחנה עומדת ליד הנהר."),
    ("Fun 😀 with 👩\u200d🌾 and supercalifragilisticexpialidocious words, e-mail@example.org, x_1 = 3.14e-2.", ""),
    ("The water rises in spring and falls in summer. " * 60, ""),
    ("A long question about grain, flour and bread? " * 30, "And an answer that is just as long as that. " * 30),
    (
        "Special tokens in a text are text: [CLS] [SEP] [MASK] [PAD] [UNK].",
        "\uf0b7 private use, a\u0a76b, a\u0898\u0301, e\u0301",
    ),
    ("", ""),
    ("a", ""),
]


@dataclass(frozen=True)
class Place:
    """Where a format is written: a temporary folder, the final one, whether that exists, and its files that can go."""

    temporary: Path
    final: str
    replaces: bool
    ours: tuple[str, ...]


def exported_files(output: str) -> dict[str, list[str]]:
    """Return the files of each format that `export` wrote to an output folder; {} for other folders."""
    path = storage.join(output, RECORD)
    try:
        found = json.loads(storage.read(path, "-")) if storage.exists(path) else {}
        files = {name: list(found[name]) for name in FORMATS if name in found}
        safe = all(not os.path.isabs(file) and ".." not in file.split("/") for each in files.values() for file in each)
        return files if safe else {}
    except (UserError, ValueError, TypeError, AttributeError, RecursionError):
        return {}  # damaged: then nothing is replaced


def read(one: Checkpoint, max_seq_length: int = 0) -> Source:
    """Return a checkpoint as the source of exports. Raises UserError if it can't be exported.

    max_seq_length: 0 for the length of fine-tuning, else the longest length that the model was trained on. Embeddings of
    positions beyond that are untrained and left out.
    """
    weights = checkpoints.weights(one)
    try:
        longest = checkpoint_index.trained_length(one.index)
        about = one.index | {"encoder": one.index["encoder"] | {"max_position_embeddings": longest}}
        weights |= {name: value[:longest] for name, value in weights.items() if name == POSITIONS}
        if one.index.get("objective") == "rtd":  # the generator was for training alone
            weights = {name: value for name, value in weights.items() if name.startswith("encoder/")}
        model = train_state.loaded(about, weights)
        cased, rules = checkpoint_index.cased(one.index), TextRules.from_dict(one.index["vocabulary"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{one.folder} can't be exported ({error}): give another checkpoint") from None
    path, sizes = storage.join(one.folder, VOCAB), model.config
    vocabulary = Vocabulary.from_bytes(storage.read(path, "give another checkpoint"), path)
    if len(vocabulary) != sizes.vocab_size:
        raise UserError(f"{path} has {len(vocabulary):,} tokens, but the model has {sizes.vocab_size:,}: restore it")
    length = max_seq_length or (model.task.max_seq_length if "task" in one.index else longest)
    if length > longest:
        raise UserError(
            f"--max-seq-length is {length}, but {one.folder} was trained on at most {longest} tokens: give {longest} or less"
        )
    return Source(model, vocabulary.tokens, cased, length, about, rules, checkpoints.tokenizer(one))


def features(source: Source, texts: list[tuple[str, str]]) -> dict[str, np.ndarray]:
    """Encode texts as in training: `input_ids`, `input_mask`, `segment_ids`, int32 [B, S]."""
    vocabulary, length = Vocabulary.from_tokens(list(source.vocabulary)), source.max_seq_length
    encoder = TextEncoder(vocabulary, source.cased, length, source.rules, tokenizer=source.tokenizer)
    return encoder.pairs(*map(list, zip(*texts, strict=True)))


def _places(config: ExportConfig, scratch: str) -> dict[str, Place]:
    """Return the folders of each format; for an object store, the temporary ones are local, in `scratch`.

    Raises UserError if a final folder already exists, with --overwrite if `export` didn't write it.
    """
    remote, places = "://" in config.output, {}
    recorded = exported_files(config.output)
    for name in config.chosen():
        final = storage.join(config.output, name)
        if not remote:
            restore_folder(final)
        there = storage.exists(storage.join(final, FORMATS[name].entry) if remote else final)
        if there and not config.overwrite:
            raise already_exists(final)
        if there and name not in recorded:
            raise UserError(f"{final} exists, but {RECORD} doesn't list it as an export: remove it, or give another --output")
        ours = tuple(recorded.get(name, ())) if there or remote else ()  # a killed overwriting removes the entry first
        places[name] = Place(Path(scratch if remote else config.output) / f".{name}.tmp", final, there, ours)
    return places


def _write(source: Source, name: str, folder: Path) -> None:
    """Write a format. Raises UserError if the format can't represent the model, or the disk can't be written."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        FORMATS[name].write(source, str(folder))
    except ModuleNotFoundError as error:
        raise UserError(
            f"the format {name} needs {error.name}: pip install 'clozemill[train]', or leave {name} out of --formats"
        ) from None
    except ValueError as error:
        raise UserError(f"the format {name}: {error}, or leave {name} out of --formats") from None
    except (OSError, SafetensorError) as error:
        raise UserError(f"{folder} can't be written ({storage.cause(error)}): free some space there, or fix that") from None


def _compared(name: str, place: Place, texts: list, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the outputs of an exported format. Raises UserError if its folder can't be loaded, or its process fails."""
    final = place.final
    try:
        return FORMATS[name].outputs(str(place.temporary), texts, given)
    except ProcessDied as error:
        raise UserError(
            f"{final} can't be checked: the process that loads it with transformers {error}; nothing was exported: fix that "
            f"installation, or leave {name} out of --formats"
        ) from None
    except OSError as error:
        told, scratch = storage.cause(error), tempfile.gettempdir()
        raise UserError(
            f"{final} can't be checked ({told}); nothing was exported: free some space in {scratch}, or fix that"
        ) from None


def _differences(source: Source, places: dict[str, Place]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return, by format and output, (largest difference from the source, bound); NaN for outputs that a format lacks."""
    found: dict[str, dict[str, tuple[float, float]]] = {name: {} for name in places}
    for texts, given in _groups(source):
        expected = answers(source, given)
        limits = bounds(expected)
        for name, place in places.items():
            rows = furthest(expected, _compared(name, place, texts, given), given["input_mask"])
            for output, limit in limits.items():
                pair = rows.get(output, np.nan), limit
                found[name][output] = max(pair, found[name].get(output, pair), key=lambda one: one[0] / one[1])
    return found


def _groups(source: Source) -> Iterator[tuple[list[tuple[str, str]], dict[str, np.ndarray]]]:
    """Yield TEXTS with their features: first the short ones, then the long ones; no pairs for a model with one segment.

    Their width is at most the length of the longest text: attention over 8,192 positions would need gigabytes, for padding.
    """
    paired = source.config.pairs
    asked = [(first, second if paired else "") for first, second in TEXTS]
    given = features(source, asked)
    lengths = given["input_mask"].sum(axis=1)
    for rows, width in ((lengths <= SHORT, SHORT), (lengths > SHORT, lengths.max())):
        if rows.any():
            texts = [text for text, here in zip(asked, rows, strict=True) if here]
            yield texts, {name: value[rows, :width] for name, value in given.items()}


def _tell(source: Source, one: Checkpoint, found: dict[str, dict[str, tuple[float, float]]]) -> None:
    longest = max(given["input_ids"].shape[1] for _, given in _groups(source))
    print(f"{one.folder}, step {one.step:,}: {len(TEXTS)} texts of up to {longest} tokens, largest differences in float32")
    print(f"{'format':<12}{'output':<24}{'difference':>12}{'bound':>12}")
    for name, rows in found.items():
        for output, (difference, bound) in rows.items():
            if not np.isnan(difference):
                print(f"{name:<12}{output:<24}{difference:>12.1e}{bound:>12.1e}")
        if told := FORMATS[name].checked_with():
            print(f"{name:<12}(compared by {told})")
        if left := [output for output, (difference, _) in rows.items() if np.isnan(difference)]:
            print(f"{name:<12}(not compared: {', '.join(left)})")


def main(config: ExportConfig) -> int:
    """Write and compare every format. Renames them to their final names if all are within bounds, otherwise returns 1.

    Local folders are renamed. Folders for an object store are copied, with the file that marks a complete export last: a
    killed process leaves an incomplete copy, which loaders ignore and the same command overwrites.
    """
    with storage.locked(config.output), tempfile.TemporaryDirectory(prefix="clozemill-") as scratch:
        places = _places(config, scratch)
        one = checkpoints.find(pretrained.best_run_of(config.run), config.checkpoint)
        source = read(one, config.max_seq_length)
        try:
            return _export(source, one, places, config.output)
        finally:
            for place in places.values():
                shutil.rmtree(place.temporary, ignore_errors=True)


def _notes(source: Source, names: Collection[str]) -> list[str]:
    """Return notes on what some formats of a source lack."""
    if not source.tokenizer or not {"savedmodel", "keras"}.intersection(names):
        return []
    return [
        "the tokenizer isn't WordPiece and can't be part of a graph: the SavedModel and the Keras file take ids, no texts, "
        "and have tokenizer.json beside them"
    ]


def _export(source: Source, one: Checkpoint, places: dict[str, Place], output: str) -> int:
    for name, place in places.items():
        _write(source, name, place.temporary)
    try:
        found = _differences(source, places)
    except ValueError as error:  # wrong ids, or a weight that transformers doesn't find
        print(f"{error}; nothing was exported", flush=True)
        return EXIT_DIFFERS
    _tell(source, one, found)
    bad = [name for name, rows in found.items() if any(difference > bound for difference, bound in rows.values())]
    if bad:
        print(f"{', '.join(bad)}: difference from the checkpoint exceeds the bound; nothing was exported", flush=True)
        return EXIT_DIFFERS
    made = {name: sorted(storage.names_below(str(place.temporary)) | set(place.ours)) for name, place in places.items()}
    storage.write_json(storage.join(output, RECORD), exported_files(output) | made)
    for name, place in places.items():
        _put(name, place)
    for note in _notes(source, places):
        print(f"note: {note}")
    print(f"done: {', '.join(place.final for place in places.values())}", flush=True)
    return 0


def _put(name: str, place: Place) -> None:
    """Give a complete export its final place."""
    if "://" not in place.final:
        if place.replaces:
            replace_folder(str(place.temporary), place.final, place.ours)
        else:
            place.temporary.rename(place.final)
        return
    entry = FORMATS[name].entry
    for file in sorted(place.ours, key=lambda file: (file != entry, file)):
        storage.remove(storage.join(place.final, file))
    storage.upload(str(place.temporary), place.final, entry)
