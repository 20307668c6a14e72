"""Plans a run before any device is used: phases with their datasets, the model, and what must match on resume."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from clozemill.model.config import GENERATOR_SIZE, EncoderConfig
from clozemill.model.flops import step_flops_per_row
from clozemill.model.pretraining_model import PretrainingModel
from clozemill.pipelines.command_line import options
from clozemill.trainers.common import storage
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data import corrupt_shards, prepared_dataset
from clozemill.trainers.data.input_pipeline import TrainReader
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.optimizer import Hyper, Schedule
from clozemill.trainers.pretraining import branching, eval_sets, open_options, page_parts, warm_start
from clozemill.trainers.pretraining.branching import Branch
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import Shape
from clozemill.trainers.pretraining.eval_sets import SeveralEvaluations
from clozemill.trainers.pretraining.masks import MaskDrawing, mask_drawing
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.pretraining.schedules import OrderEntry, order_entries, phase_schedules
from clozemill.trainers.pretraining.warm_start import WarmStart
from clozemill.trainers.training import run_folder
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
    entry: OrderEntry  # into the order of the examples
    objective: str
    masks: MaskDrawing | None = None  # None: those of the shards
    generator_size: float = GENERATOR_SIZE
    comparable: bool = True  # whether its losses can be compared with those of the run's last phase
    eval_sets: Mapping[str, PreparedDataset] = field(default_factory=dict)  # further ones, by name

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
        found = open_options.shape_of(self.dataset, self.batch_size, self.objective, self.generator_size)
        return replace(found, predictions=self.masks.rules.slots) if self.masks else found

    def reader(self, config: PretrainConfig, host: int, hosts: int, compiled: bool = False) -> TrainReader:
        """Return the reader of one host."""
        entry, keyed = self.entry, self.masks is not None
        return TrainReader(self.dataset, config.seed, self.batch_size, host, hosts, entry.first_row, entry.batch_size, keyed)

    def epoch(self, step: int) -> float:
        """Return how often the dataset was read after a step of the run."""
        return (self.entry.first_row + (step - self.begin) * self.batch_size) / self.train_rows

    def set_up(self, model: PretrainingModel) -> None:
        """Let the model train this phase's objective."""
        model.switch_objective(self.objective)

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Return a context in which a read error names the corrupt shard; `likely` returns the shards that were read last."""
        return corrupt_shards.report_corruption(self.dataset, likely)

    def evaluation(self, engine: Engine, model, config: PretrainConfig) -> SeveralEvaluations | None:
        """Return the evaluation of this phase; None if neither the dataset has an eval split nor others are given."""
        size = max(1, self.batch_size // (config.gradient_accumulation_steps or 1))
        options = {"batch_size": size, "limit": config.eval_examples, "comparable": self.comparable}
        return SeveralEvaluations.make(engine, model, self.dataset, self.eval_sets, **options)


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
    branch: Branch | None = None
    stage: ClassVar = "pretrain"

    @property
    def steps(self) -> int:
        return self.phases[-1].end

    @property
    def evaluates_start(self) -> bool:
        """Return whether the weights of step 0 are evaluated: those of --init are worth comparing with."""
        return self.start is not None

    @property
    def title(self) -> str:
        """Return the title of the plots."""
        return f"{self.size_name}, {self.objectives}, {self.steps:,} steps"

    @property
    def objectives(self) -> str:
        """Return the objectives in their order: 'causal, then mlm'."""
        return ", then ".join(self._objectives())

    @property
    def heads(self) -> dict[str, Any]:
        """Return what the model's heads depend on besides the last objective."""
        found: dict[str, Any] = {"objectives": self._objectives()} if len(self._objectives()) > 1 else {}
        return found | ({"generator_size": self.config.generator_size} if "rtd" in self._objectives() else {})

    def _objectives(self) -> list[str]:
        """Return the objectives in their order, without those that repeat the one before."""
        names = [phase.objective for phase in self.phases]
        return [name for at, name in enumerate(names) if at == 0 or name != names[at - 1]]

    @property
    def size_name(self) -> str:
        """Return the preset, or a substitute for its name."""
        return self.config.preset or "as --init"

    @property
    def hyper(self) -> Hyper:
        decay, clip_norm = self.config.weight_decay, self.config.clip_norm
        if decay is None or clip_norm is None:
            raise ValueError("weight_decay or clip_norm is None: plan_run chooses it")
        return Hyper(weight_decay=decay, clip_norm=clip_norm)

    def flops(self, phase: PretrainingPhase) -> int:
        """Return the FLOPs per row of a phase's batches."""
        shape = phase.shape
        sizes = shape.length, shape.predictions, shape.causal, shape.examples, shape.generator
        return step_flops_per_row(self.encoder, *sizes)

    def story(self) -> RunStory:
        return page_parts.story(self)

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        return page_parts.summary(figures)

    def about(self, step: int = 0) -> dict[str, Any]:
        """Return what every checkpoint records of its model, and of its training up to a step."""
        return {
            "encoder": self.encoder.to_dict(),
            "objective": self.phases[-1].objective,
            **self.heads,
            "vocabulary": self.phases[0].dataset.vocabulary,
            "trained_length": self.trained_length(step),
            "data": self._data(),
            **(self.branch.about if self.branch else {}),
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
        if self.branch:
            own["branch"] = self.branch.record
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
                "objective": phase.objective,
            }
            if schedule.shape == "wsd":
                own[f"phase {number}"]["decay_steps"] = schedule.decay_steps
            if phase.entry != OrderEntry(0, phase.batch_size):
                own[f"phase {number}"] |= {"first_row": phase.entry.first_row, "order_batch_size": phase.entry.batch_size}
        for name in ("warmup_steps", "decay_steps"):
            own.pop(name)
        return own


def _kind(objective: str) -> str:
    """Return which losses an objective's can be compared with."""
    return objective if objective in ("causal", "rtd") else "mlm"


def _entries(identity: dict[str, Any], datasets: Sequence[PreparedDataset], phases: Sequence[Phase]) -> list[OrderEntry]:
    """Return where each phase enters the order of its dataset, as a run recorded it; else after earlier phases.

    identity: of the run that is resumed or continued. Those of earlier versions read each phase's dataset from its beginning.
    """
    found = order_entries([each.manifest["digest"] for each in datasets], phases)
    for number, phase in enumerate(phases):
        if isinstance(told := identity.get(f"phase {number + 1}"), dict):
            found[number] = OrderEntry(told.get("first_row", 0), told.get("order_batch_size", phase.batch_size))
    return found


def plan_run(config: PretrainConfig, hardware: Hardware | None = None) -> PretrainingRun:
    """Read the datasets' manifests, complete the configuration, and check that all of it fits together. Raises UserError.

    hardware: the devices that open options are chosen for; default: those that are found here.
    """
    config, branch = branching.branched(config)
    wanted = config.resolved_phases()
    config.check_schedule(sum(phase.steps for phase in wanted))
    start = warm_start.find(config, storage.join(branch.run if branch else config.output, run_folder.RUN))
    datasets = _datasets(config, wanted, start)
    given, size = config, datasets[0].vocabulary["size"]
    begun = replace(start.encoder, vocab_size=size) if start else None
    sets = eval_sets.read(config, datasets[0])
    config, reasons = open_options.completed(given, datasets, begun, hardware, tuple(sets.values()))
    phases = _phases(config, datasets, sets, (branch.identity if branch else run_folder.resumed(config, "identity")) or {})
    encoder = warm_start.encoder(config, start, size)
    eval_sets.check(sets, encoder, config.objectives())
    chosen = run_folder.chosen_options(given, config)
    planned = PretrainingRun(config, phases, encoder, datasets[0].read_vocabulary(), start, reasons, chosen, branch)
    if branch:
        branching.check_data(branch, planned.identity(), [phase.folder for phase in phases])
    return planned


def _phases(
    config: PretrainConfig,
    datasets: Sequence[PreparedDataset],
    sets: Mapping[str, PreparedDataset],
    identity: dict[str, Any],
) -> tuple[PretrainingPhase, ...]:
    """Return the phases of a completed configuration. identity: of the run that is resumed or continued, or {}."""
    wanted = config.resolved_phases()
    found, begin, total = [], 0, sum(phase.steps for phase in wanted)
    schedules, entries = phase_schedules(config, wanted), _entries(identity, datasets, wanted)
    for phase, dataset, schedule, entry in zip(wanted, datasets, schedules, entries, strict=True):
        masks = None
        if phase.objective != "causal":
            masks = mask_drawing(dataset, config.masks == "fresh", config.masked_lm_prob_schedule, total)
        comparable = _kind(phase.objective) == _kind(wanted[-1].objective)
        own = schedule, entry, phase.objective, masks, config.generator_size, comparable, sets
        found.append(PretrainingPhase(dataset, begin, begin + phase.steps, phase.batch_size, *own))
        begin += phase.steps
    return tuple(found)


def _datasets(config: PretrainConfig, wanted: Sequence[Phase], start: WarmStart | None) -> list[PreparedDataset]:
    """Return the dataset of each phase. Raises UserError if they don't suit each other, the options or --init."""
    longest = start.encoder.max_position_embeddings if start else config.max_position_embeddings
    datasets: list[PreparedDataset] = []
    for phase in wanted:
        dataset = prepared_dataset.read(phase.data)
        prepared_dataset.check_objective(dataset, phase.objective)
        prepared_dataset.check_lengths(dataset, longest)
        if start:
            warm_start.check_vocabulary(start, dataset)
            prepared_dataset.check_segments(dataset, start.encoder.type_vocab_size, start.path)
        if datasets:
            prepared_dataset.check_vocabulary(dataset, datasets[0].vocabulary, datasets[0].folder)
        datasets.append(dataset)
    return datasets
