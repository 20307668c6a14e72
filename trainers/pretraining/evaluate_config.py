"""The options of `evaluate`."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.options import INPUT, NEW, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import OverwriteOption
from clozemill.trainers.common.config import EngineOptions


@dataclass(frozen=True)
class EvaluateConfig(OverwriteOption, EngineOptions):
    """`clozemill evaluate`"""

    run: str = option("", "the folder of a run, or one of its checkpoints", flag=False, group=INPUT, required=True, path=READ)
    data: str = option("", "a dataset of clozemill prepare; its eval split is used", group=INPUT, required=True, path=READ)
    checkpoint: str = option(
        "",
        "which checkpoint of the run to use; default: the latest, of a fine-tuned model the best",
        choices=("latest", "best"),
        group=INPUT,
    )
    batch_size: int = option(
        64,
        "examples or packed rows per batch, across all devices; doesn't change the results",
        low=1,
        high=1 << 20,
        group=RUNNING,
    )
    output: str = option("", "also write the metrics to this file, as JSON", group=OUTPUT, path=NEW)
