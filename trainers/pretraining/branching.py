"""`pretrain --branch-from`: continues a run of the schedule wsd from a checkpoint of its stable part, and decays from there.

The branch takes weights, moments, step number and order of the examples from the trunk's checkpoint, and from its run.json
the data and every option that determines losses. So one trunk yields models for several numbers of steps.
"""

import re
from dataclasses import dataclass, fields, replace
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import storage
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.pretraining.schedules import phase_schedules
from clozemill.trainers.training import checkpoint_index, checkpoints, run_folder
from clozemill.trainers.training.checkpoints import Checkpoint
from clozemill.trainers.training.metrics_log import MetricsLog
from clozemill.trainers.training.pretrained import short_name

_CHECKPOINT = re.compile(rf"(.+)/{checkpoints.FOLDER}/step-\d+$")
_INPUT = ("data", "phases", "init")  # taken from the trunk like the options that determine losses
_OWN = ("steps", "decay_steps", "recipe")
_OPEN = (None, "auto", "", -1, ())  # values of options that leave the choice to the run
_RECORD = "branch"  # of a branch's identity


@dataclass(frozen=True)
class Branch:
    """Where a run continues another one.

    Args:
        path: the trunk or its checkpoint, as given.
        run: the folder whose run.json has the options: the trunk, or the branch itself if it is resumed.
        step: steps of the trunk.
        digest: SHA-256 of the trunk's checkpoint.json.
        identity: what is recorded of the losses of `run`.
    """

    path: str
    run: str
    step: int
    digest: str
    identity: dict[str, Any]

    @property
    def record(self) -> str:
        """Return what a branch's identity says of it."""
        return f"step {self.step} of checkpoint {self.digest}"

    @property
    def about(self) -> dict[str, Any]:
        """Return what the branch's run.json and checkpoints say of it."""
        return {"branched_from": {"run": short_name(self.path), "step": self.step, "checkpoint": self.digest}}


def branched(config: PretrainConfig) -> tuple[PretrainConfig, Branch | None]:
    """Return the configuration completed with the options of the run that --branch-from names, and where it is continued.

    Without --branch-from, the configuration as it is, and None. Raises UserError if the trunk can't be continued so.
    """
    if not config.branch_from:
        return config, None
    if own := _resumed(config):
        earlier = _configuration(own.run)
        if config.steps != earlier.steps:
            raise UserError(
                f"{own.run} was started with --steps {earlier.steps}, not {config.steps}: give the same, --overwrite to start "
                "over, or another --output"
            )
        decay = earlier.decay_steps if config.decay_steps < 0 else config.decay_steps
        return replace(_evaluated(_adopted(config, earlier, own), earlier), decay_steps=decay), own
    trunk = match.group(1) if (match := _CHECKPOINT.match(config.branch_from.rstrip("/"))) else config.branch_from
    theirs, identity = _configuration(trunk), run_folder.recorded(trunk, "identity") or {}
    if theirs.schedule != "wsd":
        raise UserError(
            f"--branch-from {trunk} was trained with --schedule {theirs.schedule}, whose learning rate has no stable part: "
            "give a run with --schedule wsd, or start a new run from its weights with --init"
        )
    wanted = theirs.resolved_phases()
    every = phase_schedules(theirs, wanted)
    found = _checkpoint(config, trunk, wanted, every)
    branch = Branch(config.branch_from, trunk, found.step, checkpoints.digest(found), identity)
    return _scheduled(_evaluated(_adopted(config, theirs, branch), theirs), theirs, found.step, every), branch


def _resumed(config: PretrainConfig) -> Branch | None:
    """Return the branch that the run in the output folder is, None for a new run, or one that isn't a branch."""
    record = (run_folder.resumed(config, "identity") or {}).get(_RECORD)
    match = re.fullmatch(r"step (\d+) of checkpoint (\w+)", record) if isinstance(record, str) else None
    if match is None:
        return None
    identity = run_folder.recorded(config.output, "identity") or {}
    return Branch(config.branch_from, config.output, int(match.group(1)), match.group(2), identity)


def _configuration(run: str) -> PretrainConfig:
    """Return the configuration in a run.json. Raises UserError if there is none."""
    told = run_folder.recorded(run, "config")
    known = {field.name for field in fields(PretrainConfig)}
    if told is None or not {"data", "optimizer"} <= told.keys():
        raise UserError(f"--branch-from {run} is not a run of clozemill pretrain: give one, or one of its checkpoints")
    values = {name: value for name, value in told.items() if name in known and value != ""}  # "": as if it were left out
    try:
        return replace(options.from_values(PretrainConfig, values), overwrite=False)
    except UserError as error:
        raise UserError(f"--branch-from {run}: its run.json can't be used ({error}): give another run") from None


def _at(step: int, phases: tuple[Phase, ...]) -> int:
    """Return the number of the phase, from 0, that goes on after a step; the last one after the last step."""
    ends = [sum(phase.steps for phase in phases[: number + 1]) for number in range(len(phases))]
    return next((number for number, end in enumerate(ends) if step < end), len(phases) - 1)


def _stable(step: int, phases: tuple[Phase, ...], every: list[Schedule]) -> str:
    """Return "" if the rate is at its peak after a step, else what it does."""
    schedule = every[_at(step, phases)]
    if step < schedule.begin + schedule.warmup_steps:
        return f"its warm-up, which ends at step {schedule.begin + schedule.warmup_steps:,}"
    if step > (schedule.stable_until or 0):
        return f"its decay, which began at step {schedule.stable_until:,}"
    return ""


def _mixes(phases: tuple[Phase, ...]) -> bool:
    """Return whether any phase reads several datasets."""
    return any(len(phase.parts) > 1 for phase in phases)


def _averaged(one: Checkpoint, phases: tuple[Phase, ...]) -> bool:
    """Return whether a checkpoint is the result of --average-with-init. Its moments are those of other weights."""
    return bool(one.index.get("average_with_init")) and one.step == sum(phase.steps for phase in phases)


def _checkpoint(config: PretrainConfig, trunk: str, phases: tuple[Phase, ...], every: list[Schedule]) -> Checkpoint:
    """Return the given checkpoint, or the newest one of a run that is in its stable part and before --steps."""
    if trunk != config.branch_from:
        found = checkpoints.find(config.branch_from)
        if where := _stable(found.step, phases, every):
            raise UserError(f"--branch-from {found.folder} is in {where}: give a checkpoint of the stable part")
        if _averaged(found, phases):
            raise UserError(
                f"--branch-from {found.folder} is an average with the weights of --init, which can't be trained on as they "
                "were: give an earlier checkpoint"
            )
        if config.steps <= found.step:
            raise UserError(f"--steps {config.steps:,} isn't after step {found.step:,} of {found.folder}: give more steps")
        return found
    newest = checkpoints.find(trunk)  # raises the error if there is none at all
    for one in checkpoints.saved(trunk):
        if not _stable(one.step, phases, every) and one.step < config.steps and not _averaged(one, phases):
            return one
    raise UserError(
        f"--branch-from {trunk} has no checkpoint in the stable part of its schedule before --steps {config.steps:,} (the "
        f"newest is of step {newest.step:,}): give more steps, or train it with --checkpoint-steps and --keep-checkpoints"
    )


def _adopted(given: PretrainConfig, theirs: PretrainConfig, branch: Branch) -> PretrainConfig:
    """Return the given configuration with the trunk's data and options that determine losses.

    Raises UserError for an option that was given, even at its default, and contradicts the trunk's. A branch that is resumed
    has fewer phases than its trunk, so those are not compared.
    """
    values, named = {}, options.given(given)
    for field in fields(PretrainConfig):
        mine, their = getattr(given, field.name), getattr(theirs, field.name)
        if field.name in _OWN or not (field.metadata["identity"] or field.name in _INPUT):
            continue
        if field.name == "data" and mine and _mixes(theirs.resolved_phases()):
            raise UserError(
                f"--data can't replace the mixture of datasets that {branch.run} reads: leave it out, and restore the datasets "
                "where it read them"
            )
        if field.name == "data":
            their = (mine or their)[: len(theirs.phases) or None]
        elif (
            mine != their
            and (mine != field.default or (field.name in named and mine not in _OPEN))
            and not (field.name == "phases" and branch.run == given.output)
        ):
            raise UserError(
                f"{options.flag_name(field)} {mine} contradicts {branch.run}, which has {their}: leave it out, or start a run "
                "of its own"
            )
        values[field.name] = their
    return replace(given, **values)


def _evaluated(config: PretrainConfig, theirs: PretrainConfig) -> PretrainConfig:
    """Return a branch's configuration that evaluates on general text, if its trunk does, as with the recipe `continue`."""
    general = theirs.eval_sets().get("general")
    if not general or "general" in config.eval_sets():
        return config
    return replace(config, eval_data=(f"general={general}", *config.eval_data))


def _scheduled(config: PretrainConfig, theirs: PretrainConfig, step: int, every: list[Schedule]) -> PretrainConfig:
    """Return a branch's configuration with phases that end at --steps, and a decay that ends there.

    Args:
        config: that of the branch, with the trunk's options.
        theirs: that of the trunk.
        step: where the branch begins. Later phases are only those that share the schedule of the phase there.
        every: the schedules of the trunk's phases.

    Raises UserError if the given decay is longer than the branch.
    """
    steps, phases = config.steps, theirs.resolved_phases()
    if config.decay_steps > steps - step:
        raise UserError(
            f"--decay-steps {config.decay_steps} is longer than the {steps - step:,} steps from step {step:,} of "
            f"{config.branch_from} to --steps {steps:,}: give fewer, or leave it out to decay over all of them"
        )
    decay = steps - step if config.decay_steps < 0 else config.decay_steps
    number = _at(step, phases)
    begins = [sum(phase.steps for phase in phases[:at]) for at in range(len(phases))]
    last = number
    while last + 1 < len(phases) and every[last + 1] == every[number] and begins[last + 1] < steps:
        last += 1
    found = []
    mixes, own = _mixes(phases), theirs.phases
    if mixes and not own:  # by the trunk's recipe
        own = tuple(replace(phase, batch_size=0, objective="") for phase in phases)
    for at, phase in enumerate(own[: last + 1]):
        mine: dict[str, Any] = {"data": "" if config.data != theirs.data else phase.data}
        if phase.learning_rate:  # its own schedule, whose warm-up must stay as it is however long the phase becomes
            mine |= {"warmup_steps": every[at].warmup_steps, "decay_steps": decay if at == number else every[at].decay_steps}
        found.append(replace(phase, **mine, steps=steps - begins[at] if at == last else phase.steps))
    data = () if mixes and not theirs.phases else config.data[: len(found) or None]
    return replace(config, data=data, phases=tuple(found), warmup_steps=every[number].warmup_steps, decay_steps=decay)


def check_data(branch: Branch, identity: dict[str, Any], folders: list[str]) -> None:
    """Raise UserError unless the phases of a branch read the data of the trunk, in the same order.

    Args:
        identity: that of the branch.
        folders: the dataset or the mixture of each phase.
    """
    for number, folder in enumerate(folders, 1):
        mine, theirs = identity[f"phase {number}"], branch.identity.get(f"phase {number}") or {}
        if mine.get("mixture") != theirs.get("mixture"):
            raise UserError(
                f"{folder} are not the datasets that {branch.run} was trained on: restore them where it read them, as they were"
            )
        for name in ("dataset", "order"):
            if name in theirs and theirs[name] != mine[name]:
                raise UserError(
                    f"{folder} is not the dataset that {branch.run} was trained on: its {name} is {mine[name]}, not "
                    f"{theirs[name]}: give that dataset as --data"
                )


def enter(branch: Branch, state: TrainState, journal: MetricsLog) -> int:
    """Restore the state and the sums of the metrics since the last line from the trunk's checkpoint; return its step.

    Raises UserError if the checkpoint is corrupt, or isn't the one with which the branch was started.
    """
    folder = branch.path.rstrip("/")
    if not _CHECKPOINT.match(folder):
        folder = storage.join(folder, checkpoints.FOLDER, f"step-{branch.step:08d}")
    one = checkpoints.find(folder)
    if branch.digest not in (checkpoints.digest(one), checkpoint_index.signature(one.index)):  # the latter: earlier versions
        raise UserError(f"{one.folder} has changed since the run was started: restore it, or give another --output")
    try:
        checkpoints.load(one, state, train_state.HEADS)  # perhaps of phases that the branch doesn't have
    except ValueError as error:
        raise UserError(f"{one.folder} is corrupt ({error}): restore it, or give another checkpoint") from None
    of_trunk = checkpoint_index.OF_METRICS_FILE
    journal.resume(one.step, {name: value for name, value in one.index["journal"].items() if name not in of_trunk})
    return one.step
