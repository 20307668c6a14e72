"""`clozemill plan`: combine the estimates of the pipeline and of training, which don't import each other."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.estimate.config import MillPlan
from clozemill.trainers.tpu.config import TrainingPlan


@dataclass(frozen=True)
class PlanConfig(TrainingPlan, MillPlan):
    """`clozemill plan`: the options of the data estimate and of the training estimate."""


def plan(config: PlanConfig) -> None:
    """`clozemill plan`."""
    trains = "tpu" in config.target or config.recipe
    if trains:
        function("clozemill.trainers.tpu.generations:parse")(config.topology)  # report a mistake before anything is read
    mill = function("clozemill.pipelines.estimate.extrapolation:measure")(config)
    training: tuple[list, list, list] = [], [], []
    if trains:
        data = function("clozemill.trainers.tpu.estimate:Dataset")(
            mill.figures["train examples per copy"],
            int(mill.figures["train groups"].estimate),
            config.max_seq_length,
            config.predictions(),
            mill.about["vocabulary_size"] if config.vocab else config.vocab_size,
        )
        training = function("clozemill.trainers.tpu.estimate:estimate")(config, data)
    function("clozemill.pipelines.estimate.report:tell")(config, mill, training)
