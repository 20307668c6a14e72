"""Configuration of `clozemill verify`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, OUTPUT, RUNNING, option


@dataclass(frozen=True)
class VerifyConfig:
    """`clozemill verify`"""

    dataset: str = option("", "the folder of the dataset", flag=False, group=INPUT, required=True)
    max_lines: int = option(20, "maximum number of violations to print (all are counted)", low=1, group=OUTPUT)
    gate: bool = option(
        True, "check the statistical gate; --no-gate accepts a dataset that was prepared with --no-gate and fails it"
    )
    num_workers: int = option(0, "number of processes (0: one per core)", low=0, high=1024, group=RUNNING)
    progress: bool = option(True, "show a progress bar", group=RUNNING)
