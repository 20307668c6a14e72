"""Each kind of fault is planted in the figures of a healthy run, and named; healthy runs of several sizes raise no alarm."""

import math
import re
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from clozemill.trainers.diagnosis.dataset_figures import DatasetFigures, pieces_of_words
from clozemill.trainers.diagnosis.diagnoses import DIAGNOSES, diagnose
from clozemill.trainers.diagnosis.figures import Figures, figures_of
from clozemill.trainers.diagnosis.recorded_run import RecordedRun
from clozemill.trainers.finetuning.config import FinetuneConfig
from tests.trainers.diagnosis import journals

DATASET = DatasetFigures(
    "DATASET", copies=5, distinct_copies=5, masked=0.15, shown_as_mask=0.8, label_share=0.5, duplicate_documents=0.0,
    duplicate_examples=0.001, unknown=0.001, pieces_per_word=1.4, single_letters=0.05, probe_accuracy=0.55, probe_limit=0.76,
)  # fmt: skip
Change = Callable[[dict[str, Any]], dict[str, Any]]


def figures(
    steps: int = 1000,
    every: int = 50,
    train: Change = lambda entry: {},
    evaluated: Change = lambda entry: {},
    until: int | None = None,
    run: dict[str, Any] | None = None,
    diverged: dict[str, Any] | None = None,
    **data: Any,
) -> Figures:
    """The figures of a healthy run, with changes of its lines, of its run.json, and of the figures of its dataset."""
    entries = journals.healthy(steps, every, until)
    entries = [entry | (evaluated if "split" in entry else train)(entry) for entry in entries]
    return figures_of(RecordedRun("RUN", run or journals.about(steps), entries, [], diverged), [[replace(DATASET, **data)]])


def kinds(found: Figures) -> list[str]:
    return [finding.kind for finding in diagnose(found)]


def flat(name: str, value: float) -> Change:
    return lambda entry: {name: value}


def scaled(name: str, factor: float) -> Change:
    return lambda entry: {name: factor * entry[name]}


def shown(name: str, value: Any) -> Change:
    """The value, from the tenth of the run on."""
    return lambda entry: {name: value} if entry["step"] > 100 else {}


def rising(entry: dict[str, Any]) -> dict[str, Any]:
    """Back to word frequencies after step 500."""
    return {"masked_lm_loss": 6.8} if entry["step"] > 500 else {}


def overfitted(entry: dict[str, Any]) -> dict[str, Any]:
    return {"masked_lm_loss": 6.0 + (entry["step"] - 500) / 1000} if entry["step"] > 500 else {}


def late_labels(entry: dict[str, Any]) -> dict[str, Any]:
    return {"next_sentence_accuracy": 0.51}


def noisy(entry: dict[str, Any]) -> dict[str, Any]:
    return {"masked_lm_loss": entry["masked_lm_loss"] + entry["step"] % 3 / 10}


def lamb(**phase: Any) -> dict[str, Any]:
    return journals.about(config={"optimizer": "lamb"}, **phase)


NEAR = flat("masked_lm_loss", 6.79)  # hardly below word frequencies, 6.8
PLANTED: list[tuple[str, Figures]] = [
    ("diverged", figures(train=lambda entry: {"loss": math.nan} if entry["step"] == 600 else {})),
    ("diverged", figures(train=lambda entry: {"gradient_norm": math.inf} if entry["step"] == 600 else {})),
    ("diverged", figures(until=550, diverged={"step": 590, "learning_rate": 1e-3, "shards": []})),
    ("wrong_start", figures(train=lambda entry: {"masked_lm_loss": 9.5} if entry["step"] == 50 else {})),
    ("wrong_start", figures(until=100, train=scaled("masked_lm_loss", 1.5))),
    ("wrong_start", figures(train=flat("masked_lm_loss", 5.0), evaluated=flat("masked_lm_loss", 5.0))),
    ("plateau", figures(train=NEAR, evaluated=NEAR)),
    ("plateau", figures(until=800, train=NEAR, evaluated=flat("masked_lm_loss", 6.95))),
    ("plateau", figures(10**6, 1000, until=30_000, train=NEAR, evaluated=NEAR, run=journals.about(10**6, warmup_steps=9000))),
    ("rate_too_high", figures(train=rising, evaluated=rising)),
    ("rate_too_high", figures(every=5, train=rising)),
    ("rate_too_high", figures(until=300, evaluated=NEAR, run=journals.about(learning_rate=0.01))),
    ("rate_too_high", figures(until=300, evaluated=NEAR, run=lamb(learning_rate=0.5))),
    ("rate_too_high", figures(train=shown("gradient_norm", 25.0))),
    ("rate_too_low", figures(train=scaled("learning_rate", 0.01), evaluated=NEAR)),
    ("rate_too_low", figures(until=600, train=scaled("learning_rate", 1e-4), evaluated=flat("masked_lm_loss", 8.2))),
    ("rate_too_low", figures(train=scaled("learning_rate", 1e-3), evaluated=NEAR, run=lamb())),
    ("underflow", figures(train=flat("gradient_norm", 1e-7), run=journals.about(config={"precision": "bfloat16"}))),
    ("underflow", figures(train=flat("gradient_norm", 0.0))),
    ("input_bound", figures(train=flat("input_share", 0.4))),
    ("input_bound", figures(train=shown("input_share", 0.25))),
    ("answers_visible", figures(evaluated=flat("masked_lm_accuracy", 0.99))),
    ("answers_visible", replace(figures(every=600, until=600, train=flat("masked_lm_accuracy", 0.98)), epochs=1.0)),
    ("masks_off", figures(masked=0.0, shown_as_mask=math.nan)),
    ("masks_off", figures(shown_as_mask=0.0)),
    ("masks_off", figures(masked=0.005, run=journals.about(config={"masks": "fresh"}))),
    ("masks_repeat", figures(copies=1, distinct_copies=1, train=flat("epoch", 11.0))),
    ("masks_repeat", figures(copies=10, distinct_copies=1, train=flat("epoch", 30.0))),
    ("one_label", figures(label_share=1.0)),
    ("one_label", figures(label_share=0.02)),
    ("leaking_labels", figures(probe_accuracy=0.9)),
    ("leaking_labels", figures(until=300, evaluated=flat("next_sentence_accuracy", 0.99))),
    ("shuffled_labels", figures(4000, train=late_labels, evaluated=late_labels)),
    ("repeated_data", figures(dedup="none", duplicate_documents=0.3)),
    ("repeated_data", figures(duplicate_examples=0.2)),
    ("eval_in_training", figures(eval_documents=100, eval_documents_seen=90)),
    ("eval_in_training", figures(train=shown("masked_lm_loss", 6.0), evaluated=shown("masked_lm_loss", 5.0))),
    ("split_words", figures(pieces_per_word=4.2, single_letters=0.6)),
    ("split_words", figures(single_letters=0.5)),
    ("unknown_words", figures(unknown=0.1)),
    ("overfitting", figures(evaluated=overfitted)),
    ("memorization", figures(train=lambda entry: {"epoch": entry["step"] / 50, "masked_lm_loss": 2.0})),
    ("failed_gate", figures(failed_checks=("train copy 00: 3.00 % of tokens are masked, not within 14.00 to 15.00 %",))),
]  # fmt: skip


def test_labels_that_are_not_trained_are_no_fault() -> None:
    """The remedy would be --objective mlm, which the run has."""
    assert kinds(replace(figures(probe_accuracy=0.9), objective="mlm")) == []


@pytest.mark.parametrize(("kind", "found"), PLANTED, ids=[f"{kind}-{at}" for at, (kind, _) in enumerate(PLANTED)])
def test_a_planted_fault_is_named(kind: str, found: Figures) -> None:
    assert kind in kinds(found)


def test_nearly_all_planted_faults_are_named_alone() -> None:
    """At least 95 % are named, and hardly any with a second kind: a fault may have symptoms of another one."""
    named = [kind in kinds(found) for kind, found in PLANTED]
    alone = [kinds(found) == [kind] for kind, found in PLANTED]
    assert sum(named) >= 0.95 * len(PLANTED) and sum(alone) >= 0.85 * len(PLANTED)
    assert {kind for kind, _ in PLANTED} == set(DIAGNOSES) and len(DIAGNOSES) >= 12


def test_remedies_of_fine_tuning_are_options_of_finetune() -> None:
    """They have no --warmup-steps, and their files no shards."""
    entries = [entry | {"gradient_norm": 50.0} for entry in journals.task_entries()]
    about = journals.finetuned(clip_norm=1.0)
    broken = RecordedRun("RUN", about, entries, [], {"step": 99, "learning_rate": 1e-3})
    flat = [entry | {"gradient_norm": 1e-5, "loss": 2.0} for entry in entries]
    found = [*diagnose(figures_of(broken, [])), *diagnose(figures_of(RecordedRun("RUN", about, flat), []))]
    assert {finding.kind for finding in found} >= {"diverged", "rate_too_high", "underflow"}
    known = {f"--{field.name.replace('_', '-')}" for field in fields(FinetuneConfig)}
    for finding in found:
        assert set(re.findall(r"--[a-z-]+", finding.remedy)) <= known and "verify" not in finding.remedy


def test_a_finding_says_what_was_measured_and_what_to_do() -> None:
    (finding,) = diagnose(figures(train=flat("input_share", 0.4)))
    assert str(finding) == (
        "steps wait for input 40 % of their time: put the dataset on a faster disk, give this process more CPU cores, or end "
        "other programs that read or compute (input_bound)"
    )
    for kind, found in PLANTED:
        (finding,) = [each for each in diagnose(found) if each.kind == kind]
        assert finding.evidence and finding.remedy and "\n" not in str(finding) and "nan " not in finding.evidence


HEALTHY = {
    "of 20 steps": figures(20, 5),
    "of 1,000 steps": figures(),
    "of 1,000 steps, every step logged": figures(every=1),
    "of a million steps": figures(1_000_000, 1000),
    "that has done a tenth": figures(until=100),
    "that has done a third": figures(until=350),
    "that leaves the plateau in its second half": figures(until=600, train=NEAR, evaluated=NEAR),
    "of a large learning rate": figures(run=journals.about(learning_rate=2e-3, config={"initializer_range": 0.08})),
    "that waits at first": figures(train=lambda entry: {"input_share": 0.9} if entry["step"] <= 100 else {}),
    "whose losses vary": figures(every=10, train=noisy),
    "of one epoch": figures(train=flat("epoch", 0.5), dedup="none", duplicate_documents=0.02),
    "evaluated on other, easier text": figures(
        train=shown("masked_lm_loss", 6.0), evaluated=shown("masked_lm_loss", 5.0), has_eval_split=False
    ),
    "evaluated on other text that is forgotten": figures(evaluated=overfitted, has_eval_split=False),
    "evaluated on other text that is harder": figures(
        train=lambda entry: {"epoch": entry["step"] / 50} | shown("masked_lm_loss", 2.0)(entry), has_eval_split=False
    ),
    "with fresh masks that are shown": figures(shown_as_mask=0.0, run=journals.about(config={"masks": "fresh"})),
    "with fresh masks": figures(train=flat("epoch", 40.0), run=journals.about(config={"masks": "fresh"})),
    "that predicts the next token": figures(train=flat("masked_lm_accuracy", 0.3), run=journals.about(objective="causal")),
    "from a trained encoder": figures(
        train=scaled("learning_rate", 1e-3), run=journals.about(config={"init": "OTHER"}, learning_rate=1e-6)
    ),
    "with a falling mask rate": figures(
        train=shown("masked_lm_loss", 6.0), evaluated=shown("masked_lm_loss", 5.4),
        run=journals.about(config={"masked_lm_prob_schedule": "0.4:0.15"}),
    ),
    "in half precision": figures(run=journals.about(config={"precision": "bfloat16"})),
    "without data": replace(figures(), read=(), datasets=()),
    "whose dataset has no statistics": replace(
        figures(), read=((DatasetFigures("D"), 4.0),), datasets=(DatasetFigures("D"),)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_run_raises_no_alarm(name: str) -> None:
    assert kinds(HEALTHY[name]) == []


def test_a_run_of_finetune_raises_no_alarm() -> None:
    run = RecordedRun("RUN", journals.finetuned(), journals.task_entries(), [])
    assert kinds(figures_of(run, [])) == []
    starved = [entry | {"input_share": 0.5} for entry in journals.task_entries(200)]
    assert kinds(figures_of(RecordedRun("RUN", journals.finetuned(), starved, []), [])) == ["input_bound"]


def test_a_phase_is_compared_with_itself() -> None:
    """The second phase has another objective: its loss is higher, and it began after step 500."""
    about = journals.about(500)
    about["identity"]["phase 2"] = about["identity"]["phase 1"] | {"steps": 500, "objective": "mlm", "learning_rate": 5e-4}
    entries = [
        entry | ({"masked_lm_loss": entry["masked_lm_loss"] - 2 * (entry["step"] <= 500)} if "masked_lm_loss" in entry else {})
        for entry in journals.healthy()
    ]
    found = figures_of(RecordedRun("RUN", about, entries, []), [[None], [DATASET]])
    assert (found.begin, found.objective, found.peak_rate, found.steps) == (500, "mlm", 5e-4, 1000)
    assert found.read[0][0] == DATASET and not found.mixes and found.train[0]["step"] == 550 and kinds(found) == []


def test_a_divergence_that_a_later_process_has_passed() -> None:
    assert kinds(figures(diverged={"step": 590, "learning_rate": 1e-3})) == []


def test_a_cause_replaces_its_symptom() -> None:
    slow = figures(train=lambda entry: scaled("learning_rate", 0.01)(entry) | NEAR(entry), evaluated=NEAR)
    assert kinds(slow) == ["rate_too_low"]
    large = figures(
        train=flat("masked_lm_loss", 17.9), evaluated=flat("masked_lm_loss", 17.9),
        run=journals.about(config={"initializer_range": 50.0}),
    )  # fmt: skip
    assert kinds(large) == ["wrong_start"]


def test_pieces_of_words() -> None:
    """ "un ##seen word ##s" and "[UNK]": two words of four pieces, one of them a single letter."""
    tokens = ["[UNK]", "un", "##seen", "word", "##s"]
    assert pieces_of_words(tokens, [9, 1, 1, 1, 1]) == (2.0, 0.25)
    assert all(map(math.isnan, pieces_of_words(tokens, [0] * 5)))
