"""What `clozemill plan` has to know of training: a recipe or a size, the TPU, and what is assumed of it.

clozemill.py joins it with pipelines/estimate/config.py.
"""

from dataclasses import dataclass, fields, replace
from typing import ClassVar

from clozemill.model.config import ACTIVATIONS, PRECISIONS, PRESETS
from clozemill.pipelines.command_line.options import option
from clozemill.trainers.pretraining import config
from clozemill.trainers.pretraining.config import OBJECTIVES, PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Phase

_DEFAULTS = {field.name: field.default for field in fields(PretrainConfig)}
_PLANNED = ("preset", "objective", "steps", "batch_size", "gradient_accumulation_steps", "phases")


@dataclass(frozen=True)
class TrainingPlan:
    """The options of `pretrain` that decide how long it takes, with its names and defaults."""

    RECIPES: ClassVar = {  # cut down to the options that matter here
        name: replace(recipe, options={key: value for key, value in recipe.options.items() if key in _PLANNED})
        for name, recipe in RECIPES.items()
    }

    recipe: str = option("", "a recipe of clozemill pretrain; other flags override it", choices=tuple(RECIPES))
    phases: tuple[Phase, ...] = option((), "steps with a batch size of their own", identity=False)
    preset: str = option("", "the encoder's size; default: base", choices=tuple(PRESETS))
    objective: str = option("mlm+nsp", "what is learnt", choices=OBJECTIVES)
    steps: int = option(_DEFAULTS["steps"], "updates of the weights, all phases together", low=1, high=1 << 30)
    batch_size: int = option(_DEFAULTS["batch_size"], "examples per update, over all devices", low=1, high=1 << 20)
    gradient_accumulation_steps: int = option(1, "parts that a device's batch is worked through in", low=1, high=1 << 16)
    topology: str = option("v5e:2x2", "the TPU's generation and shape", identity=False)
    utilisation: float = option(0.4, "assumed share of the chips' peak that training gets", low=0.01, high=1, identity=False)
    input_rate: float = option(
        0.0, "examples a second that a host reads; 0: what one core did, 89,000 of 128 tokens", low=0, identity=False
    )
    price_chip_hour: float = option(0.0, "of a TPU chip; 0: not told", low=0, identity=False)


@dataclass(frozen=True)
class PreflightConfig:
    """`clozemill preflight`"""

    topology: str = option("v5e:2x2", "the TPU's generation and shape")
    preset: str = option("base", "the encoder's size", choices=tuple(PRESETS))
    vocab_size: int = option(30522, "entries of the vocabulary", low=16, high=1 << 20)
    max_seq_length: int = option(128, "tokens per example", low=8, high=65536)
    max_predictions: int = option(0, "masked positions per example; 0: a share of 0.15", low=0, high=65536)
    batch_size: int = option(32, "examples per chip (v2, v3: per core)", low=1, high=1 << 20)
    objective: str = option("mlm+nsp", "what is learnt", choices=config.OBJECTIVES)
    precision: str = option("bfloat16", "of activations", choices=tuple(PRECISIONS))
    optimizer: str = option("adamw", "the update rule", choices=("adamw", "lamb"))
    hidden_act: str = option("gelu_tanh", "the activation", choices=ACTIVATIONS)
    dropout: float = option(0.1, "share of hidden activations dropped", low=0, high=0.9)
    attention_dropout: float = option(0.1, "share of attention probabilities dropped", low=0, high=0.9)
    remat: bool = option(False, "compute activations again in the backward pass")
    largest_batch: bool = option(True, "look for the largest batch that fits (some more compilations)")
