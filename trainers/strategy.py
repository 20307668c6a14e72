"""Where a run's devices come from: one place that makes a tf.distribute strategy by name.

To add a strategy, add a function to STRATEGIES (and its name to the choices in config.py, which a test holds equal).
"""

import os
from collections.abc import Callable

import tensorflow as tf

from pipelines.schema import UserError
from trainers.config import LOCAL_TPU, DeviceOptions


def _default(config: DeviceOptions) -> tf.distribute.Strategy:
    """The first GPU where there is one, else the CPU."""
    return tf.distribute.get_strategy()


def _mirrored(config: DeviceOptions) -> tf.distribute.Strategy:
    """All GPUs of this machine; without any, all (logical) CPU devices."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _tpu(config: DeviceOptions) -> tf.distribute.Strategy:
    """The TPU in this machine (a TPU VM), or one by name: a pod slice, whose workers are reached from worker 0.

    `DeviceOptions.environment` must have been in force when TensorFlow was imported.
    """
    name = config.tpu_name()
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=name)
        if name not in LOCAL_TPU:
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, OSError, tf.errors.OpError) as error:
        told = " ".join(str(error).split())[:200]
        raise UserError(
            f"--strategy tpu: the TPU {name!r} can't be reached ({told}): check its name and state, and that the TensorFlow "
            "here is tensorflow-tpu"
        ) from None


STRATEGIES: dict[str, Callable[[DeviceOptions], tf.distribute.Strategy]] = {
    "default": _default,
    "mirrored": _mirrored,
    "tpu": _tpu,
}


def make(config: DeviceOptions) -> tf.distribute.Strategy:
    """The strategy that a configuration names. Raises UserError when its devices aren't there."""
    return STRATEGIES[config.strategy](config)


def compiles(config: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Whether the step is wrapped in tf.function(jit_compile=True): never on a TPU, whose strategy compiles by itself.

    On CPUs XLA gains nothing here and costs seconds at the start: auto leaves it off there.
    """
    if config.strategy == "tpu":
        return False
    return config.jit == "on" or (config.jit == "auto" and bool(tf.config.list_logical_devices("GPU")))


def device_name(strategy: tf.distribute.Strategy) -> str:
    """What the devices call themselves, such as "NVIDIA A100-SXM4-40GB", "TPU v5 lite" or "CPU"."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"


def check_batch(strategy: tf.distribute.Strategy, batch_size: int, parts: int) -> int:
    """Examples per device and part of a batch. Raises UserError when the batch can't be divided."""
    replicas = strategy.num_replicas_in_sync
    if batch_size % (replicas * parts):
        what = f"{replicas} devices" if parts == 1 else f"{replicas} devices x {parts} gradient accumulation steps"
        raise UserError(f"--batch-size {batch_size} can't be divided by {what}: give a multiple of {replicas * parts}")
    return batch_size // (replicas * parts)
