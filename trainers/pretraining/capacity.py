"""Estimates the memory and the time of a run before its first step, and refuses a run that can't fit."""

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.hardware import GIB, Hardware
from clozemill.trainers.common.matrix_rate import measured_flops
from clozemill.trainers.common.peak_flops import CPU_SHARE
from clozemill.trainers.engines.engine import matrix_rate
from clozemill.trainers.pretraining.defaults import needed_bytes
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun
from clozemill.trainers.training.metrics_log import duration

_GPU_SHARE = 0.4  # of a matrix product's rate that a training step is expected to reach
_FUSED = 1.5  # XLA fuses operations on GPUs: a step may need less than the estimate by this factor


def step_bytes(planned: PretrainingRun, hardware: Hardware) -> int:
    """Return the estimated bytes per device of the largest training step of a run."""
    config, found = planned.config, []
    parts, sharers = config.gradient_accumulation_steps or 1, hardware.devices if config.shard_moments else 1
    for phase in planned.phases:
        rows = max(1, phase.batch_size // (hardware.devices * parts))
        half = config.precision == "bfloat16"
        found.append(needed_bytes(planned.encoder, phase.shape, rows, half, config.optimizer, hardware.kernel, sharers))
    return max(found)


def fits(planned: PretrainingRun, hardware: Hardware) -> bool:
    """Return whether a training step can fit into the free memory of a device, if that is known."""
    most = hardware.memory * (1.0 if hardware.kind == "CPU" else _FUSED)
    return not hardware.memory or step_bytes(planned, hardware) <= most


def check_memory(planned: PretrainingRun, hardware: Hardware) -> None:
    """Raise UserError if a training step can't fit into the free memory of a device."""
    if fits(planned, hardware):
        return
    needed = step_bytes(planned, hardware)
    config = planned.config
    size = max(phase.batch_size for phase in planned.phases)
    raise UserError(
        f"a training step of {planned.size_name} with --batch-size {size} and --gradient-accumulation-steps "
        f"{config.gradient_accumulation_steps} needs about {needed / GIB:,.1f} GiB, but {hardware.memory / GIB:,.1f} are free: "
        "leave these options out, raise --gradient-accumulation-steps, or give a smaller --batch-size or --preset"
    )


def step_rate(hardware: Hardware) -> float:
    """Return the FLOP/s that training is expected to reach, from a measurement; 0 on a TPU: nothing runs before it starts."""
    if hardware.kind == "TPU":
        return 0.0
    return _GPU_SHARE * matrix_rate() * hardware.devices if hardware.kind == "GPU" else CPU_SHARE * measured_flops()


def step_seconds(planned: PretrainingRun, rate: float) -> list[float]:
    """Return the estimated seconds of a step of each phase. rate: as `step_rate` returns, not 0."""
    return [planned.flops(phase) * phase.batch_size / rate for phase in planned.phases]


def expected(planned: PretrainingRun, hardware: Hardware, step: int) -> str:
    """Return a line with the estimated memory, and on a CPU or GPU the time, of the steps after `step`."""
    gigabytes = step_bytes(planned, hardware) / GIB
    text = f"a step needs about {gigabytes:,.1f} GiB of memory" + f" of {hardware.memory / GIB:,.1f} free" * bool(
        hardware.memory
    )
    if not (rate := step_rate(hardware)):
        return f"estimated: {text}"
    seconds = step_seconds(planned, rate)
    left = [max(0, phase.end - max(step, phase.begin)) for phase in planned.phases]
    total, longest = sum(count * each for count, each in zip(left, seconds, strict=True)), max(seconds)
    shown = f"{longest:,.2f} s" if longest < 10 else duration(longest)
    return f"estimated: {text}; about {shown} per step, {duration(total)} in all, if nothing else runs (measured in training)"
