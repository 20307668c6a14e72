"""The table of a data card with a row per copy: what the dataset contains."""

from typing import Any

from clozemill.pipelines.common.formatting import share
from clozemill.pipelines.dataset.manifest import copy_rows_of, is_packed, unpacked_padding
from clozemill.pipelines.pages.content import Table


def output_table(contract: dict[str, Any]) -> Table:
    """Return the table of copies, with the padding of their records; if packed, also without packing."""
    packed, copies = is_packed(contract), []
    for name, split in contract["splits"].items():
        for copy, counts in split["copies"].items():
            totals = [counts["examples"], *([copy_rows_of(contract, counts)] if packed else [])]
            totals += [counts["tokens"], counts["masked"]]
            cells = [share(counts["padding"], counts["padding"] + counts["tokens"])]
            if packed:
                cells.append(share(unpacked_padding(contract, counts), counts["examples"] * contract["max_seq_length"]))
            copies.append((name, copy, f"{split['documents']:,}", *(f"{count:,}" for count in totals), *cells))
    rows, last = (("rows",), ("padding if not packed",)) if packed else ((), ())
    head = ("split", "copy", "documents", "examples", *rows, "tokens", "masked", "padding", *last)
    return Table("Output", "ll" + "r" * (len(head) - 2), head, copies)
