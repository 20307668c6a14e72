"""The sections of a run's page: literal tables from literal metrics."""

import pytest

from clozemill.pipelines.pages.content import Section
from clozemill.trainers.training import run_sections
from clozemill.trainers.training.run_protocols import RunStory

EVAL = [
    {"step": step, "split": "eval", "loss": 9.0, "masked_lm_loss": 10.0 / step, "masked_lm_accuracy": 0.1234,
     "perplexity": 1234.56, "examples": 41, "predictions": 7, "unigram_loss": 6.8, "unigram_entropy": 5.0, "remarks": ["r"]}
    for step in (2, 4)
]  # fmt: skip


def test_evaluations_are_a_table_with_the_best_marked() -> None:
    (table,) = run_sections.evaluation_section([{"step": 1, "masked_lm_loss": 7.0}, *EVAL], 4).tables
    assert table.head == ("step", "masked-LM loss", "masked-LM accuracy", "perplexity", "examples", "word frequencies", "")
    assert table.rows == [
        ("2", "5.0000", "12.34 %", "1,234.6", "41", "6.8000", ""),
        ("4", "2.5000", "12.34 %", "1,234.6", "41", "6.8000", "best"),
    ]
    assert run_sections.evaluation_section([{"step": 1, "masked_lm_loss": 7.0}], None).empty


def test_of_many_evaluations_the_best_and_the_last_are_kept() -> None:
    many = [EVAL[0] | {"step": step} for step in range(1, 1001)]
    (table,) = run_sections.evaluation_section(many, 333).tables
    steps = [row[0] for row in table.rows]
    assert len(steps) <= 42 and steps[-1] == "1,000" and "333" in steps
    assert table.note == f"{len(steps)} of 1000 evaluations; metrics.jsonl has all."


def test_undefined_metrics_are_words() -> None:
    row = {"step": 1, "split": "eval", "matthews": None, "loss": 0.5, "criterion": None, "examples": 3}
    (table,) = run_sections.evaluation_section([row], None).tables
    assert table.head[:3] == ("step", "matthews", "loss") and table.rows == [("1", "undefined", "0.5000", "3", "")]


def test_exhibits_say_whose_they_are() -> None:
    section = Section("Answers", ["A sentence."])
    (own,) = run_sections.of_step([section], 68, 68)
    assert own.text == ["Of the best checkpoint, at step 68.", "A sentence."]
    (older,) = run_sections.of_step([section], 51, 1068)
    told = "Of the evaluation at step 51; the answers of the best checkpoint, at step 1,068, were not recorded."
    assert older.text == [told, "A sentence."]


@pytest.mark.parametrize("selected_by", ["the highest accuracy", "the lowest masked-LM loss"])
def test_the_best_checkpoint_is_explained_by_its_metric(selected_by: str) -> None:
    story = RunStory("Fine-tuning run", [], selected_by=selected_by)
    terms = dict(run_sections.curve_section([{"step": step, "loss": 1.0} for step in (1, 2)] + EVAL, 4, story).terms)
    assert terms["best"] == f"the checkpoint with {selected_by}, which later commands take"


def test_options_that_were_set_come_first() -> None:
    config = {"steps": 60, "seed": 0, "data": ["a", "b"], "learning_rate": 1e-3, "init": ""}
    default = {"steps": 1000, "seed": 0, "data": [], "learning_rate": 1e-4, "init": ""}
    own, every = run_sections.configuration_section(config, default, [], []).tables
    assert own.rows == [("steps", "60"), ("data", "a; b"), ("learning_rate", "0.001")]
    own, chosen, _ = run_sections.configuration_section(config, default, ["learning_rate", "seed"], []).tables
    assert (own.title, own.rows) == ("Options that were set", [("steps", "60"), ("data", "a; b")])
    assert (chosen.title, chosen.rows) == ("Options that clozemill chose", [("seed", "0"), ("learning_rate", "0.001")])
    assert run_sections.configuration_section(config, config, [], []).tables == [every]
    assert every.folded and every.rows == [("steps", "60"), ("seed", "0"), ("data", "a; b"), ("learning_rate", "0.001"),
                                           ("init", "-")]  # fmt: skip


def test_every_process_of_a_run_is_listed() -> None:
    one = {"from_step": 0, "to_step": 300, "began": "2026-11-29 05:40:12 UTC", "seconds": 75.2, "device": "1 x CPU, float32",
           "machine": "Linux", "versions": {"python": "3.11.9"}, "command": "clozemill pretrain --steps 9"}  # fmt: skip
    two = one | {"from_step": 300, "to_step": 500, "versions": {"python": "3.12.1"}, "command": "clozemill pretrain"}
    processes, versions, commands = run_sections.environment_section([one, two]).tables
    assert processes.rows[0] == (
        "1",
        "0",
        "300",
        "2026-11-29 05:40:12 UTC",
        "1:15",
        "1 x CPU, float32",
        "Linux",
    )
    assert versions.rows == [("python", "3.12.1")]
    assert commands.rows == [("1", "clozemill pretrain --steps 9"), ("2", "clozemill pretrain")]
