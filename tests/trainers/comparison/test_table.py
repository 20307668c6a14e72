from pathlib import Path

import pytest

from clozemill.trainers.comparison import table
from clozemill.trainers.diagnosis.recorded_run import RecordedRun, read_recorded_run
from tests.trainers.diagnosis import journals


def run(tmp_path: Path, entries: list | None = None, about: dict | None = None, sessions: list | None = None) -> RecordedRun:
    found = journals.healthy() if entries is None else entries
    return read_recorded_run(str(journals.write_run(tmp_path / "run", found, about, sessions)))


def test_a_literal_row(tmp_path: Path) -> None:
    """36 minutes of two cores are 0.6 CPU hours; the last evaluation has the lowest loss, 8.3 - 1.5 - 2 + 0.05."""
    found = run(tmp_path)
    assert table.cells(table.row(found)) == (
        found.folder, "tiny, 963 k weights", "c0ffeec0ffee", "mlm+nsp", "adamw 0.001", "1,000 of 1,000", "3.6 M",
        "0.6 CPU-hours", "masked-LM loss 4.8500 at step 1,000",
    )  # fmt: skip


def test_a_literal_csv(tmp_path: Path) -> None:
    found = run(tmp_path)
    head, line = table.as_csv([table.row(found)])
    expected = {
        "run": found.folder, "size": "tiny, 963 k weights", "data": "c0ffeec0ffee", "objective": "mlm+nsp",
        "optimizer": "adamw", "learning_rate": "0.001", "steps": "1000", "planned_steps": "1000", "tokens": "3600000",
        "about": "False", "hours": "0.6", "unit": "CPU", "best_step": "1000", "metric": "masked_lm_loss",
        "best": "4.8500000000000005",
    }  # fmt: skip
    assert dict(zip(head, line, strict=True)) == expected


def test_a_run_that_has_just_started(tmp_path: Path) -> None:
    found = table.row(run(tmp_path, [], sessions=[]))
    assert (found.steps, found.tokens, found.hours, found.best_step, found.best) == (0, 0.0, None, None, None)
    assert table.cells(found)[5:] == ("0 of 1,000", "0", "-", "-")


@pytest.mark.parametrize(
    ("sessions", "expected"),
    [
        ([journals.SESSION, journals.SESSION], (1.2, "CPU")),
        ([journals.SESSION, {"seconds": 600.0, "device": "1 x CPU, float32"}], (0.5, "wall")),  # an earlier version
        ([{"seconds": 1800.0, "cpu_seconds": 1.0, "device": "8 x TPU v5 lite, bfloat16"}], (4.0, "TPU v5 lite")),
        ([{"seconds": 1800.0}], (0.5, "wall")),
        (
            [{"seconds": 7200.0, "device": "1 x TPU v5 lite"}, {"seconds": 3600.0, "device": "8 x TPU v5 lite"}],
            (10, "TPU v5 lite"),
        ),
        ([{"seconds": 7200.0, "device": "1 x TPU v5 lite"}, journals.SESSION], (2 + 1200 / 3600, "wall")),
        ([], (1000 / 3600, "wall")),
    ],
)
def test_hours(sessions: list, expected: tuple[float, str], tmp_path: Path) -> None:
    hours, unit = table.hours_spent(run(tmp_path, sessions=sessions))
    assert (hours, unit) == (pytest.approx(expected[0]), expected[1])


def test_phases_in_their_order(tmp_path: Path) -> None:
    about = journals.about()
    about["identity"]["phase 2"] = about["identity"]["phase 1"] | {"objective": "mlm", "learning_rate": 5e-4, "dataset": "d2"}
    about["identity"]["phase 3"] = about["identity"]["phase 2"]
    found = table.row(run(tmp_path, about=about))
    assert (found.data, found.objective, found.learning_rate) == ("c0ffeec0ffee, d2", "mlm+nsp, mlm", "0.001, 0.0005")
    assert found.planned_steps == 3000


def test_the_best_evaluation_is_that_of_the_best_checkpoint(tmp_path: Path) -> None:
    """The criterion decides, if there is one, and an evaluation whose loss can't be compared isn't the best."""
    entries = [
        journals.evaluation(100, masked_lm_loss=3.0, criterion=None),
        journals.evaluation(200, masked_lm_loss=5.0, criterion=7.0),
        journals.evaluation(300, masked_lm_loss=4.0, criterion=8.0),
    ]
    found = table.row(run(tmp_path, entries))
    assert (found.best_step, found.metric, found.best) == (200, "masked_lm_loss", 5.0)
    assert table.row(run(tmp_path, entries[:1])).best is None


def test_a_row_of_finetune(tmp_path: Path) -> None:
    found = table.row(run(tmp_path, journals.task_entries(), journals.finetuned()))
    assert table.cells(found)[1:6] == ("963 k weights", "c0ffeec0ffee", "classify", "adamw 0.0001", "60")
    assert (found.metric, found.best_step, found.best) == ("accuracy", 60, pytest.approx(0.8))


def test_an_encoder_of_another_version(tmp_path: Path) -> None:
    about = journals.about()
    about["encoder"] = journals.ENCODER | {"experts": 8}
    assert table.row(run(tmp_path, about=about)).size == "tiny"
    del about["encoder"]
    assert table.row(run(tmp_path, about=about)).size == "tiny"


def test_the_table_is_aligned(tmp_path: Path) -> None:
    rows = [table.row(run(tmp_path / name)) for name in ("a", "b")]
    lines = table.as_text(rows)
    assert len({line.index("adamw") for line in lines[1:]}) == 1 and lines[0].index("optimizer") == lines[1].index("adamw")


def test_remarks(tmp_path: Path) -> None:
    def remarks(**changes: object) -> list[str]:
        about = journals.about(**{name: value for name, value in changes.items() if name != "vocabulary"})
        about["vocabulary"] = {"sha256": changes.get("vocabulary", about["vocabulary"]["sha256"])}
        return table.remarks_on([run(tmp_path / "a"), run(tmp_path / "b", about=about)])

    assert remarks() == []
    assert len(remarks(objective="causal")) == 1 and "objectives" in remarks(objective="causal")[0]
    assert ["data" in each for each in remarks(dataset="other")] == [True]
    assert ["vocabularies" in each for each in remarks(dataset="other", vocabulary="x")] == [True]
    branch = run(tmp_path / "branch", about=journals.about() | {"branched_from": {"run": "trunk", "step": 9}})
    assert table.remarks_on([branch]) == [
        f"the time of {tmp_path}/branch/run leaves out that of the trunk, whose tokens are counted"
    ]


@pytest.mark.parametrize(
    ("identity", "config", "vocabulary", "told"),
    [
        ({"train": "more rows"}, {}, "", False),
        ({"dev": "other"}, {}, "", True),
        ({"dev": "other"}, {"dev": "dev.tsv"}, "another", False),  # the same texts have other ids
        ({"dev": "other"}, {"dev": "other.tsv"}, "another", True),
    ],
)
def test_remarks_on_fine_tuned_runs(identity: dict, config: dict, vocabulary: str, told: bool, tmp_path: Path) -> None:
    """They are comparable if the dev examples are the same."""
    runs = []
    for name, changes, options, sha256 in (
        ("a", {}, {"dev": "dev.tsv"}, ""),
        ("b", identity, config or {"dev": "x"}, vocabulary),
    ):
        about = journals.finetuned(**options)
        about["identity"] |= changes
        about["vocabulary"] |= {"sha256": sha256 or about["vocabulary"]["sha256"]}
        runs.append(run(tmp_path / name, journals.task_entries(), about))
    assert table.remarks_on(runs) == ["the runs have different dev examples: their results can't be compared"] * told
