"""The options of every command that uses devices."""

import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from typing import ClassVar

from clozemill.model.config import PRECISIONS
from clozemill.pipelines.command_line.options import option
from clozemill.pipelines.common.errors import UserError

LOCAL_TPU = ("local",)  # names of a TPU that is in this machine


@dataclass(frozen=True)
class DeviceOptions:
    """Where it runs."""

    SEVERAL_MACHINES: ClassVar = False  # whether the command can run on several, by --strategy multiworker

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
