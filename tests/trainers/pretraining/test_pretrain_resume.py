"""`clozemill pretrain`, killed or stopped at any moment and resumed, gives bit-identical metrics for every step."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import clozemill
from tests.trainers.saved import bits

pytestmark = pytest.mark.usefixtures("one_layer")
CODE = """
import sys, clozemill
from clozemill.model.config import PRESETS
PRESETS["tiny"]["num_hidden_layers"] = 1  # as in this process
sys.exit(clozemill.main())
"""
STEPS, SAVED_EVERY = 25, 5
RATES = ("examples_per_second", "tokens_per_second", "input_share", "seconds")  # what may differ between two runs


def options(folder: Path, dataset: Path, *more: str) -> list[str]:
    """A run whose every step draws dropout, with a schedule that still falls at its end."""
    arguments = ["--preset", "tiny", "--max-position-embeddings", "128", "--batch-size", "8", "--steps", str(STEPS)]
    arguments += ["--dropout", "0.1", "--attention-dropout", "0.1", "--learning-rate", "1e-3", "--seed", "3"]
    arguments += ["--no-tensorboard", "--log-steps", "1", "--steps-per-call", "3", "--checkpoint-steps", str(SAVED_EVERY)]
    return ["pretrain", "--data", str(dataset), "--output", str(folder), *arguments, *more]


class Run:
    """`clozemill pretrain` in a process of its own, what it prints in a file."""

    def __init__(self, folder: Path, dataset: Path, *more: str) -> None:
        self.folder, self.told = folder, folder.with_suffix(".told")
        with open(self.told, "w") as told:
            command = [sys.executable, "-c", CODE, *options(folder, dataset, *more)]
            self.process = subprocess.Popen(command, stdout=told, stderr=subprocess.STDOUT)

    def printed(self) -> str:
        return self.told.read_text()

    def finished(self) -> str:
        """What it printed, once it has done all steps."""
        assert self.process.wait() == 0, self.printed()
        return self.printed()

    def halted(self, moment: Callable[[], bool], patience: float = 120) -> None:
        """Waits until `moment` says so of the halted process; leaves it halted."""
        deadline = time.monotonic() + patience
        while self.process.poll() is None and time.monotonic() < deadline:
            if moment():
                self.process.send_signal(signal.SIGSTOP)
                os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
                if moment():  # still: it may have gone on in between
                    return
                self.process.send_signal(signal.SIGCONT)
            time.sleep(0.001)
        self.process.kill()
        raise AssertionError(f"the moment never came: {self.printed()}")

    def killed(self, moment: Callable[[], bool]) -> None:
        self.halted(moment)
        self.process.kill()
        assert self.process.wait() == -signal.SIGKILL

    def stopped(self, moment: Callable[[], bool], sign: signal.Signals) -> int:
        """Signals it at a moment; returns the step that it says it has saved."""
        self.halted(moment)
        self.process.send_signal(sign)
        self.process.send_signal(signal.SIGCONT)
        assert self.process.wait() == 75, self.printed()
        last = self.printed().rstrip().split("\n")[-1]
        assert last.startswith(f"{sign.name}: saved at step ") and last.endswith("; run the same command to resume")
        return int(last.split()[4].rstrip(";"))

    def at_step(self, step: int) -> Callable[[], bool]:
        """Whether this process has reported a step."""
        return lambda: f"step {step}/{STEPS} " in self.printed()

    def while_saving(self, step: int) -> Callable[[], bool]:
        """A checkpoint's folder is there, and its checkpoint.json isn't."""
        path = checkpoint(self.folder, step)
        return lambda: path.is_dir() and not (path / "checkpoint.json").exists()


def checkpoint(folder: Path, step: int) -> Path:
    return folder / f"checkpoints/step-{step:08d}"


def figures(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl except for the rates; floats are written so that they round-trip exactly."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in RATES} for row in rows]


def assert_the_same(folder: Path, whole: Path, last: int = STEPS) -> None:
    """Same figures for the same steps, each once; same weights and moments; no stray file."""
    assert figures(folder) == figures(whole)
    assert bits(checkpoint(folder, last)) == bits(checkpoint(whole, last))
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())
    assert not list(folder.rglob("*.tmp")) and not list(folder.rglob("*_temp"))
    assert len(list((folder / "checkpoints").iterdir())) <= 4  # the newest three, and the best


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, demo_dataset: Path) -> Path:
    """The folder of a run that nobody disturbs, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert clozemill.main(options(folder, demo_dataset)) == 0
    return folder


def test_a_run_that_nobody_disturbs(whole: Path) -> None:
    rows = figures(whole)
    train, evaluated = rows[:-1], rows[-1]
    assert [row["step"] for row in train] == list(range(1, STEPS + 1))
    assert (evaluated["step"], evaluated["split"], evaluated["examples"]) == (STEPS, "eval", 94)
    assert len({row["loss"] for row in train}) == STEPS
    assert train[-1]["masked_lm_loss"] < train[0]["masked_lm_loss"] - 0.5
    assert train[-1]["learning_rate"] < train[3]["learning_rate"]


def test_killed_while_saving_and_resumed(
    tmp_path: Path, demo_dataset: Path, whole: Path, capsys: pytest.CaptureFixture
) -> None:
    """While the second checkpoint was written: the run resumes from the first one, in this process."""
    folder = tmp_path / "run"
    run = Run(folder, demo_dataset)
    run.killed(run.while_saving(2 * SAVED_EVERY))
    assert [row["step"] for row in figures(folder)] == list(range(1, 2 * SAVED_EVERY + 1))
    assert (folder / ".lock").exists() and not (whole / ".lock").exists()
    assert clozemill.main(options(folder, demo_dataset)) == 0
    assert f"resuming after step {SAVED_EVERY}\n" in capsys.readouterr().out
    assert_the_same(folder, whole)


@pytest.mark.slow
def test_killed_and_stopped_at_many_moments(tmp_path: Path, demo_dataset: Path, whole: Path) -> None:
    """While the first checkpoint was written, by SIGTERM and by SIGINT: one run, four processes."""
    folder = tmp_path / "run"
    run = Run(folder, demo_dataset)
    run.killed(run.while_saving(5))
    assert [row["step"] for row in figures(folder)] == [1, 2, 3, 4, 5]

    run = Run(folder, demo_dataset)
    stopped = run.stopped(run.at_step(8), signal.SIGTERM)
    assert "resuming after" not in run.printed()
    assert re.search(
        r"\nSIGTERM: saving after the current steps; send it again to stop at once, and lose the last \d+ step", run.printed()
    )
    assert 8 <= stopped < STEPS
    assert all((path / "checkpoint.json").exists() for path in (folder / "checkpoints").iterdir())  # nothing that a kill left
    assert [row["step"] for row in figures(folder)] == list(range(1, stopped + 1))

    run = Run(folder, demo_dataset)
    before, stopped = stopped, run.stopped(run.at_step(stopped + 3), signal.SIGINT)
    assert f"resuming after step {before}\n" in run.printed()
    assert before + 3 <= stopped < STEPS

    run = Run(folder, demo_dataset)
    assert f"resuming after step {stopped}\n" in run.finished()
    assert_the_same(folder, whole)


@pytest.mark.slow
def test_killed_within_a_window_of_steps_that_share_a_line(tmp_path: Path, demo_dataset: Path) -> None:
    """A line every four steps, a checkpoint every five: the run is killed after a line that follows the checkpoint of step 10.

    The line of step 12 is reported again, over the same four steps, and the partial checkpoint of step 15 is ignored.
    """
    more = ("--log-steps", "4")
    assert clozemill.main(options(tmp_path / "whole", demo_dataset, *more)) == 0
    steps = [row["step"] for row in figures(tmp_path / "whole")]
    assert steps == [4, 8, 12, 16, 20, 24, 25, 25]

    run = Run(tmp_path / "run", demo_dataset, *more)
    run.killed(run.while_saving(15))
    assert [row["step"] for row in figures(tmp_path / "run")] == [4, 8, 12]
    assert "resuming after step 10\n" in Run(tmp_path / "run", demo_dataset, *more).finished()
    assert_the_same(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_is_finished_says_so(whole: Path, demo_dataset: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    assert clozemill.main(options(whole, demo_dataset)) == 0
    assert f"{whole} is complete (25 steps): nothing to do\n" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_more_steps_than_a_run_was_scheduled_for(
    whole: Path, demo_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """A complete run can't go on, since its rate is 0: the sentence names the way. One that was stopped resumes as it was."""
    assert clozemill.main(options(whole, demo_dataset, "--steps", "40")) == 2
    told = capsys.readouterr().err
    assert f"--init {whole} --steps 15 and a new --output\n" in told and "is complete, and its learning rate fell to 0" in told
    (tmp_path / "stopped").mkdir()
    (tmp_path / "stopped/run.json").write_bytes((whole / "run.json").read_bytes())
    assert clozemill.main(options(tmp_path / "stopped", demo_dataset, "--steps", "40")) == 2
    assert (
        "schedule of 25 steps, not 40: give --steps 25 to resume it, --overwrite to start over, or another --output\n"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--learning-rate", "2e-3"], "phase 1's learning_rate 0.001, not 0.002"),
        (["--batch-size", "16"], "phase 1's batch_size 8, not 16"),
        (["--dropout", "0.0"], "dropout 0.1, not 0.0"),
        (["--seed", "4"], "seed 3, not 4"),
        (["--preset", "mini"], "preset tiny, not mini"),
        (["--objective", "mlm"], "objective mlm+nsp, not mlm"),
        (["--precision", "bfloat16"], "precision float32, not bfloat16"),
    ],
)
def test_another_configuration_in_the_same_folder_is_refused(
    more: list[str], sentence: str, whole: Path, demo_dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    assert clozemill.main(options(whole, demo_dataset, *more)) == 2
    told = capsys.readouterr()
    assert (
        told.err
        == f"clozemill: {whole} was started with {sentence}: give the same, --overwrite to start over, or another --output\n"
    )
    assert told.out == ""


def test_what_changes_no_loss_may_change(whole: Path, demo_dataset: Path) -> None:
    """How often it saves and tells, and where the dataset lies."""
    more = ["--log-steps", "7", "--steps-per-call", "1", "--checkpoint-steps", "3", "--keep-checkpoints", "1"]
    link = whole.with_name("link")
    link.symlink_to(demo_dataset)
    assert clozemill.main(options(whole, link, *more)) == 0


def test_a_folder_that_holds_something_else_is_refused(
    tmp_path: Path, demo_dataset: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert clozemill.main(options(tmp_path, demo_dataset)) == 2
    assert capsys.readouterr().err == f"clozemill: {tmp_path} exists and is not a run: give a new folder as --output\n"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert clozemill.main(options(demo_dataset, demo_dataset)) == 2  # a dataset has a run.json, too
    assert capsys.readouterr().err == f"clozemill: {demo_dataset}/run.json is not that of a run: give another --output\n"


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path, demo_dataset: Path, whole: Path) -> None:
    """Between the first and the sixth step of a process, at any moment; each goes on from what the one before has left."""
    hits, finished = 0, 0
    for number in range(20):
        folder = tmp_path / f"run-{finished}"
        run = Run(folder, demo_dataset, "--checkpoint-steps", "2")
        while run.process.poll() is None and run.printed().count("\nstep ") <= number % 5:
            time.sleep(0.001)
        time.sleep(0.15 * ((number * 0.618) % 1))
        run.process.kill()
        hits += run.process.wait() == -signal.SIGKILL
        if run.process.returncode == 0:
            assert_the_same(folder, whole)
            finished += 1
    print(f"{hits} kills hit a running process, {finished} runs came to their end")
    assert hits >= 10
    Run(tmp_path / f"run-{finished}", demo_dataset, "--checkpoint-steps", "2").finished()
    assert_the_same(tmp_path / f"run-{finished}", whole)
