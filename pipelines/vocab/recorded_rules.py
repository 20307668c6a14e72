"""Find the casing and the tokenizer rules recorded beside a vocabulary file, and complete the options of `vocab` with them."""

import contextlib
import hashlib
import os
from dataclasses import dataclass, replace
from typing import Any

from clozemill.pipelines.command_line import yaml_files
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.tokenizer_rules import TextRules
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.pipelines.dataset.layout import MANIFEST
from clozemill.pipelines.files import filesystem

_RECORDS = (MANIFEST, "checkpoint.json")  # of a dataset, and of a checkpoint


@dataclass(frozen=True)
class RecordedRules:
    """What decides the words of a text. place: the file that records it."""

    place: str
    cased: bool
    strip_accents: bool
    tokenize_chinese_chars: bool


def recorded_rules(path: str, data: bytes) -> RecordedRules | None:
    """Return the rules recorded in PATH.yaml, or in the dataset.json or checkpoint.json of the folder; None without one.

    Args:
        path: the vocabulary file. data: its contents; dataset.json and checkpoint.json count only if they name its SHA-256.

    Raises UserError if a record can't be used.
    """
    if filesystem.exists(path + ".yaml"):
        values = yaml_files.parse(filesystem.read_bytes(path + ".yaml"), path + ".yaml")
        given = {name: value for name, value in values.items() if value is not None}  # null: the default, as in --config
        return _rules(path + ".yaml", {"cased": False, **given})
    for name in _RECORDS:
        place = filesystem.join(os.path.dirname(path), name) if os.path.dirname(path) else name
        found = filesystem.read_json(place).get("vocabulary") if filesystem.exists(place) else None
        if isinstance(found, dict) and found.get("sha256") == hashlib.sha256(data).hexdigest():
            return _rules(place, found)
    return None


def contradictions(config: PrepareConfig, data: bytes) -> list[str]:
    """Return which options of `prepare` differ from what is recorded beside a vocabulary, a sentence each.

    data: the vocabulary's contents. A record that can't be used is ignored.
    """
    with contextlib.suppress(UserError):
        if recorded := recorded_rules(config.vocab, data):
            mine = {"cased": config.cased, **config.rules.changes_words(config.cased)}
            return [
                f"{recorded.place} records {name} {str(theirs).lower()}, but the dataset is prepared without it: give "
                f"--{'' if theirs else 'no-'}{name.replace('_', '-')}, or learn another vocabulary"
                for name, value in mine.items()
                if value != (theirs := getattr(recorded, name))
            ]
    return []


def _rules(place: str, values: dict[str, Any]) -> RecordedRules:
    """Return the rules among some values. Raises UserError if they are not."""
    cased = values.get("cased")
    try:
        if not isinstance(cased, bool):
            raise ValueError("cased is neither true nor false")
        rules = TextRules.from_dict(values)
    except ValueError as error:
        raise UserError(f"{place} can't be used ({error}): restore it, or move it away from the vocabulary") from None
    return RecordedRules(place, cased, **rules.changes_words(cased))


def completed_rules(config: VocabConfig, recorded: RecordedRules | None = None) -> VocabConfig:
    """Return the configuration with definite rules: the recorded ones, else those given, else the defaults.

    Raises UserError if an option contradicts what is recorded.
    """
    cased = bool(config.cased if recorded is None or config.cased is not None else recorded.cased)
    given = {
        "cased": config.cased,
        "strip_accents": config.strip_accents,
        "tokenize_chinese_chars": config.tokenize_chinese_chars,
    }
    for name, value in given.items():
        if recorded and value not in (None, theirs := getattr(recorded, name)):
            flag = f"--{'' if value else 'no-'}{name.replace('_', '-')}"
            raise UserError(
                f"{flag} contradicts {recorded.place}, which records {name} {str(theirs).lower()}: leave {flag} out"
            )
    if recorded is None:
        return replace(config, cased=cased, tokenize_chinese_chars=config.tokenize_chinese_chars is not False)
    accents = None if recorded.strip_accents != cased else recorded.strip_accents
    return replace(config, cased=cased, strip_accents=accents, tokenize_chinese_chars=recorded.tokenize_chinese_chars)
