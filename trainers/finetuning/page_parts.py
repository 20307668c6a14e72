"""What the page of a fine-tuning run says: the task, the data, and results beside the baseline."""

from collections.abc import Sequence
from typing import Any

from clozemill.pipelines.common.formatting import counted
from clozemill.pipelines.pages.content import Table
from clozemill.trainers.finetuning.baselines import Baseline
from clozemill.trainers.training.run_protocols import RunStory

_SHOWN_LABELS = 12


def story(planned: Any) -> RunStory:
    """Return the page's story of a FinetuningRun."""
    config, task = planned.config, planned.task
    what = planned.task_type.description.format(len(task.labels))
    start = "random weights" if config.from_scratch else planned.initial.name
    lead = [
        f"An encoder is fine-tuned for {config.task}: {what}. It starts from {start}.",
        f"{counted(len(planned.train), 'training row')}, {counted(len(planned.dev_examples), 'dev example')}.",
    ]
    labels = ", ".join(task.labels[:_SHOWN_LABELS]) + (f" and {len(task.labels) - _SHOWN_LABELS} more" if
                                                      len(task.labels) > _SHOWN_LABELS else "")  # fmt: skip
    held = planned.held_out
    rows = [
        ("training file", config.train),
        ("dev examples", f"held out: {held['fraction']:g} of the training file" if held else config.dev),
        ("labels", labels or "-"),
        ("tokens per text, at most", str(task.max_seq_length)),
        ("steps", f"{planned.steps:,} of {config.batch_size}, {config.epochs:g} epochs"),
        ("baseline", planned.baseline.name),
    ]
    table = Table("Data", "lt", ("item", "value"), rows)
    measured = planned.baseline.measurable
    selected_by = f"the highest {planned.metrics[0].replace('_', ' ')}" if measured else "the lowest dev loss"
    return RunStory("Fine-tuning run", lead, [table], warnings=list(planned.warnings), selected_by=selected_by)


def shown(score: float | None) -> str:
    """Format a score; undefined ones are None."""
    return "undefined" if score is None else f"{score:.4f}"


def summary(metrics: Sequence[str], baseline: Baseline, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    """Return the result of an evaluation beside the baseline: for a sentence, and as (name, value)."""
    first = metrics[0]
    tiles = [(name.replace("_", " "), shown(figures[name])) for name in metrics]
    tiles.append((f"{first.replace('_', ' ')} without the text", shown(baseline.scores[first])))
    return f"{first} {shown(figures[first])} ({baseline.how}: {shown(baseline.scores[first])})", tiles
