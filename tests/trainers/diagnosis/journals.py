"""Runs as pretrain and finetune record them, written without training: healthy ones, and what a test changes in them."""

import json
from pathlib import Path
from typing import Any

ENCODER = {
    "vocab_size": 4000, "hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512,
    "max_position_embeddings": 128, "type_vocab_size": 2, "hidden_act": "gelu_tanh", "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1, "initializer_range": 0.02, "layer_norm_eps": 1e-12, "attention": "bidirectional",
    "remat": False,
}  # fmt: skip
DIGEST = "c0ffee" * 10 + "beef"
SESSION = {
    "from_step": 0, "to_step": 1000, "began": "2026-11-29 05:40:12 UTC", "seconds": 1200.0, "cpu_seconds": 2160.0,
    "device": "1 x CPU, float32", "machine": "Linux x86_64, 2 cores", "versions": {"python": "3.11.9"}, "command": "-",
}  # fmt: skip
SECONDS, TOKENS = 1.0, 3600  # of a step


def rate_at(step: int, steps: int, peak: float) -> float:
    """The linear schedule with a warm-up of a tenth."""
    warmup = steps / 10
    return peak * min(step / warmup, (steps - step) / (steps - warmup))


def entry(step: int, steps: int = 1000, **changes: Any) -> dict[str, Any]:
    """A healthy line of training: from ln 4,000 = 8.3 nats down to word frequencies by a tenth of the run, then to 4.8."""
    done = step / steps
    loss = 8.3 - 1.5 * min(10 * done, 1.0) - 2.0 * max(0.0, done - 0.1) / 0.9
    return {
        "step": step, "epoch": 4 * done, "loss": loss + 0.6, "masked_lm_loss": loss, "masked_lm_accuracy": 0.05 + 0.2 * done,
        "next_sentence_loss": 0.6, "next_sentence_accuracy": 0.5 + 0.3 * done, "learning_rate": rate_at(step, steps, 1e-3),
        "gradient_norm": 1.5, "examples_per_second": 32.0, "tokens_per_second": 3600.0, "input_share": 0.02,
        "tokens": TOKENS * step, "seconds": SECONDS * step,
    } | changes  # fmt: skip


def evaluation(step: int, steps: int = 1000, **changes: Any) -> dict[str, Any]:
    """A healthy evaluation: a little above the training loss."""
    loss = entry(step, steps)["masked_lm_loss"] + 0.05
    return {
        "step": step, "split": "eval", "masked_lm_loss": loss, "masked_lm_accuracy": 0.2, "loss": loss + 0.6,
        "next_sentence_loss": 0.6, "next_sentence_accuracy": 0.5 + 0.3 * step / steps, "perplexity": 99.0, "examples": 1000,
        "predictions": 10000, "unigram_loss": 6.8, "unigram_entropy": 6.6, "remarks": [],
    } | changes  # fmt: skip


def healthy(steps: int = 1000, every: int = 50, until: int | None = None) -> list[dict[str, Any]]:
    """The journal of a healthy run that is evaluated at every other line."""
    found = []
    for step in range(every, (until or steps) + 1, every):
        found.append(entry(step, steps))
        if step % (2 * every) == 0:
            found.append(evaluation(step, steps))
    return found


def about(steps: int = 1000, config: dict[str, Any] | None = None, **phase: Any) -> dict[str, Any]:
    """The run.json of a run of one phase."""
    own = {"dataset": DIGEST, "order": "of blocks", "steps": steps, "batch_size": 32, "learning_rate": 1e-3,
           "warmup_steps": steps // 10, "scheduled_steps": steps, "objective": "mlm+nsp"} | phase  # fmt: skip
    options = {"preset": "tiny", "data": ["DATASET"], "phases": [], "precision": "float32", "optimizer": "adamw",
               "masks": "static", "init": "", "branch_from": "", "initializer_range": 0.02, "clip_norm": 1.0,
               "dropout": 0.1, "steps": steps} | (config or {})  # fmt: skip
    return {
        "identity": {"phases": 1, "phase 1": own, "objective": own["objective"]},
        "config": options,
        "encoder": ENCODER,
        "objective": own["objective"],
        "vocabulary": {"sha256": "5ca1ab1e" * 8, "size": 4000, "cased": False},
    }


def finetuned(**config: Any) -> dict[str, Any]:
    """The run.json of a run of finetune."""
    options = {"task": "classify", "optimizer": "adamw", "learning_rate": 1e-4, "precision": "float32"} | config
    return {
        "identity": {**options, "batch_size": 16, "train": DIGEST, "dev": DIGEST},
        "config": options,
        "encoder": ENCODER,
        "task": {"kind": "classify", "labels": ["a", "b"]},
        "vocabulary": {"sha256": "5ca1ab1e" * 8, "size": 4000, "cased": False},
    }


def task_entries(steps: int = 60) -> list[dict[str, Any]]:
    """The journal of a run of finetune."""
    found: list[dict[str, Any]] = []
    for step in range(10, steps + 1, 10):
        found.append(entry(step, steps, task_loss=0.7 - step / 100, task_accuracy=0.5 + step / 150))
        for name in [name for name in found[-1] if name.startswith(("masked", "next"))]:
            del found[-1][name]
        found.append({"step": step, "split": "eval", "accuracy": 0.5 + step / 200, "loss": 0.7 - step / 200,
                      "criterion": -0.5 - step / 200, "examples": 100, "remarks": []})  # fmt: skip
    return found


def write_run(
    folder: Path, entries: list[dict[str, Any]], run: dict[str, Any] | None = None, sessions: list | None = None
) -> Path:
    """Write run.json, metrics.jsonl and report.json of a run."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run or about()))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in entries))
    (folder / "report.json").write_text(json.dumps({"sessions": [SESSION] if sessions is None else sessions}))
    return folder
