"""The processes of the engine on JAX: their addresses, from the environment, how they connect, and the GPUs they will use.

Several processes share a run with `--strategy multiworker`, and with `--strategy tpu` on a slice of several hosts, where
JAX_COORDINATOR_ADDRESS is set. deploy/ sets it on TPU VMs and GKE.
"""

import os
from importlib.metadata import entry_points
from typing import Any

import jax

from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.trainers.common import hardware
from clozemill.trainers.common.config import JAX_PROCESS, DeviceOptions, tf_config

ADDRESS, COUNT, NUMBER = JAX_PROCESS


def short(error: BaseException) -> str:
    """Return the message of an error in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]


def is_shared(config: DeviceOptions) -> bool:
    """Return whether several processes share the command's devices."""
    return config.strategy == "multiworker" or (config.strategy == "tpu" and ADDRESS in os.environ)


def _cluster(config: DeviceOptions) -> dict[str, Any]:
    """Return the arguments of jax.distributed.initialize: from JAX's variables, or from TF_CONFIG. Raises UserError."""
    try:
        if ADDRESS in os.environ:
            address, count, number = (os.environ[name] for name in JAX_PROCESS)
            return {"coordinator_address": address, "num_processes": int(count), "process_id": int(number)}
        if cluster := tf_config():
            addresses, index = cluster
            return {"coordinator_address": addresses[0], "num_processes": len(addresses), "process_id": index}
    except (KeyError, ValueError):
        pass
    instead = ", or a TF_CONFIG with all workers" * (config.strategy == "multiworker")
    raise UserError(
        f"--strategy {config.strategy} --engine jax needs {ADDRESS} (HOST:PORT of process 0), {COUNT} and {NUMBER} in the "
        f"environment of each process{instead}: set them"
    )


def worker_count(config: DeviceOptions) -> int:
    """Return the number of processes that share the devices. Raises UserError for an invalid cluster."""
    return _cluster(config)["num_processes"] if is_shared(config) else 1


def _has_cuda_plugin() -> bool:
    """Return whether JAX can use NVIDIA's GPUs: whether the package of the extra jax-cuda is installed."""
    return any("cuda" in plugin.value for plugin in entry_points(group="jax_plugins"))


def expected_gpus() -> int:
    """Return the number of NVIDIA GPUs that JAX will use on this machine. No device is initialised: processes connect first."""
    platforms = os.environ.get("JAX_PLATFORMS", "")
    uses_gpus = {"cuda", "gpu"} & set(platforms.split(",")) if platforms else _has_cuda_plugin()
    return hardware.shown_gpus() if uses_gpus else 0


def connect(config: DeviceOptions) -> None:
    """Connect to the other processes, each running the same command. Raises UserError."""
    if not config.SEVERAL_MACHINES:
        instead = "default or mirrored" if config.strategy == "multiworker" else f"a TPU of one host, without {ADDRESS}"
        several = " on several hosts" * (config.strategy == "tpu")
        raise UserError(f"--strategy {config.strategy}{several} works with pretrain only: use {instead}")
    cluster = _cluster(config)
    index, count, address = cluster["process_id"], cluster["num_processes"], cluster["coordinator_address"]
    print(f"worker {index} of {count}, coordinator {address}: waiting for the others", flush=True)
    try:
        # Everything is given, so JAX must not ask the APIs of Kubernetes or the TPU's metadata server for it.
        jax.distributed.initialize(**cluster, cluster_detection_method="deactivate")
    except (RuntimeError, ValueError) as error:
        kind = UserError if isinstance(error, ValueError) else TemporaryError  # the others may be starting, or be restarted
        raise kind(
            f"worker {index} can't connect to the others at {address} ({short(error)}): start the same command on every worker"
        ) from None
