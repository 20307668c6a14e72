"""The phases of a run: the mixture of datasets, the steps and the schedule of each, and where it enters the order."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from clozemill.model.config import GENERATOR_SIZE
from clozemill.model.pretraining_model import OBJECTIVES, PretrainingModel
from clozemill.trainers.data import corrupt_shards, mixing, prepared_dataset
from clozemill.trainers.data.input_pipeline import TrainReader
from clozemill.trainers.data.mixture import Mixture, kind_of_order, mixed
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining import open_options, warm_start
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import Shape
from clozemill.trainers.pretraining.eval_sets import SeveralEvaluations, deciding
from clozemill.trainers.pretraining.masks import MaskDrawing, mask_drawing
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.pretraining.schedules import OrderEntry, order_entries, phase_schedules
from clozemill.trainers.pretraining.warm_start import WarmStart


@dataclass(frozen=True)
class PretrainingPhase:
    """Steps [begin, end) of a run on one dataset or a mixture: the loop's view of the data."""

    mixture: Mixture
    begin: int
    end: int
    batch_size: int
    schedule: Schedule
    entry: OrderEntry  # into the order of the examples
    objective: str
    masks: MaskDrawing | None = None  # None: those of the shards
    generator_size: float = GENERATOR_SIZE
    causal: bool = False  # whether tokens attend to the left only
    mask_rate_steps: int = 0  # over which a falling mask rate falls, if those aren't the run's: of a branch, those of its trunk
    comparable: bool = True  # whether its losses can be compared with those of the run's last phase
    eval_sets: Mapping[str, PreparedDataset] = field(default_factory=dict)  # further ones, by name

    @property
    def dataset(self) -> PreparedDataset:
        """Return the dataset whose eval split is used: the first one, with room for the rows of all."""
        return self.mixture.contract

    @property
    def folder(self) -> str:
        """Return the folder of the first dataset, for messages."""
        return self.dataset.folder

    @property
    def evaluated_on(self) -> str:
        """Return the name of the dataset whose losses select the best checkpoint; "" if there is none."""
        found = deciding(self.dataset, self.eval_sets)
        return found.description["name"] if found else ""

    @property
    def max_seq_length(self) -> int:
        return self.dataset.max_seq_length

    @property
    def examples_per_row(self) -> float:
        return self.mixture.examples_per_row

    @property
    def shape(self) -> Shape:
        """Return the size of a batch."""
        found = open_options.shape_of(self.dataset, self.batch_size, self.objective, self.generator_size)
        return replace(found, predictions=self.masks.rules.slots) if self.masks else found

    def reader(self, config: PretrainConfig, host: int, hosts: int, compiled: bool = False) -> TrainReader:
        """Return the reader of one host."""
        entry, keyed = self.entry, self.masks is not None
        own = entry.first_row, entry.batch_size, keyed, entry.earlier
        return TrainReader(self.mixture, config.seed, self.batch_size, host, hosts, *own)

    def rows(self, step: int) -> list[int]:
        """Return how many rows of each dataset were read after a step of the run, since its order begins."""
        row = self.entry.first_row + (step - self.begin) * self.batch_size
        shares, earlier = mixing.shares(self.mixture.counts), self.entry.earlier or (None,) * len(self.mixture.counts)
        return [int(share.before(row)) + (before or 0) for share, before in zip(shares, earlier, strict=True)]

    def epochs(self, step: int) -> list[float]:
        """Return how often each dataset was read after a step of the run."""
        return [rows / each.train_rows for rows, each in zip(self.rows(step), self.mixture.datasets, strict=True)]

    def passes(self) -> list[float]:
        """Return how often this phase reads each dataset."""
        return [after - before for before, after in zip(self.epochs(self.begin), self.epochs(self.end), strict=True)]

    def record(self) -> dict[str, Any]:
        """Return what determines the losses of the phase."""
        schedule, entry = self.schedule, self.entry
        found: dict[str, Any] = {
            "dataset": self.mixture.digests,
            "order": kind_of_order(self.dataset),
            "steps": self.end - self.begin,
            "batch_size": self.batch_size,
            "learning_rate": schedule.peak,
            "warmup_steps": schedule.warmup_steps,
            "scheduled_steps": schedule.steps,
            "objective": self.objective,
        }
        found |= {"decay_steps": schedule.decay_steps} if schedule.shape == "wsd" else {}
        found |= {"mask_rate_steps": self.mask_rate_steps} if self.mask_rate_steps else {}
        if (entry.first_row, entry.batch_size) != (0, self.batch_size):
            found |= {"first_row": entry.first_row, "order_batch_size": entry.batch_size}
        found |= {"mixture": self.mixture.record} if len(self.mixture.datasets) > 1 else {}
        return found | ({"earlier": list(entry.earlier)} if entry.earlier else {})

    def set_up(self, model: PretrainingModel) -> None:
        """Let the model train this phase's objective, with its attention."""
        model.switch_objective(self.objective, self.causal)

    def trains(self, path: str) -> bool:
        """Return whether this phase trains the variable of a path."""
        return OBJECTIVES[self.objective].trains(path)

    def reading(self, likely: Callable[[], Iterable[str]] = tuple) -> AbstractContextManager[None]:
        """Return a context in which a read error names the corrupt shard; `likely` returns the shards that were read last."""
        return corrupt_shards.report_corruption(*self.mixture.datasets, likely=likely)

    def evaluation(self, engine: Engine, model, config: PretrainConfig) -> SeveralEvaluations | None:
        """Return the evaluation of this phase; None if neither the dataset has an eval split nor others are given."""
        size = max(1, self.batch_size // (config.gradient_accumulation_steps or 1))
        options = {"batch_size": size, "limit": config.eval_examples, "comparable": self.comparable}
        return SeveralEvaluations.make(engine, model, self.dataset, self.eval_sets, **options)


def _measured(phase: Phase, mixture: Mixture, sets: Mapping[str, PreparedDataset]) -> tuple[str, str]:
    """Return (kind of objective, digest of the eval set): losses can be compared if both are equal."""
    found = deciding(mixture.contract, sets)
    kind = phase.objective if phase.objective in ("causal", "rtd") else "mlm"
    return kind, found.manifest["digest"] if found else ""


def _entries(identity: dict[str, Any], mixtures: Sequence[Mixture], phases: Sequence[Phase]) -> list[OrderEntry]:
    """Return where each phase enters the order of its data, as a run recorded it; else after earlier phases.

    identity: of the run that is resumed or continued. Those of earlier versions read each phase's dataset from its beginning.
    """
    found = order_entries([each.key for each in mixtures], phases)
    for number, phase in enumerate(phases):
        if isinstance(told := identity.get(f"phase {number + 1}"), dict):
            own = told.get("first_row", 0), told.get("order_batch_size", phase.batch_size), tuple(told.get("earlier", ()))
            found[number] = OrderEntry(*own)
    return found


def _mask_rate_steps(identity: dict[str, Any]) -> int:
    """Return the steps over which the mask rate of a run falls; 0 without an identity.

    A branch continues the rate of its trunk: whatever the end of the branch, its stable part has seen the same masks.
    """
    told = [phase for name, phase in identity.items() if name.startswith("phase ") and isinstance(phase, dict)]
    inherited = [phase["mask_rate_steps"] for phase in told if "mask_rate_steps" in phase]
    return inherited[0] if inherited else sum(phase.get("steps", 0) for phase in told)


def planned_phases(
    config: PretrainConfig,
    mixtures: Sequence[Mixture],
    sets: Mapping[str, PreparedDataset],
    identity: dict[str, Any],
) -> tuple[PretrainingPhase, ...]:
    """Return the phases of a completed configuration.

    Args:
        mixtures: the data of each phase.
        sets: further eval sets.
        identity: of the run that is resumed or continued, or {}.
    """
    wanted = config.resolved_phases()
    found, begin, own_steps = [], 0, sum(phase.steps for phase in wanted)
    falling = _mask_rate_steps(identity) or own_steps
    inherited = falling if config.masked_lm_prob_schedule and falling != own_steps else 0
    schedules, entries = phase_schedules(config, wanted), _entries(identity, mixtures, wanted)
    for phase, mixture, schedule, entry in zip(wanted, mixtures, schedules, entries, strict=True):
        masks = None
        if phase.objective != "causal":
            masks = mask_drawing(mixture.contract, config.masks == "fresh", config.masked_lm_prob_schedule, falling)
        causal = "causal" in (phase.objective, config.attention)
        comparable = _measured(phase, mixture, sets) == _measured(wanted[-1], mixtures[-1], sets)
        own = schedule, entry, phase.objective, masks, config.generator_size, causal, inherited, comparable, sets
        found.append(PretrainingPhase(mixture, begin, begin + phase.steps, phase.batch_size, *own))
        begin += phase.steps
    return tuple(found)


def read_mixtures(config: PretrainConfig, wanted: Sequence[Phase], start: WarmStart | None) -> list[Mixture]:
    """Return the data of each phase. Raises UserError if they don't suit each other, the options or --init."""
    longest = start.encoder.max_position_embeddings if start else config.max_position_embeddings
    found: list[Mixture] = []
    for phase in wanted:
        datasets = []
        for part in phase.parts:
            dataset = prepared_dataset.read(part.data)
            prepared_dataset.check_objective(dataset, phase.objective)
            prepared_dataset.check_lengths(dataset, longest)
            if start:
                warm_start.check_vocabulary(start, dataset)
                prepared_dataset.check_segments(dataset, start.encoder.type_vocab_size, start.path)
            datasets.append(dataset)
        draws = phase.objective != "causal" and bool(config.masks == "fresh" or config.masked_lm_prob_schedule)
        found.append(mixed(datasets, [part.weight for part in phase.parts], draws))
        first, own = found[0].contract, found[-1].contract
        prepared_dataset.check_vocabulary(own, first.vocabulary, first.folder)
    return found
