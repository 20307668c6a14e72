"""The engine on JAX: one device, all devices of this machine, or those of several processes, which share each batch."""

import atexit
import contextlib
import itertools
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import keras
import numpy as np
from jax.errors import JaxRuntimeError
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from clozemill.model.attention import attention_kernel
from clozemill.model.config import EncoderConfig
from clozemill.model.losses import SUMS
from clozemill.pipelines.command_line.exit_codes import EXIT_AGAIN, EXIT_BUG
from clozemill.pipelines.common import runtime
from clozemill.pipelines.common.errors import TemporaryError, UserError
from clozemill.trainers.common import hardware
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.common.hardware import BFLOAT16_CAPABILITY, TPU_DEVICES, Hardware, free_memory
from clozemill.trainers.data.numpy_reader import batches_of
from clozemill.trainers.engines import jax_attention, jax_cluster, jax_step
from clozemill.trainers.engines.engine import HostBatches, OutOfMemory, StepOptions, Sums, Trainer
from clozemill.trainers.engines.jax_attention import CudnnAttention, Kernel, SplashAttention, compute_capability
from clozemill.trainers.engines.jax_cluster import short, worker_count  # noqa: F401  # engine.py calls the latter
from clozemill.trainers.engines.jax_step import AXIS, Step, by_row, everywhere
from clozemill.trainers.engines.train_state import TrainState

# In the message of an error if another process is gone or doesn't answer: statuses of gRPC, and who reports it.
_LOST = re.compile(
    r"UNAVAILABLE|ABORTED|DEADLINE_EXCEEDED|CANCELLED|gloo|nccl|connection|peer|heartbeat|coordination service", re.IGNORECASE
)
_AHEAD = 2  # batches that are on their way to the devices while a step runs


def _placed(values: dict[str, np.ndarray], sharding: Any) -> dict[str, jax.Array]:
    """Return this process's rows of a batch as arrays over all devices."""
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in values.items()}


@dataclass
class _Input:
    """Batches on the devices, fetched ahead."""

    batches: Iterator[dict[str, np.ndarray]]
    sharding: Any

    def __post_init__(self) -> None:
        self._ahead: deque = deque()

    def next(self) -> dict[str, jax.Array]:
        for batch in itertools.islice(self.batches, _AHEAD - len(self._ahead)):
            self._ahead.append(_placed(batch, self.sharding))
        return self._ahead.popleft()


def _finished(metrics: jax.Array) -> float:
    """Wait for a step; return the time at which it was done."""
    metrics.block_until_ready()
    return time.perf_counter()


def idle_seconds(began: float, ended: float, previous: Future | None) -> float:
    """Return for how many seconds of a fetch the devices had nothing to do.

    previous: the time at which the step before it was done; None if there is none.
    """
    if previous is None:
        return ended - began
    return max(0.0, ended - max(began, previous.result())) if previous.done() else 0.0


@dataclass
class _Trainer:
    """Runs steps; between calls, the variables of the state have the newest values."""

    step: Step
    slots: list[list[keras.Variable]]  # of each trained variable
    input: _Input

    def run(self, first: int, count: int) -> tuple[np.ndarray, bool]:
        step, began, rows, waited = self.step, time.perf_counter(), [], []
        placement = everywhere(step.mesh)
        values = [_put(variable, placement) for variable in step.trained]
        fixed = [_put(variable, placement) for variable in step.fixed]
        slots = [tuple(_put(moment, step.moment_sharding(moment.shape)) for moment in moments) for moments in self.slots]
        compiled, previous = step.compiled._cache_size(), None
        try:
            with ThreadPoolExecutor(1) as watcher:
                for number in range(first, first + count):  # JAX returns before a step is done: the next batch is fetched then
                    fetching = time.perf_counter()
                    batch = self.input.next()
                    waited.append(idle_seconds(fetching, time.perf_counter(), previous))
                    values, slots, metrics = step.compiled(values, slots, fixed, np.int32(number), batch)
                    rows.append(metrics)
                    previous = watcher.submit(_finished, metrics)
            found = np.stack([np.asarray(row) for row in rows])
        except JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" in str(error):
                raise OutOfMemory(short(error)) from None
            raise
        for variable, value, moments, new in zip(step.trained, values, self.slots, slots, strict=True):
            variable.assign(value)
            for moment, changed in zip(moments, new, strict=True):
                moment.assign(changed)
        seconds = (time.perf_counter() - began) / count
        times = np.stack([np.array(waited, np.float32), np.full(count, seconds, np.float32)], axis=1)
        return np.concatenate([found, times], axis=1).astype(np.float32), 0 < compiled == step.compiled._cache_size()


def _put(variable: keras.Variable, sharding: Any) -> jax.Array:
    """Return the value of a variable, which every process has, placed over all devices; it is moved only if it has to be."""
    value = variable.value
    if getattr(value, "sharding", None) == sharding:
        return value
    array = np.asarray(value)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _readable(value: Any) -> Any:
    """Return a value that may be divided among processes as one that this process can read; all of them call it."""
    if not isinstance(value, jax.Array) or value.is_fully_addressable or value.is_fully_replicated:
        return value
    return multihost_utils.process_allgather(value, tiled=True)


def _leave(code: int) -> None:
    """End this process without waiting for the others: JAX would wait for minutes, and then abort."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@dataclass(frozen=True)
class JaxEngine:
    """Devices in a mesh of one axis, which divide the rows of a batch, and the kernel with which they compute attention."""

    mesh: Mesh
    kernel: Kernel
    shard_moments: bool = False
    name = "jax"
    version = jax.__version__
    compiles = True

    @property
    def replicas(self) -> int:
        return self.mesh.size

    @property
    def device_name(self) -> str:
        kind = self.mesh.devices.flat[0].device_kind
        return "CPU" if kind == "cpu" else kind

    @property
    def process(self) -> int:
        return jax.process_index()

    @property
    def processes(self) -> int:
        return jax.process_count()

    def attention(self, encoder: EncoderConfig, lengths: Sequence[int], precision: str) -> str:
        return jax_attention.described(self.kernel, encoder, lengths, precision)

    def scope(self) -> AbstractContextManager[Any]:
        return contextlib.nullcontext()

    def gather(self, mine: int) -> set[int]:
        if self.processes == 1:
            return {mine}
        return set(np.ravel(multihost_utils.process_allgather(np.int32(mine))).tolist())

    def values(self, state: TrainState) -> dict[str, dict[str, Any]]:
        return {group: {name: _readable(value) for name, value in found.items()} for group, found in state.values().items()}

    @contextlib.contextmanager
    def raise_if_worker_lost(self) -> Iterator[None]:
        try:
            yield
        except (RuntimeError, ValueError) as error:  # JAX's own are of either kind, whatever it was that failed
            if self.processes == 1:
                raise
            lost = bool(_LOST.search(str(error)))
            atexit.register(_leave, EXIT_AGAIN if lost else EXIT_BUG)  # runs before what JAX has registered
            if not lost:
                raise
            raise TemporaryError(
                f"another worker was lost ({short(error)}): check its log, then run the same command on every worker to resume"
            ) from None

    @cached_property
    def _rows(self) -> NamedSharding:
        return by_row(self.mesh)

    def _weights(self, model: Any) -> list[jax.Array]:
        """Return the values of a model's variables on every device."""
        placement = everywhere(self.mesh)
        return [_put(variable, placement) for variable in model.variables]

    def _forward(self, model: Any, call: Callable, out: PartitionSpec) -> Callable[[list, dict], Any]:
        """Return `call` of a batch as a function of (weights, batch) on the devices. out: placement of its results."""

        def with_values(values: list, batch: dict) -> Any:
            mapping = list(zip(model.variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping), attention_kernel(self.kernel):
                return call(batch)

        specs = (PartitionSpec(), PartitionSpec(AXIS))
        return jax.jit(jax.shard_map(with_values, mesh=self.mesh, in_specs=specs, out_specs=out, check_vma=False))

    def _host_batches(self, rows: int, batches: HostBatches) -> Iterator[dict[str, np.ndarray]]:
        """Return this process's part of batches of `rows` rows."""
        return batches_of(batches(self.process, self.processes, rows // self.processes))

    def trainer(self, state: TrainState, options: StepOptions, batch_size: int, batches: HostBatches) -> Trainer:
        step = Step(state.model, options, self.mesh, self.kernel, self.shard_moments)
        moments = dict(zip((variable.path for variable in state.model.trainable_variables), state.slots, strict=True))
        slots = [list(moments[variable.path].values()) for variable in step.trained]
        return _Trainer(step, slots, _Input(self._host_batches(batch_size, batches), self._rows))

    def evaluation(self, model: Any) -> Sums:
        def call(batch: dict) -> jax.Array:
            inputs, targets = model.prepare(batch)
            found = model.sums_of(model(inputs), targets)
            return jax.lax.psum(jax.numpy.stack([*(found[name] for name in SUMS), targets["example_weights"].sum()]), AXIS)

        forward = self._forward(model, call, PartitionSpec())

        def sums(rows: int, count: int, batches: HostBatches) -> np.ndarray:
            weights, source = self._weights(model), _Input(self._host_batches(rows, batches), self._rows)
            found = [forward(weights, source.next()) for _ in range(count)]
            return np.sum([np.asarray(each, np.float64) for each in found], axis=0) if found else np.zeros(len(SUMS) + 1)

        return sums

    def inference(
        self, model: Any, outputs: Callable, names: tuple[str, ...]
    ) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
        forward = self._forward(model, outputs, PartitionSpec(AXIS))

        def outputs_of(rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            found = forward(self._weights(model), _placed(rows, self._rows))
            return {name: np.asarray(value) for name, value in (found if isinstance(found, dict) else {"": found}).items()}

        return outputs_of


def detect(config: DeviceOptions, workers: int = 1) -> Hardware:
    """Return the hardware for a configuration's strategy. workers: processes of --strategy multiworker, all like this one."""
    cores = runtime.cores()
    option = getattr(config, "attention_kernel", "auto")
    if config.strategy == "tpu":  # v2 and v3 have no kernel, but which TPU it is isn't known yet
        return Hardware("TPU", TPU_DEVICES, 0, cores, True, None if option == "plain" else SplashAttention())
    if config.strategy == "multiworker":  # they connect before a device is initialised
        if not (gpus := jax_cluster.expected_gpus()):
            return Hardware("CPU", workers, free_memory(), cores)
        # Which GPUs they are isn't known yet: those of compute capability 8.0 and higher have bfloat16 and the kernel.
        return Hardware("GPU", workers * gpus, 0, cores, True, None if option == "plain" else CudnnAttention())
    devices = _local(config)
    if devices[0].platform == "cpu":
        return Hardware("CPU", len(devices), free_memory() // len(devices), cores)
    memory = (devices[0].memory_stats() or {}).get("bytes_limit", 0)
    kernel = jax_attention.choose_kernel(devices[0], option)
    return Hardware("GPU", len(devices), memory, cores, compute_capability(devices[0]) >= BFLOAT16_CAPABILITY, kernel)


def _local(config: DeviceOptions) -> list[jax.Device]:
    """Return the devices of `--strategy`, those of a process in a row. Raises UserError if there are none."""
    try:
        devices = jax.devices("tpu") if config.strategy == "tpu" else jax.devices()
    except (RuntimeError, AssertionError) as error:  # JAX asserts that the platform of its environment is there
        told = short(error) or f"JAX_PLATFORMS is {os.environ.get('JAX_PLATFORMS', '')!r}"
        raise UserError(
            f"--strategy {config.strategy} --engine jax finds no device ({told}): install JAX for it, see "
            "docs/how-to/gpus-and-tpus.md"
        ) from None
    # The ids of a TPU slice follow its shape: hosts, which are squares of it, take turns.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return ordered[:1] if config.strategy == "default" else ordered


def make(config: DeviceOptions) -> JaxEngine:
    """Return the engine with the devices of `--strategy`. Raises UserError if they aren't available."""
    if jax_cluster.is_shared(config):
        jax_cluster.connect(config)
    devices, present = _local(config), hardware.shown_gpus()
    if present and devices[0].platform == "cpu":
        print(hardware.unused_gpus(present, "JAX", "pip install 'clozemill[jax-cuda]'"), file=sys.stderr, flush=True)
    kernel = jax_attention.choose_kernel(devices[0], getattr(config, "attention_kernel", "auto"))
    return JaxEngine(jax_step.make_mesh(devices), kernel, getattr(config, "shard_moments", False))
