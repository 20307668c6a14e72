"""The options of every command that uses devices."""

import contextlib
import importlib.metadata
import importlib.util
import json
import os
from dataclasses import dataclass
from typing import ClassVar

from clozemill.model.config import PRECISIONS
from clozemill.pipelines.command_line.options import RUNNING, option
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.files import locks

ENGINE_NAMES = ("tensorflow", "jax")
ATTENTION_KERNELS = ("auto", "plain")
TRACKER_NAMES = ("wandb", "mlflow")
OPTIMIZER_NAMES = ("adamw", "lamb", "muon", "stable-adamw")
LOCAL_TPU = ("local",)  # names for a TPU attached to this machine
# JAX's variables of a process that shares a run: HOST:PORT of process 0, the number of processes, and its own number.
JAX_PROCESS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def check_run_folder(folder: str) -> None:
    """Raise UserError for a local folder that has files, but none that a run begins with: run.json, a lock."""
    names: set[str] = set()
    with contextlib.suppress(OSError):  # not there, or not ours to read: the run itself reports that
        names = set(os.listdir(folder)) - {locks.FOLDER}
    if names and not names & {"run.json", "run.json.tmp"}:
        raise UserError(f"{folder} exists and is not a run: give a new folder as --output")


def check_ending(output: str, endings: tuple[str, ...]) -> None:
    """Raise UserError for an output file with another ending."""
    *others, last = endings
    if output and not output.endswith(endings):
        raise UserError(f"--output {output}: give a name that ends in {', '.join(others)}{' or ' if others else ''}{last}")


def tf_config() -> tuple[list[str], int] | None:
    """Return (addresses of all workers, index of this one) from $TF_CONFIG; None if it is missing or names anything else."""
    try:
        told = json.loads(os.environ["TF_CONFIG"])
        addresses, index = told["cluster"]["worker"], int(told["task"]["index"])
        known = set(told["cluster"]) == {"worker"} and told["task"]["type"] == "worker" and 0 <= index < len(addresses)
    except (KeyError, TypeError, ValueError):
        return None
    return (addresses, index) if known else None


def keras_environment() -> dict[str, str]:
    """Return the environment variables of a command without --engine: Keras runs on JAX where only JAX is installed."""
    alone = importlib.util.find_spec("tensorflow") is None and importlib.util.find_spec("jax") is not None
    return {"KERAS_BACKEND": "jax"} if alone else {}


@dataclass(frozen=True)
class DeviceOptions:
    """The devices that a command runs on."""

    SEVERAL_MACHINES: ClassVar = False  # whether the command supports --strategy multiworker

    strategy: str = option(
        "default",
        "devices to use: one device, all GPUs of this machine, several machines (pretrain; set TF_CONFIG on each), or a TPU",
        choices=("default", "mirrored", "multiworker", "tpu"),
        identity=False,
        group=RUNNING,
    )
    tpu: str = option("", "name of the TPU, or 'local' on a TPU VM (default: $TPU_NAME)", identity=False, group=RUNNING)
    precision: str = option(
        "float32", "precision of the activations; weights stay float32", choices=tuple(PRECISIONS), group=RUNNING
    )
    jit: str = option(
        "auto",
        "compile the step with XLA (always on for TPUs); auto: the complete step on GPUs, only the weight updates on one CPU",
        choices=("auto", "on", "off"),
        identity=False,
        group=RUNNING,
    )

    def environment(self) -> dict[str, str]:
        """Return the environment variables to set before TensorFlow is imported: whether and from where to load libtpu.

        Raises UserError for a TPU that wouldn't be used, and on a machine without tensorflow-tpu: the stock TensorFlow crashes
        when it loads libtpu.
        """
        if self.strategy != "tpu":
            if self.tpu:
                raise UserError(f"--tpu {self.tpu} has no effect without --strategy tpu: give both, or leave it out")
            return {}
        if self.tpu_name() not in LOCAL_TPU:  # a pod slice: its workers load libtpu, the coordinator must not
            return {"TPU_LOAD_LIBRARY": "0"}
        found = importlib.util.find_spec("libtpu")
        if found is None or found.origin is None or not any(importlib.metadata.distributions(name="tensorflow-tpu")):
            raise UserError(
                "--strategy tpu needs tensorflow-tpu and libtpu, and they aren't installed here: run it on a TPU VM, install "
                "deploy/tpu/requirements.txt, or give --tpu NAME"
            )
        library = os.path.join(os.path.dirname(found.origin), "libtpu.so")
        return {"NEXT_PLUGGABLE_DEVICE_USE_C_API": "true", "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": library}

    def tpu_name(self) -> str:
        """Return --tpu, else $TPU_NAME, else 'local'."""
        return self.tpu or os.environ.get("TPU_NAME", "") or "local"


@dataclass(frozen=True)
class EngineOptions(DeviceOptions):
    """The devices of a command that can train on another framework."""

    engine: str = option(
        "tensorflow",
        "framework to run on; results agree up to rounding, and files are the same: jax needs pip install 'clozemill[jax]'",
        choices=ENGINE_NAMES,
        identity=False,
        group=RUNNING,
    )

    attention_kernel: str = option(
        "auto",
        "how --engine jax computes attention without dropout; auto: with the kernel of a TPU or GPU where it has one",
        choices=ATTENTION_KERNELS,
        identity=False,
        group=RUNNING,
    )

    def check_engine(self) -> None:
        """Raise UserError for options that the engine doesn't have, on whatever machine it runs."""
        if self.jit == "off" and self.engine == "jax":
            raise UserError("--jit off contradicts --engine jax, which always compiles: leave it out")
        if self.tpu and self.engine == "jax":
            raise UserError(
                f"--tpu {self.tpu} has no effect with --engine jax, which uses the TPU of its own machine: leave it out"
            )

    def environment(self) -> dict[str, str]:
        """Return the environment variables to set before Keras is imported. Raises UserError for an engine that can't run."""
        self.check_engine()
        backend = os.environ.get("KERAS_BACKEND", self.engine)
        if backend != self.engine:
            raise UserError(
                f"--engine {self.engine} contradicts KERAS_BACKEND={backend} in the environment: unset it, or give --engine "
                f"{backend}"
            )
        if self.engine == "tensorflow":
            if keras_environment():
                raise UserError(
                    "--engine tensorflow, the default, needs TensorFlow, and it isn't installed: give --engine jax, or pip "
                    "install 'clozemill[train]'"
                )
            return super().environment()
        if importlib.util.find_spec("jax") is None:
            raise UserError("--engine jax needs JAX, and it isn't installed: pip install 'clozemill[jax]'")
        return {"KERAS_BACKEND": "jax"}


@dataclass(frozen=True)
class TrainingOptions(EngineOptions):
    """The devices of a command that trains, and where its metrics go."""

    shard_moments: bool = option(
        False,
        "each device keeps a part of the optimizer's moments instead of all, to save memory (--engine jax)",
        identity=False,
        group=RUNNING,
    )
    tensorboard: bool = option(True, "write TensorBoard logs", identity=False, group=RUNNING)
    track: str = option(
        "",
        "experiment tracker to log to as well; its own environment variables say where",
        choices=TRACKER_NAMES,
        identity=False,
        group=RUNNING,
    )
    peak_tflops: float = option(
        0.0,
        "peak TFLOP/s of one device, to compute utilisation; 0: look it up by device name",
        low=0,
        identity=False,
        group=RUNNING,
    )

    def check_engine(self) -> None:
        if self.shard_moments and self.engine != "jax":
            raise UserError("--shard-moments needs --engine jax: give both, or leave it out")
        super().check_engine()
