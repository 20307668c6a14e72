"""A run's curves as a picture, from metrics.jsonl's entries."""

import io
from typing import Any


def draw(entries: list[dict[str, Any]], title: str) -> bytes:
    """Losses, accuracies and learning rate over the steps, train as lines and eval as dots; a PNG's bytes."""
    from matplotlib.figure import Figure  # takes a second to import, and only the end of a run needs it

    figure = Figure(figsize=(11, 3.6), layout="constrained")
    train = [entry for entry in entries if entry.get("split") != "eval"]
    panels = (
        ("loss (nats)", {"masked_lm_loss": "masked LM", "next_sentence_loss": "next sentence"}),
        ("accuracy", {"masked_lm_accuracy": "masked LM", "next_sentence_accuracy": "next sentence"}),
        ("learning rate", {"learning_rate": ""}),
    )
    for number, (label, names) in enumerate(panels, 1):
        axes = figure.add_subplot(1, len(panels), number)
        for colour, (name, shown) in enumerate(names.items()):
            for rows, style in ((train, "-"), ([entry for entry in entries if entry.get("split") == "eval"], "o")):
                points = [(entry["step"], entry[name]) for entry in rows if name in entry]
                if points:
                    text = shown and f"{shown}, {'train' if style == '-' else 'eval'}"
                    axes.plot(*zip(*points, strict=True), style, color=f"C{colour}", markersize=4, label=text or None)
        axes.set_xlabel("step")
        axes.set_title(label)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize="small")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120, metadata={"Software": None})
    return buffer.getvalue()
