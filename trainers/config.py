"""What can be configured of training, as pipelines/config.py does for the mill: flags, YAML keys and checks come from here.

To add an option, add a field; to add a recipe, an entry to trainers/recipes.py.
"""

import importlib.metadata
import importlib.util
import math
import os
from dataclasses import dataclass, replace
from typing import ClassVar

from model.config import ACTIVATIONS, PRECISIONS, PRESETS
from pipelines.options import option
from pipelines.schema import UserError
from trainers.recipes import RECIPES, Phase

LOCAL_TPU = ("local",)  # names of a TPU that is in this machine
OBJECTIVES = ("mlm+nsp", "mlm+sop", "mlm", "causal")


@dataclass(frozen=True)
class DeviceOptions:
    """Where it runs."""

    strategy: str = option(
        "default",
        "one device, all GPUs of this machine, those of several machines (pretrain; each has TF_CONFIG), or a TPU",
        choices=("default", "mirrored", "multiworker", "tpu"),
        identity=False,
    )
    tpu: str = option("", "the TPU's name, or local on a TPU VM (default: $TPU_NAME)", identity=False)
    precision: str = option("float32", "of activations; weights stay float32", choices=tuple(PRECISIONS))
    jit: str = option(
        "auto",
        "compile the step with XLA (a TPU always does); auto: all of it on GPUs, on one CPU the updates of the weights alone",
        choices=("auto", "on", "off"),
        identity=False,
    )

    def environment(self) -> dict[str, str]:
        """What has to be in the environment before TensorFlow is imported: where a TPU's library is, or that it isn't used.

        Raises UserError on a machine without tensorflow-tpu: the stock TensorFlow dies when it loads libtpu.
        """
        if self.strategy != "tpu":
            return {}
        if self.tpu_name() not in LOCAL_TPU:  # a pod slice: its workers load the library, the coordinator must not
            return {"TPU_LOAD_LIBRARY": "0"}
        found = importlib.util.find_spec("libtpu")
        if found is None or not any(importlib.metadata.distributions(name="tensorflow-tpu")):
            raise UserError(
                "--strategy tpu needs a TPU VM with tensorflow-tpu and libtpu, or --tpu NAME: they aren't installed here "
                "(deploy/tpu/requirements.txt)"
            )
        library = os.path.join(os.path.dirname(found.origin), "libtpu.so")
        return {"NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": library}

    def tpu_name(self) -> str:
        """--tpu, or $TPU_NAME, or local."""
        return self.tpu or os.environ.get("TPU_NAME", "") or "local"


@dataclass(frozen=True)
class PretrainConfig(DeviceOptions):
    """`clozemill pretrain`"""

    RECIPES: ClassVar = RECIPES

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


@dataclass(frozen=True)
class PreflightConfig:
    """`clozemill preflight`"""

    topology: str = option("v5e:2x2", "the TPU's generation and shape")
    preset: str = option("base", "the encoder's size", choices=tuple(PRESETS))
    vocab_size: int = option(30522, "entries of the vocabulary", low=16, high=1 << 20)
    max_seq_length: int = option(128, "tokens per example", low=8, high=65536)
    max_predictions: int = option(0, "masked positions per example; 0: a share of 0.15", low=0, high=65536)
    batch_size: int = option(32, "examples per chip (v2, v3: per core)", low=1, high=1 << 20)
    objective: str = option("mlm+nsp", "what is learnt", choices=OBJECTIVES)
    precision: str = option("bfloat16", "of activations", choices=tuple(PRECISIONS))
    optimizer: str = option("adamw", "the update rule", choices=("adamw", "lamb"))
    hidden_act: str = option("gelu_tanh", "the activation", choices=ACTIVATIONS)
    dropout: float = option(0.1, "share of hidden activations dropped", low=0, high=0.9)
    attention_dropout: float = option(0.1, "share of attention probabilities dropped", low=0, high=0.9)
    remat: bool = option(False, "compute activations again in the backward pass")
    largest_batch: bool = option(True, "look for the largest batch that fits (some more compilations)")
