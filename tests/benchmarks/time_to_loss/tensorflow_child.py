"""Runs one job with `clozemill pretrain` itself: only a clock is added around its steps, and the eval split is the common one.

python -m tests.benchmarks.time_to_loss.tensorflow_child JOB_FOLDER
"""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.benchmarks.time_to_loss.clock import StepClock, cpu_seconds
from tests.benchmarks.time_to_loss.jobs import CLOCK, RESULT, write_json


def register_variant(variant: dict[str, Any]) -> None:
    """Add a preset `variant` of another design: {"preset": its base, "design": changed choices, "sizes": changed fields}."""
    from clozemill.model import config
    from clozemill.trainers.pretraining.config import PretrainConfig

    base = config.PRESETS[variant["preset"]]
    design = config.ARCHITECTURES[base.get("architecture", "bert")]
    config.ARCHITECTURES["variant"] = dataclasses.replace(design, **variant["design"])
    config.PRESETS["variant"] = {**base, **variant["sizes"], "architecture": "variant"}
    option = PretrainConfig.__dataclass_fields__["preset"]
    option.metadata = MappingProxyType({**option.metadata, "choices": (*option.metadata["choices"], "variant")})


def options_of(job: dict[str, Any], output: Path) -> dict[str, Any]:
    """Return the options of `pretrain` for a job."""
    names = ("data", "steps", "batch_size")
    phases = [{**{name: phase[name] for name in names}, **phase["settings"]} for phase in job["phases"]]
    steps = sum(phase["steps"] for phase in job["phases"])
    return {
        "tensorboard": False,
        "log_steps": 100,
        "checkpoint_steps": 0,
        "checkpoint_minutes": 0.0,
        "keep_checkpoints": 1,
        **job["settings"]["options"],
        "phases": phases,
        "learning_rate": job["learning_rate"],
        "seed": job["seed"],
        "eval_steps": -(-steps // job["points"]) if job["points"] else 0,
        "output": str(output),
    }


def install_clock(clock: StepClock, eval_data: str, evaluates: bool) -> None:
    """Make `pretrain` count the CPU seconds of its steps, and evaluate on another dataset's eval split or not at all."""
    from clozemill.trainers.data import prepared_dataset
    from clozemill.trainers.data.mixture import Mixture
    from clozemill.trainers.pretraining import pretrain, pretraining_phase
    from clozemill.trainers.training.loop import Loop

    class TimedLoop(Loop):
        def run(self):
            clock.resume(self.step)
            return super().run()

        def _train(self, *arguments):
            begin, step = cpu_seconds(), self.step
            rows, steady = super()._train(*arguments)
            number = next(n for n, phase in enumerate(self.plan.phases) if phase.begin <= step < phase.end)
            clock.add(number, len(rows), cpu_seconds() - begin)
            return rows, steady

    common, original = Mixture((prepared_dataset.read(eval_data),)), pretraining_phase.PretrainingPhase

    class CommonlyEvaluated(original):
        def evaluation(self, *arguments):
            own = dataclasses.replace(self, mixture=common)
            return original.evaluation(own, *arguments) if evaluates else None

    pretrain.Loop = TimedLoop
    pretraining_phase.PretrainingPhase = CommonlyEvaluated


def run_job(folder: Path) -> dict[str, Any]:
    """Run the job of a folder; return its result."""
    job, run = json.loads((folder / "job.json").read_text()), folder / "run"
    if variant := job["settings"].get("variant"):
        register_variant(variant)
    from clozemill.pipelines.command_line import options
    from clozemill.trainers.pretraining import pretrain
    from clozemill.trainers.pretraining.config import PretrainConfig
    from clozemill.trainers.training.signals import EXIT_DIVERGED

    clock = StepClock(folder / CLOCK)
    install_clock(clock, job["eval_data"], bool(job["points"]))
    code = pretrain.main(options.from_values(PretrainConfig, options_of(job, run)))
    if code not in (0, EXIT_DIVERGED):
        raise RuntimeError(f"pretrain ended with {code}")
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    evals = [line for line in lines if line.get("split") == "eval"]
    # A causal phase has another loss: its evaluations have no criterion to select a checkpoint by.
    losses = [(line["step"], line["masked_lm_loss"]) for line in evals if line.get("criterion", 0) is not None]
    import tensorflow as tf

    counted = {"predictions": evals[-1]["predictions"]} if evals else {}
    result = clock.report(losses, diverged=code != 0, versions=f"tensorflow {tf.__version__}", **counted)
    if not job["keep"]:
        shutil.rmtree(run)
    return result


if __name__ == "__main__":
    write_json(Path(sys.argv[1]) / RESULT, run_job(Path(sys.argv[1])))
