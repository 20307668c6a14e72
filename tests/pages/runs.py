"""Pages of runs, written out: figures that can be checked by head, and text that would do harm if it were not escaped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from clozemill.pipelines.pages.content import Example, Page, Section, Side, Table, Token
from clozemill.trainers.finetuning.config import FinetuneConfig
from clozemill.trainers.training import run_page
from clozemill.trainers.training.run_protocols import RunStory
from tests.pages.cards import ARABIC, SCRIPT


@dataclass(frozen=True)
class Plan:
    """What a page needs of a training.run_protocols.TrainingRun."""

    config: Any
    steps: int
    told: RunStory
    title: str = "a title"
    chosen: dict[str, Any] = field(default_factory=lambda: {"learning_rate": 1e-3})

    def story(self) -> RunStory:
        return self.told

    def summary(self, figures: dict[str, Any]) -> tuple[str, list[tuple[str, str]]]:
        return f"masked-LM loss {figures['masked_lm_loss']:.3f}", [("masked-LM loss", f"{figures['masked_lm_loss']:.3f}")]


def entries(steps: int) -> list[dict[str, Any]]:
    """The metrics of a pretraining run that logs every step and evaluates every tenth."""
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        own = {"step": step, "epoch": 0.1, "loss": 9.0 / step, "masked_lm_loss": 8.0 - 0.02 * step, "masked_lm_accuracy": 0.1,
               "next_sentence_loss": 0.7, "next_sentence_accuracy": 0.5 + step / 1000, "learning_rate": 1e-3 * step / steps,
               "gradient_norm": 1.0, "examples_per_second": 20.0, "tokens_per_second": 2000.0 + step, "input_share": 0.02,
               "mfu": 0.4}  # fmt: skip
        found.append(own)
        if step % 10 == 0:
            names = ("masked_lm_loss", "masked_lm_accuracy", "next_sentence_loss", "next_sentence_accuracy")
            evaluated = {name: own[name] for name in names} | {"perplexity": 1234.5, "unigram_loss": 6.8, "examples": 41}
            found.append({"step": step, "split": "eval", "loss": 8.0, **evaluated, "remarks": []})
    return found


SESSION = {
    "from_step": 0, "to_step": 90, "began": "2026-11-29 05:40:12 UTC", "seconds": 75.2, "device": "1 x CPU, float32",
    "machine": "Linux x86_64, 2 cores", "versions": {"python": "3.11.9", "tensorflow": "2.21.0"},
    "command": f"clozemill finetune --train '{SCRIPT}'",
}  # fmt: skip
TOKENS = [Token("[CLS]", "[CLS]", "special"), Token("[MASK]", SCRIPT, "mask"), Token("other", ARABIC, "random"),
          Token("s", "##s", "", True)]  # fmt: skip
LABELS = tuple(f"label-{number}" for number in range(12))
EXHIBITS = [
    Section("Answers to the dev examples", tables=[
        Table("Confusion matrix", "t" + "h" * 12, ("expected \\ given", *LABELS),
              [(name, *(9 * (at == other) + 1 for other in range(12))) for at, name in enumerate(LABELS)]),
    ]),
    Section("Sample predictions", examples=[
        Example("Example 0", "Label:", [Side("A", TOKENS), Side("B", TOKENS[1:])], "B is random", 1, [
            Table("Predictions", "rwwwwwww", ("position", "shown", "target", *(f"{rank}." for rank in range(1, 6))),
                  [("1", "[MASK]", ARABIC, "the 5.0 %", f"{'w' * 60} 3.0 % ✓", "a 2.0 %", "of 1.0 %", "x 0.1 %")]),
        ]),
    ]),
]  # fmt: skip


def run(steps: int = 90, ended: str = "complete", remarks: Sequence[str] = (), **changes: Any) -> Page:
    """A page of a run of 90 steps in a folder of a harmful name."""
    config = FinetuneConfig(output=f"runs/{SCRIPT.replace('/', '')}", train=SCRIPT, task="cola")
    phases = Table("Phases", "tr", ("dataset", "tokens"), [(SCRIPT, "8")])
    curve = ((10, 7.5), (90, 6.0))
    lead = [f"An encoder of {SCRIPT}."]
    story = RunStory("Pretraining run", lead, [phases], curve, "about 6 nats", warnings=["few examples"])
    found = entries(steps)
    best = found[-1] | {"remarks": list(remarks)} if steps else None
    return run_page.build(Plan(config, 90, story), found, steps, best, [SESSION], EXHIBITS, ended, **changes)  # type: ignore[arg-type]
