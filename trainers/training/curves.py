"""Plots a run's curves from the entries of metrics.jsonl."""

import io
from typing import Any

LOSSES = {"masked_lm_loss": "masked LM", "next_sentence_loss": "next sentence", "task_loss": "task"}
ACCURACIES = {"masked_lm_accuracy": "masked LM", "next_sentence_accuracy": "next sentence", "task_accuracy": "accuracy"}
# Values of an evaluation that are neither losses nor metrics between 0 and 1.
_OTHERS = {"step", "epoch", "loss", "criterion", "examples", "predictions", "perplexity", "unigram_loss", "unigram_entropy"}

Line = tuple[str, str, list[tuple[int, float]]]  # (label, style, points)


def _points(entries: list[dict[str, Any]], name: str) -> list[tuple[int, float]]:
    """Return (step, value) for every entry with a value; undefined metrics are null."""
    return [(entry["step"], entry[name]) for entry in entries if isinstance(entry.get(name), int | float)]


def _losses(train: list[dict], evaluated: list[dict]) -> list[Line]:
    lines = [(f"{shown}, train", "-", _points(train, name)) for name, shown in LOSSES.items()]
    lines += [(f"{shown}, eval", "o--", _points(evaluated, name)) for name, shown in LOSSES.items()]
    if not any(name in entry for entry in evaluated for name in LOSSES):  # evaluations of fine-tuning have one loss
        lines.append(("task, dev", "o--", _points(evaluated, "loss")))
    lines.append(("masked LM, word frequencies alone", ":", _points(evaluated, "unigram_loss")))
    return lines


def _scores(train: list[dict], evaluated: list[dict]) -> list[Line]:
    lines = [(f"{shown}, train", "-", _points(train, name)) for name, shown in ACCURACIES.items()]
    names = dict.fromkeys(name for entry in evaluated for name in entry if name not in _OTHERS and name not in LOSSES)
    for name in names:
        shown = f"{ACCURACIES[name]}, eval" if name in ACCURACIES else f"{name}, dev"
        lines.append((shown, "o--", _points(evaluated, name)))
    return lines


def panels(entries: list[dict[str, Any]]) -> dict[str, list[Line]]:
    """Return the panels: by title, the lines that have points."""
    train = [entry for entry in entries if entry.get("split") != "eval"]
    evaluated = [entry for entry in entries if entry.get("split") == "eval"]
    found = {
        "loss": _losses(train, evaluated),
        "metrics": _scores(train, evaluated),
        "learning rate": [("", "-", _points(train, "learning_rate"))],
    }
    return {title: [line for line in lines if line[2]] for title, lines in found.items()}


def draw(entries: list[dict[str, Any]], title: str, best: int | None = None) -> bytes:
    """Plot losses, metrics and learning rate over the steps, train as lines and evaluations as dots. Returns a PNG.

    Args:
        best: step of the best checkpoint, marked in every panel of results.
    """
    from matplotlib.figure import Figure  # imported late: takes a second, and is only needed at the end of a run

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for number, (name, lines) in enumerate(panels(entries).items(), 1):
        axes = figure.add_subplot(1, 3, number)
        for label, style, points in lines:
            style = ".-" if style == "-" and len(points) < 30 else style  # a single point has no line
            axes.plot(*zip(*points, strict=True), style, markersize=4, label=label or None)
        if best is not None and lines and name != "learning rate":
            axes.axvline(best, color="0.4", linestyle="-.", linewidth=1, label=f"best checkpoint (step {best:,})")
        axes.set_xlabel("step")
        axes.set_title(name)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
