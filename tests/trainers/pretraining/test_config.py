"""Phases filled in, recipes under flags and YAML, and values that don't fit."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import get_args

import pytest

import clozemill
from clozemill.model.config import PRECISIONS, PRESETS
from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import DeviceOptions
from clozemill.trainers.planning.config import PreflightConfig
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Phase


def pretrain(*flags: str) -> PretrainConfig:
    """The configuration that `clozemill pretrain` would have."""
    return options.resolve(PretrainConfig, clozemill.parser().parse_args(["pretrain", *flags]))


def mistake(function, *arguments: str) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text)
    return str(path)


def test_one_dataset_is_one_phase() -> None:
    config = PretrainConfig(data=("a",), steps=70, batch_size=16)
    assert config.resolved_phases() == (Phase("a", 70, 16, 0.0, -1, objective="mlm+nsp"),)


def test_phases_are_filled_in_from_the_run() -> None:
    """Datasets by place or by name, batch sizes unless they have their own; schedules stay theirs."""
    phases = (Phase(steps=90), Phase("own", 10, 8, 1e-3, 2, objective="mlm"))
    config = PretrainConfig(data=("a",), phases=phases, batch_size=32)
    assert config.resolved_phases() == (
        Phase("a", 90, 32, objective="mlm+nsp"),
        Phase("own", 10, 8, 1e-3, 2, objective="mlm"),
    )
    with pytest.raises(UserError, match="--data b has no effect because phase 2 has its own data: leave one out"):
        PretrainConfig(data=("a", "b"), phases=phases, batch_size=32).resolved_phases()
    assert PretrainConfig(phases=phases[1:]).resolved_phases() == (phases[1],)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "--data is missing: give a dataset that clozemill prepare wrote"),
        (
            {"data": ("a", "b")},
            "phase 1 has no steps: give phases in --config, or 'phases: [{data: DATASET, steps: 1000}, ...]'",
        ),
        ({"phases": (Phase(steps=5),)}, "phase 1 has no dataset: give --data one per phase, or 'phases: [{data: "),
        ({"data": ("a",), "phases": (Phase(steps=5),) * 2}, "phase 2 has no dataset: give --data one per phase, or "),
        ({"data": ("a",), "phases": (Phase(),)}, "phase 1 has no steps: give phases in --config, or 'phases: "),
        ({"data": ("a", "b"), "phases": (Phase(steps=5),)}, "--data names 2 datasets for 1 phases: give one per phase"),
    ],
)
def test_phases_that_don_t_fit(config: dict, sentence: str) -> None:
    assert mistake(PretrainConfig(**config).resolved_phases).startswith(sentence)


@pytest.mark.parametrize(
    ("asked", "steps", "warmup"),
    [(-1, 1000, 100), (-1, 1001, 101), (-1, 9, 1), (-1, 1, 1), (0, 1000, 0), (30, 1000, 30), (30, 20, 20), (1000, 1000, 1000)],
)
def test_warmup_is_a_tenth_unless_it_is_given(asked: int, steps: int, warmup: int) -> None:
    """Rounded up, and never longer than the schedule."""
    assert PretrainConfig(warmup_steps=asked).warmup(steps) == warmup


@pytest.mark.parametrize(
    ("objective", "attention", "resolved"),
    [
        ("mlm+nsp", "auto", "bidirectional"),
        ("mlm", "bidirectional", "bidirectional"),
        ("mlm", "causal", "causal"),
        ("causal", "auto", "causal"),
        ("causal", "causal", "causal"),
    ],
)
def test_attention(objective: str, attention: str, resolved: str) -> None:
    assert pretrain("--objective", objective, "--attention", attention).resolved_attention() == resolved


@pytest.mark.parametrize(
    ("flags", "refused"),
    [
        (["--steps", "10", "--warmup-steps", "100"], True),
        (["--steps", "10", "--warmup-steps", "10"], False),
        (["--steps", "10", "--recipe", "demo"], False),  # instead of the recipe's own 50, a tenth
        (["--steps", "10", "--recipe", "demo", "--warmup-steps", "60"], True),
    ],
)
def test_a_warmup_that_is_longer_than_the_run(flags: list[str], refused: bool) -> None:
    config = pretrain(*flags)
    if refused:
        given = config.warmup_steps
        assert mistake(config.check_schedule, 10).startswith(
            f"--warmup-steps {given} is longer than the run of 10 steps: give "
        )
    else:
        config.check_schedule(10)


def test_a_shortened_recipe_warms_up_for_a_tenth() -> None:
    """If its own warm-up of 50 leaves no steps after it: the run would end at its highest rate."""
    recipe, given = pretrain("--recipe", "demo"), pretrain("--warmup-steps", "10")
    assert [recipe.warmup(steps) for steps in (500, 51, 50, 10)] == [50, 50, 5, 1]
    assert given.warmup(10) == 10


@pytest.mark.parametrize("name", ["warmup_steps", "decay_steps"])
def test_a_phase_without_a_rate_has_no_schedule_of_its_own(name: str) -> None:
    phases = Phase("a", 70, learning_rate=1e-3, **{name: 0}), Phase("b", 30, **{name: 0})
    config = PretrainConfig(phases=phases, schedule="wsd")
    assert mistake(config.resolved_phases) == (
        f"phase 2's {name} 0 has no effect, because the phase continues the run's schedule: give it a learning_rate of its "
        f"own, or leave {name} out"
    )


def test_steps_beside_those_of_all_phases() -> None:
    """They would be ignored; the sum is what the run.json of a branch has."""
    phases = (Phase("a", 70), Phase("b", 30))
    for steps in (1000, 100):  # the default, and the sum
        PretrainConfig(phases=phases, steps=steps).validate()
    told = "--steps 20 has no effect because every phase has its own: change it in phases"
    assert mistake(PretrainConfig(phases=phases, steps=20).validate) == told
    assert mistake(pretrain, "--recipe", "lamb-large", "--steps", "20") == told


def test_causal_prediction_must_not_see_the_answers() -> None:
    told = "--objective causal with --attention bidirectional would let the model see the answers: leave --attention out"
    assert mistake(pretrain, "--objective", "causal", "--attention", "bidirectional") == told


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_holds_valid_options(name: str) -> None:
    """Fields of PretrainConfig and of Phase, each within its bounds; a run of as many phases as it names lengths for."""
    recipe, known = RECIPES[name], {field.name: field for field in fields(PretrainConfig)}
    for key, value in recipe.options.items():
        if key == "phases":
            plain = [{name: given for name, given in asdict(phase).items() if given or name != "steps"} for phase in value]
            assert options.value_of(known[key], plain, key) == value
        else:
            assert options.value_of(known[key], value, key) == value and type(value) in (
                known[key].type,
                *get_args(known[key].type),
            )
    assert not {"data", "output", "recipe"} & recipe.options.keys()
    data = tuple(f"data{number}" for number in range(max(1, len(recipe.max_seq_lengths))))
    phases = PretrainConfig(recipe=name, data=data, **recipe.options).resolved_phases()
    assert len(phases) == len(data) and sum(phase.steps for phase in phases) == recipe.options["steps"]
    assert recipe.options.get("max_position_embeddings", 512) >= max(
        recipe.max_seq_lengths, default=0
    ) and recipe.expect.endswith(".")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_resolves_to_its_options(name: str) -> None:
    config = pretrain("--recipe", name)
    assert config == PretrainConfig(recipe=name, **RECIPES[name].options)
    assert {key: getattr(config, key) for key in RECIPES[name].options} == RECIPES[name].options


def test_flags_override_yaml_and_yaml_a_recipe(tmp_path: Path) -> None:
    recipe = RECIPES["demo"].options
    path = yaml_file(tmp_path, "recipe: demo\nsteps: 7\nbatch-size: 4\nseed: 3\n")
    config = pretrain("--config", path, "--batch-size", "8", "--preset", "mini")
    assert (config.steps, config.batch_size, config.preset, config.seed) == (7, 8, "mini", 3)
    rest = recipe.keys() - {"steps", "batch_size", "preset"}
    assert {key: getattr(config, key) for key in rest} == {key: recipe[key] for key in rest}
    other = pretrain("--config", path, "--recipe", "bert-base")
    assert (other.steps, other.warmup_steps, other.dropout) == (7, 10_000, None)
    assert pretrain("--recipe", "demo", "--dropout", "0.1").dropout == 0.1  # also where that is the default


def test_phases_from_yaml_there_and_back(tmp_path: Path) -> None:
    text = "phases:\n- {data: a, steps: 90, batch_size: 8}\n- {data: b, steps: 10, learning_rate: 1.0e-4, warmup_steps: 0}\n"
    config = pretrain("--recipe", "demo", "--config", yaml_file(tmp_path, text), "--save-config", str(tmp_path / "saved.yaml"))
    assert config.phases == (Phase("a", 90, 8), Phase("b", 10, 0, 1e-4, 0))
    assert pretrain("--config", str(tmp_path / "saved.yaml")) == config
    assert pretrain("--recipe", "lamb-large", "--config", yaml_file(tmp_path, text)).phases == config.phases


@pytest.mark.parametrize("name", [*RECIPES, ""])
def test_what_is_saved_gives_itself_back(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "saved.yaml")
    config = pretrain(*(["--recipe", name] if name else []), "--data", "a", "b", "--save-config", path)
    assert pretrain("--config", path) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("phases: 7", ": phases is not a list of mappings: write lines such as '- {data: DATASET, steps: 1000}'"),
        ("phases: {steps: 7}", ": phases is not a list of mappings: write lines such as '- {data: DATASET, steps: 1000}'"),
        ("phases: [a, b]", ": phases is not a list of mappings: write lines such as '- {data: DATASET, steps: 1000}'"),
        ("phases: [{steps: 7}, {step: 7}]", ": phases, number 2: unknown option 'step'; did you mean steps?"),
        ("phases: [{steps: many}]", ": phases, number 1: steps is 'many': give a whole number"),
        ("phases: [{steps: 0}]", ": phases, number 1: steps is 0: give a value between 1 and 1073741824"),
        (
            "phases: [{steps: 7, data: [a]}]",
            ": phases, number 1: data is ['a']: give a string in quotes, or lines such as '- {data: DATASET, weight: 0.7}'",
        ),
        ("phases: [{learning_rate: fast}]", ": phases, number 1: learning_rate is 'fast': give a number"),
        ("phases: [{warmup_steps: -2}]", ": phases, number 1: warmup_steps is -2: give a value between -1 and 1073741824"),
        ("stepz: 7", ": unknown option 'stepz'; did you mean steps?"),
        (
            "recipe: bert",
            ": recipe is 'bert': give one of bert-base, lamb-large, budget-24h, modern, continue, demo; "
            "did you mean bert-base?",
        ),
        ("dropout: 1.5", ": dropout is 1.5: give a value between 0 and 0.9"),
        ("remat: 1", ": remat is 1: give true or false"),
    ],
)
def test_yaml_that_doesn_t_fit(tmp_path: Path, text: str, sentence: str) -> None:
    path = yaml_file(tmp_path, text)
    assert mistake(pretrain, "--config", path) == path + sentence


@pytest.mark.parametrize("config", [DeviceOptions, PretrainConfig, EvaluateConfig, PreflightConfig, Phase])
def test_defaults_pass_their_own_checks(config: type) -> None:
    """But for what must be given."""
    for field in fields(config):
        if (config, field.name) != (Phase, "steps") and field.name != "phases":
            assert options.value_of(field, field.default, field.name) == field.default
        assert field.metadata["help"]


@pytest.mark.parametrize("config", [PretrainConfig, PreflightConfig])
def test_choices_of_the_model(config: type) -> None:
    choices = {field.name: field.metadata["choices"] for field in fields(config)}
    found = [tuple(name for name in choices[option] if name != "auto") for option in ("preset", "precision")]
    assert found == [tuple(PRESETS), tuple(PRECISIONS)]
