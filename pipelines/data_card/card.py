"""The data card: report.html and report.md, from dataset.json, statistics.json, run.json and rejects/ only."""

import hashlib
import json
import sys
from typing import Any

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import large, share
from clozemill.pipelines.data_card import pages
from clozemill.pipelines.data_card import sections as data_card_sections
from clozemill.pipelines.data_card.content import Card, Dataset, Section
from clozemill.pipelines.dataset import layout
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.dataset.layout import MANIFEST, RUN
from clozemill.pipelines.dataset.reading import read_contract
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.quality import statistics

_REJECT_FILES = 20


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
                told = " ".join(str(reject.get(key) or "") for key in ("detail", "excerpt")).strip()
                samples.append(f"{reject.get('source', '')}: {told}")
    return found


def read(folder: str, judged: str = "") -> Dataset:
    """Read the files of a dataset; `judged`: the folder with the files of a rejected dataset. Raise UserError."""
    contract, vocabulary = read_contract(judged or folder)
    path = filesystem.join(judged or folder, statistics.STATISTICS)
    data = filesystem.read_bytes(path)
    told = statistics.loads(data, path)
    if hashlib.sha256(data).hexdigest() != contract["statistics"]["sha256"]:
        raise UserError(f"{path}: its SHA-256 is not the one in {MANIFEST}: restore it, or rebuild the dataset")
    run = filesystem.join(folder, RUN)
    about = filesystem.read_json(run) if filesystem.exists(run) else {}
    return Dataset(contract, vocabulary, told, about, _rejects(folder) | told["documents"]["samples"])


def build(data: Dataset) -> Card:
    """Build the card. Deterministic: uses no clock and no other file."""
    state, verdict = _verdict(data.statistics["gate"])
    warned = dataset_warnings(data.contract)
    if warned:
        verdict += f" See also the {formatting.counted(len(warned), 'warning')}."
    sections = [
        Section("Warnings", warned),
        data_card_sections.about(data.contract),
        data_card_sections.in_and_out(data),
        data_card_sections.dropped(data),
        data_card_sections.lengths(data),
        data_card_sections.words(data),
        data_card_sections.masks(data),
        data_card_sections.gate(data.statistics, verdict),
        data_card_sections.made(data),
        data_card_sections.fixed(data),
    ]
    inputs = [str(name).rsplit("/", 1)[-1] for name in data.contract["config"].get("input", [])]
    kept = [section for section in sections if section.text or section.tables or section.plots]
    return Card(data.contract["digest"], inputs, state, verdict, _tiles(data.contract), kept)


def _verdict(gate: dict[str, Any]) -> tuple[str, str]:
    checks = gate["checks"]
    failed = sum(not check["passed"] for check in checks)
    if gate["passed"]:
        return "passed", f"The statistical gate passed: {formatting.counted(len(checks), 'check')}, none failed."
    told = f"{failed:,} of {formatting.counted(len(checks), 'check')} failed"
    if gate["overridden"]:
        return "overridden", f"The statistical gate failed and was overridden with --no-gate: {told}."
    return "failed", f"The statistical gate rejected this dataset, which is unfinished: {told}."


def _tiles(contract: dict[str, Any]) -> list[tuple[str, str]]:
    documents, splits = contract["documents"], contract["splits"]
    tiles = [
        ("documents kept", large(documents["kept"])),
        ("tokens of text", large(documents["tokens"])),
        ("[UNK]", share(documents["unknown_tokens"], documents["tokens"])),
        ("train examples", large(splits.get("train", {}).get("examples", 0))),
        ("eval examples", large(splits.get("eval", {}).get("examples", 0))),
        ("tokens per example", f"{contract['max_seq_length']:,}"),
    ]
    return tiles


def write(folder: str, judged: str = "") -> None:
    """Write the card of a dataset, replacing an existing one; see `read`. Raise UserError."""
    data = read(folder, judged)
    try:
        card = build(data)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:  # in files that another program signed
        name = filesystem.join(judged or folder, statistics.STATISTICS)
        raise UserError(
            f"{name} or {RUN} doesn't have the format that clozemill writes ({error!r}): rebuild the dataset"
        ) from None
    filesystem.write_bytes(filesystem.join(folder, layout.MARKDOWN), pages.card_markdown(card).encode())
    filesystem.write_bytes(filesystem.join(folder, layout.HTML), pages.card_html(card).encode())


def is_current(folder: str, digest: str) -> bool:
    """Return whether the folder contains the card of this dataset, and not of an earlier version."""
    path = filesystem.join(folder, layout.HTML)
    return filesystem.exists(path) and digest.encode() in filesystem.read_bytes(path)


def write_or_warn(folder: str, judged: str = "") -> None:
    """Write the card at the end of `prepare`. Errors become a warning: the dataset is complete without its card."""
    try:
        write(folder, judged)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        print(
            f"warning: no data card was written ({why}): run clozemill inspect {judged or folder} --report to write it",
            file=sys.stderr,
            flush=True,
        )
