"""A text summary of a dataset, from its manifest."""

from typing import Any

from clozemill.pipelines.common.formatting import counted, share
from clozemill.pipelines.dataset.dataset_warnings import dataset_warnings
from clozemill.pipelines.dataset.manifest import copy_rows_of, exact_duplicates, is_packed, unpacked_padding

_LEAST_SECONDS = 0.05  # a rate over less time is meaningless


def summary_lines(manifest: dict[str, Any], run: dict[str, Any] | None, rejects: str = "") -> list[str]:
    """Return the summary that `prepare` prints: documents read, kept and dropped, and statistics of the examples.

    rejects: the folder that lists malformed records.
    """
    documents = manifest["documents"]
    dropped = [f"{count:,} {reason}" for reason, count in documents["dropped"].items()]
    if equal := exact_duplicates(manifest):
        dropped.append(f"{equal:,} exact_duplicate")
    lines = [
        f"documents   {documents['read']:,} read, {documents['kept']:,} kept; dropped: {', '.join(dropped) or 'none'}",
        *_rejected(documents["defective"], rejects),
        f"text        {documents['characters'] / 1e6:,.2f} M characters, {counted(documents['sentences'], 'sentence')}, "
        f"{counted(documents['tokens'], 'token')}, [UNK] {share(documents['unknown_tokens'], documents['tokens'])}",
        *(f"{name:<12}{value}" for name, value in id_rows(manifest)),
        "",
        *_copies(manifest),
    ]
    if run and "groups" in run:
        rebuilt, reused = run["groups"]["rebuilt"], run["groups"]["reused"]
        lines += ["", f"groups      {rebuilt:,} rebuilt, {reused:,} reused as they were"]
    if run and "stages" in run:
        lines += ["", *_stages(run, documents["characters"] / 1e6)]
    return [*lines, "", *(f"warning: {line}" for line in dataset_warnings(manifest)), f"digest      {manifest['digest']}"]


def _rejected(count: int, folder: str) -> list[str]:
    """Return a line that says where malformed records are listed; none if there are none."""
    if not count or not folder:
        return []
    return [f"rejected    {counted(count, 'record')} {'was' if count == 1 else 'were'} rejected as malformed: see {folder}/"]


def id_rows(manifest: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, value) rows about the ids of documents; none without --id-field."""
    rows = []
    if "ids" in manifest:
        have = f"{manifest['ids']['documents']:,} of {counted(manifest['documents']['kept'], 'document')}"
        rows.append(("ids", f"{have}, from the field {manifest['ids']['field']}"))
    if "exclusion" in manifest:
        listed, unmatched = manifest["exclusion"]["ids"], manifest["exclusion"]["unmatched"]
        records = counted(manifest["documents"]["dropped"].get("excluded_id", 0), "record")
        rows.append(("excluded", f"{records}; {listed - unmatched:,} of {counted(listed, 'id')} in --exclude-ids found"))
    return rows


def copy_rows(manifest: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return column heads, and a row (split, copy, a cell per head) per copy.

    The shares are of all tokens (masked), of masked positions, of examples, and of all positions. If packed, the last column is
    the padding that the examples would have without packing.
    """
    packed = is_packed(manifest)
    what = {"nsp": "random next", "sop": "swapped", "single": ""}[manifest["config"]["pairs"]]
    heads = ("documents", "examples", "masked", "[MASK]", "random", "kept", *([what, "forced"] if what else []), "padding")
    heads = (*heads[:2], "rows", *heads[2:], "unpacked") if packed else heads
    rows = []
    for name, split in manifest["splits"].items():
        for copy, counts in split["copies"].items():
            masked, examples = counts["masked"], counts["examples"]
            cells = [f"{split['documents']:,}", f"{examples:,}"]
            cells += [f"{copy_rows_of(manifest, counts):,}"] if packed else []
            cells.append(share(masked, counts["tokens"]))
            cells += [share(counts[f"masked_as_{how}"], masked) for how in ("mask", "random", "kept")]
            if what:
                cells += [share(counts["labels_random"], examples), f"{counts['forced_random']:,}"]
            cells.append(share(counts["padding"], counts["padding"] + counts["tokens"]))
            cells += [share(unpacked_padding(manifest, counts), examples * manifest["max_seq_length"])] if packed else []
            rows.append((name, copy, *cells))
    return heads, rows


def _copies(manifest: dict[str, Any]) -> list[str]:
    """Return copy_rows as lines of a table."""
    heads, rows = copy_rows(manifest)
    lines = [" " * 15 + "".join(f"{head:>12}" for head in heads)]
    return lines + [f"{name:<5} copy {copy:<4}" + "".join(f"{cell:>12}" for cell in cells) for name, copy, *cells in rows]


def _stages(run: dict[str, Any], text_mb: float) -> list[str]:
    """Return lines with the seconds of all workers and MB/s per stage."""
    lines = [f"{'stage':<12}{'seconds':>9}{'MB/s':>9}"]
    for stage, figures in run["stages"].items():
        if stage == "wikitext" and figures["seconds"] < _LEAST_SECONDS:
            continue
        measurable = figures["seconds"] >= _LEAST_SECONDS
        rate = f"{figures['mb'] / figures['seconds']:.1f}" if measurable else "-"
        lines.append(f"{stage:<12}{figures['seconds']:>9.2f}{rate:>9}   {figures['of']}")
    overall = text_mb / run["seconds"] if run["seconds"] else 0.0
    return [
        *lines,
        f"{'wall clock':<12}{run['seconds']:>9.2f}{overall:>9.1f}   clean text, with {counted(run['workers'], 'worker')}",
    ]


def print_summary(manifest: dict[str, Any], run: dict[str, Any] | None, rejects: str = "") -> None:
    """Print summary_lines."""
    print("\n".join(summary_lines(manifest, run, rejects)), flush=True)
