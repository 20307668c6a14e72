"""What can be configured of training, as pipelines/config.py does for the mill: flags, YAML keys and checks come from here.

To add an option, add a field; to add a recipe, an entry to trainers/pretraining/recipes.py.
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from clozemill.model.config import ACTIVATIONS, PRESETS
from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.pretraining.recipes import RECIPES, Phase

OBJECTIVES = ("mlm+nsp", "mlm+sop", "mlm", "causal")


@dataclass(frozen=True)
class PretrainConfig(DeviceOptions):
    """`clozemill pretrain`"""

    RECIPES: ClassVar = RECIPES
    SEVERAL_MACHINES: ClassVar = True

    recipe: str = option("", "a set of options with a known outcome; other flags override it", choices=tuple(RECIPES))
    data: tuple[str, ...] = option((), "datasets of clozemill prepare, one per phase", identity=False, metavar="DATASET")
    phases: tuple[Phase, ...] = option((), "steps with a dataset, batch size and learning rate of their own", identity=False)
    output: str = option("", "the run's folder", identity=False)
    init: str = option("", "a run, checkpoint or import whose weights it begins with, in its sizes", identity=False)
    preset: str = option("", "the encoder's size; default: base, or that of --init", choices=tuple(PRESETS))
    objective: str = option("mlm+nsp", "what is learnt", choices=OBJECTIVES)
    attention: str = option(
        "auto", "auto: causal for the objective causal, else bidirectional", choices=("auto", "bidirectional", "causal")
    )
    hidden_act: str = option("gelu_tanh", "the activation; gelu_tanh is google-research/bert's", choices=ACTIVATIONS)
    dropout: float = option(0.1, "share of hidden activations dropped", low=0, high=0.9)
    attention_dropout: float = option(0.1, "share of attention probabilities dropped; 0: fused attention", low=0, high=0.9)
    max_position_embeddings: int = option(512, "the longest sequence that the model will take", low=8, high=65536)
    initializer_range: float = option(0.02, "deviation of the initial weights; narrow models like 0.05 to 0.1", low=0, high=1)
    steps: int = option(1000, "updates of the weights, all phases together", low=1, high=1 << 30)
    batch_size: int = option(256, "examples per update, over all devices", low=1, high=1 << 20)
    gradient_accumulation_steps: int = option(1, "parts that a device's batch is worked through in", low=1, high=1 << 16)
    optimizer: str = option("adamw", "the update rule", choices=("adamw", "lamb"))
    learning_rate: float = option(1e-4, "its peak", low=0, high=100)
    warmup_steps: int = option(-1, "steps from 0 to the peak; -1: a tenth of all", low=-1, high=1 << 30)
    weight_decay: float = option(0.01, "of all but biases and LayerNorm", low=0, high=10)
    clip_norm: float = option(1.0, "the gradients' global norm is cut to this; 0: not", low=0)
    remat: bool = option(False, "compute activations again in the backward pass: less memory, a third more work")
    seed: int = option(0, "of initial weights, order of the examples and dropout", low=0, high=2**63 - 1)
    cycle_length: int = option(8, "shards read at once", low=1, high=1024)
    shuffle_buffer: int = option(10_000, "examples that are shuffled while they pass", low=1, high=1 << 24)
    steps_per_call: int = option(
        10, "steps done on the device before the host looks (and heeds a signal)", low=1, high=1 << 16, identity=False
    )
    checkpoint_steps: int = option(1000, "save every so many steps; 0: not by steps", low=0, high=1 << 30, identity=False)
    checkpoint_minutes: float = option(30.0, "save after so many minutes; 0: not by time", low=0, identity=False)
    keep_checkpoints: int = option(3, "the newest so many are kept, and the best", low=1, high=1000, identity=False)
    eval_steps: int = option(0, "evaluate (and save) every so many steps; 0: at the end", low=0, high=1 << 30, identity=False)
    eval_examples: int = option(0, "examples of the eval split used while training; 0: all", low=0, identity=False)
    log_steps: int = option(100, "a line of figures every so many steps", low=1, high=1 << 30, identity=False)
    tensorboard: bool = option(True, "write scalars for TensorBoard", identity=False)
    peak_tflops: float = option(0.0, "of one device, for utilisation; 0: from a table of known ones", low=0, identity=False)

    def resolved_phases(self) -> tuple[Phase, ...]:
        """The phases with everything filled in from the run's own options; `steps` adds up to the run's.

        Raises UserError when datasets and phases don't match.
        """
        if not self.data and not self.phases:
            raise UserError("--data is missing: give a dataset that clozemill prepare wrote")
        phases = self.phases or tuple(Phase(steps=self.steps if len(self.data) == 1 else 0) for _ in self.data)
        if len(self.data) > len(phases):
            raise UserError(f"--data names {len(self.data)} datasets for {len(phases)} phases: give one per phase")
        filled = []
        for number, phase in enumerate(phases):
            data = phase.data or (self.data[number] if number < len(self.data) else "")
            if not data or not phase.steps:
                what = "dataset: give --data one per phase" if not data else "steps: give phases in --config"
                raise UserError(f"phase {number + 1} has no {what}, or 'phases: [{{data: DATASET, steps: 1000}}, ...]' there")
            filled.append(replace(phase, data=data, batch_size=phase.batch_size or self.batch_size))
        return tuple(filled)

    def warmup(self, steps: int) -> int:
        """Warm-up steps of a schedule of `steps`."""
        return min(steps, math.ceil(steps / 10) if self.warmup_steps < 0 else self.warmup_steps)

    def resolved_preset(self) -> str:
        """The preset's name, "" where the sizes are those of --init."""
        return self.preset or ("" if self.init else "base")

    def resolved_attention(self) -> str:
        """bidirectional or causal."""
        default = "causal" if self.objective == "causal" else "bidirectional"
        return default if self.attention == "auto" else self.attention

    def validate(self) -> None:
        """Raises UserError for values that don't fit each other."""
        if self.objective == "causal" and self.attention == "bidirectional":
            raise UserError("--objective causal with --attention bidirectional would see the answers: leave --attention out")
        ours = self.phases and (not self.recipe or "phases" in RECIPES[self.recipe].options)
        for name in ("batch_size", "learning_rate") if ours else ():
            given, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if given != default and all(getattr(phase, name) for phase in self.phases):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} {given} would change nothing, since every phase has its own: change it in phases")


@dataclass(frozen=True)
class EvaluateConfig(DeviceOptions):
    """`clozemill evaluate`"""

    run: str = option("", "a run's folder, or one of its checkpoints", flag=False)
    data: str = option("", "a dataset of clozemill prepare, of which the eval split is read")
    checkpoint: str = option("latest", "which of a run's checkpoints", choices=("latest", "best"))
    batch_size: int = option(64, "examples at a time, over all devices; it changes nothing else", low=1, high=1 << 20)
    output: str = option("", "write the figures there too, as JSON")
