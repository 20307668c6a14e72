"""`prepare`, killed at any moment and resumed, produces identical bytes and leaves no stray file."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.prepare.group_stage import GroupStage
from tests import corpora
from tests.slow import mostly_slow
from tests.test_determinism import digest_of

CODE = "import sys, clozemill; sys.exit(clozemill.main())"


def command(folder: Path, vocab: str, inputs: str, *more: str) -> list[str]:
    """Return a `prepare` command with many small groups and copies, so that there is much to interrupt."""
    return [sys.executable, "-c", CODE, *arguments(folder, vocab, inputs, *more)]


def arguments(folder: Path, vocab: str, inputs: str, *more: str) -> list[str]:
    options = ["--num-groups", "40", "--dupe-factor", "3", "--eval-fraction", "0.1", "--seed", "7", "--no-progress"]
    return ["prepare", "--input", inputs, "--vocab", vocab, "--output", str(folder), *options, *more]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory, demo_corpus: str) -> str:
    """Sentences of the demo corpus, shuffled into 1,200 documents in several files."""
    from clozemill.pipelines.readers import mediawiki
    from clozemill.pipelines.wikitext import converter

    pages = Path(demo_corpus).read_bytes().split(b"</page>")
    texts = [converter.to_text(mediawiki.parse_page(page).text) for page in map(mediawiki.cut_page, pages) if page]
    lines = [line for text in texts for line in text.split("\n") if len(line) > 40]
    folder = tmp_path_factory.mktemp("corpus")
    for part in range(6):
        rows = [{"text": "\n".join(lines[(part * 200 + row * 7 + step * 13) % len(lines)] for step in range(4 + row % 5)),
                 "title": f"{part}-{row}"} for row in range(200)]  # fmt: skip
        (folder / f"part-{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "*.jsonl")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, demo_vocab: str, corpus: str) -> tuple[str, float]:
    """Return (digest, seconds) of an uninterrupted run, in this process."""
    folder = tmp_path_factory.mktemp("whole") / "d"
    started = time.monotonic()
    assert clozemill.main(arguments(folder, demo_vocab, corpus)) == 0
    return digest_of(folder), time.monotonic() - started


def run_until(arguments: list[str], moment: Callable[[], bool], sign: signal.Signals, patience: float = 60) -> int:
    """Start a command in its own session, send all its processes a signal at `moment`, and return its exit code."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + patience
    while process.poll() is None and time.monotonic() < deadline and not moment():
        time.sleep(0.002)
    if process.poll() is None:
        os.killpg(process.pid, sign)
    return process.wait()


def after(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def files(folder: Path, pattern: str, count: int) -> Callable[[], bool]:
    return lambda: sum(1 for _ in folder.rglob(pattern)) >= count


def assert_only_whole_files(folder: Path) -> None:
    """Check that every shard under a final name is complete, and that a manifest, if present, is correct."""
    from clozemill.pipelines.shards import tfrecord

    if (folder / "dataset.json").exists():
        digest_of(folder)
    for shard in folder.rglob("*.tfrecord"):
        list(tfrecord.read(shard.read_bytes()))


def kills(folder: Path, arguments: list[str], moments: list[Callable[[], Callable[[], bool]]]) -> int:
    """Kill the same run repeatedly, each time at the next moment; return how many kills hit a running process."""
    hits = 0
    for moment in moments:
        code = run_until(arguments, moment(), signal.SIGKILL)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        hits += 1
        assert_only_whole_files(folder)
    return hits


@pytest.mark.parametrize("times", mostly_slow((1, 3), 1))
def test_killed_while_reading_writing_and_finishing(
    times: int, tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float]
) -> None:
    """The last run, in this process, rebuilds no complete shard. A single kill comes while it finishes."""
    folder = tmp_path / "d"
    begin = command(folder, demo_vocab, corpus)
    moments = [lambda: files(folder, ".work/spill/*.json", 1), lambda: files(folder, "*.tfrecord", 1)]
    moments += [lambda: files(folder, ".work/groups/*.json", 10)]
    assert kills(folder, begin, moments[-times:]) == times
    done = [json.loads(path.read_text()) for path in (folder / ".work/groups").glob("*.json")]
    stamps = {shard["name"]: (folder / shard["name"]).stat().st_mtime_ns for group in done for shard in group["shards"]}
    assert stamps
    assert clozemill.main(arguments(folder, demo_vocab, corpus)) == 0
    assert {name: (folder / name).stat().st_mtime_ns for name in stamps} == stamps
    assert digest_of(folder) == whole[0]
    assert not list(folder.rglob("*.tmp-*")) and not (folder / ".work").exists()


def test_a_run_is_resumed_with_other_names_of_the_same_files(
    tmp_path: Path, demo_vocab: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted when all splits are read: no split is read again, or has spill files twice."""

    def fail(*_: object) -> None:
        raise UserError("the disk is full")

    (tmp_path / "data").mkdir()
    for number in range(2):
        (tmp_path / f"data/{number}.jsonl").write_bytes(corpora.jsonl(corpora.texts(20, number)))
    (tmp_path / "link").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    options = ["--vocab", demo_vocab, "--num-groups", "2", "--dupe-factor", "1", "--in-memory", "--no-progress"]
    assert clozemill.main(["prepare", "--input", "data/*.jsonl", "--output", "whole", *options]) == 0
    with monkeypatch.context() as patched:
        patched.setattr(GroupStage, "_group_summary", fail)
        assert clozemill.main(["prepare", "--input", "data/*.jsonl", "--output", "d", *options]) == 2
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "d/.work/spill").iterdir()}
    assert len(stamps) >= 4
    with monkeypatch.context() as patched:
        patched.setattr(GroupStage, "_group_summary", fail)
        assert clozemill.main(["prepare", "--input", "link/0.jsonl", "./data/1.jsonl", "--output", "d", *options]) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "d/.work/spill").iterdir()} == stamps
    assert clozemill.main(["prepare", "--input", str(tmp_path / "link/*.jsonl"), "--output", "d", *options]) == 0
    assert digest_of(tmp_path / "d") == digest_of(tmp_path / "whole")


@pytest.mark.slow
def test_a_shard_lost_between_two_runs_is_rebuilt(
    tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float]
) -> None:
    folder = tmp_path / "d"
    begin = command(folder, demo_vocab, corpus)
    kills(folder, begin, [lambda: files(folder, ".work/groups/*.json", 10)])
    shards = sorted(folder.rglob("*.tfrecord"))
    shards[0].unlink()
    shards[1].write_bytes(shards[1].read_bytes()[:-1])
    subprocess.run(begin, check=True, stdout=subprocess.DEVNULL)
    assert digest_of(folder) == whole[0]


@pytest.mark.slow
def test_ctrl_c_explains_how_to_resume(tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float]) -> None:
    folder = tmp_path / "d"
    begin = command(folder, demo_vocab, corpus)
    assert run_until(begin, files(folder, ".work/groups/*.json", 5), signal.SIGINT) == 130
    assert_only_whole_files(folder)
    subprocess.run(begin, check=True, stdout=subprocess.DEVNULL)
    assert digest_of(folder) == whole[0]


@pytest.mark.slow
def test_ctrl_c_stops_worker_processes(tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float]) -> None:
    import psutil

    folder = tmp_path / "d"
    begin = command(folder, demo_vocab, corpus, "--num-workers", "2", "--no-in-memory")
    assert run_until(begin, files(folder, ".work/spill/*.json", 1), signal.SIGINT) == 130
    time.sleep(1)
    left = [p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])]
    assert not left
    assert clozemill.main(arguments(folder, demo_vocab, corpus)) == 0
    assert digest_of(folder) == whole[0]


@pytest.mark.slow
def test_a_dead_worker_is_one_sentence(tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float]) -> None:
    """Killed as by the kernel when memory runs out: no hang, no traceback, and the run can be resumed."""
    import psutil

    from clozemill.pipelines.beam import launcher

    folder = tmp_path / "d"
    begin = command(folder, demo_vocab, corpus, "--num-workers", "2", "--no-in-memory")
    process = subprocess.Popen(begin, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline, workers = time.monotonic() + 60, []
    while not workers and process.poll() is None and time.monotonic() < deadline:
        workers = list(filter(launcher._is_worker, psutil.Process(process.pid).children(recursive=True)))
    workers[0].kill()
    told = process.communicate(timeout=150)[1].strip().split("\n")
    assert process.returncode == 2
    assert len(told) == 1 and told[0].startswith("clozemill: a worker process died"), told
    assert_only_whole_files(folder)
    subprocess.run(begin, check=True, stdout=subprocess.DEVNULL)
    assert digest_of(folder) == whole[0]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["--in-memory", "--no-in-memory"])
def test_fifty_kills(tmp_path: Path, demo_vocab: str, corpus: str, whole: tuple[str, float], mode: str) -> None:
    """Kills are spread over the duration of a run, including start-up; each run resumes the previous one."""
    hits, finished = 0, 0
    for number in range(50):
        folder = tmp_path / f"d{finished}"
        begin = command(folder, demo_vocab, corpus, mode)
        span = whole[1] + 3 + (3 if mode == "--no-in-memory" else 0)
        hits += kills(folder, begin, [lambda n=number, s=span: after(s * ((n * 0.618) % 1))])
        if (folder / "dataset.json").exists():
            assert digest_of(folder) == whole[0]
            finished += 1
    print(f"{hits} kills hit a running process, {finished} datasets came to their end")
    assert hits >= 20
    final = command(tmp_path / f"d{finished}", demo_vocab, corpus, mode)
    subprocess.run(final, check=True, stdout=subprocess.DEVNULL)
    assert digest_of(tmp_path / f"d{finished}") == whole[0]
