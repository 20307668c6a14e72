import json
from pathlib import Path

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.diagnosis.recorded_run import Totals, parse_journal, read_recorded_run, require_entries
from tests.trainers.diagnosis import journals


def test_the_records_of_a_run(tmp_path: Path) -> None:
    run = read_recorded_run(str(journals.write_run(tmp_path / "run", journals.healthy(until=100))))
    assert [entry["step"] for entry in run.train] == [50, 100] and [entry["step"] for entry in run.evaluated] == [100]
    assert (run.step, run.planned_steps, run.command, run.devices) == (100, 1000, "pretrain", [(1, "CPU")])
    assert run.totals == [Totals(50, 180_000, 50.0), Totals(100, 360_000, 100.0)]
    assert run.phases[0]["objective"] == "mlm+nsp" and run.diverged is None


def test_an_earlier_version_recorded_rates_only(tmp_path: Path) -> None:
    """32 examples per second in batches of 32 are a second per step; 3,600 tokens per second, or half of that, per step."""
    entries = [journals.entry(50), journals.entry(80, examples_per_second=16.0, tokens_per_second=1800.0)]
    for line in entries:
        del line["tokens"], line["seconds"]
    run = read_recorded_run(str(journals.write_run(tmp_path / "run", entries, sessions=[])))
    assert run.totals == [Totals(50, 180_000, 50.0, True), Totals(80, 288_000, 110.0, True)]
    assert run.devices == []
    del entries[1]["examples_per_second"]
    assert read_recorded_run(str(journals.write_run(tmp_path / "run", entries))).totals == []


def test_a_run_of_finetune(tmp_path: Path) -> None:
    run = read_recorded_run(str(journals.write_run(tmp_path / "run", journals.task_entries(), journals.finetuned())))
    assert run.command == "finetune" and run.phases == [] and run.planned_steps is None and run.step == 60


def journal(*lines: str) -> tuple[list[int], list[int]]:
    entries, damaged = parse_journal("\n".join(lines).encode())
    return [entry["step"] for entry in entries], damaged


@pytest.mark.parametrize(
    ("lines", "steps", "damaged"),
    [
        ((), [], []),
        (('{"step": 1}', '{"step": 2}', ""), [1, 2], []),
        (('{"step": 1}', '{"step": 2}'), [1, 2], []),  # the line end is still to come
        (('{"step": 1}', '{"step": 2, "los'), [1], []),
        (('{"step": 1}', '{"step": 2, "los', '{"step": 3}', ""), [1, 3], [2]),
        (('{"step": 1}', "[]", '{"loss": 1}', '{"step": "4"}', '{"step": true}', ""), [1], [2, 3, 4, 5]),
        (('{"step": 1}', '{"step": 2}', '{"step": 3}', '{"step": 2}', ""), [1, 2], []),  # resumed after step 1
        (('{"step": 1, "split": "eval"}', '{"step": 2}', '{"step": 2, "split": "eval"}', ""), [1, 2, 2], []),
        (("[" * 100_000, ""), [], [1]),
    ],
)
def test_lines_of_a_journal(lines: tuple[str, ...], steps: list[int], damaged: list[int]) -> None:
    assert journal(*lines) == (steps, damaged)


def test_a_damaged_line_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = journals.write_run(tmp_path / "run", journals.healthy())
    text = (folder / "metrics.jsonl").read_text().replace('{"step": 150,', "{", 1)
    (folder / "metrics.jsonl").write_text(text)
    assert len(read_recorded_run(str(folder)).entries) == 29
    assert capsys.readouterr().err == f"warning: {folder}/metrics.jsonl, line 4: damaged, and left out\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "contains no run.json: give the folder of a run"),
        ("{", "is not that of a run, or of another version"),
        ("[]", "is not that of a run, or of another version"),
        ('{"overwritten": true}', "is not that of a run, or of another version"),
        ('{"identity": {}, "config": []}', "is not that of a run, or of another version"),
    ],
)
def test_folders_that_are_not_runs(content: str | None, sentence: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_recorded_run(str(tmp_path))


def test_the_best_run_of_a_sweep(tmp_path: Path) -> None:
    """As other commands take the folder of one."""
    journals.write_run(tmp_path / "seed-1", journals.task_entries(), journals.finetuned())
    (tmp_path / "sweep.json").write_text('{"best": "seed-1", "runs": []}')
    assert read_recorded_run(str(tmp_path)).folder == f"{tmp_path}/seed-1"
    (tmp_path / "sweep.json").write_text('{"best": "../seed-1"}')
    with pytest.raises(UserError, match="contains no run\\.json"):
        read_recorded_run(str(tmp_path))


def test_a_run_without_entries(tmp_path: Path) -> None:
    """One that has just started can be compared with others, but there is nothing to say about it alone."""
    folder = journals.write_run(tmp_path / "run", [])
    other = journals.write_run(tmp_path / "other", journals.healthy())
    runs = [read_recorded_run(str(each)) for each in (folder, other)]
    require_entries(runs)
    with pytest.raises(UserError, match="jsonl is missing or has no entry: wait until"):
        require_entries(runs[:1])
    (folder / "metrics.jsonl").unlink()
    assert read_recorded_run(str(folder)).entries == []


def test_records_of_another_form_are_left_out(tmp_path: Path) -> None:
    folder = journals.write_run(tmp_path / "run", journals.healthy())
    for content in ("{", "[]", json.dumps({"sessions": {}}), json.dumps({"sessions": [1, {"seconds": "x"}]})):
        (folder / "report.json").write_text(content)
        assert read_recorded_run(str(folder)).sessions == []
