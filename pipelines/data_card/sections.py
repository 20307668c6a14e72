"""The sections of a dataset's card, each from the dataset's files alone."""

from typing import Any

import numpy as np

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.formatting import figure, listed, share
from clozemill.pipelines.data_card import plots
from clozemill.pipelines.data_card.content import Cell, Dataset, Section, Table
from clozemill.pipelines.dataset import summary
from clozemill.pipelines.dataset.layout import MANIFEST
from clozemill.pipelines.dataset.manifest import exact_duplicates
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS

SHOWN_TOKENS, SHOWN_SAMPLES, SHOWN_SHARDS = 15, 4, 400
_SAMPLE_CHARS, _WORD_CHARS = 300, 40


def about(contract: dict[str, Any]) -> Section:
    """The datasheet: what only a person knows."""
    sheet = contract.get("datasheet", {})
    rows = [(name, "; ".join(sheet.get(name, [])) or "not stated") for name in ("sources", "licenses", "languages")]
    rows.append(("input files", "; ".join(map(str, contract["config"].get("input", [])))))
    return Section("About this data", tables=[Table("Datasheet", "lt", ("field", "as stated"), rows)])


def in_and_out(data: Dataset) -> Section:
    documents, run = data.contract["documents"], data.run
    rows = []
    if "input_files" in run:
        rows.append(("files", f"{run['input_files']:,}"))
    if "input_mb" in run:
        rows.append(("MB on disk", f"{run['input_mb']:,.2f}"))
    rows += [
        ("documents read", f"{documents['read']:,}"),
        ("documents kept", f"{documents['kept']:,}"),
        ("characters of clean text", f"{documents['characters']:,}"),
        ("sentences", f"{documents['sentences']:,}"),
        ("tokens", f"{documents['tokens']:,}"),
        ("[UNK] among them", f"{documents['unknown_tokens']:,} ({share(documents['unknown_tokens'], documents['tokens'])})"),
    ]
    equal = exact_duplicates(data.contract)
    note = f"Text is counted with the exact duplicates in it: {formatting.counted(equal, 'document')}." if equal else ""
    copies = []
    for name, split in data.contract["splits"].items():
        for copy, counts in split["copies"].items():
            padding = share(counts["padding"], counts["padding"] + counts["tokens"])
            shown = (counts["examples"], counts["tokens"], counts["masked"])
            copies.append((name, copy, f"{split['documents']:,}", *(f"{count:,}" for count in shown), padding))
    head = ("split", "copy", "documents", "examples", "tokens", "masked", "padding")
    return Section(
        "What went in, what came out",
        tables=[Table("In", "lr", ("what", "how much"), rows, note), Table("Out", "llrrrrr", head, copies)],
    )


def dropped(data: Dataset) -> Section:
    documents = data.contract["documents"]
    dropped = dict(documents["dropped"])
    if equal := exact_duplicates(data.contract):
        dropped["exact_duplicate"] = equal
    read = documents["read"]
    if not dropped:
        return Section("What was left out", [f"Nothing: all of {formatting.counted(read, 'document')} were kept."])
    order = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    most = max(dropped.values())
    rows = [(reason, f"{count:,}", share(count, read), 100 * count / most) for reason, count in order]
    samples = [(why, str(text)[:_SAMPLE_CHARS]) for why, _ in order for text in data.samples.get(why, [])[:SHOWN_SAMPLES]]
    tables = [Table("By reason", "lrrb", ("reason", "documents", "of those read", ""), rows)]
    if samples:
        tables.append(
            Table("Examples of what was left out", "lt", ("reason", "source, and how it begins"), samples, folded=True)
        )
    return Section("What was left out", tables=tables)


def lengths(data: Dataset) -> Section:
    documents, rows = data.contract["documents"], []
    if counted := documents["kept"] + exact_duplicates(data.contract):
        rows.append(("documents", f"{documents['tokens'] / counted:,.1f}", "", "", "", ""))
    for split, copies in plots.splits_of(data.statistics).items():
        total = plots.summed(copies)
        parts = [("examples", total["lengths"]), ("A", np.sum(total["a_lengths"], 0)), ("B", np.sum(total["b_lengths"], 0))]
        for what, counts in parts:
            if np.sum(counts):
                mean, *places = plots.quantiles(counts)
                rows.append((f"{split}: {what}", f"{mean:,.1f}", *(f"{place:,}" for place in places)))
    head = ("tokens of", "mean", "5 %", "median", "95 %", "longest")
    table = Table(
        "Lengths in tokens",
        "lrrrrr",
        head,
        rows,
        "5 % and 95 % have at most so many. Examples are counted with [CLS] and [SEP], A and B without.",
    )
    return Section("Lengths", tables=[table] if rows else [], plots=plots.lengths(data.statistics, data.contract))


def _short(word: str) -> str:
    return word if len(word) <= _WORD_CHARS else word[:_WORD_CHARS] + "…"


def words(data: Dataset) -> Section:
    tables = []
    counts, tokens = plots.token_counts(data.statistics), data.vocabulary.tokens
    if sum(counts):
        order = np.argsort(-np.asarray(counts), kind="stable").tolist()
        best = [at for at in order if counts[at] and tokens[at] not in SPECIAL_TOKENS]
        words = sum(counts[at] for at in best)
        rows = [
            (str(rank), tokens[at], f"{counts[at]:,}", share(counts[at], words), 100 * counts[at] / counts[best[0]])
            for rank, at in enumerate(best[:SHOWN_TOKENS], 1)
        ]
        head = ("rank", "token", "times", "share", "")
        tables.append(Table("The most frequent tokens", "rtrrb", head, rows, "In train copy 00, special tokens left out."))
    unknown = data.statistics["documents"]["unknown_words"]
    if unknown:
        most = max(count for _, count in unknown) or 1
        rows = [(_short(str(word)), f"{count:,}", 100 * count / most) for word, count in unknown[:SHOWN_TOKENS]]
        tables.append(Table("Words that became [UNK]", "trb", ("word", "times", ""), rows))
    return Section("Words", tables=tables, plots=plots.frequencies(data.statistics))


def masks(data: Dataset) -> Section:
    heads, rows = summary.copy_rows(data.contract)
    note = "masked: of all tokens; [MASK], random and kept: of the masked; labels: of the examples."
    table = Table("Shares per copy", "ll" + "r" * len(heads), ("split", "copy", *heads), rows, note)
    return Section("Masks and labels", tables=[table], plots=plots.masks(data.statistics, data.vocabulary))


def _place(found: Any, low: Any, high: Any) -> float | None:
    """Where a figure lies when its interval is drawn from 20 to 80; None where there is no such place."""
    if not all(isinstance(value, int | float) for value in (found, low, high)) or not low < high:
        return None
    return round(min(max(20 + 60 * (found - low) / (high - low), 2.0), 98.0), 1)


def gate(statistics: dict[str, Any], verdict: str) -> Section:
    checks, probe, tables = statistics["gate"]["checks"], statistics["probe"], []
    failed = [(check["name"], str(check["where"]), check["sentence"]) for check in checks if not check["passed"]]
    if failed:
        tables.append(Table("What failed", "llt", ("check", "where", "why"), failed))
    places: dict[str, list[tuple[Cell, ...]]] = {}
    for check in checks:
        found, low, high = (check[name] for name in ("found", "low", "high"))
        cells = figure(found), figure(low), figure(high), _place(found, low, high), "yes" if check["passed"] else "NO"
        places.setdefault(str(check["where"]), []).append((check["name"], *cells))
    splits = set()
    for where, rows in places.items():
        split = where.split(" ")[0]
        title = f"{where}: found, and the interval it must lie in"
        head = ("check", "found", "from", "to", "the interval", "passed")
        tables.append(Table(title, "lrrril", head, rows, folded=split in splits))  # the other copies of it: to be opened
        splits.add(split)
    if probe:
        told = [(name.replace("_", " "), listed(value)) for name, value in probe.items()]
        note = (
            "A linear classifier guesses the next-sentence label from lengths and surface features alone: above chance by more "
        )
        tables.append(Table("The shortcut probe", "lt", ("what", "figure"), told, note + "than the margin, the label leaks."))
    return Section("The gate", [verdict], tables)


def made(data: Dataset) -> Section:
    run, tables, text = data.run, [], []
    if stages := run.get("stages"):
        most = max(stage["seconds"] for stage in stages.values()) or 1
        rows = [
            (name, f"{stage['seconds']:.2f}", f"{stage['mb'] / stage['seconds']:.1f}" if stage["seconds"] >= 0.05 else "-",
             stage["of"], 100 * stage["seconds"] / most)
            for name, stage in stages.items()
        ]  # fmt: skip
        tables.append(Table("Time per stage", "lrrlb", ("stage", "seconds of all workers", "MB/s", "of", ""), rows))
    if "seconds" in run:
        text = [f"{run['seconds']:.1f} s with {formatting.counted(run['workers'], 'worker')}, by {run['runner']}."]
    versions = [(name, str(version)) for name, version in run.get("versions", {}).items()]
    if versions:
        tables.append(Table("Versions", "lm", ("of", "version"), versions))
    options = [(name, listed(value) if value != "" else "-") for name, value in data.contract["config"].items()]
    tables.append(Table("Configuration", "lt", ("option", "value"), options, folded=True))
    return Section("How it was made", text, tables)


def fixed(data: Dataset) -> Section:
    """Digests: what tells whether this is the dataset that the card is about."""
    contract, shards = data.contract, data.contract["shards"]
    rows = [("dataset", contract["digest"]), ("vocabulary", contract["vocabulary"]["sha256"])]
    listed = [(each["name"], f"{each['examples']:,}", f"{each['bytes']:,}", each["sha256"]) for each in shards[:SHOWN_SHARDS]]
    note = f"The first {SHOWN_SHARDS} of {len(shards):,}; {MANIFEST} lists all." if len(shards) > SHOWN_SHARDS else ""
    head = ("shard", "examples", "bytes", "SHA-256")
    return Section(
        "Digests",
        tables=[
            Table("SHA-256", "lm", ("of", "digest"), rows),
            Table(f"Shards: {len(shards):,}", "mrrm", head, listed, note, folded=True),
        ],
    )
