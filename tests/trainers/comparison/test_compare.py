import csv
import subprocess
import sys
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.comparison import pictures
from clozemill.trainers.diagnosis.recorded_run import read_recorded_run
from tests.trainers.diagnosis import journals


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A complete run, and one that trains."""
    place = tmp_path_factory.mktemp("runs")
    return [
        str(journals.write_run(place / "a/run", journals.healthy())),
        str(journals.write_run(place / "b/run", journals.healthy(until=400))),
    ]


def test_the_table_is_printed(folders: list[str], capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["compare", *folders, folders[0]]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "size", "data"] and [row.split()[0] for row in rows] == folders
    assert "1,000 of 1,000" in rows[0] and "400 of 1,000" in rows[1]


def test_plots_over_steps_tokens_and_time(folders: list[str]) -> None:
    plots = pictures.comparison_plots([read_recorded_run(folder) for folder in folders])
    assert [plot.name for plot in plots] == ["over-steps", "over-tokens", "over-time"]
    first, second = plots[0].series
    assert (first.label, second.label) == ("a/run", "b/run") and list(second.x) == [100, 200, 300, 400]
    assert list(plots[1].series[1].x) == [360_000, 720_000, 1_080_000, 1_440_000]
    assert plots[2].series[1].x == pytest.approx([100 / 60, 200 / 60, 300 / 60, 400 / 60])
    assert [plot.x_label for plot in plots] == ["step", "tokens", "minutes of training steps"]
    assert all(list(plot.series[1].y) == list(second.y) for plot in plots) and "evaluated" in plots[0].title


def test_long_runs_are_drawn_over_hours(tmp_path: Path) -> None:
    folder = journals.write_run(tmp_path / "run", journals.healthy(10_000, 500), journals.about(10_000))
    plots = pictures.comparison_plots([read_recorded_run(str(folder))])
    assert plots[2].x_label == "hours of training steps" and plots[2].series[0].x[-1] == pytest.approx(10_000 / 3600)


def test_training_losses_are_drawn_where_a_run_has_no_evaluation(folders: list[str], tmp_path: Path) -> None:
    young = journals.write_run(tmp_path / "young", journals.healthy(until=50))
    plots = pictures.comparison_plots([read_recorded_run(folder) for folder in (*folders, str(young))])
    assert "in training" in plots[0].title and list(plots[0].series[2].x) == [50] and len(plots[0].series[0].x) == 20


def test_a_run_without_totals_is_drawn_over_steps_alone(folders: list[str], tmp_path: Path) -> None:
    entries = journals.healthy()
    for line in entries:
        for name in ("tokens", "seconds", "examples_per_second"):
            line.pop(name, None)
    old = journals.write_run(tmp_path / "old", entries)
    plots = pictures.comparison_plots([read_recorded_run(folder) for folder in (folders[0], str(old))])
    assert [len(plot.series) for plot in plots] == [2, 1, 1]


def test_losses_of_an_earlier_kind_of_objective_are_not_drawn(tmp_path: Path) -> None:
    entries = [journals.evaluation(100, criterion=None), journals.evaluation(200)]
    (plot,) = pictures.comparison_plots([read_recorded_run(str(journals.write_run(tmp_path / "run", entries)))])[:1]
    assert list(plot.series[0].x) == [200]


def test_names_of_runs() -> None:
    assert pictures.short_names(["a/run", "b/run/"]) == ["a/run", "b/run"]
    assert pictures.short_names(["x/a", "x/b"]) == ["a", "b"] and pictures.short_names(["a/b/c"]) == ["c"]
    assert pictures.short_names(["run", "x/run"]) == ["run", "x/run"]


def test_outputs(folders: list[str], tmp_path: Path, every_drawing: None) -> None:
    for ending in ("png", "html", "csv"):
        assert clozemill.main(["compare", *folders, "--output", str(tmp_path / f"c.{ending}")]) == 0
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "c.html").read_text("utf-8")
    assert page.count("<svg") == 3 and "1 of 2 runs are complete" in page and folders[1] in page
    with (tmp_path / "c.csv").open(newline="") as file:
        assert [row["run"] for row in csv.DictReader(file)] == folders
    assert clozemill.main(["compare", *folders, "--output", str(tmp_path / "c.csv")]) == 2
    assert clozemill.main(["compare", *folders, "--output", str(tmp_path / "c.csv"), "--overwrite"]) == 0


def test_runs_of_finetune(tmp_path: Path, folders: list[str], capsys: pytest.CaptureFixture) -> None:
    tuned = str(journals.write_run(tmp_path / "tuned", journals.task_entries(), journals.finetuned()))
    assert clozemill.main(["compare", tuned]) == 0
    assert "accuracy 0.8000 at step 60" in capsys.readouterr().out
    assert clozemill.main(["compare", tuned, folders[0]]) == 2
    assert "RUNS are of finetune and pretrain, which have no result in common" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUNS is missing: give folders of runs"),
        (["nowhere"], "RUNS nowhere doesn't exist"),
        (["."], ". contains no run.json: give the folder of a run"),
        ([".", "--output", "a.pdf"], "--output a.pdf: give a name that ends in .png, .html or .csv"),
        (["empty"], "metrics.jsonl is missing or has no entry"),
    ],
)
def test_mistakes(
    words: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    journals.write_run(tmp_path / "empty", [])
    assert clozemill.main(["compare", *words]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1


def test_too_many_runs_for_a_picture(folders: list[str]) -> None:
    runs = [read_recorded_run(folders[0])] * 13
    with pytest.raises(UserError, match="13 runs can't be told apart in a plot: give at most 12"):
        pictures.comparison_plots(runs)


def test_neither_tensorflow_nor_beam_is_loaded(folders: list[str], tmp_path: Path) -> None:
    words = ["compare", *folders, "--output", str(tmp_path / "c.csv")]
    code = (
        f"import clozemill, sys; assert clozemill.main({words!r}) == 0\n"
        "print(sorted({name.split('.')[0] for name in sys.modules} & {'tensorflow', 'keras', 'apache_beam', 'matplotlib'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
