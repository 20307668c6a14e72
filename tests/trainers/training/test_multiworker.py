"""Two processes on this machine that train as two workers: equal to one process, killed, and stopped."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common import distribution
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.evaluate_config import EvaluateConfig
from tests.trainers.pretraining.test_pretrain_resume import CODE, assert_the_same, figures, options

pytestmark = pytest.mark.usefixtures("one_layer")

# Dropout is drawn separately for each replica. Muon has AdamW inside, for all but the matrices of the layers.
STILL = ("--dropout", "0", "--attention-dropout", "0", "--optimizer", "muon", "--steps", "12", "--eval-steps", "6")
TOLERANCE = 1e-4  # tolerance of a loss: sums are added in another order, and the difference grows over the steps
FIRST = 1e-6  # relative tolerance in the first steps
PATIENCE = 400  # seconds until the remaining worker must have exited


class Workers:
    """`clozemill pretrain --strategy multiworker` in some processes, with output in files."""

    def __init__(self, folder: Path, dataset: Path, *more: str, count: int = 2) -> None:
        self.folder = folder
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
            for bound in sockets:
                bound.bind(("127.0.0.1", 0))
            cluster = {"worker": [f"127.0.0.1:{bound.getsockname()[1]}" for bound in sockets]}
        self.told = [folder.with_name(f"{folder.name}.told-{index}") for index in range(count)]
        command = [sys.executable, "-c", CODE, *options(folder, dataset, "--strategy", "multiworker", *more)]
        self.processes = []
        for index, path in enumerate(self.told):
            environment = os.environ | {
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})
            }
            with open(path, "w") as told:
                self.processes.append(subprocess.Popen(command, env=environment, stdout=told, stderr=subprocess.STDOUT))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        for process in self.processes:
            process.kill()

    def codes(self) -> list[int]:
        """Wait for all; return their exit codes."""
        return [process.wait(PATIENCE) for process in self.processes]

    def printed(self, index: int) -> str:
        return self.told[index].read_text()

    def finished(self) -> None:
        assert not any(self.codes()), [self.printed(index) for index in range(len(self.told))]

    def at(self, moment: Callable[[], bool]) -> None:
        """Wait until a condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not moment():
            assert time.monotonic() < deadline and None in [process.poll() for process in self.processes], self.printed(0)
            time.sleep(0.01)

    def at_step(self, step: int) -> None:
        self.at(lambda: f"\nstep {step}/" in self.printed(0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, demo_dataset: Path) -> Path:
    """The folder of an uninterrupted run of two workers."""
    folder = tmp_path_factory.mktemp("workers") / "run"
    with Workers(folder, demo_dataset, *STILL) as workers:
        workers.finished()
        assert workers.printed(1).startswith("worker 1 of 2, at 127.0.0.1:") and workers.printed(1).count("\n") == 1
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory, demo_dataset: Path) -> Path:
    """The folder of an uninterrupted run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    assert clozemill.main(options(folder, demo_dataset, *STILL)) == 0
    return folder


def assert_close(mine: Path, other: Path, since: int = 0) -> None:
    """Check that two runs have the same lines and, within rounding, losses; nearly the same in the two steps after `since`."""
    rows, others = figures(mine), figures(other)
    assert [(row["step"], row.get("examples")) for row in rows] == [(row["step"], row.get("examples")) for row in others]
    apart = [abs(a["loss"] - b["loss"]) / b["loss"] for a, b in zip(rows, others, strict=True)]
    first = [gap for gap, row in zip(apart, rows, strict=True) if since < row["step"] <= since + 2]
    print(f"losses of {len(rows)} lines differ by at most {max(apart):.2e}, relatively; of steps after {since}: {first}")
    assert max(apart) < TOLERANCE and max(first) < FIRST


def test_matches_one_process(whole: Path, one: Path) -> None:
    """The losses of every step and evaluation are equal; the eval split is counted once."""
    assert_close(whole, one)
    assert {path.name for path in whole.iterdir()} == {path.name for path in one.iterdir()}


def resumed(workers: Workers) -> int:
    """Return the step after which the workers resumed."""
    (step,) = re.findall(r"^resuming after step (\d+)$", workers.printed(0), re.MULTILINE)
    return int(step)


def killed_after(step: int, command: list[str]) -> None:
    """Run one process, and kill it after a step."""
    with subprocess.Popen([sys.executable, "-c", CODE, *command], stdout=subprocess.PIPE, text=True) as process:
        while not (line := process.stdout.readline()).startswith(f"step {step}/"):
            assert line or process.poll() is None
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_another_number_of_workers_resumes_a_run(one: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """Started by one process that is killed, continued by two workers: the losses of an uninterrupted run."""
    killed_after(7, options(tmp_path / "run", demo_dataset, *STILL))
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
        assert_close(tmp_path / "run", one, since=resumed(workers))


@pytest.mark.slow
def test_one_then_four_then_two_workers(one: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """Each killed in between."""
    killed_after(7, options(tmp_path / "run", demo_dataset, *STILL))
    with Workers(tmp_path / "run", demo_dataset, *STILL, count=4) as workers:
        workers.at_step(11)
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
        assert_close(tmp_path / "run", one, since=resumed(workers))


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_worker_is_killed(victim: int, whole: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """The other soon exits with one sentence; when both resume, the losses equal those of the uninterrupted run."""
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.at_step(8)
        workers.processes[victim].kill()
        began = time.monotonic()
        assert workers.processes[1 - victim].wait(PATIENCE) == 75
        print(f"the other ended after {time.monotonic() - began:.0f} s")
        last = workers.printed(1 - victim).rstrip().split("\n")[-1]
        assert last.startswith("clozemill: another worker was lost (")
        assert last.endswith("): check its log, then run the same command on every worker to resume")
        assert "Traceback" not in workers.printed(1 - victim)
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
        assert resumed(workers) in (5, 6, 10)  # checkpoints, and the one of the evaluation
    assert_the_same(tmp_path / "run", whole, 12)


@pytest.mark.slow
def test_a_worker_is_stopped_by_a_signal(whole: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """Both stop after the same step."""
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.at_step(8)
        workers.processes[1].send_signal(signal.SIGTERM)
        assert workers.codes() == [75, 75], [workers.printed(0), workers.printed(1)]
        saved = [workers.printed(index).rstrip().split("\n")[-1] for index in range(2)]
        assert saved[0] == saved[1] and saved[0].startswith("SIGTERM: saved at step ")
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
    assert_the_same(tmp_path / "run", whole, 12)


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{",
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}',
    ],
)
def test_an_invalid_cluster(told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_CONFIG", told)
    with pytest.raises(UserError, match=r"--strategy multiworker needs TF_CONFIG in the environment of each worker: set it"):
        distribution.make_strategy(PretrainConfig(strategy="multiworker"))


def test_other_commands_need_one_machine() -> None:
    with pytest.raises(UserError, match="--strategy multiworker works with pretrain only"):
        distribution.make_strategy(EvaluateConfig(strategy="multiworker"))
