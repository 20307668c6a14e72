"""The sections of a run's page, from its metrics, configuration and environment: pure functions."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from clozemill.pipelines.common.formatting import figure
from clozemill.pipelines.pages.content import Section, Table
from clozemill.trainers.training import curves
from clozemill.trainers.training.curves import Entries
from clozemill.trainers.training.eval_set_names import metric_of, set_of
from clozemill.trainers.training.metrics_log import duration
from clozemill.trainers.training.run_protocols import RunStory

_SHOWN_EVALUATIONS = 40
NAMES = {
    "masked_lm_loss": "masked-LM loss",
    "masked_lm_accuracy": "masked-LM accuracy",
    "next_sentence_loss": "next-sentence loss",
    "next_sentence_accuracy": "next-sentence accuracy",
    "replaced_loss": "replaced-token loss",
    "replaced_accuracy": "replaced-token accuracy",
    "unigram_loss": "word frequencies",
}
_OF_SETS = ("masked_lm_loss", "masked_lm_accuracy", "replaced_accuracy")  # of further eval sets, the table has only these
_HIDDEN = ("step", "split", "criterion", "comparable", "remarks", "unigram_entropy", "predictions")
TERMS = {
    "loss": ("loss", "mean surprise at the right answer, in nats: 0 for a model that is always sure and right"),
    "unigram_loss": (
        "word frequencies",
        "the loss of always answering with the frequencies of the train split; a model that beats it uses the context",
    ),
    "perplexity": ("perplexity", "e to the power of the masked-LM loss: between how many equally likely tokens it hesitates"),
    "recipe": ("recipe", "the loss on the train split that this recipe reached before, on the data that it is meant for"),
    "next_sentence": ("next sentence", "whether B follows A in the text; chance is 50 % where both are equally frequent"),
    "replaced": (
        "replaced tokens",
        "whether a token is the generator's or the original one; most are original, so always saying that is mostly right",
    ),
    "input": ("waiting for input", "share of a step in which the device has no batch yet; above a few percent, reading limits"),
    "mfu": ("MFU", "model FLOPs utilisation: the computation that the model needs, as a share of the device's peak"),
    "best": ("best", "the checkpoint with {}, which later commands take"),
}


def curve_section(entries: Entries, best: int | None, story: RunStory) -> Section:
    """Return the plots, with the terms that they use."""
    drawn = curves.plots(entries, best, story.expected)
    names, train = {plot.name for plot in drawn}, entries
    used = ["loss"] * ("loss" in names) + ["best"] * (best is not None)
    used += ["unigram_loss"] if any("unigram_loss" in entry for entry in train) else []
    used += ["recipe"] * bool(story.expected) + ["next_sentence"] * ("next-sentence-accuracy" in names)
    used += ["replaced"] * ("replaced-token-accuracy" in names)
    used += ["input"] * ("input-wait" in names) + ["mfu"] * ("utilisation" in names)
    text = [f"Expected: {story.expectation}"] if story.expectation else []
    terms = [(name, meaning.format(story.selected_by)) for name, meaning in (TERMS[name] for name in used)]
    return Section("Curves", text if drawn else [], plots=drawn, terms=terms if drawn else [])


def of_step(exhibits: Sequence[Section], step: int, best: int) -> list[Section]:
    """Return an evaluation's exhibits with a first sentence that says at which step it was.

    Args:
        step: the evaluation's step.
        best: that of the best checkpoint. It differs only if a process was killed right after it had saved that one.
    """
    told = f"Of the best checkpoint, at step {step:,}."
    if step != best:
        told = f"Of the evaluation at step {step:,}; the answers of the best checkpoint, at step {best:,}, were not recorded."
    return [replace(section, text=[told, *section.text]) for section in exhibits]


def value(name: str, number: Any) -> str:
    """Format a metric: accuracies of pretraining in percent, undefined values as 'undefined'."""
    if number is None or (isinstance(number, float) and not math.isfinite(number)):
        return "undefined"
    name = metric_of(name)
    if name in ("masked_lm_accuracy", "next_sentence_accuracy", "replaced_accuracy"):
        return f"{100 * number:.2f} %"
    return f"{number:,.1f}" if name == "perplexity" else f"{number:.4f}" if isinstance(number, float) else f"{number:,}"


def _title(name: str) -> str:
    """Return a metric's name for people, after that of its eval set: "wiki: masked-LM loss"."""
    metric, eval_set = metric_of(name), set_of(name)
    return f"{eval_set}: " * bool(eval_set) + NAMES.get(metric, metric.replace("_", " "))


def evaluation_section(entries: Entries, best: int | None) -> Section:
    """Return the table of all evaluations, at most _SHOWN_EVALUATIONS of them, with the best and the last one."""
    rows = curves.split_entries(entries)[1]
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in _HIDDEN]
    names = [name for name in names if not set_of(name) or metric_of(name) in _OF_SETS]
    if "masked_lm_loss" in names:
        names = [name for name in names if name != "loss"]  # the sum of both losses: nothing to compare it with
    step = -(-len(rows) // _SHOWN_EVALUATIONS)
    kept = [row for at, row in enumerate(rows) if (len(rows) - 1 - at) % max(step, 1) == 0 or row["step"] == best]
    cells = [
        (f"{row['step']:,}", *(value(name, row.get(name)) for name in names), "best" if row["step"] == best else "")
        for row in kept
    ]
    note = f"{len(kept)} of {len(rows)} evaluations; metrics.jsonl has all." if len(kept) < len(rows) else ""
    head = ("step", *(_title(name) for name in names), "")
    table = Table("Results", "r" * (len(names) + 1) + "l", head, cells, note)
    terms = [TERMS["perplexity"]] if "perplexity" in names else []
    return Section("Evaluations", tables=[table] if rows else [], terms=terms)


def configuration_section(
    config: dict[str, Any], defaults: dict[str, Any], chosen: Collection[str], tables: Sequence[Table]
) -> Section:
    """Return what the run trains on, the options that were set or chosen, and all options.

    Args:
        config: all options of the run.
        defaults: their defaults; the user set what differs, except for what was chosen.
        chosen: names of the options that the user left open.
        tables: what the run trains on.
    """
    shown = {name: _option(each) for name, each in config.items()}
    changed = [(name, text) for name, text in shown.items() if text != _option(defaults.get(name))]
    own = [(name, text) for name, text in changed if name not in chosen]
    others = [(name, text) for name, text in shown.items() if name in chosen]
    parts = [("Options that were set", own), ("Options that clozemill chose", others)]
    short = [Table(title, "lt", ("option", "value"), rows) for title, rows in parts if rows]
    every = Table("All options", "lt", ("option", "value"), list(shown.items()), folded=True)
    return Section("Configuration", tables=[*tables, *short, every])


def _option(each: Any) -> str:
    if isinstance(each, list | tuple):
        return "; ".join(_option(one) for one in each) or "-"
    if isinstance(each, dict):
        return ", ".join(f"{name} {_option(one)}" for name, one in each.items()) or "-"
    return "-" if each == "" or each is None else f"{each:g}" if isinstance(each, float) else figure(each)


def environment_section(sessions: Sequence[dict[str, Any]]) -> Section:
    """Return the sessions of a run: each process that worked on it, with its dates, device, versions and command."""
    rows = [
        (str(number), f"{each['from_step']:,}", f"{each['to_step']:,}", each["began"], duration(each["seconds"]),
         each["device"], each["machine"])
        for number, each in enumerate(sessions, 1)
    ]  # fmt: skip
    head = ("process", "from step", "to step", "began", "time", "device", "machine")
    last = sessions[-1]
    versions = list(last["versions"].items())
    commands = [(str(number), each["command"]) for number, each in enumerate(sessions, 1)]
    tables = [
        Table("Processes", "lrrlrll", head, rows),
        Table("Versions", "lm", ("of", "version"), versions),
        Table("Commands", "lt", ("process", "command"), commands),
    ]
    return Section("Environment", tables=tables)
