"""`clozemill plan`: combine the estimates of the pipeline and of training, which don't import each other."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

from clozemill.pipelines.command_line.lazy_import import function
from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.common.formatting import enumerated
from clozemill.pipelines.estimate.config import EstimateConfig
from clozemill.trainers.planning.config import BudgetOptions, TrainingPlan

# Options that say what to train.
_OF_TRAINING = ("preset", "objective", "steps", "batch_size", "gradient_accumulation_steps", "phases")
_OF_BUDGET = [field.name for field in fields(BudgetOptions)]
_WITH_BUDGET = [*_OF_BUDGET, "preset", "output", "overwrite", "progress"]


@dataclass(frozen=True)
class PlanConfig(BudgetOptions, TrainingPlan, EstimateConfig):
    """`clozemill plan`: the options of the data estimate and of the training estimate."""

    def required(self) -> tuple[str, ...]:
        """Return the options that can't be left out."""
        return ("data",) if self.budget or self.data else ("input",)

    def check_command(self) -> None:
        """Raise UserError for options of one kind of plan that were given for the other."""
        if self.budget:
            function("clozemill.trainers.planning.budget:parse_budget")(self.budget)
        every = {field.name: field.default for field in fields(self)}
        for name in [name for name in every if name not in _WITH_BUDGET] if self.budget else _OF_BUDGET:
            if getattr(self, name) != every[name]:
                how = "it plans the training on --data alone" if self.budget else "it is for --budget"
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} has no effect {'with' if self.budget else 'without'} --budget: {how}; leave it out")


def training_targets(config: PlanConfig) -> list[str]:
    """Return where training is estimated.

    On the named targets; without one, on this machine if an option of training is given, and for a recipe also on a TPU.
    """
    named: list[str] = [target for target in ("local", "gpu", "tpu") if target in config.target]
    if not config.target and any(getattr(config, name) != getattr(PlanConfig, name) for name in _OF_TRAINING):
        named = ["local"]
    if config.recipe and not {"gpu", "tpu"} & set(named):
        named = [*(["local"] if named or not config.target else []), "tpu"]
    return named


def cost_notes(config: PlanConfig, trains: Sequence[str]) -> list[str]:
    """Return what the costs leave out, and the options that add it.

    Args:
        trains: where training is estimated, from `training_targets`.
    """
    prices = {"--price-cpu-hour": config.price_cpu_hour, "--price-gb-month": config.price_gb_month}
    prices |= {"--price-chip-hour": config.price_chip_hour} if "tpu" in trains else {}
    prices |= {"--price-gpu-hour": config.price_gpu_hour} if "gpu" in trains else {}
    missing = [name for name, price in prices.items() if not price]
    if len(missing) == len(prices):
        return [f"costs are left out: give {enumerated(missing)} to add them"]
    found = ["the total cost includes a month of storage"] if config.price_gb_month else []
    return found + ([f"the total cost leaves out what has no price: give {enumerated(missing)} to add it"] if missing else [])


def total_costs(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Return the sum of all costs; with training on TPUs and on GPUs, which are alternatives, one sum for each."""
    costs = [row for row in estimates if row.unit == "price"]
    training = [row for row in costs if row.name.startswith("cost of training")]
    data = [row for row in costs if row not in training]
    found = []
    lasts: list[Estimate | None] = [*training] or [None] * bool(data)
    for last in lasts:
        rows = [*data, *([last] if last else [])]
        name = f"total {last.name.replace('of', 'with', 1)}" if last and len(training) > 1 else "total cost"
        sums = (sum(getattr(row, part) for row in rows) for part in ("estimate", "low", "high"))
        found.append(Estimate(name, "price", *sums))
    return found


def plan(config: PlanConfig) -> None:
    """`clozemill plan`."""
    if config.output:
        check_new_file(config.output, config.overwrite)
    if config.budget:
        function("clozemill.trainers.planning.pilots:plan_budget")(config)
        return
    trains = training_targets(config)
    if "tpu" in trains:
        # Report a mistake before anything is read.
        function("clozemill.trainers.common.tpu_generations:parse_topology")(config.topology)
    prepared = function("clozemill.pipelines.estimate.extrapolation:measure")(config)
    training: tuple[list, list, list] = [], [], []
    if trains:
        packed = config.packing == "on"
        data = function("clozemill.trainers.planning.estimate:Dataset")(
            prepared.estimates[f"train {'rows' if packed else 'examples'} per copy"],
            int(prepared.estimates["train groups"].estimate),
            config.max_seq_length,
            prepared.basis["packing"]["max_predictions"] if packed else config.predictions(),
            prepared.basis["vocabulary_size"] if config.vocab else config.vocab_size,
            prepared.basis["packing"]["max_examples"] if packed else 1,
        )
        rate = function("clozemill.trainers.common.matrix_rate:measured_flops")() if "local" in trains else 0.0
        training = function("clozemill.trainers.planning.estimate:estimate")(config, data, trains, rate)
    rows, notes, warnings = training
    rows = [*rows, *total_costs([*prepared.estimates.values(), *rows])]
    notes = [*notes, *cost_notes(config, trains)]
    function("clozemill.pipelines.estimate.report:print_report")(config, prepared, (rows, notes, warnings))
