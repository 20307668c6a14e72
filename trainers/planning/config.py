"""The training options of `plan` (a recipe or a size, the TPU, and assumptions about it), and the options of `preflight`.

deploy/plan.py joins the former with pipelines/estimate/config.py.
"""

from dataclasses import dataclass, fields, replace
from typing import ClassVar, Protocol

from clozemill.model.config import ACTIVATIONS, PRECISIONS, PRESETS
from clozemill.pipelines.command_line.options import INPUT, READ, option
from clozemill.trainers.common.config import ATTENTION_KERNELS, OPTIMIZER_NAMES
from clozemill.trainers.common.peak_flops import GPUS
from clozemill.trainers.pretraining.config import AUTO, OBJECTIVES, PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Phase

_DEFAULTS = {field.name: field.default for field in fields(PretrainConfig)}
_PLANNED = ("preset", "objective", "steps", "batch_size", "gradient_accumulation_steps", "phases")


@dataclass(frozen=True)
class TrainingPlan:
    """The options of `pretrain` that determine how long it takes, with the same names and defaults."""

    RECIPES: ClassVar = {  # reduced to the options that matter here
        name: replace(recipe, options={key: value for key, value in recipe.options.items() if key in _PLANNED})
        for name, recipe in RECIPES.items()
    }

    recipe: str = option("", "recipe of clozemill pretrain; other flags override it", choices=tuple(RECIPES))
    phases: tuple[Phase, ...] = option((), "phases of training, each with its own steps and batch size", identity=False)
    preset: str = option(AUTO, "size of the encoder; auto: base, or with --budget those that suit it", choices=(AUTO, *PRESETS))
    objective: str = option("mlm+nsp", "pretraining objective", choices=OBJECTIVES)
    steps: int = option(_DEFAULTS["steps"], "weight updates, over all phases", low=1, high=1 << 30)
    batch_size: int = option(256, "examples or packed rows per update, across all devices", low=1, high=1 << 20)
    gradient_accumulation_steps: int = option(
        1, "number of micro-batches that each device's batch is split into", low=1, high=1 << 16
    )
    topology: str = option("v5e:2x2", "TPU generation and shape", identity=False)
    utilisation: float = option(
        0.4, "assumed fraction of the chips' or GPUs' peak FLOP/s that training reaches", low=0.01, high=1, identity=False
    )
    input_rate: float = option(
        0.0, "examples per second that a host can read; 0: as measured on one core, 89,000 of 128 tokens", low=0, identity=False
    )
    price_chip_hour: float = option(0.0, "price of one TPU chip-hour (0: leave costs out)", low=0, identity=False)
    gpu_type: str = option("A100", "type of the GPUs of --target gpu", choices=GPUS, identity=False)
    num_gpus: int = option(1, "number of GPUs of --target gpu", low=1, high=1 << 16, identity=False)
    price_gpu_hour: float = option(0.0, "price of one GPU-hour (0: leave costs out)", low=0, identity=False)


class BudgetPlan(Protocol):
    """What `plan --budget` needs of its options, which are those of BudgetOptions, TrainingPlan and an output file."""

    budget: str
    data: tuple[str, ...]
    pilot_share: float
    preset: str
    output: str
    overwrite: bool


@dataclass(frozen=True)
class BudgetOptions:
    """The options of `plan --budget`."""

    budget: str = option(
        "",
        "time to train on this machine, such as 30m, 2h or 1.5d: recommends size, steps and data from short runs on --data",
        identity=False,
    )
    data: tuple[str, ...] = option(
        (),
        "prepared datasets that --budget chooses from, such as several lengths or vocabularies",
        identity=False,
        metavar="DATASET",
        group=INPUT,
        required="with --budget",
        path=READ,
    )
    pilot_share: float = option(
        0.1, "with --budget: the time that the short runs take, as a share of it", low=0.001, high=1, identity=False
    )


@dataclass(frozen=True)
class PreflightConfig:
    """`clozemill preflight`"""

    topology: str = option("v5e:2x2", "TPU generation and shape")
    preset: str = option("base", "size of the encoder", choices=tuple(PRESETS))
    vocab_size: int = option(30522, "size of the vocabulary", low=16, high=1 << 20)
    max_seq_length: int = option(128, "tokens per example, or per row of a packed dataset", low=8, high=65536)
    max_predictions: int = option(0, "masked positions per example or row; 0: 15 % of the tokens", low=0, high=65536)
    examples_per_row: int = option(
        0, "largest number of examples in a row of a packed dataset (max_examples in dataset.json); 0: not packed",
        low=0, high=4096
    )  # fmt: skip
    batch_size: int = option(32, "examples or rows per chip (v2, v3: per core)", low=1, high=1 << 20)
    objective: str = option("mlm+nsp", "pretraining objective", choices=OBJECTIVES)
    precision: str = option("bfloat16", "precision of the activations", choices=tuple(PRECISIONS))
    optimizer: str = option("adamw", "optimizer", choices=OPTIMIZER_NAMES)
    hidden_act: str = option(AUTO, "activation function; auto: that of the preset", choices=(AUTO, *ACTIVATIONS))
    dropout: float | None = option(
        None, "dropout rate of hidden activations (default: what suits the size, as in pretrain)", low=0, high=0.9
    )
    attention_dropout: float | None = option(
        None, "dropout rate of attention probabilities (default: what suits the size, as in pretrain)", low=0, high=0.9
    )
    attention_kernel: str = option(
        "auto", "compute attention without dropout with the TPU's kernel, where it can; plain: never", choices=ATTENTION_KERNELS
    )
    remat: bool = option(False, "recompute activations in the backward pass")
    largest_batch: bool = option(True, "search for the largest batch that fits (needs a few more compilations)")
