"""A dataset's figures as text, from its manifest."""

from typing import Any


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"


def summary_lines(manifest: dict[str, Any], run: dict[str, Any] | None) -> list[str]:
    """The summary that `prepare` prints: what was read, kept and dropped, and what the examples are like."""
    documents = manifest["documents"]
    dropped = [f"{count:,} {reason}" for reason, count in documents["dropped"].items()]
    if documents["duplicates"]:
        dropped.append(f"{documents['duplicates']:,} exact duplicates")
    lines = [
        f"documents   {documents['read']:,} read, {documents['kept']:,} kept; dropped: {', '.join(dropped) or 'none'}",
        f"text        {documents['characters'] / 1e6:,.1f} M characters, {documents['sentences']:,} sentences, "
        f"{documents['tokens']:,} tokens, [UNK] {_share(documents['unknown_tokens'], documents['tokens'])}",
    ]
    for name, split in manifest["splits"].items():
        lines.append(f"{name:<12}{split['documents']:,} documents, {split['examples']:,} examples")
        for copy, counts in split["copies"].items():
            lines.append(f"  copy {copy}   " + _copy_line(counts, manifest["config"]["pairs"]))
    if run:
        lines += [
            "",
            f"{'stage':<12}{'seconds':>9}{'MB/s':>9}   (seconds of all workers; MB of clean text, from pairs on of shards)",
        ]
        for stage, figures in run["stages"].items():
            rate = figures["mb"] / figures["seconds"] if figures["seconds"] else 0.0
            lines.append(f"{stage:<12}{figures['seconds']:>9.2f}{rate:>9.1f}")
        lines.append(
            f"{'all':<12}{run['seconds']:>9.2f}{run['input_mb'] / run['seconds']:>9.1f}   (wall clock; MB of input on disk)"
        )
    return [*lines, "", f"digest      {manifest['digest']}"]


def _copy_line(counts: dict[str, int], pairs: str) -> str:
    masked = counts["masked"]
    parts = [
        f"{counts['examples']:,} examples",
        f"masked {_share(masked, counts['tokens'])} of tokens ("
        + " / ".join(_share(counts[f"masked_as_{how}"], masked) for how in ("mask", "random", "kept"))
        + " [MASK] / random / kept)",
    ]
    if pairs != "single":
        what = "random next" if pairs == "nsp" else "swapped"
        forced = f" ({counts['forced_random']:,} forced by chunks of one sentence)" if counts["forced_random"] else ""
        parts.append(f"{what} {_share(counts['labels_random'], counts['examples'])}{forced}")
    parts.append(f"padding {_share(counts['padding'], counts['padding'] + counts['tokens'])}")
    if counts["chunks_dropped"]:
        parts.append(f"{counts['chunks_dropped']:,} chunks gave no pair")
    return ", ".join(parts)


def print_summary(manifest: dict[str, Any], run: dict[str, Any] | None) -> None:
    """Prints summary_lines."""
    print("\n".join(summary_lines(manifest, run)), flush=True)
