"""Creates the tf.distribute strategy that a run's devices need, by name.

To add a strategy, add a function to STRATEGIES (and its name to the choices in config.py; a test compares the two).
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import tensorflow as tf

from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.pipelines.files import storage_errors
from clozemill.trainers.common import hardware, memory
from clozemill.trainers.common.config import LOCAL_TPU, DeviceOptions, tf_config

_PATIENCE = 600.0  # seconds that a worker waits for the others in a step; a worker that dies is noticed much sooner


def _default(config: DeviceOptions) -> tf.distribute.Strategy:
    """Use the first GPU if there is one, else the CPU."""
    return tf.distribute.get_strategy()


def _mirrored(config: DeviceOptions) -> tf.distribute.Strategy:
    """Use all GPUs of this machine or, without GPUs, all (logical) CPU devices."""
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])


def _cluster() -> tuple[list[str], int]:
    """Return the addresses of all workers and the index of this one, from TF_CONFIG. Raises UserError."""
    if cluster := tf_config():
        return cluster
    raise UserError(
        "--strategy multiworker needs TF_CONFIG in the environment of each worker: set it to "
        '\'{"cluster": {"worker": ["HOST:PORT", ...]}, "task": {"type": "worker", "index": 0}}\' with the index of the worker'
    )


def _multiworker(config: DeviceOptions) -> tf.distribute.Strategy:
    """Use all GPUs, or the CPU, of several machines, each running the same command with its own TF_CONFIG.

    Only worker 0 writes files; --output must be a folder that all workers can read.
    """
    if not config.SEVERAL_MACHINES:
        raise UserError("--strategy multiworker works with pretrain only: use default or mirrored")
    addresses, index = _cluster()
    print(f"worker {index} of {len(addresses)}, at {addresses[index]}: waiting for the others", flush=True)
    options = tf.distribute.experimental.CommunicationOptions(timeout_seconds=_PATIENCE)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        told = " ".join(str(error).split())[:200]
        kind = UserError if isinstance(error, ValueError) else TemporaryError  # the others may be starting, or be restarted
        raise kind(
            f"worker {index} at {addresses[index]} can't connect to the others ({told}): start the same command on every "
            "worker in TF_CONFIG"
        ) from None


def _tpu(config: DeviceOptions) -> tf.distribute.Strategy:
    """Use the TPU of this machine (a TPU VM), or a TPU by name: a pod slice, whose workers are reached from worker 0.

    The variables of `DeviceOptions.environment` must be set before TensorFlow is imported.
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
        kind = TemporaryError if isinstance(error, tf.errors.OpError) and name not in LOCAL_TPU else UserError
        raise kind(
            f"--strategy tpu: the TPU {name!r} can't be reached ({told}): check its name and state, and that the installed "
            "TensorFlow is tensorflow-tpu"
        ) from None


STRATEGIES: dict[str, Callable[[DeviceOptions], tf.distribute.Strategy]] = {
    "default": _default,
    "mirrored": _mirrored,
    "multiworker": _multiworker,
    "tpu": _tpu,
}


def make_strategy(config: DeviceOptions) -> tf.distribute.Strategy:
    """Return the strategy that a configuration names. Raises UserError if its devices aren't available.

    Prints a remark about GPUs that aren't used. From then on, this process keeps freed memory for reuse (memory.py).
    """
    memory.keep_freed()
    used = len(tf.config.list_physical_devices("GPU"))
    if remark := hardware.gpu_remark(config.strategy, hardware.nvidia_gpus(), used, os.environ.get("CUDA_VISIBLE_DEVICES")):
        print(remark, file=sys.stderr, flush=True)
    return STRATEGIES[config.strategy](config)


def worker_count(config: DeviceOptions) -> int:
    """Return the number of workers of --strategy multiworker, 1 for others. Raises UserError for an invalid TF_CONFIG."""
    return len(_cluster()[0]) if config.strategy == "multiworker" else 1


def worker(strategy: tf.distribute.Strategy) -> tuple[int, int]:
    """Return (index of this process, number of processes); only `multiworker` has more than one. Worker 0 writes files."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return 0, 1
    addresses, index = _cluster()
    return index, len(addresses)


@cache
def _gather(strategy: tf.distribute.Strategy) -> Callable:
    def replica(mine):
        context = tf.distribute.get_replica_context()
        row = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, mine, tf.zeros([], tf.int64))
        return context.all_reduce(tf.distribute.ReduceOp.SUM, row)

    run = lambda mine: strategy.experimental_local_results(strategy.run(replica, args=(mine,)))[0]  # noqa: E731
    return tf.function(run, autograph=False)


def gather_from_workers(strategy: tf.distribute.Strategy, mine: int) -> set[int]:
    """Return the values of all workers. Acts as a barrier: every worker must call it at the same point."""
    if worker(strategy)[1] == 1:
        return {mine}
    return set(_gather(strategy)(tf.constant(mine, tf.int64)).numpy().tolist())


@contextmanager
def raise_if_worker_lost(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raise TemporaryError if another worker dies, or doesn't answer for too long, within the block."""
    try:
        yield
    except tf.errors.OpError as error:
        lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError, tf.errors.CancelledError)
        on_tpu = isinstance(strategy, tf.distribute.TPUStrategy)  # its hosts may be other machines
        alone = worker(strategy)[1] == 1 and not on_tpu
        if (
            alone
            or storage_errors.explain(error)
            or not (isinstance(error, lost) or "Collective ops is aborted" in error.message)
        ):
            raise
        told = " ".join(error.message.split("Collective ops is aborted by:")[-1].split())[:200]
        raise TemporaryError(
            f"{'a host of the TPU' if on_tpu else 'another worker'} was lost ({told}): check its log, then run the same "
            "command on every worker to resume"
        ) from None


def uses_xla(config: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Return whether to wrap the step in tf.function(jit_compile=True): never on a TPU, whose strategy compiles by itself.

    On CPUs, XLA gains nothing here and costs seconds at the start, so auto leaves it off.
    """
    if config.strategy == "tpu":
        return False
    return config.jit == "on" or (config.jit == "auto" and bool(tf.config.list_logical_devices("GPU")))


def compiles_updates(config: DeviceOptions, strategy: tf.distribute.Strategy) -> bool:
    """Return whether to wrap weight updates in tf.function(jit_compile=True): on one CPU or GPU, unless --jit off."""
    return config.jit != "off" and config.strategy != "tpu" and strategy.num_replicas_in_sync == 1


def device_name(strategy: tf.distribute.Strategy) -> str:
    """Return the name of the devices, such as "NVIDIA A100-SXM4-40GB", "TPU v5 lite" or "CPU"."""
    if isinstance(strategy, tf.distribute.TPUStrategy):
        return os.environ.get("TPU_ACCELERATOR_TYPE", "TPU")
    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
