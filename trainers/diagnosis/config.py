"""The options of `doctor`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.trainers.common.config import check_ending


@dataclass(frozen=True)
class DoctorConfig(OverwriteOption):
    """`clozemill doctor`"""

    run: str = option(
        "", "the folder of a run of pretrain or finetune; it may be training", flag=False, group=INPUT, required=True, path=READ
    )
    output: str = option("", "a file for the findings: .json", group=OUTPUT, path=NEW)

    def check_command(self) -> None:
        """Raise UserError for an output of another kind."""
        check_ending(self.output, (".json",))
