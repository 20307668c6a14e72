"""Plans a run before any device is used: phases with their datasets, the model, and what must match on resume."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from clozemill.model.config import EncoderConfig
from clozemill.model.flops import step_flops_per_row
from clozemill.pipelines.command_line import options
from clozemill.trainers.common import storage
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.engines.optimizer import Hyper
from clozemill.trainers.pretraining import branching, eval_sets, open_options, page_parts, warm_start
from clozemill.trainers.pretraining.branching import Branch
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.pretraining_phase import PretrainingPhase, planned_phases, read_mixtures
from clozemill.trainers.pretraining.schedules import check_inherited
from clozemill.trainers.pretraining.warm_start import WarmStart
from clozemill.trainers.training import run_folder
from clozemill.trainers.training.pretrained import short_name
from clozemill.trainers.training.run_protocols import RunStory


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
    tokenizer: ClassVar = b""  # shards are of WordPiece

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

    def about(self, step: int | None = None) -> dict[str, Any]:
        """Return what every checkpoint records of its model, and of its training up to a step; None: what is planned."""
        reached = self.steps if step is None else step
        return {
            "encoder": self.encoder.to_dict(),
            "objective": self.phases[-1].objective,
            **self.heads,
            "vocabulary": self.phases[0].dataset.vocabulary,
            "trained_length": self.trained_length(step or 0),
            "evaluated_on": next((each for each in self.phases if reached <= each.end), self.phases[-1]).evaluated_on,
            "data": self._data(reached),
            **(self.branch.about if self.branch else {}),
            **({"begun_length": self.start.trained_length, "base_model": short_name(self.start.path)} if self.start else {}),
            **({"average_with_init": self.config.average_with_init} if self.config.average_with_init else {}),
        }

    def _data(self, step: int) -> list[dict[str, Any]]:
        """Return the descriptions of all data that the model was trained on, that of --init first; equal ones once.

        Those of a run with a mixture say how often this run has read them up to a step.
        """
        begun: list[dict[str, Any]] = list(self.start.data if self.start else ())
        own: dict[str, dict[str, Any]] = {}
        mixes = any(len(phase.mixture.datasets) > 1 for phase in self.phases)
        for phase in self.phases:
            for dataset, epochs in zip(phase.mixture.datasets, phase.epochs(min(step, phase.end)), strict=True):
                told = own.setdefault(dataset.folder, dict(dataset.description))
                if mixes and (step > phase.begin or "epochs" not in told):
                    told["epochs"] = round(epochs, 4) if step > phase.begin else 0.0
        read = {each["digest"] for each in own.values() if mixes}
        found = [*(each for each in begun if each.get("digest") not in read), *own.values()]
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
        own |= {f"phase {number}": phase.record() for number, phase in enumerate(self.phases, 1)}
        for name in ("warmup_steps", "decay_steps"):
            own.pop(name)
        return own


def plan_run(config: PretrainConfig, hardware: Hardware | None = None) -> PretrainingRun:
    """Read the datasets' manifests, complete the configuration, and check that all of it fits together. Raises UserError.

    hardware: the devices that open options are chosen for; default: those that are found here.
    """
    config, branch = branching.branched(config)
    wanted = config.resolved_phases()
    config.check_schedule(sum(phase.steps for phase in wanted))
    start = warm_start.find(config, storage.join(branch.run if branch else config.output, run_folder.RUN))
    mixtures = read_mixtures(config, wanted, start)
    first, given = mixtures[0].contract, config
    size = first.vocabulary["size"]
    begun = replace(start.encoder, vocab_size=size) if start else None
    sets = eval_sets.read(config, first)
    config, reasons = open_options.completed(given, mixtures, begun, hardware, tuple(sets.values()))
    identity = branch.identity if branch else run_folder.resumed(config, "identity")
    if identity is None:  # an earlier version may have started others
        check_inherited(config, wanted)
    phases = planned_phases(config, mixtures, sets, identity or {})
    encoder = warm_start.encoder(config, start, size)
    eval_sets.check(sets, encoder, config.objectives())
    chosen = run_folder.chosen_options(given, config)
    planned = PretrainingRun(config, phases, encoder, first.read_vocabulary(), start, reasons, chosen, branch)
    if branch:
        branching.check_data(branch, planned.identity(), [phase.mixture.folders for phase in phases])
    return planned
