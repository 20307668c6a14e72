"""Configuration of `clozemill inspect`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.pipelines.common.errors import UserError


@dataclass(frozen=True)
class InspectConfig(OverwriteOption):
    """`clozemill inspect`"""

    dataset: str = option("", "the folder of the dataset", flag=False, group=INPUT, required=True)
    limit: int = option(5, "number of records to show", low=1)
    split: str = option("train", "split to read", choices=("train", "eval"), group=INPUT)
    copy: int = option(0, "copy of the train split to read", low=0, group=INPUT)
    group: int = option(0, "number of the shard to read", low=0, group=INPUT)
    offset: int = option(0, "number of records to skip", low=0)
    id: str = option("", "show the documents with this id, and their records in all shards (see prepare --id-field)")
    html: str = option(
        "", "write the records to this HTML file instead, with masks and segments in colour", group=OUTPUT, path=NEW
    )
    report: bool = option(
        False, "write the data card (report.html and report.md) again, instead of showing records", group=OUTPUT
    )

    def validate(self) -> None:
        """Raise UserError for a page with another ending: --overwrite must not replace other files."""
        if self.html and not self.html.endswith((".html", ".htm")):
            raise UserError(f"--html {self.html} is not the name of an HTML file: give a name that ends in .html")
