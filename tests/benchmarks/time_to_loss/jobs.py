"""Runs pretraining jobs in processes of their own and keeps their results, so that a killed benchmark resumes."""

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import peer, prepare

RESULT = "result.json"
CLOCK = "clock.jsonl"  # the calls so far of a job that was killed
MODULES = {
    "clozemill": "tests.benchmarks.time_to_loss.tensorflow_child",
    "torch": "tests.benchmarks.time_to_loss.torch_child",
}


@dataclass(frozen=True)
class JobPhase:
    """Steps on one dataset. `settings`: other fields of a phase of `pretrain`, such as its objective."""

    data: str
    steps: int
    batch_size: int
    settings: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PretrainingJob:
    """A run of one contender. Everything that determines its result is a field; the digest of all of them names its folder.

    Args:
        name: the contender.
        library: a key of MODULES.
        settings: of `pretrain`, or of the torch program.
        phases: the steps.
        datasets: digest by folder of all datasets.
        eval_data: the dataset on whose eval split the losses are computed.
        points: number of evaluations; 0: none, to measure the cost of a step.
        keep: whether the weights are needed later.
        attempt: tells repeated measurements apart.
    """

    name: str
    library: str
    settings: dict[str, Any]
    phases: tuple[JobPhase, ...]
    datasets: dict[str, str]
    eval_data: str
    learning_rate: float
    seed: int
    threads: int = 1
    points: int = 0
    keep: bool = False
    attempt: int = 0

    def dumps(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)

    @property
    def steps(self) -> int:
        return sum(phase.steps for phase in self.phases)

    def folder(self, work: Path) -> Path:
        """Return the folder of the job below the working folder."""
        what = "timing" if not self.points else f"{self.steps}-{self.learning_rate:g}-{self.seed}"
        return work / "jobs" / f"{self.name}-{what}-{hashlib.sha256(self.dumps().encode()).hexdigest()[:10]}"


def child_environment(threads: int, work: Path) -> dict[str, str]:
    """Return the environment of every child: the same number of threads and the same tuning of glibc's allocator for all."""
    count = str(threads)
    return peer.quiet_environment() | {
        "PYTHONPATH": str(prepare.REPOSITORY),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": count,
        "TF_NUM_INTEROP_THREADS": count,
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OMP_WAIT_POLICY": "passive",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_OFFLINE": "1",
        "TORCHINDUCTOR_COMPILE_THREADS": "1",  # within the process, so that its clock sees them
        "TORCHINDUCTOR_CACHE_DIR": str(work / "inductor"),
        # As clozemill's trainer sets by itself (trainers/common/memory.py): torch gains from it too.
        "MALLOC_MMAP_MAX_": "0",
        "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
        "MALLOC_TOP_PAD_": str(64 << 20),
    }


def run_child(command: Sequence[str], folder: Path, threads: int, work: Path) -> None:
    """Run a command with its output in log.txt of a folder. Raises RuntimeError if it fails."""
    with open(folder / "log.txt", "a") as log:
        environment = child_environment(threads, work)
        done = subprocess.run(command, env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"a contender ended with {done.returncode}: see {folder}/log.txt")


@dataclass(frozen=True)
class Workshop:
    """Where jobs run: the working folder, the interpreters by library, and how many processes at once."""

    work: Path
    interpreters: dict[str, str]
    processes: int = 1

    def result(self, job: PretrainingJob) -> dict[str, Any]:
        """Return the result of a job, run unless it was, from its last evaluation if it was killed. Raises RuntimeError."""
        folder = job.folder(self.work)
        path = folder / RESULT
        if not path.exists():
            if folder.exists() and not job.points:  # a measurement is of one process
                shutil.rmtree(folder)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "job.json").write_text(job.dumps())
            print(f"{job.name}: {job.steps:,} steps at {job.learning_rate:g}, seed {job.seed}", file=sys.stderr, flush=True)
            run_child([self.interpreters[job.library], "-m", MODULES[job.library], str(folder)], folder, job.threads, self.work)
        return json.loads(path.read_text())

    def results(self, jobs: Sequence[PretrainingJob]) -> list[dict[str, Any]]:
        """Return the results of jobs in their order, `processes` at once."""
        with ThreadPoolExecutor(self.processes) as pool:
            return list(pool.map(self.result, jobs))


def write_json(path: Path, value: Any) -> None:
    """Write a file that is complete as soon as it is there."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(value, indent=1) + "\n")
    os.replace(part, path)
