"""The options of `compare`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.trainers.common.config import check_ending


@dataclass(frozen=True)
class CompareConfig(OverwriteOption):
    """`clozemill compare`"""

    runs: tuple[str, ...] = option(
        (),
        "folders of runs of pretrain, of finetune or of contrast; they may be training",
        flag=False,
        metavar="RUN",
        group=INPUT,
        required=True,
        path=READ,
    )
    output: str = option(
        "", "a file for the comparison: .png (curves), .html (curves and table) or .csv (table)", group=OUTPUT, path=NEW
    )

    def check_command(self) -> None:
        """Raise UserError for an output of another kind."""
        check_ending(self.output, (".png", ".html", ".csv"))
