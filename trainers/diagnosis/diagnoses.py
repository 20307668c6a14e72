"""All diagnoses by their kind. Each is a pure function: the figures of a run in, a Finding or None out."""

from collections.abc import Callable

from clozemill.trainers.diagnosis import data_diagnoses, training_diagnoses
from clozemill.trainers.diagnosis.figures import Figures, Finding

DIAGNOSES: dict[str, Callable[[Figures], Finding | None]] = {
    "diverged": training_diagnoses.diverged,
    "wrong_start": training_diagnoses.wrong_start,
    "rate_too_high": training_diagnoses.rate_too_high,
    "rate_too_low": training_diagnoses.rate_too_low,
    "plateau": training_diagnoses.plateau,
    "underflow": training_diagnoses.underflow,
    "input_bound": training_diagnoses.input_bound,
    "answers_visible": data_diagnoses.answers_visible,
    "masks_off": data_diagnoses.masks_off,
    "masks_repeat": data_diagnoses.masks_repeat,
    "one_label": data_diagnoses.one_label,
    "leaking_labels": data_diagnoses.leaking_labels,
    "shuffled_labels": data_diagnoses.shuffled_labels,
    "repeated_data": data_diagnoses.repeated_data,
    "eval_in_training": data_diagnoses.eval_in_training,
    "split_words": data_diagnoses.split_words,
    "unknown_words": data_diagnoses.unknown_words,
    "overfitting": data_diagnoses.overfitting,
    "memorization": data_diagnoses.memorization,
    "failed_gate": data_diagnoses.failed_gate,
}
# What is only a consequence of another finding, and would suggest the wrong remedy.
_EXPLAINED = {
    "plateau": {"wrong_start", "rate_too_high", "rate_too_low", "diverged"},
    "rate_too_low": {"wrong_start"},  # initial weights are too large, so that the rates are small beside them
}


def diagnose(figures: Figures) -> list[Finding]:
    """Return everything that is wrong with a run, in the order of DIAGNOSES, without consequences of another finding."""
    found = [finding for diagnosis in DIAGNOSES.values() if (finding := diagnosis(figures))]
    kinds = {finding.kind for finding in found}
    return [finding for finding in found if not kinds & _EXPLAINED.get(finding.kind, set())]
