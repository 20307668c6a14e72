"""Completes a configuration: options that were left open get the values recorded in the run's folder, else chosen ones."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clozemill.model.config import EncoderConfig
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.hardware import Hardware
from clozemill.trainers.data.input_pipeline import eval_rows
from clozemill.trainers.data.mixture import Mixture
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.engines import engine
from clozemill.trainers.pretraining import defaults
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import AUTO, OPEN, Data, Shape
from clozemill.trainers.training import run_folder

_EVALUATIONS = 10  # at most, per run
_EVAL_SHARE = 0.1  # of the time of training; an example's forward pass takes a third of its step
_FEWEST_STEPS = 100  # between evaluations


def completed(
    config: PretrainConfig,
    data: Sequence[Mixture],
    encoder: EncoderConfig | None,
    hardware: Hardware | None,
    eval_sets: Sequence[PreparedDataset] = (),
) -> tuple[PretrainConfig, tuple[str, ...]]:
    """Return the configuration without open options, and the reasons for what was chosen; none for a resumed run.

    Args:
        data: of each phase.
        encoder: the encoder of --init, if any.
        hardware: the devices; None to find them, if anything has to be chosen.
        eval_sets: further datasets that are evaluated.
    """
    found = dict(recorded(config))
    values = {name: getattr(config, name) for name in OPEN}
    unresolved = [name for name, value in values.items() if value in (None, AUTO) and name not in found]
    reasons: tuple[str, ...] = ()
    given = {**values, **{name: value for name, value in found.items() if values[name] in (None, AUTO)}}
    if unresolved:
        needs = {name: getattr(config, name) for name in ("optimizer", "remat", "shard_moments")}
        choice = defaults.choose({**given, **needs}, hardware or engine.detect(config), data_of(config, data), encoder)
        given, reasons = {**given, **choice.values}, choice.reasons
    if config.phases:  # an option that no phase uses stays open: given together with the phases, it is refused
        used = {name: not all(getattr(phase, name) for phase in config.phases) for name in ("batch_size", "learning_rate")}
        given = {name: value if used.get(name, True) else values[name] for name, value in given.items()}
    config = replace(config, **given)
    if config.eval_steps is None:
        config = replace(config, eval_steps=eval_interval(config, data, eval_sets))
    return config, reasons


def data_of(config: PretrainConfig, data: Sequence[Mixture]) -> Data:
    """Return what choices depend on: the size of the largest data of a phase, and the batches and steps of every phase."""
    shapes = tuple(
        replace(
            shape_of(mixed.contract, phase.batch_size, phase.objective, config.generator_size),
            steps=phase.steps,
            learning_rate=phase.learning_rate,
        )
        for phase, mixed in zip(config.resolved_phases(), data, strict=True)
    )
    largest = max(data, key=lambda mixed: mixed.train_rows * mixed.contract.max_seq_length)
    return Data(largest.train_rows, largest.contract.max_seq_length, data[0].contract.vocabulary["size"], shapes)


def shape_of(dataset: PreparedDataset, batch_size: int, objective: str = "mlm", generator_size: float = 0.0) -> Shape:
    """Return the size of a dataset's batches."""
    sizes, causal = dataset.sizes, objective == "causal"
    generator = generator_size if objective == "rtd" else 0.0
    return Shape(sizes["max_seq_length"], sizes["max_predictions"], batch_size, sizes["max_examples"], causal, generator)


def recorded(config: PretrainConfig) -> Mapping[str, Any]:
    """Return the values of `OPEN` in the folder of an existing run; {} for a new run, or another folder."""
    values, identity = (run_folder.resumed(config, part) for part in ("config", "identity"))
    if values is None or identity is None or "preset" not in identity:
        return {}  # not a run's file: claiming the folder raises the error
    if "init" in identity and not config.init:
        raise UserError(
            f"{config.output} was started with --init {values.get('init')}: give the same to resume it, or another --output"
        )
    return {name: values[name] for name in OPEN if name in values} | {"preset": identity["preset"]}


def eval_interval(config: PretrainConfig, data: Sequence[Mixture], eval_sets: Sequence[PreparedDataset] = ()) -> int:
    """Return the steps between evaluations: ten per run, fewer if they would take more than a tenth of the time."""
    phases = config.resolved_phases()
    steps = sum(phase.steps for phase in phases)
    trained = sum(phase.steps * phase.batch_size for phase in phases)
    datasets = [each.contract for each in data]
    if not eval_sets and not all(dataset.eval_examples for dataset in datasets):
        return 0

    def rows(group: Sequence[PreparedDataset]) -> list[int]:
        return [sum(eval_rows(dataset, limit=config.eval_examples)) for dataset in group]

    evaluated = max(rows(datasets)) + sum(rows(eval_sets))
    count = max(1, min(_EVALUATIONS, math.floor(3 * _EVAL_SHARE * trained / evaluated)))
    return max(_FEWEST_STEPS, math.ceil(steps / count))
