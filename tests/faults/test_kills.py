"""`prepare` and `vocab`, killed at random moments and resumed, produce byte-identical files and leave nothing else.

The moments are drawn over the duration of an uninterrupted run, including start-up. 100 of each: `make test-faults`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.slow import mostly_slow
from tests.test_resume import CODE, after, run_until

VARYING = {"run.json", "report.html", "report.md"}  # they contain times
PREPARE = ["--num-groups", "8", "--dupe-factor", "3", "--eval-fraction", "0.1", "--seed", "7", "--provenance", "--no-progress"]
MODES = {"one process": ["--in-memory"], "two workers": ["--no-in-memory", "--num-workers", "2"]}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file in a folder, including hidden and temporary ones; files with times only by name."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): b"" if path.name in VARYING else path.read_bytes() for path in paths}


@dataclass
class Bench:
    """A command with its output in FOLDER, and the result and duration of uninterrupted runs."""

    arguments: list[str]
    folder: Path
    whole: dict[str, bytes]
    seconds: float
    kills: int = 0
    finished: int = 0

    def begin_anew(self) -> None:
        """Remove the output of a finished run."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()

    def disturb(self, stream: np.random.Generator) -> None:
        """Kill the current run once more, or let it finish; then compare all files and start over."""
        code = run_until(self.arguments, after(stream.uniform(0, self.seconds)), signal.SIGKILL)
        if code == 0:
            self.compare()
            return
        assert code == -signal.SIGKILL
        self.kills += 1

    def compare(self) -> None:
        assert contents(self.folder) == self.whole
        self.finished += 1
        self.begin_anew()


def bench(folder: Path, words: list[str]) -> Bench:
    """Run a command without interruption, in its own folder."""
    made = Bench([sys.executable, "-c", CODE, *words], folder, {}, 0.0)
    made.begin_anew()
    began = time.monotonic()
    subprocess.run(made.arguments, check=True, stdout=subprocess.DEVNULL)
    made.seconds = time.monotonic() - began
    made.whole = contents(folder)
    made.begin_anew()
    return made


@pytest.fixture(params=["prepare, one process", "prepare, two workers", "vocab, one process", "vocab, two workers"])
def disturbed(request, tmp_path: Path, demo_corpus: str, demo_vocab: str) -> Bench:
    name, mode = request.param.split(", ")
    out = tmp_path / "out"
    if name == "vocab":
        words = ["vocab", "--input", demo_corpus, "--output", str(out / "vocab.txt"), "--vocab-size", "3000", "--no-progress"]
        words.append("--overwrite")  # of runs that were killed after the vocabulary was written
    else:
        words = ["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(out / "d"), *PREPARE]
    return bench(out, words + MODES[mode])


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [int(os.environ.get("KILLS", "50"))])  # in each of two modes: 100 of either command
def test_a_hundred_kills_at_random_moments(disturbed: Bench, wanted: int) -> None:
    stream, began = np.random.default_rng(1), time.monotonic()
    while disturbed.kills < wanted:
        disturbed.disturb(stream)
    subprocess.run(disturbed.arguments, check=True, stdout=subprocess.DEVNULL)
    disturbed.compare()
    print(
        f"{disturbed.arguments[3]}: {disturbed.kills} kills hit a running process, {disturbed.finished} runs came to their end "
        f"with the same bytes; undisturbed {disturbed.seconds:.1f} s, all {time.monotonic() - began:.0f} s"
    )
    assert disturbed.finished


# test_resume.py kills `prepare` at chosen moments in the ordinary suite.
KILLED = ("prepare, one process", "vocab, one process")


@pytest.mark.parametrize("disturbed", mostly_slow(KILLED), indirect=True)
def test_a_few_kills_at_random_moments(disturbed: Bench) -> None:
    stream = np.random.default_rng(1)
    while disturbed.kills < 2:
        disturbed.disturb(stream)
    subprocess.run(disturbed.arguments, check=True, stdout=subprocess.DEVNULL)
    disturbed.compare()


def test_leftovers_of_a_killed_vocabulary_write_are_removed(tmp_path: Path, demo_corpus: str) -> None:
    """The time between creating a temporary file and renaming it is too short to hit by chance."""
    import clozemill

    (tmp_path / f"vocab.txt.tmp-{'0' * 32}").write_text("[PAD]\n[UN")
    (tmp_path / f"vocab.txt.yaml.tmp-{'0' * 32}").write_text("seed")
    (tmp_path / "other.txt.tmp-mine").write_text("not ours")
    words = ["vocab", "--input", demo_corpus, "--output", str(tmp_path / "vocab.txt"), "--vocab-size", "3000", "--no-progress"]
    assert clozemill.main([*words, "--in-memory"]) == 0
    assert sorted(os.listdir(tmp_path)) == ["other.txt.tmp-mine", "vocab.txt", "vocab.txt.yaml"]


@pytest.mark.slow
@pytest.mark.parametrize("wanted", [int(os.environ.get("KILLS", "20"))])
@pytest.mark.parametrize("disturbed", ["prepare, two workers"], indirect=True)
def test_workers_that_die_at_random_moments(disturbed: Bench, tmp_path: Path, wanted: int) -> None:
    """Each time there is one sentence and exit code 2, or the run succeeds anyway; the same command resumes."""
    from clozemill.pipelines.beam import launcher

    stream, deaths, told = np.random.default_rng(7), 0, 0
    while deaths < wanted:
        with open(tmp_path / "error", "w+") as error:
            process = subprocess.Popen(disturbed.arguments, stdout=subprocess.DEVNULL, stderr=error)
            time.sleep(stream.uniform(0.3, 1) * disturbed.seconds)
            try:
                workers = list(filter(launcher._is_worker, psutil.Process(process.pid).children(recursive=True)))
            except psutil.NoSuchProcess:
                workers = []
            if workers:
                workers[int(stream.integers(len(workers)))].kill()
                deaths += 1
            code = process.wait(timeout=200)
            error.seek(0)
            lines = error.read().splitlines()
        if code == 0:
            disturbed.compare()
            continue
        assert code == 2 and len(lines) == 1 and lines[0].startswith("clozemill: a worker process died"), lines
        told += 1
    subprocess.run(disturbed.arguments, check=True, stdout=subprocess.DEVNULL)
    disturbed.compare()
    print(f"{deaths} workers killed, {told} times told in one sentence, {disturbed.finished} runs ended with the same bytes")
