"""Plans a run before any device is used: phases with their datasets, the model, and what must match on resume."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import tensorflow as tf

from clozemill.model.config import EncoderConfig
from clozemill.model.flops import flops_per_row
from clozemill.pipelines.command_line import options
from clozemill.trainers.common import storage
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.data.input_pipeline import TrainReader
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.pretraining import open_options, page_parts, warm_start
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import Shape
from clozemill.trainers.pretraining.evaluation import ComparedEvaluation
from clozemill.trainers.pretraining.warm_start import WarmStart
from clozemill.trainers.training import run_folder
from clozemill.trainers.training.optimizer import Hyper, Schedule
from clozemill.trainers.training.pretrained import short_name
from clozemill.trainers.training.run_protocols import RunStory


@dataclass(frozen=True)
class PretrainingPhase:
    """Steps [begin, end) of a run on one dataset: the loop's view of the data."""

    dataset: PreparedDataset
    begin: int
    end: int
    batch_size: int
    schedule: Schedule

    @property
    def folder(self) -> str:
        """Return the folder of the data, for messages."""
        return self.dataset.folder

    @property
    def max_seq_length(self) -> int:
        return self.dataset.max_seq_length

    @property
    def train_examples(self) -> int:
        return self.dataset.train_examples

    @property
    def train_rows(self) -> int:
        return self.dataset.train_rows

    @property
    def shape(self) -> Shape:
        """Return the size of a batch."""
        return open_options.shape_of(self.dataset, self.batch_size)

    def reader(self, config: PretrainConfig, host: int, hosts: int) -> TrainReader:
        """Return the reader of one host."""
        return TrainReader(self.dataset, config.seed, self.batch_size, host, hosts)

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Return a context in which a read error names the corrupt shard; `likely` returns the shards that were read last."""
        return corrupt_shards.report_corruption(self.dataset, likely)

    def evaluation(
        self, devices: tf.distribute.Strategy, model, config: PretrainConfig, jit: bool
    ) -> ComparedEvaluation | None:
        """Return the evaluation of this phase; None if the dataset has no eval split."""
        if not self.dataset.eval_examples:
            return None
        size = max(1, self.batch_size // (config.gradient_accumulation_steps or 1))
        return ComparedEvaluation(devices, model, self.dataset, size, config.eval_examples, jit)


@dataclass(frozen=True)
class PretrainingRun:
    """Everything about a run that follows from its configuration and its datasets."""

    config: PretrainConfig
    phases: tuple[PretrainingPhase, ...]
    encoder: EncoderConfig
    vocabulary: bytes
    start: WarmStart | None = None
    reasons: tuple[str, ...] = ()  # what was chosen for options that were left open, and why
    chosen: dict[str, Any] = field(default_factory=dict)  # these options
    stage: ClassVar = "pretrain"

    @property
    def steps(self) -> int:
        return self.phases[-1].end

    @property
    def title(self) -> str:
        """Return the title of the plots."""
        return f"{self.size_name}, {self.config.objective}, {self.steps:,} steps"

    @property
    def size_name(self) -> str:
        """Return the preset, or a substitute for its name."""
        return self.config.preset or "as --init"

    @property
    def hyper(self) -> Hyper:
        if (decay := self.config.weight_decay) is None:
            raise ValueError("weight_decay is None: plan_run chooses it")
        return Hyper(weight_decay=decay, clip_norm=self.config.clip_norm)

    def flops(self, phase: PretrainingPhase) -> int:
        """Return the FLOPs per row of a phase's batches."""
        shape, causal = phase.shape, self.config.objective == "causal"
        return flops_per_row(self.encoder, shape.length, shape.predictions, causal, shape.examples)

    def story(self) -> RunStory:
        return page_parts.story(self)

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        return page_parts.summary(figures)

    def about(self, step: int = 0) -> dict[str, Any]:
        """Return what every checkpoint records of its model, and of its training up to a step."""
        return {
            "encoder": self.encoder.to_dict(),
            "objective": self.config.objective,
            "vocabulary": self.phases[0].dataset.vocabulary,
            "trained_length": self.trained_length(step),
            "data": self._data(),
            **({"begun_length": self.start.trained_length, "base_model": short_name(self.start.path)} if self.start else {}),
        }

    def _data(self) -> list[dict[str, Any]]:
        """Return the descriptions of all data that the model was trained on, that of --init first; equal ones once."""
        found = [*(self.start.data if self.start else ()), *(phase.dataset.description for phase in self.phases)]
        return [each for at, each in enumerate(found) if each not in found[:at]]

    def trained_length(self, step: int) -> int:
        """Return the longest sequence length trained up to a step, including the training of --init."""
        own = (phase.max_seq_length for phase in self.phases if phase.begin < max(step, 1))
        return max([self.start.trained_length if self.start else 0, *own])

    def identity(self) -> dict[str, Any]:
        """Return everything that determines the losses of a run; it must match on resume."""
        own = options.identity(self.config)
        own = {name: value for name, value in own.items() if name not in ("recipe", "steps", "batch_size", "learning_rate")}
        own |= {name: getattr(self.encoder, name) for name in ("hidden_act", "max_position_embeddings")}
        if self.start:
            own["init"] = self.start.digest
        own["phases"] = len(self.phases)
        for number, phase in enumerate(self.phases, 1):
            schedule = phase.schedule
            own[f"phase {number}"] = {
                "dataset": phase.dataset.manifest["digest"],
                "order": "of blocks" if phase.dataset.indexed else "of shards",  # datasets of one digest may differ in it
                "steps": phase.end - phase.begin,
                "batch_size": phase.batch_size,
                "learning_rate": schedule.peak,
                "warmup_steps": schedule.warmup_steps,
                "scheduled_steps": schedule.steps,
            }
        own.pop("warmup_steps")
        return own


def _schedules(config: PretrainConfig, phases: tuple) -> list[Schedule]:
    """Return the schedule of each phase: its own, or that of the run, which spans all phases without one."""
    total = sum(phase.steps for phase in phases)
    run = Schedule(config.learning_rate or 0.0, config.warmup(total), total)  # unused if every phase has its own rate
    found, begin = [], 0
    for phase in phases:
        if phase.learning_rate:
            warmup = config.warmup(phase.steps) if phase.warmup_steps < 0 else min(phase.warmup_steps, phase.steps)
            found.append(Schedule(phase.learning_rate, warmup, phase.steps, begin))
        else:
            found.append(run)
        begin += phase.steps
    return found


def plan_run(config: PretrainConfig, hardware: Hardware | None = None) -> PretrainingRun:
    """Read the datasets' manifests, complete the configuration, and check that all of it fits together. Raises UserError.

    hardware: the devices that open options are chosen for; default: those that are found here.
    """
    wanted = config.resolved_phases()
    config.check_warmup(sum(phase.steps for phase in wanted))
    start = warm_start.find(config, storage.join(config.output, run_folder.RUN))
    longest = start.encoder.max_position_embeddings if start else config.max_position_embeddings
    datasets: list[PreparedDataset] = []
    for phase in wanted:
        dataset = prepared_dataset.read(phase.data)
        prepared_dataset.check_objective(dataset, config.objective)
        prepared_dataset.check_lengths(dataset, longest)
        if start:
            prepared_dataset.check_vocabulary(dataset, start.vocabulary, start.path)
            prepared_dataset.check_segments(dataset, start.encoder.type_vocab_size, start.path)
        if datasets:
            prepared_dataset.check_vocabulary(dataset, datasets[0].vocabulary, datasets[0].folder)
        datasets.append(dataset)
    given = config
    config, reasons = open_options.completed(given, datasets, start.encoder if start else None, hardware)
    phases, begin = [], 0
    wanted = config.resolved_phases()
    for phase, dataset, schedule in zip(wanted, datasets, _schedules(config, wanted), strict=True):
        phases.append(PretrainingPhase(dataset, begin, begin + phase.steps, phase.batch_size, schedule))
        begin += phase.steps
    encoder = warm_start.encoder(config, start, datasets[0].vocabulary["size"])
    return PretrainingRun(config, tuple(phases), encoder, datasets[0].read_vocabulary(), start, reasons,
                          run_folder.chosen_options(given, config))  # fmt: skip
