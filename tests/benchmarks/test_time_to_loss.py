"""The arithmetic of the benchmark on literals, and, among the slow tests, a complete run of a few seconds."""

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import clozemill
from tests import corpora
from tests.benchmarks.time_to_loss import __main__ as command
from tests.benchmarks.time_to_loss import ablation, curves, downstream, entries, report
from tests.benchmarks.time_to_loss.clock import StepClock
from tests.benchmarks.time_to_loss.entries import Entry
from tests.benchmarks.time_to_loss.experiment import Candidate, Plan, check_manifests, choose_rates, planned_seconds
from tests.benchmarks.time_to_loss.jobs import MODULES, JobPhase, PretrainingJob, Workshop, child_environment

CURVE = [(10.0, 6.0), (20.0, 5.0), (30.0, 5.2), (40.0, 4.0)]


@pytest.mark.parametrize(
    ("budget", "costs", "weights", "steps"),
    [
        (100.0, [(10.0, 0.5)], [1], [180]),
        (100.0, [(5.0, 0.1), (5.0, 0.4)], [2, 7], [60, 210]),  # 10 s to start, 60 x 0.1 + 210 x 0.4 = 90
        (5.0, [(10.0, 0.5)], [1], [1]),  # too small a budget: a step all the same
    ],
)
def test_steps_that_fit_into_a_budget(budget: float, costs: list, weights: list, steps: list[int]) -> None:
    assert curves.fit_steps(budget, costs, weights) == steps


def test_loss_at_a_time() -> None:
    assert curves.loss_at(CURVE, 15.0) == 5.5
    assert curves.loss_at(CURVE, 40.0) == 4.0
    assert math.isnan(curves.loss_at(CURVE, 9.0)) and math.isnan(curves.loss_at([], 9.0))


@pytest.mark.parametrize(
    ("loss", "seconds"),
    [
        (6.5, 10.0),  # below it at the first evaluation
        (5.5, 15.0),
        (5.1, 19.0),  # the first crossing counts, although the loss rises above it again
        (4.6, 35.0),
        (4.0, 40.0),
        (3.9, math.inf),
    ],
)
def test_seconds_to_reach_a_loss(loss: float, seconds: float) -> None:
    assert curves.seconds_to_reach(CURVE, loss) == pytest.approx(seconds)


def test_interval_is_student_s() -> None:
    """For 1, 2, 3: deviation 1, t of 2 degrees of freedom 4.3027, divided by the root of 3."""
    assert curves.interval([1.0, 2.0, 3.0]) == pytest.approx((2.0, 4.30265 / math.sqrt(3)), rel=1e-5)
    assert curves.interval([2.0])[0] == 2.0 and math.isnan(curves.interval([2.0])[1])


def test_interval_of_ratios_is_that_of_their_logarithms() -> None:
    mean, low, high = curves.ratio_interval([0.25, 1.0])
    assert (mean, low * high) == pytest.approx((0.5, 0.25))
    assert curves.ratio_interval([0.25, math.inf]) == (math.inf, math.inf, math.inf)


def test_the_search_for_a_rate_goes_on_past_its_edges() -> None:
    assert curves.next_rate({1.0: 5.0, 2.0: 4.0, 4.0: 4.5}) is None
    assert curves.next_rate({1.0: 5.0, 2.0: 4.0, 4.0: 3.9}) == 8.0
    assert curves.next_rate({1.0: 3.0, 2.0: 4.0, 4.0: math.inf}) == 0.5
    assert curves.next_rate({1.0: 3.0, 2.0: 4.0}, most=2) is None
    assert curves.best_rate({1.0: math.nan, 2.0: 4.0, 4.0: 4.0}) == 2.0
    with pytest.raises(ValueError, match="every learning rate diverged: 1, 2"):
        curves.best_rate({1.0: math.nan, 2.0: math.inf})


def test_schedules() -> None:
    assert [curves.rate_factor("linear", step, 20) for step in (0, 1, 2, 11, 19)] == pytest.approx([0.5, 1, 1, 0.5, 1 / 18])
    wsd = [curves.rate_factor("wsd", step, 20) for step in (0, 1, 15, 16, 17, 19)]
    assert wsd == pytest.approx([0.5, 1, 1, 1, 0.5, 1 - math.sqrt(0.75)])


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["linear", "wsd"])
def test_schedules_are_those_of_pretrain(shape: str) -> None:
    from clozemill.trainers.engines.optimizer import Schedule

    ours = Schedule(1.0, 3, 30, shape=shape, decay_steps=6)  # a tenth and a fifth, as `pretrain` chooses
    expected = [float(ours(step)) for step in range(30)]
    assert [curves.rate_factor(shape, step, 30) for step in range(30)] == pytest.approx(expected, abs=1e-6)


def test_the_clock_separates_the_start_of_a_phase_from_its_steps() -> None:
    clock = StepClock()
    for call in ((0, 1, 5.5), (0, 10, 5.0), (0, 10, 5.0), (1, 10, 4.0), (1, 5, 1.0)):
        clock.add(*call)
    assert clock.costs() == [{"start_s": 5.0, "step_s": 0.5}, {"start_s": 2.0, "step_s": 0.2}]
    assert [clock.seconds_until(step) for step in (0, 1, 11, 21, 36)] == [0.0, 5.5, 10.5, 15.5, 20.5]
    result = clock.report([(11, 4.0), (36, 3.0)], diverged=False)
    assert result["points"] == [[11, 10.5, 4.0], [36, 20.5, 3.0]] and (result["steps"], result["cpu_s"]) == (36, 20.5)


def test_the_clock_of_a_killed_run_resumes(tmp_path: Path) -> None:
    """Calls after the last saved step are dropped; the second start isn't counted: 10 steps of 0.5 s instead of 9 s."""
    path = tmp_path / "clock.jsonl"
    killed = StepClock(path)
    killed.resume(0)
    for call in ((0, 1, 5.5), (0, 10, 5.0), (0, 10, 7.0)):
        killed.add(*call)
    clock = StepClock(path)
    clock.resume(11)
    clock.add(0, 10, 9.0)
    clock.add(0, 10, 4.0)
    expected = [(0, 1, 5.5), (0, 10, 5.0), (0, 10, 5.0), (0, 10, 4.0)]
    assert clock.calls == expected
    again = StepClock(path)
    again.resume(31)
    assert again.calls == expected
    with pytest.raises(ValueError, match=r"clock.jsonl has no call that ended at step 12: remove its folder"):
        StepClock(path).resume(12)
    again.resume(0)
    assert again.calls == [] and path.read_text() == ""


def candidate(name: str, *runs: list[tuple[float, float]], shorter: dict | None = None) -> Candidate:
    """A candidate with curves of its seeds."""

    def result(curve: list) -> dict:
        points = [[0, seconds, loss] for seconds, loss in curve]
        return {"points": points, "cpu_s": curve[-1][0], "diverged": False, "steps": 9, "versions": "1"}

    found = Candidate(name, Entry("about", "clozemill", {"options": {}}), costs=[(0.0, 0.1)], rate=1e-3)
    found.runs = {seed: result(curve) for seed, curve in enumerate(runs, 1)}
    found.shorter = {part: {1: result(curve)} for part, curve in (shorter or {}).items()}
    return found


def test_planned_seconds() -> None:
    """A quarter for each of 3 rates, and 2 seeds: 2.75 budgets; `modern` also two runs of a half."""
    plan = Plan(Workshop(Path(), {}), {}, "tiny", 100.0, 2, fractions=(0.5,))
    field = [candidate("modern", CURVE), candidate("other", CURVE)]
    assert planned_seconds(plan, field, ("modern",)) == 2 * 275.0 + 100.0
    assert planned_seconds(plan, field, ("modern",), ["other"]) == 2 * 275.0 + 100.0 - 75.0


def test_given_learning_rates_are_not_searched() -> None:
    """Nothing is run; a row without rates takes that of `modern`."""
    plan = Plan(Workshop(Path(), {}), {}, "tiny", 100.0, 2)
    field = [candidate("modern", CURVE), Candidate("row", Entry("about", "clozemill", {"options": {}}, rates=()))]
    choose_rates(plan, field, {"modern": 0.25})
    assert [one.rate for one in field] == [0.25, 0.25]
    with pytest.raises(ValueError, match=r"^--learning-rate names none, row: name one that is run"):
        choose_rates(plan, field, {"none": 0.1, "row": 0.1, "modern": 0.1})


@pytest.mark.parametrize("word", ["modern", "modern=0", "modern=1e3", "modern=x"])
def test_learning_rates_that_are_none(word: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        command.parse_arguments(["--data", "x", "--budget", "1", "--learning-rate", word])
    assert f"argument --learning-rate: invalid named_rate value: '{word}'" in capsys.readouterr().err


CURVE_OF_GOALS = [(10.0, 5.0), (40.0, 4.0), (100.0, 3.0)]


def test_goals() -> None:
    modern = candidate("modern", CURVE_OF_GOALS)
    other = candidate("hf-bert", [(50.0, 5.0), (100.0, 4.5)])
    assert report.ratios_to(modern, other) == [0.25]  # 4.5 after 25 s
    modern, other = candidate("modern", CURVE_OF_GOALS, CURVE_OF_GOALS), candidate("x", [(100.0, 4.5)], [(50.0, 3.5)])
    assert report.ratios_to(modern, other) == [0.25, 1.4]  # each seed has the target of the other's run with this seed
    assert report.goal_line("hf-bert", [0.25], 0.25).endswith("one seed: no interval) of its CPU seconds; goal 0.25: met")
    assert report.goal_line("x", [0.20, 0.22, 0.21], 0.25).endswith("goal 0.25: met")
    assert report.goal_line("x", [0.1, 0.4], 0.25).endswith("goal 0.25: met by the mean alone")
    assert report.goal_line("x", [0.3, 0.3], 0.25).endswith("goal 0.25: not met")
    assert report.goal_line("x", [0.1, math.inf], 0.25).endswith("goal 0.25: not met")


def test_a_schedule_for_less_than_the_budget_counts_too() -> None:
    modern = candidate("modern", [(40.0, 4.6), (100.0, 3.0)], shorter={0.2: [(20.0, 4.4)]})
    assert report.own_schedules(modern, 1) == [(20.0, 4.4), (100.0, 3.0)]
    assert report.seconds_to_loss(modern, 1, 4.5) == 20.0


def test_a_row_s_difference_is_that_of_equal_seeds() -> None:
    base = candidate("modern", [(1.0, 3.0)], [(1.0, 3.2)], [(1.0, 3.4)])
    row = candidate("linear", [(1.0, 3.1)], [(1.0, 3.3)], [(1.0, 3.5)])
    assert ablation.differences(row, base) == pytest.approx([0.1, 0.1, 0.1])
    assert ablation.lines(Plan(Workshop(Path(), {}), {}, "tiny", 9.0, 3), [base, row])[2].split()[:7] == [
        "linear", "3.300", "±", "0.497", "+0.100", "±", "0.000"
    ]  # fmt: skip
    assert ablation.difference([0.1, 0.1, 0.1]) == "+0.100 ± 0.000"
    assert ablation.difference([0.1, math.inf]) == "-"


def test_every_entry_names_options_that_exist_or_says_which_do_not() -> None:
    field = entries.contenders("tiny")
    for dense in (False, True):
        every = {**entries.contenders("tiny", dense), **ablation.rows("mini", dense)}
        assert {name: entries.unsupported(entry) for name, entry in every.items() if entries.unsupported(entry)} == {}
    odd = field["bert-paper"].changed("", optimiser="muon")
    assert "optimiser" in entries.unsupported(odd)
    packed = {dense: ablation.rows("tiny", dense)["packed"] for dense in (False, True)}
    assert packed[True].base in ablation.rows("tiny", True) and packed[False].base == "modern"
    rows = ablation.rows("tiny")
    assert set(rows) > {"modern", "bert-block", "no-rope", "no-gate", "adamw", "linear", "causal-first", "rtd", "packed"}


def test_changed_entries() -> None:
    entry = Entry("a", "clozemill", {"options": {"x": 1, "y": 2}})
    assert entry.changed("b", x=None, z=3).settings == {"options": {"y": 2, "z": 3}}
    assert entry.settings == {"options": {"x": 1, "y": 2}}
    assert entry.rates_for("mini") == [5e-4, 1e-3, 2e-3]


def write_corpus(path: Path, texts: list[str]) -> Path:
    """JSON lines of three works."""
    records = [{"title": f"Book {number % 3}", "text": text} for number, text in enumerate(texts)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


def test_tasks_from_a_corpus(tmp_path: Path) -> None:
    texts = [f"Work number {number} begins here now. {text}" for number, text in enumerate(corpora.texts(60, length=12))]
    path = write_corpus(tmp_path / "corpus.jsonl", texts)
    adjacent, source = downstream.make_tasks(tmp_path / "tasks", None, [path])
    rows = [line.split("\t") for line in adjacent.train.read_text().splitlines()[1:]]
    assert len(rows) > 40
    for first, second, label in rows:
        text = next(text for text in texts if first in text and second in text)
        assert (f"{first} {second}" in text) == (label == "yes")
    both = [{line.split("\t")[0] for line in file.read_text().splitlines()[1:]} for file in (source.train, source.dev)]
    assert both[1] and not both[0] & both[1]
    before = adjacent.train.read_bytes(), source.dev.read_bytes()
    again = downstream.make_tasks(tmp_path / "again", None, [path])
    assert before == (again[0].train.read_bytes(), again[1].dev.read_bytes())


def test_a_finished_job_is_not_run_again(tmp_path: Path) -> None:
    job = PretrainingJob("x", "torch", {}, (JobPhase("d", 3, 2),), {}, "d", 1e-3, 1, points=1)
    workshop = Workshop(tmp_path, {"torch": "/nonexistent"})
    folder = job.folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"points": []}')
    assert workshop.results([job, job]) == [{"points": []}, {"points": []}]
    other = PretrainingJob("x", "torch", {}, (JobPhase("d", 3, 2),), {}, "d", 1e-3, 2, points=1)
    with pytest.raises(FileNotFoundError):
        workshop.result(other)


def manifest(**changes: object) -> dict:
    """The parts of a manifest that are compared."""
    config = {"seed": 7, "eval_fraction": 0.1, "eval_by": "document", "packing": "off"}
    return {"vocabulary": {"sha256": "a"}, "config": {**config, **changes}}


def test_datasets_that_do_not_belong_together() -> None:
    main, packed = manifest(), manifest(packing="on")
    check_manifests({"data": main, "packed-data": packed, "short-data": manifest(max_seq_length=32)})
    with pytest.raises(ValueError, match="--data is packed: give an unpacked dataset"):
        check_manifests({"data": packed})
    with pytest.raises(ValueError, match=r"--short-data has seed 8, --data has 7: prepare both alike"):
        check_manifests({"data": main, "short-data": manifest(seed=8)})
    with pytest.raises(ValueError, match="--dense-data has another vocabulary than --data"):
        check_manifests({"data": main, "dense-data": {**main, "vocabulary": {"sha256": "b"}}})


def test_what_can_not_be_run_is_skipped_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = Plan(Workshop(tmp_path, {"torch": ""}), {"data": "d"}, "tiny", 1.0, 1)
    field = entries.contenders("tiny")
    assert [one.name for one in command.usable(plan, field, ["hf-bert", "bert-best", "bert-paper"])] == ["bert-paper"]
    assert capsys.readouterr().err == "bert-best: skipped: give --short-data\nhf-bert: skipped: give --python\n"
    with pytest.raises(ValueError, match="--only names nobody: choose from bert-paper"):
        command.usable(plan, field, ["nobody"])


@pytest.mark.slow
@pytest.mark.parametrize("library", ["clozemill", "torch"])
def test_a_killed_job_resumes(library: str, demo_corpus: str, demo_vocab: str, tmp_path: Path) -> None:
    """The same losses as without the kill, and a clock of as many steps."""
    python = sys.executable if library == "clozemill" else os.environ.get("HF_PYTHON")
    if not python:
        pytest.skip("HF_PYTHON names no interpreter with torch")
    data = str(tmp_path / "data")
    clozemill.prepare(input=demo_corpus, vocab=demo_vocab, output=data, max_seq_length=64, seed=7,
                      eval_fraction=0.2, gate=False, progress=False)  # fmt: skip
    entry = entries.contenders("tiny")["bert-paper" if library == "clozemill" else "hf-bert"]
    form = next(iter(entry.forms))
    results = []
    for name in ("whole", "killed"):
        workshop = Workshop(tmp_path / name, {library: python})
        plan = Plan(workshop, {"data": data}, "tiny", 1.0, 1)
        job = plan.job("x", entry, form, [60], 1e-3, 1, points=3)
        if name == "killed":
            kill_after_a_save(workshop, job)
        results.append(workshop.result(job))
    whole, killed = results
    assert [point[::2] for point in killed["points"]] == [point[::2] for point in whole["points"]]
    assert (killed["steps"], len(killed["points"])) == (60, 3)


def kill_after_a_save(workshop: Workshop, job: PretrainingJob) -> None:
    """Start a job and kill it after the first evaluation."""
    folder = job.folder(workshop.work)
    folder.mkdir(parents=True)
    (folder / "job.json").write_text(job.dumps())
    command = [workshop.interpreters[job.library], "-m", MODULES[job.library], str(folder)]
    child = subprocess.Popen(command, env=child_environment(1, workshop.work), cwd=folder)
    while not [*folder.glob("state.pt"), *folder.glob("run/checkpoints/step-????????")]:
        assert child.poll() is None
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert not (folder / "result.json").exists()


@pytest.mark.slow
def test_a_benchmark_of_seconds(demo_corpus: str, demo_vocab: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One contender, and one on torch if HF_PYTHON names an interpreter that has it; then fine-tuning."""
    folders = {}
    for length in (64, 16):
        folders[length] = str(tmp_path / f"data-{length}")
        clozemill.prepare(input=demo_corpus, vocab=demo_vocab, output=folders[length], max_seq_length=length, seed=7,
                          eval_fraction=0.2, gate=False, progress=False)  # fmt: skip
    corpus = write_corpus(tmp_path / "corpus.jsonl", corpora.texts(60, length=12))
    words = [
        "--data",
        folders[64],
        "--short-data",
        folders[16],
        "--budget",
        "40",
        "--seeds",
        "2",
        "--work",
        str(tmp_path / "w"),
    ]
    words += [
        "--points",
        "4",
        "--timing-steps",
        "11",
        "--timing-rounds",
        "1",
        "--search",
        "1",
        "--most-rates",
        "3",
        "--downstream",
        "--jsonl",
        str(corpus),
    ]
    names = ["bert-best"]
    if python := os.environ.get("HF_PYTHON"):
        words, names = [*words, "--python", python], [*names, "hf-bert"]
    words += ["--only", *names]
    assert command.main([*words, "nobody"]) == 1
    assert "--only names nobody" in capsys.readouterr().err
    assert command.main(words) == 0
    printed = capsys.readouterr().out
    assert command.main(words) == 0
    assert capsys.readouterr().out == printed  # nothing was run again
    found = json.loads((tmp_path / "w" / "time_to_loss.json").read_text())
    assert list(found["candidates"]) == names
    runs = [run for one in found["candidates"].values() for run in one["runs"].values()]
    assert len({run["predictions"] for run in runs}) == 1
    for run in runs:
        assert run["points"][-1][2] < 7.5  # random weights have more than ln 4,000, which is 8.3
    for imported in (tmp_path / "w").glob("jobs/*/imported"):  # of torch: both sides compute the same loss
        run = json.loads((imported.parent / "result.json").read_text())
        ours = clozemill.evaluate(str(imported), folders[64])
        assert (ours["predictions"], ours["masked_lm_loss"]) == (
            run["predictions"],
            pytest.approx(run["points"][-1][2], rel=1e-4),
        )
    scores = found["downstream"]["adjacent (accuracy)"]
    assert set(scores) == {*names, "random weights as bert-best"}
    assert all(len(each) == 2 and 0.3 < min(each) <= max(each) <= 1 for each in scores.values())
    assert (tmp_path / "w" / "time_to_loss.png").stat().st_size > 10_000
