"""The sections of a data card, each from the files of the dataset only."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from clozemill.pipelines.common import formatting
from clozemill.pipelines.common.formatting import counted, figure, large, listed, share
from clozemill.pipelines.data_card import plots
from clozemill.pipelines.data_card.output_table import output_table
from clozemill.pipelines.dataset import summary
from clozemill.pipelines.dataset.example_tokens import LABELS, segment_tokens
from clozemill.pipelines.dataset.layout import MANIFEST
from clozemill.pipelines.dataset.manifest import exact_duplicates, is_packed, kept_text
from clozemill.pipelines.examples.columns import Columns
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Cell, Example, Section, Side, Table
from clozemill.pipelines.text.vocabulary import SPECIAL_TOKENS, Vocabulary

SHOWN_TOKENS, SHOWN_SAMPLES, SHOWN_SHARDS = 15, 4, 400
SEARCHED_EXAMPLES = 16  # at the beginning of the first shard, for one of each label
_SAMPLE_CHARS, _WORD_CHARS, _QUOTED_CHARS = 300, 40, 600


@dataclass(frozen=True)
class Dataset:
    """The data of a card.

    Attributes:
        name: that of the folder.
        run: run.json, {} if the dataset has none.
        samples: reason -> ["source: excerpt"] of dropped documents.
        examples: the first examples of the train split, None if they can't be read.
    """

    name: str
    contract: dict[str, Any]
    vocabulary: Vocabulary
    statistics: dict[str, Any]
    run: dict[str, Any]
    samples: dict[str, list[str]]
    examples: Columns | None = None


def lead(data: Dataset) -> list[str]:
    """Return the sentences that say what the dataset is."""
    contract = data.contract
    documents, config, sheet = contract["documents"], contract["config"], contract.get("datasheet", {})
    sources = "; ".join(sheet.get("sources", [])) or ", ".join(str(name).rsplit("/", 1)[-1] for name in config.get("input", []))
    pairs = {"nsp": "pairs for next-sentence prediction", "sop": "pairs for sentence order", "single": "single segments"}
    examples, rows = (sum(split.get(name, 0) for split in contract["splits"].values()) for name in ("examples", "rows"))
    packed = f", packed into {counted(rows, 'row')}" if is_packed(contract) else ""
    stated = [
        f"{name} {', '.join(sheet[field])}" if sheet.get(field) else f"{name} not stated"
        for name, field in (("licence", "licenses"), ("language", "languages"))
    ]
    return [
        f"{counted(documents['kept'], 'document')} with {large(kept_text(contract, 'tokens'))} tokens of text from {sources}; "
        f"{'; '.join(stated)}.",
        f"Prepared as {counted(examples, 'masked example')} of up to {contract['max_seq_length']:,} tokens, "
        f"{pairs[config['pairs']]}{packed}, to pretrain an encoder.",
    ]


def about(data: Dataset) -> Section:
    """Return sample text, and the datasheet: information that only a person can provide."""
    contract, quotes = data.contract, []
    if data.examples is not None and len(data.examples):
        sides = [segment_tokens(data.examples, row, data.vocabulary)["A"] for row in range(len(data.examples))]
        text = html.text_of(max(sides, key=len))
        quotes = [text if len(text) <= _QUOTED_CHARS else text[:_QUOTED_CHARS] + " …"]
    sheet = contract.get("datasheet", {})
    rows = [(name, "; ".join(sheet.get(name, [])) or "not stated") for name in ("sources", "licenses", "languages")]
    rows.append(("input files", "; ".join(map(str, contract["config"].get("input", [])))))
    note = "sources, licenses and languages are options of clozemill prepare; an update records them without new shards."
    lead = ["A text from the train split, as its tokenizer reads it:"] if quotes else []
    return Section("About this data", lead, [Table("Datasheet", "lt", ("field", "as stated"), rows, note)], quotes=quotes)


def examples(data: Dataset) -> Section:
    """Return one example of each label, in tokens."""
    found: dict[int, Example] = {}
    if (columns := data.examples) is None:
        return Section("An example")
    unit = "Example" if is_packed(data.contract) else "Record"
    for row in range(len(columns)):
        label = int(columns.next_sentence_labels[row])
        if label not in found:
            masked = int(np.count_nonzero(columns.masked_lm_weights[row]))
            note = f"{int(columns.input_mask[row].sum())} tokens, {masked} to predict; label {label}:"
            sides = [Side(name, tokens) for name, tokens in segment_tokens(columns, row, data.vocabulary).items()]
            meaning = LABELS[data.contract["config"]["pairs"]][label]
            found[label] = Example(f"{unit} {row} of the first train shard", note, sides, meaning, label)
    text = ["What a model sees. It predicts the original token at each marked position, and the label of the pair."]
    return Section("Examples" if len(found) > 1 else "An example", text if found else [], examples=list(found.values()))


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
    rows += summary.id_rows(data.contract)
    equal = exact_duplicates(data.contract)
    note = f"Text counts include exact duplicates: {formatting.counted(equal, 'document')}." if equal else ""
    row_term = ("row", "a record with several examples; without packing, each would have one")
    return Section(
        "Input and output",
        tables=[Table("Input", "lr", ("item", "count"), rows, note), output_table(data.contract)],
        terms=[
            ("[UNK]", "a word that the vocabulary can't spell; the model sees only that a word was there"),
            ("copy", "the same documents with other pairs and masks (--dupe-factor), so that epochs differ"),
            ("masked", "tokens that the model has to predict"),
            ("padding", "share of positions that are empty, since an example is shorter than the sequence"),
            *([row_term] if is_packed(data.contract) else []),
        ],
    )


def dropped(data: Dataset) -> Section:
    documents = data.contract["documents"]
    dropped = dict(documents["dropped"])
    if equal := exact_duplicates(data.contract):
        dropped["exact_duplicate"] = equal
    read, checked = documents["read"], _decontamination(data.contract)
    if not dropped:
        return Section("Dropped documents", [f"None: all of {formatting.counted(read, 'document')} were kept."], checked)
    order = sorted(dropped.items(), key=lambda item: (-item[1], item[0]))
    most = max(dropped.values())
    rows = [(reason, f"{count:,}", share(count, read), 100 * count / most) for reason, count in order]
    samples = [(why, str(text)[:_SAMPLE_CHARS]) for why, _ in order for text in data.samples.get(why, [])[:SHOWN_SAMPLES]]
    tables = [Table("By reason", "lrrb", ("reason", "documents", "share of read", ""), rows), *checked]
    if samples:
        tables.append(Table("Examples of dropped documents", "lt", ("reason", "source and beginning"), samples, folded=True))
    return Section("Dropped documents", tables=tables)


def _decontamination(contract: dict[str, Any]) -> list[Table]:
    """Return a table of what --decontaminate compared, also if nothing matched; none without the option."""
    if "decontamination" not in contract:
        return []
    rows = [
        ("evaluation sets", "; ".join(map(str, contract["decontamination"]["files"]))),
        ("n-gram size", f"{contract['config'].get('decontaminate_words', '?')} words"),
        ("documents dropped", f"{contract['documents']['dropped'].get('contaminated', 0):,}"),
    ]
    return [Table("Decontamination", "lt", ("item", "value"), rows)]


def lengths(data: Dataset) -> Section:
    kept = data.contract["documents"]["kept"]
    rows: list[tuple[str, ...]] = []
    if kept:
        rows.append(("documents", f"{kept_text(data.contract, 'tokens') / kept:,.1f}", "", "", "", ""))
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
        "5 % and 95 % are percentiles. Example lengths include [CLS] and [SEP]; lengths of A and B don't.",
    )
    terms = [("A and B", "the two segments of an example, each one or more sentences")] if rows else []
    drawn = plots.lengths(data.statistics, data.contract)
    return Section("Lengths", tables=[table] if rows else [], plots=drawn, terms=terms)


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
        tables.append(Table("The most frequent tokens", "rtrrb", head, rows, "In train copy 00, without special tokens."))
    unknown = data.statistics["documents"]["unknown_words"]
    if unknown:
        most = max(count for _, count in unknown) or 1
        absent = [(_short(str(word)), f"{count:,}", 100 * count / most) for word, count in unknown[:SHOWN_TOKENS]]
        tables.append(Table("Words that became [UNK]", "trb", ("word", "times", ""), absent))
    terms = [("rank", "place of a token when tokens are sorted by frequency")] if tables else []
    return Section("Words", tables=tables, plots=plots.frequencies(data.statistics), terms=terms)


def masks(data: Dataset) -> Section:
    heads, rows = summary.copy_rows(data.contract)
    note = "masked: share of all tokens; [MASK], random and kept: share of masked tokens; labels: share of examples."
    table = Table("Shares per copy", "ll" + "r" * len(heads), ("split", "copy", *heads), rows, note)
    terms = [
        ("[MASK], random, kept", "how a token to predict is shown: hidden, as another token, or as itself"),
        ("forced", "random B segments because a chunk had one sentence"),
    ]
    return Section("Masks and labels", tables=[table], plots=plots.masks(data.statistics, data.vocabulary), terms=terms)


def _place(found: Any, low: Any, high: Any) -> float | None:
    """Return the position of a value in its interval, drawn from 20 to 80; None if it has no position."""
    if not all(isinstance(value, int | float) for value in (found, low, high)) or not low < high:
        return None
    return round(min(max(20 + 60 * (found - low) / (high - low), 2.0), 98.0), 1)


def gate(statistics: dict[str, Any], verdict: str) -> Section:
    checks, probe, tables = statistics["gate"]["checks"], statistics["probe"], []
    failed = [(check["name"], str(check["where"]), check["sentence"]) for check in checks if not check["passed"]]
    if failed:
        tables.append(Table("Failed checks", "llt", ("check", "where", "why"), failed))
    places: dict[str, list[tuple[Cell, ...]]] = {}
    for check in checks:
        found, low, high = (check[name] for name in ("found", "low", "high"))
        cells = figure(found), figure(low), figure(high), _place(found, low, high), "yes" if check["passed"] else "NO"
        places.setdefault(str(check["where"]), []).append((check["name"], *cells))
    splits = set()
    for where, rows in places.items():
        split = where.split(" ")[0]
        title = f"{where}: observed values and their required intervals"
        head = ("check", "observed", "from", "to", "interval", "passed")
        tables.append(Table(title, "lrrril", head, rows, folded=split in splits))  # the other copies are collapsed
        splits.add(split)
    if probe:
        rows = [(name.replace("_", " "), listed(value)) for name, value in probe.items()]
        note = "A linear classifier predicts the next-sentence label from lengths and surface features only. If its accuracy "
        tables.append(
            Table(
                "The shortcut probe",
                "lt",
                ("item", "value"),
                rows,
                note + "exceeds chance by more than the margin, the label leaks.",
            )
        )
    terms = [
        ("gate", "checks that every statistic is where chance puts it, up to five standard deviations; else prepare fails"),
        ("interval", "the required range of a value, drawn as a band; the mark is the observed value"),
        ("shortcut", "a surface feature that gives the label away, so that a model learns nothing about meaning"),
    ]
    return Section("Statistical gate", [verdict], tables, terms=terms)


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
    return Section("How the dataset was built", text, tables)


def fixed(data: Dataset) -> Section:
    """Return the digests that identify the dataset that the card describes."""
    contract, shards = data.contract, data.contract["shards"]
    rows = [("dataset", contract["digest"]), ("vocabulary", contract["vocabulary"]["sha256"])]
    rows_of = (lambda each: [f"{each['rows']:,}"]) if is_packed(contract) else (lambda each: [])
    listed = [
        (each["name"], f"{each['examples']:,}", *rows_of(each), f"{each['bytes']:,}", each["sha256"])
        for each in shards[:SHOWN_SHARDS]
    ]
    note = f"The first {SHOWN_SHARDS} of {len(shards):,}; {MANIFEST} lists all." if len(shards) > SHOWN_SHARDS else ""
    head = ("shard", "examples", *(["rows"] if is_packed(contract) else []), "bytes", "SHA-256")
    return Section(
        "Digests",
        terms=[("digest", "SHA-256 of contents: the same corpus, options and seed give the same digest anywhere")],
        tables=[
            Table("SHA-256", "lm", ("of", "digest"), rows),
            Table(f"Shards: {len(shards):,}", "m" + "r" * (len(head) - 2) + "m", head, listed, note, folded=True),
        ],
    )
