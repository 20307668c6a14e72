"""A run as it is laid out before any device is touched: phases with their datasets, the model, what a resume must match."""

import json
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

import tensorflow as tf

from model.config import EncoderConfig
from model.flops import flops_per_example
from pipelines import locks, options, places
from pipelines.schema import UserError
from trainers import contract, damage, files, warm_start
from trainers.batches import TrainReader, eval_counts
from trainers.config import PretrainConfig
from trainers.contract import Contract
from trainers.evaluate import ComparedEvaluation, Evaluation
from trainers.optimizer import Hyper, Schedule
from trainers.warm_start import Start

RUN = "run.json"


@dataclass(frozen=True)
class PlannedPhase:
    """Steps [begin, end) of a run, on one dataset. What the loop knows of data, it knows through this."""

    dataset: Contract
    begin: int
    end: int
    batch_size: int
    schedule: Schedule

    @property
    def folder(self) -> str:
        """Where the data lie, for messages."""
        return self.dataset.folder

    @property
    def max_seq_length(self) -> int:
        return self.dataset.max_seq_length

    @property
    def train_examples(self) -> int:
        return self.dataset.train_examples

    def reader(self, config: PretrainConfig, host: int, hosts: int) -> TrainReader:
        """One host's reader."""
        return TrainReader(self.dataset, config.seed, config.cycle_length, config.shuffle_buffer, host, hosts)

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Within it, a shard that turns out to be damaged is named; `likely` gives those that were read last."""
        return damage.reading(self.dataset, likely)

    def evaluation(self, devices: tf.distribute.Strategy, model, config: PretrainConfig, jit: bool) -> Evaluation | None:
        """What measures the model now and then; None where the dataset has no eval split."""
        if not sum(eval_counts(self.dataset)):
            return None
        size = max(1, self.batch_size // config.gradient_accumulation_steps)
        return ComparedEvaluation(devices, model, self.dataset, size, config.eval_examples, jit)


@dataclass(frozen=True)
class Plan:
    """All of a run that follows from its configuration and its datasets."""

    config: PretrainConfig
    phases: tuple[PlannedPhase, ...]
    encoder: EncoderConfig
    vocabulary: bytes
    start: Start | None = None
    stage: ClassVar = "pretrain"

    @property
    def steps(self) -> int:
        return self.phases[-1].end

    @property
    def title(self) -> str:
        """What stands above the curves."""
        return f"{self.size_name}, {self.config.objective}, {self.steps:,} steps"

    @property
    def size_name(self) -> str:
        """The preset, or what stands for one."""
        return self.config.resolved_preset() or "as --init"

    @property
    def hyper(self) -> Hyper:
        return Hyper(weight_decay=self.config.weight_decay, clip_norm=self.config.clip_norm)

    def flops(self, phase: PlannedPhase) -> int:
        """FLOPs per example of a phase."""
        dataset, causal = phase.dataset, self.config.objective == "causal"
        return flops_per_example(self.encoder, dataset.max_seq_length, dataset.max_predictions, causal)

    def about(self, step: int = 0) -> dict[str, Any]:
        """What every checkpoint says of its model, and of its training up to a step."""
        return {
            "encoder": self.encoder.to_dict(),
            "objective": self.config.objective,
            "vocabulary": self.phases[0].dataset.vocabulary,
            "trained_length": self.trained_length(step),
            **({"begun_length": self.start.trained_length} if self.start else {}),
        }

    def trained_length(self, step: int) -> int:
        """The longest sequences up to a step, those of what the run began with among them."""
        own = (phase.max_seq_length for phase in self.phases if phase.begin < max(step, 1))
        return max([self.start.trained_length if self.start else 0, *own])

    def identity(self) -> dict[str, Any]:
        """What decides the losses of a run: a resume must match it."""
        own = options.identity(self.config)
        own = {name: value for name, value in own.items() if name not in ("recipe", "steps", "batch_size", "learning_rate")}
        own["preset"] = self.config.resolved_preset()
        own |= {name: getattr(self.encoder, name) for name in ("hidden_act", "max_position_embeddings")}
        if self.start:
            own["init"] = self.start.digest
        own["phases"] = len(self.phases)
        for number, phase in enumerate(self.phases, 1):
            schedule = phase.schedule
            own[f"phase {number}"] = {
                "dataset": phase.dataset.manifest["digest"],
                "steps": phase.end - phase.begin,
                "batch_size": phase.batch_size,
                "learning_rate": schedule.peak,
                "warmup_steps": schedule.warmup_steps,
                "scheduled_steps": schedule.steps,
            }
        own.pop("warmup_steps")
        return own


def _schedules(config: PretrainConfig, phases: tuple) -> list[Schedule]:
    """Each phase's schedule: its own, or the run's, which spans all phases without one."""
    total = sum(phase.steps for phase in phases)
    run = Schedule(config.learning_rate, config.warmup(total), total)
    found, begin = [], 0
    for phase in phases:
        if phase.learning_rate:
            warmup = config.warmup(phase.steps) if phase.warmup_steps < 0 else min(phase.warmup_steps, phase.steps)
            found.append(Schedule(phase.learning_rate, warmup, phase.steps, begin))
        else:
            found.append(run)
        begin += phase.steps
    return found


def make(config: PretrainConfig) -> Plan:
    """Reads the datasets' contracts and checks everything against everything. Raises UserError."""
    wanted = config.resolved_phases()
    start = warm_start.find(config, files.join(config.output, RUN))
    longest = start.encoder.max_position_embeddings if start else config.max_position_embeddings
    phases, begin = [], 0
    for phase, schedule in zip(wanted, _schedules(config, wanted), strict=True):
        dataset = contract.read(phase.data)
        contract.check_objective(dataset, config.objective)
        contract.check_lengths(dataset, longest)
        if start:
            contract.check_vocabulary(dataset, start.vocabulary, start.path)
            contract.check_segments(dataset, start.encoder.type_vocab_size, start.path)
        if phases:
            contract.check_vocabulary(dataset, phases[0].dataset.vocabulary, phases[0].dataset.folder)
        phases.append(PlannedPhase(dataset, begin, begin + phase.steps, phase.batch_size, schedule))
        begin += phase.steps
    first = phases[0].dataset
    encoder = warm_start.encoder(config, start, first.vocabulary["size"])
    return Plan(config, tuple(phases), encoder, first.read_vocabulary(), start)


def claim(plan: Plan, folder: str, writes: bool = True) -> None:
    """Writes run.json into a new run's folder, or leaves that to worker 0; raises UserError where another run lies there.

    The caller holds the folder's lock. Where links in the folder would be written through, UserError is raised, too.
    """
    path, mine, names = files.join(folder, RUN), plan.identity(), set(files.listed(folder)) - {locks.FOLDER}
    places.refuse_links(folder)
    if RUN in names:
        try:
            theirs = json.loads(files.read(path, "give another --output"))["identity"]
            defaults = options.to_dict(type(plan.config)())  # of options that the run's version of clozemill hadn't yet
            pairs = [(name, theirs.get(name, defaults.get(name)), mine.get(name)) for name in {**theirs, **mine}]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f"{path} is not a run's: give another --output") from None
        for name, their, my in pairs:
            if their != my:
                if isinstance(their, dict) and isinstance(my, dict):
                    key = next(key for key in {**their, **my} if their.get(key) != my.get(key))
                    name, their, my = f"{name}'s {key}", their.get(key), my.get(key)
                raise UserError(f"{folder} was begun with {name} {their}, not {my}: give the same, or another --output")
    elif names - {RUN + ".tmp"}:  # that one is left by a kill at the very beginning
        raise UserError(f"{folder} is there and is no run: give a new folder as --output")
    elif writes:
        about = {"identity": mine, "config": options.to_dict(plan.config), **plan.about()}
        files.write_json(path, about)
    if writes and f"{plan.stage}.yaml" not in names:
        files.write(files.join(folder, f"{plan.stage}.yaml"), options.to_yaml(plan.config).encode())
