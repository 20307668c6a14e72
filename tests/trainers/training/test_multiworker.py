"""Two processes on this machine that train as two workers: equal to one process, killed, and stopped."""

import json
import os
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
from clozemill.trainers.pretraining.config import EvaluateConfig, PretrainConfig
from tests.trainers.pretraining.test_pretrain_resume import CODE, assert_the_same, figures, options

STILL = (
    "--dropout",
    "0",
    "--attention-dropout",
    "0",
    "--steps",
    "12",
    "--eval-steps",
    "6",
)  # dropout is drawn separately for each replica
TOLERANCE = 1e-4  # tolerance of a loss: sums are added in another order, and the difference grows over the steps
PATIENCE = 400  # seconds until the remaining worker must have exited


class Workers:
    """`clozemill pretrain --strategy multiworker` in two processes, with output in files."""

    def __init__(self, folder: Path, dataset: Path, *more: str) -> None:
        self.folder = folder
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            other.bind(("127.0.0.1", 0))
            cluster = {"worker": [f"127.0.0.1:{bound.getsockname()[1]}" for bound in (one, other)]}
        self.told = [folder.with_name(f"{folder.name}.told-{index}") for index in range(2)]
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
        """Wait for both; return their exit codes."""
        return [process.wait(PATIENCE) for process in self.processes]

    def printed(self, index: int) -> str:
        return self.told[index].read_text()

    def finished(self) -> None:
        assert self.codes() == [0, 0], [self.printed(0), self.printed(1)]

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


def test_matches_one_process(whole: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """The losses of every step and evaluation are equal; the eval split is counted once."""
    assert clozemill.main(options(tmp_path / "one", demo_dataset, *STILL)) == 0
    mine, one = figures(whole), figures(tmp_path / "one")
    assert [(row["step"], row.get("examples")) for row in mine] == [(row["step"], row.get("examples")) for row in one]
    furthest = max(abs(a["loss"] - b["loss"]) for a, b in zip(mine, one, strict=True))
    print(f"losses of {len(mine)} lines differ by at most {furthest:.2e}")
    assert furthest < TOLERANCE
    assert {path.name for path in whole.iterdir()} == {path.name for path in (tmp_path / "one").iterdir()}


def test_another_number_of_workers_resumes_a_run(whole: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """Started by one process and stopped, continued by two workers: the losses of a run of two workers from the start."""
    command = options(tmp_path / "run", demo_dataset, *STILL)
    with subprocess.Popen([sys.executable, "-c", CODE, *command], stdout=subprocess.PIPE, text=True) as process:
        while not (line := process.stdout.readline()).startswith("step 8/"):
            assert line or process.poll() is None
        process.send_signal(signal.SIGTERM)
        process.communicate()
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
        assert "resuming after step" in workers.printed(0)
    mine, expected = figures(tmp_path / "run"), figures(whole)
    assert [row["step"] for row in mine] == [row["step"] for row in expected]
    furthest = max(abs(a["loss"] - b["loss"]) for a, b in zip(mine, expected, strict=True))
    print(f"losses of {len(mine)} lines differ by at most {furthest:.2e}")
    assert furthest < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_worker_is_killed(victim: int, whole: Path, demo_dataset: Path, tmp_path: Path) -> None:
    """The other soon exits with one sentence; when both resume, the losses equal those of the uninterrupted run."""
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.at_step(8)
        workers.processes[victim].kill()
        began = time.monotonic()
        assert workers.processes[1 - victim].wait(PATIENCE) == 2
        print(f"the other ended after {time.monotonic() - began:.0f} s")
        last = workers.printed(1 - victim).rstrip().split("\n")[-1]
        assert last.startswith("clozemill: another worker was lost (")
        assert last.endswith("): check its log, then run the same command on every worker to resume")
        assert "Traceback" not in workers.printed(1 - victim)
    with Workers(tmp_path / "run", demo_dataset, *STILL) as workers:
        workers.finished()
        assert "resuming after step 5\n" in workers.printed(0) or "resuming after step 10\n" in workers.printed(0)
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
