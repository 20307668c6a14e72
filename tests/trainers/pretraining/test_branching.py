"""`pretrain --branch-from`: continues a wsd run from its stable part; and phases that share a dataset."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

import clozemill
from clozemill.pipelines.command_line.options import from_values
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.optimizer import Schedule
from clozemill.trainers.pretraining import branching
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun, plan_run
from clozemill.trainers.pretraining.recipes import Part, Phase
from clozemill.trainers.pretraining.schedules import OrderEntry
from clozemill.trainers.training import checkpoint_index, checkpoints, run_folder
from tests.trainers import datasets, saved
from tests.trainers.pretraining.test_warm_start import SMALL, checkpoint

STEPS, STABLE = 12, 8
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")
TRUNK = {
    "preset": "tiny", "max_position_embeddings": 16, "batch_size": 8, "learning_rate": 2e-3, "warmup_steps": 2, "seed": 3,
    "optimizer": "muon", "schedule": "wsd", "decay_steps": STEPS - STABLE, "steps": STEPS, "dropout": 0.1,
}  # fmt: skip
OPEN = {
    "preset": "auto", "precision": "auto", "hidden_act": "auto", "attention": "auto", "warmup_steps": -1, "dropout": None,
    "batch_size": None, "learning_rate": None, "clip_norm": None, "init": "", "masked_lm_prob_schedule": "",
}  # fmt: skip
HEADS = {"objectives": ("mlm+nsp", "rtd")}  # of a trunk's later phases
ALWAYS = ["--no-tensorboard", "--log-steps", "3", "--checkpoint-steps", "2", "--keep-checkpoints", "2"]


def pretrain(output: Path, *arguments: object, code: int = 0) -> None:
    assert clozemill.main(["pretrain", "--output", str(output), *ALWAYS, *map(str, arguments)]) == code


def words(options: dict[str, Any]) -> list[object]:
    """Return options as flags."""
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]


def metrics(run: Path) -> list[dict[str, Any]]:
    """Return the entries of metrics.jsonl, without rates."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in RATES} for row in rows]


def bits(run: Path, step: int) -> dict[str, bytes]:
    """Return a checkpoint's weights and moments by name."""
    return saved.bits(run / f"checkpoints/step-{step:08d}")


def steps_of(run: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").iterdir())


def until(run: Path, copy: Path, step: int) -> Path:
    """Return a copy of a run as a kill after the checkpoint of `step` would have left it."""
    shutil.copytree(run, copy)
    for path in (copy / "checkpoints").iterdir():
        if int(path.name[5:]) > step:
            shutil.rmtree(path)
    return copy


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    datasets.write(folder, [[30, 40]] * 2)  # without an eval split, so that nothing is evaluated
    return folder


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A run of Muon with the schedule wsd, warm-up until step 2, decay after step 8. Read it only."""
    run = tmp_path_factory.mktemp("trunk") / "trunk"
    pretrain(run, "--data", data, *words(TRUNK))
    return run


def test_the_end_of_a_stable_part_is_kept(trunk: Path) -> None:
    """Besides the two newest checkpoints. The decay ends near 0; the rates are those of the schedule."""
    assert steps_of(trunk) == [STABLE, 10, STEPS]
    rates = [row["learning_rate"] for row in metrics(trunk) if "learning_rate" in row]
    decay = [2e-3 * (1 - (step / 4) ** 0.5) for step in range(4)]
    every = [1e-3, *[2e-3] * 7, *decay]
    assert rates == pytest.approx([sum(every[at : at + 3]) / 3 for at in range(0, STEPS, 3)], rel=1e-5)


def test_a_branch_with_the_decay_of_its_trunk_is_its_trunk(
    trunk: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Weights, moments and metrics are bit-identical. The matrices of the layers have one moment, that of Muon."""
    source = Path(shutil.copytree(trunk, tmp_path / "source"))
    branch = tmp_path / "branch"
    pretrain(branch, "--branch-from", source, "--steps", STEPS)
    told = capsys.readouterr().out
    assert f"continuing {source} after step 8\n" in told and "(wsd, decay after step 8)" in told
    assert bits(branch, STEPS) == bits(trunk, STEPS)
    assert metrics(branch) == [row for row in metrics(trunk) if row["step"] > STABLE]
    assert not [name for name in bits(trunk, STEPS) if "second" in name and "layer_" in name and "kernel" in name]
    begun = {
        "run": "source",
        "step": 8,
        "checkpoint": checkpoints.digest(checkpoints.find(f"{source}/checkpoints/step-00000008")),
    }
    assert json.loads((branch / "run.json").read_text())["branched_from"] == begun
    assert checkpoints.find(str(branch)).index["branched_from"] == begun
    assert "It continues the run source after step 8." in (branch / "report.html").read_text()


@pytest.mark.slow
def test_a_killed_branch_resumes_without_its_trunk(trunk: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Bit-identically; a branch that was killed before its first checkpoint needs the trunk's."""
    source = Path(shutil.copytree(trunk, tmp_path / "source"))
    pretrain(tmp_path / "branch", "--branch-from", source, "--steps", STEPS)
    killed = until(tmp_path / "branch", tmp_path / "killed", 10)
    shutil.rmtree(source)
    source.mkdir()
    pretrain(killed, "--branch-from", source, "--steps", STEPS)
    assert "resuming after step 10\n" in capsys.readouterr().out
    assert bits(killed, STEPS) == bits(trunk, STEPS) and metrics(killed) == metrics(tmp_path / "branch")
    shutil.rmtree(killed / "checkpoints")
    pretrain(killed, "--branch-from", source, "--steps", STEPS, code=2)
    assert "has no checkpoint" in capsys.readouterr().err
    pretrain(killed, "--branch-from", source, "--steps", STEPS + 1, code=2)
    assert f"{killed} was started with --steps 12, not 13: give the same, --overwrite" in capsys.readouterr().err


def planned(**given: Any) -> PretrainingRun:
    return plan_run(PretrainConfig(**given))


def refused(**given: Any) -> str:
    with pytest.raises(UserError) as caught:
        planned(**given)
    return str(caught.value)


def test_a_branch_has_the_options_of_its_trunk(trunk: Path, data: Path, tmp_path: Path) -> None:
    """But for the steps and the decay, and options that change no loss."""
    moved = Path(shutil.copytree(data, tmp_path / "moved"))
    mine = planned(branch_from=str(trunk), steps=11, data=(str(moved),), output=str(tmp_path / "run"), log_steps=7)
    assert {name: getattr(mine.config, name) for name in TRUNK} == TRUNK | {"steps": 11, "decay_steps": 3}
    assert (mine.config.data, mine.config.log_steps, mine.branch.step) == ((str(moved),), 7, STABLE)
    (phase,) = mine.phases
    assert (phase.begin, phase.end, phase.schedule) == (0, 11, Schedule(2e-3, 2, 11, 0, "wsd", 3))
    assert planned(branch_from=str(trunk), steps=11).config.data == (str(data),)
    longer = planned(branch_from=str(trunk), steps=50, decay_steps=0, optimizer="muon", seed=3)  # a longer trunk
    assert longer.phases[0].schedule == Schedule(2e-3, 2, 50, 0, "wsd", 0)
    (tmp_path / "run").mkdir()
    run_folder.claim_run_folder(mine, str(tmp_path / "run"))
    run_folder.claim_run_folder(planned(**vars(mine.config)), str(tmp_path / "run"))
    other = planned(**{**vars(mine.config), "decay_steps": 2})
    with pytest.raises(UserError, match="was started with phase 1's decay_steps 3, not 2: give the same"):
        run_folder.claim_run_folder(other, str(tmp_path / "run"))


def test_what_cannot_be_branched_is_refused(trunk: Path, data: Path, tmp_path: Path) -> None:
    def at(step: int) -> str:
        return f"{trunk}/checkpoints/step-{step:08d}"

    assert refused(branch_from=at(10), steps=20) == (
        f"--branch-from {at(10)} is in its decay, which began at step 8: give a checkpoint of the stable part"
    )
    assert refused(branch_from=at(8), steps=8).startswith("--steps 8 isn't after step 8 of ")
    assert "has no checkpoint in the stable part of its schedule before --steps 8 (the newest is of step 12)" in refused(
        branch_from=str(trunk), steps=8
    )
    assert refused(branch_from=at(8), steps=20, decay_steps=13).startswith("--decay-steps 13 is longer than the 12 steps from ")
    assert refused(branch_from=str(trunk), steps=20, seed=4) == (
        f"--seed 4 contradicts {trunk}, which has 3: leave it out, or start a run of its own"
    )
    assert refused(branch_from=str(trunk), steps=20, schedule="cosine").startswith("--schedule cosine contradicts ")
    assert refused(branch_from=str(trunk), steps=20, init=str(trunk)).startswith(f"--init {trunk} contradicts ")
    datasets.write(tmp_path / "other", [[31, 40]] * 2)
    assert f"{tmp_path}/other is not the dataset that {trunk} was trained on: its dataset is" in refused(
        branch_from=str(trunk), steps=20, data=(str(tmp_path / "other"),)
    )
    assert refused(branch_from=str(data), steps=20).startswith(f"--branch-from {data} is not a run of clozemill pretrain: ")
    told = json.loads((trunk / "run.json").read_text())
    told["config"] |= {"schedule": "linear", "decay_steps": -1}
    linear = tmp_path / "linear"
    linear.mkdir()
    (linear / "run.json").write_text(json.dumps(told))
    assert "was trained with --schedule linear, whose learning rate has no stable part" in refused(
        branch_from=str(linear), steps=20
    )
    for name in ("schedule", "decay_steps"):  # a run of an earlier version
        del told["config"][name]
    (linear / "run.json").write_text(json.dumps(told))
    assert "was trained with --schedule linear" in refused(branch_from=str(linear), steps=20)
    told["config"]["batch_size"] = "many"
    (linear / "run.json").write_text(json.dumps(told))
    assert "its run.json can't be used (options: batch_size is 'many': give a whole number)" in refused(branch_from=str(linear))


def test_an_average_is_not_branched(trunk: Path, data: Path, tmp_path: Path) -> None:
    """The result of --average-with-init has the moments of other weights. The checkpoint before it is taken."""
    run = shutil.copytree(trunk, tmp_path / "run")
    told = json.loads((run / "run.json").read_text())
    told["config"]["decay_steps"] = 0
    (run / "run.json").write_text(json.dumps(told))
    for folder in (run / "checkpoints").iterdir():
        index = json.loads((folder / "checkpoint.json").read_text()) | {"average_with_init": 0.5}
        (folder / "checkpoint.json").write_bytes(checkpoint_index.dumps({key: index[key] for key in index if key != "sha256"}))
    last = run / "checkpoints/step-00000012"
    assert refused(branch_from=str(last), steps=20) == (
        f"--branch-from {last} is an average with the weights of --init, which can't be trained on as they were: give an "
        "earlier checkpoint"
    )
    config = PretrainConfig(branch_from=str(run), steps=20, output=str(tmp_path / "branch"))
    found = branching.branched(config)[1]
    assert found and found.step == 10


def test_commands_that_name_a_branch(trunk: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """As a user gives them: a trunk that doesn't exist, or is the output; a folder that has another run; a warm-up."""
    for arguments, sentence in (
        (["--branch-from", tmp_path / "none"], f"--branch-from {tmp_path}/none doesn't exist: give "),
        (["--decay-steps", 3, "--data", data], "--decay-steps has no effect with --schedule linear: give --schedule wsd, or "),
        (
            ["--schedule", "wsd", "--decay-steps", 950, "--data", data],
            "--decay-steps 950 is longer than the run of 1,000 steps",
        ),
        (["--schedule", "step", "--data", data], "--schedule is 'step': give one of linear, cosine, wsd"),
    ):
        pretrain(tmp_path / "run", *arguments, code=2)
        told = capsys.readouterr().err
        assert sentence in told and told.count("\n") == 1
    pretrain(tmp_path / "run", "--branch-from", trunk, "--steps", 20, "--optimizer", "adamw", code=2)
    assert f"--optimizer adamw contradicts {trunk}, which has muon: leave it out" in capsys.readouterr().err  # the default
    for _ in range(2):  # values that leave a choice to the run contradict nothing, also where the run has made it
        branch = from_values(PretrainConfig, {"branch_from": str(trunk), "steps": 20, "output": str(tmp_path / "open"), **OPEN})
        found = plan_run(branch)
        (tmp_path / "open").mkdir(exist_ok=True)
        run_folder.claim_run_folder(found, branch.output)
    pretrain(trunk, "--branch-from", trunk, "--steps", 20, code=2)
    assert f"--branch-from {trunk} is --output as well: give a new folder as --output" in capsys.readouterr().err
    pretrain(trunk, "--data", data, *words({**TRUNK, "steps": 20}), code=2)
    assert f"continue it from its stable part: --branch-from {trunk} --steps 20 and a new --output" in capsys.readouterr().err
    endless = Path(shutil.copytree(trunk, tmp_path / "endless"))
    told = json.loads((endless / "run.json").read_text())
    told["config"]["decay_steps"] = told["identity"]["phase 1"]["decay_steps"] = 0
    (endless / "run.json").write_text(json.dumps(told))
    pretrain(endless, "--data", data, *words({**TRUNK, "steps": 20, "decay_steps": 0}), code=2)
    assert f"{endless} is complete: to train further, continue it from its stable part: " in capsys.readouterr().err
    early = until(trunk, tmp_path / "early", 0)
    shutil.copytree(trunk / "checkpoints/step-00000008", early / "checkpoints/step-00000008")
    path = early / "checkpoints/step-00000008/checkpoint.json"
    index = json.loads(path.read_text())
    path.write_bytes(checkpoint_index.dumps({**{name: value for name, value in index.items() if name != "sha256"}, "step": 1}))
    pretrain(tmp_path / "run", "--branch-from", path.parent, "--steps", 20, code=2)
    assert "is in its warm-up, which ends at step 2: give a checkpoint of the stable part" in capsys.readouterr().err


def test_a_trunk_of_several_phases(data: Path, tmp_path: Path) -> None:
    """A branch has the later phases that share the schedule, and ends with the last of them that begins before --steps."""
    shared = {**TRUNK, "steps": 30, "decay_steps": 0, "data": (str(data),) * 3}
    phases = (Phase(steps=10), Phase(steps=10, batch_size=16), Phase(steps=10, batch_size=32, learning_rate=1e-3))
    run = planned(**shared, phases=phases, output=str(tmp_path))
    run_folder.claim_run_folder(run, str(tmp_path))
    for step, steps, ends, schedule in (
        (8, 9, [9], Schedule(2e-3, 2, 9, 0, "wsd", 1)),
        (8, 15, [10, 15], Schedule(2e-3, 2, 15, 0, "wsd", 7)),
        (8, 90, [10, 90], Schedule(2e-3, 2, 90, 0, "wsd", 82)),
        (25, 40, [10, 20, 40], Schedule(1e-3, 2, 20, 20, "wsd", 15)),
    ):
        for path in (tmp_path / "checkpoints").glob("*"):
            shutil.rmtree(path)
        checkpoints.write(f"{tmp_path}/checkpoints/step-{step:08d}", {}, run.vocabulary, {"step": step, **run.about(step)})
        branch = planned(branch_from=str(tmp_path), steps=steps)
        assert ([phase.end for phase in branch.phases], branch.phases[-1].schedule) == (ends, schedule)
        entries = [phase.entry for phase in run.phases]  # the order is that of the trunk, whose third phase may be missing
        assert [phase.entry for phase in branch.phases] == entries[: len(ends)]


def test_a_branch_without_the_heads_of_its_trunk_s_later_phases(tmp_path: Path) -> None:
    """Their weights and moments are left out; any other variable that the branch lacks is an error."""
    whole, mine = (train_state.make(SMALL, "mlm", "float32", seed, **more) for seed, more in ((1, HEADS), (2, {})))
    folder = f"{tmp_path}/checkpoints/step-00000004"
    checkpoints.write(folder, whole.values(), b"[PAD]\n", {"step": 4, "journal": {"sums": [], "count": 0}})
    one = checkpoints.find(folder)
    branch = branching.Branch(folder, str(tmp_path), 4, checkpoints.digest(one), {})
    journal = SimpleNamespace(resume=lambda *_: None)
    assert branching.enter(branch, mine, journal) == 4  # type: ignore[arg-type]
    for name, values in mine.values().items():
        theirs = whole.values()[name]
        assert values.keys() < theirs.keys()
        assert all((np.asarray(value) == np.asarray(theirs[path])).all() for path, value in values.items())
    other = train_state.make(replace(SMALL, num_hidden_layers=SMALL.num_hidden_layers - 1), "mlm", "float32", 0)
    with pytest.raises(UserError, match=r"is corrupt \(encoder/layer_\d/[a-z_/]+ is not a variable of the model\)"):
        branching.enter(branch, other, journal)  # type: ignore[arg-type]


def test_a_trunk_whose_recipe_mixes_datasets(data: Path, tmp_path: Path) -> None:
    """The branch reads the same mixture in the same order, and evaluates on the general text too; also when it is resumed."""
    general = datasets.write(tmp_path / "general", [[30, 40]] * 2, [6]).folder
    checkpoint(tmp_path / "begun", {"objective": "mlm+nsp"}, encoder=SMALL.to_dict())
    given = {"recipe": "continue", "init": str(tmp_path / "begun"), "data": (str(data), general), "steps": 20, "batch_size": 8}
    run = planned(**given, schedule="wsd", warmup_steps=2, decay_steps=4, output=str(tmp_path / "trunk"))
    (tmp_path / "trunk").mkdir()
    run_folder.claim_run_folder(run, str(tmp_path / "trunk"))
    folder = f"{tmp_path}/trunk/checkpoints/step-00000012"
    checkpoints.write(folder, {}, run.vocabulary, {"step": 12, **run.about(12)})
    for _ in range(2):
        branch = planned(branch_from=str(tmp_path / "trunk"), steps=30, output=str(tmp_path / "branch"))
        (phase,) = branch.phases
        assert phase.mixture.record == run.phases[0].mixture.record and phase.entry == run.phases[0].entry
        assert (phase.end, list(phase.eval_sets)) == (30, ["general"])
        (tmp_path / "branch").mkdir(exist_ok=True)
        run_folder.claim_run_folder(branch, str(tmp_path / "branch"))


def test_an_evaluation_of_the_trunk_does_not_change_its_checkpoint(trunk: Path, tmp_path: Path) -> None:
    """A branch that was planned before it can begin after it; one of an earlier version, which noted all, too."""
    source = Path(shutil.copytree(trunk, tmp_path / "source"))
    folder = f"{source}/checkpoints/step-00000008"
    one = checkpoints.find(folder)
    branch = planned(branch_from=str(source), steps=STEPS).branch
    evaluated = one.index | {"eval": {"masked_lm_loss": 3.0}, "journal": one.index["journal"] | {"lines": "x", "entries": 9}}
    assert checkpoints.describe_again(folder, {key: value for key, value in evaluated.items() if key != "files"})
    assert checkpoints.digest(checkpoints.find(folder)) == branch.digest == checkpoints.digest(one)
    trained = one.index | {"journal": one.index["journal"] | {"count": 1}}
    assert checkpoints.digest(checkpoints.Checkpoint(folder, trained)) != branch.digest


def test_a_trunk_with_a_dataset_and_a_mixture(data: Path, tmp_path: Path) -> None:
    general = datasets.write(tmp_path / "general", [[30, 41]] * 2).folder
    parts = (Part(str(data), 0.7), Part(general, 0.3))
    options = {**TRUNK, "steps": 20, "data": (str(data),)}
    run = planned(**options, phases=(Phase(steps=10), Phase(data=parts, steps=10)), output=str(tmp_path / "trunk"))
    (tmp_path / "trunk").mkdir()
    run_folder.claim_run_folder(run, str(tmp_path / "trunk"))
    folder = f"{tmp_path}/trunk/checkpoints/step-00000012"
    checkpoints.write(folder, {}, run.vocabulary, {"step": 12, **run.about(12)})
    branch = planned(branch_from=str(tmp_path / "trunk"), steps=30)
    assert [phase.mixture.record for phase in branch.phases] == [phase.mixture.record for phase in run.phases]


def test_a_branch_continues_the_falling_mask_rate_of_its_trunk(data: Path, tmp_path: Path) -> None:
    """Whatever its own end; also a branch of a branch, and one that is resumed."""
    trunk, given = tmp_path / "trunk", {"masked_lm_prob_schedule": "0.15:0.1@0.5", "data": (str(data),)}
    run = planned(**TRUNK, **given, output=str(trunk))
    assert run.phases[0].masks.begins.tolist() == [0, STEPS // 2] and "mask_rate_steps" not in run.identity()["phase 1"]

    def claimed(one: PretrainingRun, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        run_folder.claim_run_folder(one, str(folder))
        checkpoints.write(f"{folder}/checkpoints/step-{step:08d}", {}, one.vocabulary, {"step": step, **one.about(step)})

    claimed(run, trunk, 4)
    for name, source, steps, step in (("branch", trunk, 30, 8), ("again", trunk, 30, 8), ("later", tmp_path / "branch", 50, 9)):
        output = tmp_path / name.replace("again", "branch")
        branch = planned(branch_from=str(source), steps=steps, decay_steps=steps - 10, output=str(output))
        assert branch.phases[0].masks.begins.tolist() == [0, STEPS // 2]
        assert branch.identity()["phase 1"]["mask_rate_steps"] == STEPS
        claimed(branch, output, step)


# Phases on one dataset


def test_phases_on_one_dataset_continue_its_order(data: Path, tmp_path: Path) -> None:
    """With batches that grow; a dataset in between has an order of its own."""
    datasets.write(tmp_path / "other", [[100]])
    other = str(tmp_path / "other")
    given = {**TRUNK, "data": (str(data), other, str(data), str(data)), "output": str(tmp_path / "run")}
    phases = (Phase(steps=4), Phase(steps=2, batch_size=4), Phase(steps=3, batch_size=24), Phase(steps=3, batch_size=32))
    run = planned(**given, phases=phases)
    assert [phase.entry for phase in run.phases] == [
        OrderEntry(0, 8), OrderEntry(0, 4), OrderEntry(32, 8), OrderEntry(104, 8),
    ]  # fmt: skip
    assert [phase.epochs(phase.end) for phase in run.phases] == [[32 / 70], [8 / 100], [104 / 70], [200 / 70]]
    recorded = run.identity()
    assert (
        "first_row" not in recorded["phase 1"]
        and recorded["phase 4"] | {"first_row": 104, "order_batch_size": 8} == (recorded["phase 4"])
    )
    (tmp_path / "run").mkdir()
    run_folder.claim_run_folder(run, str(tmp_path / "run"))
    assert planned(**given, phases=phases).identity() == recorded
    told = json.loads((tmp_path / "run/run.json").read_text())
    for number in (3, 4):  # a run of an earlier version reads as it began
        for name in ("first_row", "order_batch_size"):
            del told["identity"][f"phase {number}"][name]
    (tmp_path / "run/run.json").write_text(json.dumps(told))
    earlier = planned(**given, phases=phases)
    run_folder.claim_run_folder(earlier, str(tmp_path / "run"))
    assert [phase.entry for phase in earlier.phases[2:]] == [OrderEntry(0, 24), OrderEntry(0, 32)]


@pytest.mark.slow
def test_a_run_in_two_phases_equals_one_in_a_single_phase(data: Path, trunk: Path, tmp_path: Path) -> None:
    """With the same batches and the schedule of the run, the phases change nothing: not even which examples come next."""
    given = {name: value for name, value in TRUNK.items() if name != "steps"}
    config = tmp_path / "phases.yaml"
    config.write_text(yaml.safe_dump({**given, "phases": [{"data": str(data), "steps": 5}, {"data": str(data), "steps": 7}]}))
    pretrain(tmp_path / "run", "--config", config)
    assert bits(tmp_path / "run", STEPS) == bits(trunk, STEPS)


def test_the_warm_up_and_decay_of_a_phase(data: Path, tmp_path: Path) -> None:
    """Of its own schedule: the run's, or a tenth and a fifth of its steps, unless given; too long a one is refused."""
    given = {**TRUNK, "decay_steps": -1, "data": (str(data),) * 3}
    own = Phase(steps=10, learning_rate=1e-3, warmup_steps=1)
    run = planned(**given, phases=(own, replace(own, decay_steps=4), Phase(steps=20)))
    assert [phase.schedule for phase in run.phases] == [
        Schedule(1e-3, 1, 10, 0, "wsd", 2),
        Schedule(1e-3, 1, 10, 10, "wsd", 4),
        Schedule(2e-3, 2, 40, 0, "wsd", 8),
    ]
    assert refused(**given, phases=(own, own, replace(own, decay_steps=10))) == (
        "phase 3's decay_steps 10 is longer than its 10 steps without their warm-up of 1: give fewer"
    )
    open_ = {**given, "data": (str(data),) * 2, "warmup_steps": -1, "phases": (replace(own, warmup_steps=-1), Phase(steps=30))}
    assert planned(**open_).phases[0].schedule == Schedule(1e-3, 1, 10, 0, "wsd", 2)
    assert planned(**{**open_, "warmup_steps": 3}).phases[0].schedule == Schedule(1e-3, 3, 10, 0, "wsd", 2)
    for name in ("warmup_steps", "decay_steps"):
        assert refused(**{**open_, name: 20}) == (
            f"phase 1 has a learning rate of its own, and --{name.replace('_', '-')} 20 doesn't fit into its 10 steps: give it "
            f"{name} of its own"
        )
    earlier = planned(**{**open_, "output": str(tmp_path), "decay_steps": 9})
    run_folder.claim_run_folder(earlier, str(tmp_path))
    again = planned(**{**open_, "output": str(tmp_path), "decay_steps": 20})  # an earlier version may have started it
    assert again.phases[0].schedule == Schedule(1e-3, 1, 10, 0, "wsd", 10)
    with pytest.raises(UserError, match="decay_steps of a phase has no effect with --schedule cosine: give --schedule wsd"):
        PretrainConfig(schedule="cosine", phases=(replace(own, decay_steps=4),)).validate()
