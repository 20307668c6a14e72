"""The options of `pretrain`: flags, YAML keys and checks are derived from the fields here.

To add an option, add a field; to add a recipe, add an entry to trainers/pretraining/recipes.py.
"""

import math
import os
from dataclasses import dataclass, replace
from typing import ClassVar

from clozemill.model.config import ACTIVATIONS, GENERATOR_SIZE, PRECISIONS, PRESETS
from clozemill.pipelines.command_line.options import INPUT, OUTPUT, READ, RUNNING, option
from clozemill.pipelines.command_line.overwriting import START_OVER, overwrite_option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import filesystem
from clozemill.trainers.common.config import OPTIMIZER_NAMES, TrainingOptions, check_run_folder
from clozemill.trainers.pretraining.recipes import OBJECTIVES, RECIPES, Part, Phase, complete_phases, mixed_by_recipe
from clozemill.trainers.training import eval_set_names

AUTO = "auto"
SCHEDULE_NAMES = ("linear", "cosine", "wsd")


@dataclass(frozen=True)
class PretrainConfig(TrainingOptions):
    """`clozemill pretrain`"""

    RECIPES: ClassVar = RECIPES
    SEVERAL_MACHINES: ClassVar = True

    precision: str = option(
        "auto",
        "precision of the activations; weights stay float32; auto: bfloat16 where the device is faster with it",
        choices=("auto", *PRECISIONS),
        group=RUNNING,
    )
    recipe: str = option(
        "", "named set of options, which says at the start what to expect; other flags override it", choices=tuple(RECIPES)
    )
    data: tuple[str, ...] = option(
        (),
        "datasets of clozemill prepare, one per phase (--recipe continue: domain, then general text)",
        identity=False,
        metavar="DATASET",
        group=INPUT,
        required="unless phases or --branch-from",
        path=READ,
    )
    eval_data: tuple[str, ...] = option(
        (),
        "further eval sets: every evaluation reports the model on the eval splits of these datasets too",
        identity=False,
        metavar="NAME=DATASET",
        group=INPUT,
    )
    phases: tuple[Phase, ...] = option(
        (),
        "phases of training, each with its own dataset, steps, batch size, learning rate and objective",
        identity=False,
        group=INPUT,
    )
    output: str = option("", "the folder of the run", identity=False, group=OUTPUT, required=True)
    overwrite: bool = overwrite_option(START_OVER)
    init: str = option("", "start from the weights and sizes of this run, checkpoint or import", identity=False, group=INPUT)
    average_with_init: float = option(
        0.0, "share of the weights of --init in the result, which is averaged with them after the last step", low=0, high=1
    )
    branch_from: str = option(
        "",
        "continue this run or checkpoint of the schedule wsd from its stable part, with its options and data, and decay until "
        "--steps",
        identity=False,
        group=INPUT,
        path=READ,
    )
    preset: str = option(
        "auto",
        "size of the encoder; auto: that of --init, or chosen for the device and the data",
        choices=("auto", *PRESETS),
    )
    objective: str = option("mlm+nsp", "pretraining objective", choices=OBJECTIVES)
    generator_size: float = option(
        GENERATOR_SIZE, "width of the generator of the objective rtd, as a fraction of the encoder's", low=0.01, high=1
    )
    masks: str = option(
        "static",
        "masks of the train split: those of the dataset, or fresh ones in every epoch, drawn by its policy",
        choices=("static", "fresh"),
    )
    masked_lm_prob_schedule: str = option(
        "",
        "falling fraction of masked tokens, at most that of the dataset: 0.3:0.15, or 0.3:0.15@0.5 to change once, half-way "
        "(default: that of the dataset)",
    )
    attention: str = option(
        "auto",
        "attention mask; auto: causal for the objective causal, else bidirectional",
        choices=("auto", "bidirectional", "causal"),
    )
    segment_embeddings: bool = option(
        False, "give a modern encoder segment embeddings; transformers can't load it then (BERT always has them)"
    )
    hidden_act: str = option(
        AUTO,
        "activation function; auto: that of the preset, gelu_tanh as in google-research/bert or gelu_erf as in ModernBERT",
        choices=(AUTO, *ACTIVATIONS),
    )
    dropout: float | None = option(
        None,
        "dropout rate of hidden activations (default: 0.1; 0 for narrow and for modern encoders)",
        low=0,
        high=0.9,
    )
    attention_dropout: float | None = option(
        None,
        "dropout rate of attention probabilities; 0: fused attention (default: 0.1; 0 for narrow and for modern encoders)",
        low=0,
        high=0.9,
    )
    max_position_embeddings: int = option(512, "longest sequence that the model accepts", low=8, high=65536)
    initializer_range: float | None = option(
        None, "standard deviation of the initial weights (default: 0.02; 0.06 to 0.08 for narrow BERTs)", low=0, high=1
    )
    steps: int = option(1000, "weight updates, over all phases", low=1, high=1 << 30)
    batch_size: int | None = option(
        None,
        "examples or packed rows per update, across all devices (default: chosen for the device and the data)",
        low=1,
        high=1 << 20,
    )
    gradient_accumulation_steps: int | None = option(
        None,
        "number of micro-batches that each device's batch is split into (default: chosen for the memory)",
        low=1,
        high=1 << 16,
    )
    optimizer: str = option(
        "adamw", "optimizer; muon is for the matrices of the layers, with adamw for the rest", choices=OPTIMIZER_NAMES
    )
    learning_rate: float | None = option(
        None,
        "peak learning rate (default: chosen for the size of the encoder and the optimizer; half with --init)",
        low=0,
        high=100,
    )
    warmup_steps: int = option(-1, "warm-up steps of the learning rate; -1: a tenth of all steps", low=-1, high=1 << 30)
    schedule: str = option(
        "linear",
        "how the learning rate falls after the warm-up; wsd: it stays, then falls by 1 - sqrt over the last --decay-steps",
        choices=SCHEDULE_NAMES,
    )
    decay_steps: int = option(
        -1,
        "steps of the decay of --schedule wsd; 0: none, as for a trunk of --branch-from; -1: a fifth of all steps",
        low=-1,
        high=1 << 30,
    )
    weight_decay: float | None = option(
        None,
        "weight decay of all weights except biases and LayerNorm (default: 0.01; 0.05 for narrow BERTs)",
        low=0,
        high=10,
    )
    clip_norm: float | None = option(
        None, "clip the global norm of the gradients to this; 0: no clipping (default: 1; 0 with stable-adamw)", low=0
    )
    remat: bool = option(False, "recompute activations in the backward pass: less memory, a third more computation")
    seed: int = option(
        0, "random seed of the initial weights, the order of examples, dropout and fresh masks", low=0, high=2**63 - 1
    )
    steps_per_call: int = option(
        10,
        "training steps per host call; signals are handled between calls",
        low=1,
        high=1 << 16,
        identity=False,
        group=RUNNING,
    )
    checkpoint_steps: int = option(
        1000, "save a checkpoint every this many steps; 0: off", low=0, high=1 << 30, identity=False, group=RUNNING
    )
    checkpoint_minutes: float = option(
        30.0, "save a checkpoint every this many minutes; 0: off", low=0, identity=False, group=RUNNING
    )
    keep_checkpoints: int = option(
        3,
        "number of newest checkpoints to keep, besides the best one; evaluations save some too",
        low=1,
        high=1000,
        identity=False,
        group=RUNNING,
    )
    eval_steps: int | None = option(
        None,
        "evaluate (and save) every this many steps; 0: at the end (default: up to ten times per run)",
        low=0,
        high=1 << 30,
        identity=False,
        group=RUNNING,
    )
    eval_examples: int = option(
        0, "eval examples per evaluation during training (about, if packed); 0: all", low=0, identity=False, group=RUNNING
    )
    log_steps: int = option(100, "log metrics every this many steps", low=1, high=1 << 30, identity=False, group=RUNNING)

    def required(self) -> tuple[str, ...]:
        """Return the options that can't be left out."""
        return ("output",) if self.phases or self.branch_from else ("data", "output")

    def check_command(self) -> None:
        """Raise UserError for values and folders that can't be used, as far as that needs no TensorFlow."""
        if not self.branch_from:
            self.resolved_phases()
        self.eval_sets()
        check_run_folder(self.output)
        resumed = not self.overwrite and os.path.lexists(os.path.join(self.output, "run.json"))  # needs --init no more
        if self.init and not (resumed or filesystem.is_remote(self.init) or os.path.lexists(self.init)):
            raise UserError(f"--init {self.init} doesn't exist: give a run, checkpoint or import")

    def _mixed(self) -> tuple[Part, ...]:
        """Return the datasets of --data that the recipe mixes in the run's only phase, or ()."""
        return () if self.phases else mixed_by_recipe(self.recipe, self.data)

    def eval_sets(self) -> dict[str, str]:
        """Return the further eval sets by name: those of `eval_data`, and the general text of a recipe that mixes it in.

        Raises UserError for a name that can't be used.
        """
        mixed = self._mixed()
        found = {"general": mixed[1].data} if mixed else {}
        return found | eval_set_names.parse(self.eval_data)

    def resolved_phases(self) -> tuple[Phase, ...]:
        """Return the phases, completed with the run's own options. A batch size of 0 is still to be chosen.

        Raises UserError when datasets and phases don't match.
        """
        mixed = self._mixed()
        own = ((Phase(data=mixed, steps=self.steps),), ()) if mixed else (self.phases, self.data)
        return tuple(
            replace(phase, batch_size=phase.batch_size or self.batch_size or 0, objective=phase.objective or self.objective)
            for phase in complete_phases(*own, self.steps)
        )

    def warmup(self, steps: int) -> int:
        """Return the warm-up steps of a schedule of `steps`: a tenth, also if that of the recipe leaves no steps after it."""
        recipe = RECIPES[self.recipe].options.get("warmup_steps") if self.recipe else None
        open_ = self.warmup_steps < 0 or (self.warmup_steps == recipe and self.warmup_steps >= steps)
        return min(steps, math.ceil(steps / 10) if open_ else self.warmup_steps)

    def decay(self, steps: int) -> int:
        """Return the decay steps of a schedule of `steps`; 0 if it isn't wsd."""
        return 0 if self.schedule != "wsd" else min(steps, math.ceil(steps / 5) if self.decay_steps < 0 else self.decay_steps)

    def check_schedule(self, steps: int) -> None:
        """Raise UserError if a warm-up or a decay that the user gave is longer than the schedule of `steps`."""
        recipe = RECIPES[self.recipe].options if self.recipe else {}
        if self.warmup_steps > steps and recipe.get("warmup_steps") != self.warmup_steps:
            raise UserError(
                f"--warmup-steps {self.warmup_steps} is longer than the run of {steps:,} steps: give fewer, or leave it out to "
                "warm up for a tenth of them"
            )
        if self.decay_steps > steps - self.warmup(steps) and recipe.get("decay_steps") != self.decay_steps:
            raise UserError(
                f"--decay-steps {self.decay_steps} is longer than the run of {steps:,} steps without its warm-up of "
                f"{self.warmup(steps):,}: give fewer, or leave it out to decay over a fifth of them"
            )

    def objectives(self) -> tuple[str, ...]:
        """Return the objective of each phase. The last one is that of the resulting model."""
        return tuple(phase.objective or self.objective for phase in self.phases) or (self.objective,)

    def resolved_attention(self) -> str:
        """Return the attention of the resulting model, "bidirectional" or "causal"; a causal phase masks more by itself."""
        default = "causal" if self.objectives()[-1] == "causal" else "bidirectional"
        return default if self.attention == "auto" else self.attention

    def _mask_options(self) -> str:
        """Return the first option that is given for masks, not by a recipe, or ""."""
        recipe = RECIPES[self.recipe].options if self.recipe else {}
        fresh = self.masks == "fresh" != recipe.get("masks")
        schedule = self.masked_lm_prob_schedule not in ("", recipe.get("masked_lm_prob_schedule"))
        return "--masks fresh" if fresh else "--masked-lm-prob-schedule" * schedule

    def validate(self) -> None:
        """Raise UserError for values that contradict each other."""
        if self.recipe and RECIPES[self.recipe].needs_init and not self.init and self.output:
            raise UserError(f"--recipe {self.recipe} needs --init: give the run, checkpoint or import to continue")
        if self.average_with_init and not (self.init or self.branch_from) and self.output:
            raise UserError("--average-with-init has no effect without --init: give both, or leave it out")
        if self.objectives()[-1] == "causal" and self.attention == "bidirectional":
            raise UserError(
                "--objective causal with --attention bidirectional would let the model see the answers: leave --attention out"
            )
        longest = max([self.decay_steps, *(phase.decay_steps for phase in self.phases)])
        if longest >= 0 and self.schedule != "wsd" and not self.branch_from:
            name = "--decay-steps" if self.decay_steps >= 0 else "decay_steps of a phase"
            raise UserError(f"{name} has no effect with --schedule {self.schedule}: give --schedule wsd, or leave it out")
        if self.branch_from and self.output and os.path.abspath(self.branch_from) == os.path.abspath(self.output):
            raise UserError(f"--branch-from {self.branch_from} is --output as well: give a new folder as --output")
        if unused := self._mask_options() if set(self.objectives()) == {"causal"} else "":
            raise UserError(f"{unused} has no effect with --objective causal, which uses no masks: leave it out")
        if self.generator_size != GENERATOR_SIZE and "rtd" not in self.objectives():
            raise UserError("--generator-size has no effect without the objective rtd: leave it out")
        total, own = sum(phase.steps for phase in self.phases), RECIPES[self.recipe].options if self.recipe else {"phases": ()}
        for name in ("batch_size", "learning_rate", "objective", "steps") if self.phases and "phases" in own else ():
            given, default = getattr(self, name), type(self).__dataclass_fields__[name].default
            if given not in (default, total, own.get(name)) and all(getattr(phase, name) for phase in self.phases):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} {given} has no effect because every phase has its own: change it in phases")
