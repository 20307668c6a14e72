"""The data card: report.html and report.md, from dataset.json, statistics.json, run.json, rejects/ and the first examples."""

import hashlib
import json
import os
import sys
from itertools import islice
from typing import Any

import numpy as np

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import large, share
from clozemill.pipelines.data_card import sections as data_card_sections
from clozemill.pipelines.data_card.sections import Dataset
from clozemill.pipelines.dataset import layout, manifest, shard_records
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.dataset.layout import MANIFEST, RUN
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Page
from clozemill.pipelines.quality import statistics
from clozemill.pipelines.shards import tfrecord

_REJECT_FILES = 20
_SHARD_BYTES = 4 << 20  # of the first shard: more than its first examples take


def _rejects(folder: str) -> dict[str, list[str]]:
    """Return samples from the first files in rejects/, in order. Lines that clozemill didn't write are skipped."""
    found: dict[str, list[str]] = {}
    for name in filesystem.names_below(filesystem.join(folder, "rejects"))[:_REJECT_FILES]:
        for line in filesystem.read_bytes(filesystem.join(folder, f"rejects/{name}")).splitlines():
            try:
                reject = json.loads(line)
                samples = found.setdefault(str(reject["reason"]), [])
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if len(samples) < data_card_sections.SHOWN_SAMPLES:
                detail = " ".join(str(reject.get(key) or "") for key in ("detail", "excerpt")).strip()
                samples.append(f"{reject.get('source', '')}: {detail}")
    return found


def _first_examples(folder: str, contract: dict[str, Any], pad_id: int) -> Columns | None:
    """Return the first examples of the first train shard; None if they can't be read: a card needs none."""
    shards = [shard for shard in contract["shards"] if shard["split"] == "train" and shard["examples"]]
    if not shards:
        return None
    try:
        with filesystem.open_read(filesystem.join(folder, shards[0]["name"])) as file:
            data = file.read(_SHARD_BYTES)
        count = min(manifest.records_of(shards[0]), data_card_sections.SEARCHED_EXAMPLES)
        records = list(islice(tfrecord.read(data, contract["config"]["compression"]), count))
        found = shard_records.examples_of(shard_records.decode_shard_records(records, contract), contract, pad_id)
        return found.take(np.arange(min(len(found), data_card_sections.SEARCHED_EXAMPLES)))
    except (ValueError, OSError, UserError):
        return None


def _name(folder: str) -> str:
    """Return the name of a dataset: that of its folder."""
    path = folder if filesystem.is_remote(folder) else os.path.abspath(folder)
    return path.rstrip("/").rsplit("/", 1)[-1]


def read(folder: str, rejected: str = "") -> Dataset:
    """Read the files of a dataset; `rejected`: the folder with the files of a rejected dataset. Raise UserError."""
    contract, vocabulary = read_contract(rejected or folder)
    path = filesystem.join(rejected or folder, statistics.STATISTICS)
    data = filesystem.read_bytes(path)
    found = statistics.loads(data, path)
    if hashlib.sha256(data).hexdigest() != contract["statistics"]["sha256"]:
        raise UserError(f"{path}: its SHA-256 is not the one in {MANIFEST}: restore it, or rebuild the dataset")
    run = filesystem.join(folder, RUN)
    about = filesystem.read_json(run) if filesystem.exists(run) else {}
    samples = _rejects(folder) | found["documents"]["samples"]
    return Dataset(
        _name(folder), contract, vocabulary, found, about, samples, _first_examples(folder, contract, vocabulary.pad_id)
    )


def build(data: Dataset) -> Page:
    """Build the card. Deterministic: uses no clock and no other file."""
    state, verdict = _verdict(data.statistics["gate"])
    sections = [
        data_card_sections.about(data),
        data_card_sections.examples(data),
        data_card_sections.in_and_out(data),
        data_card_sections.dropped(data),
        data_card_sections.lengths(data),
        data_card_sections.words(data),
        data_card_sections.masks(data),
        data_card_sections.gate(data.statistics, verdict),
        data_card_sections.made(data),
        data_card_sections.fixed(data),
    ]
    return Page(
        "Data card",
        data.name,
        data_card_sections.lead(data),
        [("Digest", data.contract["digest"])],
        state,
        verdict,
        dataset_warnings(data.contract),
        _tiles(data.contract),
        [section for section in sections if not section.empty],
        "Generated by clozemill from the files of the dataset.",
        "clozemill inspect DATASET --report",
    )


def _verdict(gate: dict[str, Any]) -> tuple[str, str]:
    checks = gate["checks"]
    failed = sum(not check["passed"] for check in checks)
    if gate["passed"]:
        return "passed", f"The statistical gate passed: {formatting.counted(len(checks), 'check')}, none failed."
    result = f"{failed:,} of {formatting.counted(len(checks), 'check')} failed"
    if gate["overridden"]:
        return "overridden", f"The statistical gate failed and was overridden with --no-gate: {result}."
    return "failed", f"The statistical gate rejected this dataset, which is unfinished: {result}."


def _tiles(contract: dict[str, Any]) -> list[tuple[str, str]]:
    documents, splits = contract["documents"], contract["splits"]
    tiles = [
        ("documents kept", large(documents["kept"])),
        ("tokens of text", large(manifest.kept_text(contract, "tokens"))),
        ("[UNK]", share(documents["unknown_tokens"], documents["tokens"])),
        ("train examples", large(splits.get("train", {}).get("examples", 0))),
        ("eval examples", large(splits.get("eval", {}).get("examples", 0))),
        (f"tokens per {'row' if manifest.is_packed(contract) else 'example'}", f"{contract['max_seq_length']:,}"),
    ]
    return tiles


def write(folder: str, rejected: str = "") -> None:
    """Write the card of a dataset, replacing an existing one; see `read`. Raise UserError."""
    data = read(folder, rejected)
    try:
        card = build(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # in files that another program signed
        name = filesystem.join(rejected or folder, statistics.STATISTICS)
        raise UserError(
            f"{name} or {RUN} doesn't have the format that clozemill writes ({error!r}): rebuild the dataset"
        ) from None
    filesystem.write_bytes(filesystem.join(folder, layout.MARKDOWN), html.page_markdown(card).encode())
    filesystem.write_bytes(filesystem.join(folder, layout.HTML), html.page_html(card).encode())


def is_current(folder: str, digest: str) -> bool:
    """Return whether the folder contains the card of this dataset, and not of an earlier version."""
    path = filesystem.join(folder, layout.HTML)
    return filesystem.exists(path) and digest.encode() in filesystem.read_bytes(path)


def write_or_warn(folder: str, rejected: str = "") -> None:
    """Write the card at the end of `prepare`. Errors become a warning: the dataset is complete without its card."""
    try:
        write(folder, rejected)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        print(
            f"warning: no data card was written ({why}): run clozemill inspect {rejected or folder} --report to write it",
            file=sys.stderr,
            flush=True,
        )
