"""`clozemill plan`: combine the estimates of the pipeline and of training, which don't import each other."""

from dataclasses import dataclass

from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.estimate.config import EstimateConfig
from clozemill.trainers.planning.config import TrainingPlan


@dataclass(frozen=True)
class PlanConfig(TrainingPlan, EstimateConfig):
    """`clozemill plan`: the options of the data estimate and of the training estimate."""


def training_targets(config: PlanConfig) -> list[str]:
    """Return where training is estimated: on the named targets, or for a recipe without one on this machine and a TPU."""
    named: list[str] = [target for target in ("local", "gpu", "tpu") if target in config.target]
    if config.recipe and not {"gpu", "tpu"} & set(named):
        named = [*(["local"] if named or not config.target else []), "tpu"]
    return named


def plan(config: PlanConfig) -> None:
    """`clozemill plan`."""
    if config.output:
        check_new_file(config.output, config.overwrite)
    trains = training_targets(config)
    if "tpu" in trains:
        # Report a mistake before anything is read.
        function("clozemill.trainers.common.tpu_generations:parse_topology")(config.topology)
    prepared = function("clozemill.pipelines.estimate.extrapolation:measure")(config)
    training: tuple[list, list, list] = [], [], []
    if trains:
        data = function("clozemill.trainers.planning.estimate:Dataset")(
            prepared.estimates["train examples per copy"],
            int(prepared.estimates["train groups"].estimate),
            config.max_seq_length,
            config.predictions(),
            prepared.basis["vocabulary_size"] if config.vocab else config.vocab_size,
        )
        rate = function("clozemill.trainers.common.matrix_rate:measured_flops")() if "local" in trains else 0.0
        training = function("clozemill.trainers.planning.estimate:estimate")(config, data, trains, rate)
    function("clozemill.pipelines.estimate.report:print_report")(config, prepared, training)
