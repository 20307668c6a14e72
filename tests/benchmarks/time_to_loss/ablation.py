"""The rows of the ablation: the modern recipe, and changes of it, each for the same CPU seconds.

A row has the learning rate of the modern recipe unless it changes what the rate suits: the block, or the optimizer. Rows whose
options don't exist in this version are skipped with a note.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from clozemill.model.config import PRESETS
from tests.benchmarks.time_to_loss.curves import interval
from tests.benchmarks.time_to_loss.entries import DENSE, MAIN, PACKED, Entry, EntryPhase, contenders
from tests.benchmarks.time_to_loss.experiment import Candidate, Plan, final_loss
from tests.benchmarks.time_to_loss.report import number, spread, table

_ADAMW_RATES = (1e-3, 2e-3, 4e-3)


def _variant(modern: Entry, size: str, about: str, design: Mapping[str, bool], **sizes: Any) -> Entry:
    """Return the modern recipe with another design of the block."""
    changed = {"preset": f"modern-{size}", "design": dict(design), "sizes": sizes}
    entry = modern.changed(about, preset="variant")
    return replace(entry, settings={**entry.settings, "variant": changed})


def _masks(modern: Entry) -> dict[str, Entry]:
    """Return the rows about masks: each takes away what the recipe has, or adds what it lacks."""
    options = modern.settings["options"]
    found = {}
    if options.get("masks") == "fresh":
        found["static-masks"] = modern.changed("the masks that the shards store, instead of fresh ones", masks="static")
    else:
        found["fresh-masks"] = modern.changed("fresh masks in every epoch", masks="fresh")
    if "masked_lm_prob_schedule" in options:
        found["no-mask-schedule"] = modern.changed(
            "15 % masked from the start", (EntryPhase(MAIN),), masked_lm_prob_schedule=None
        )
    else:
        falling = {"masked_lm_prob_schedule": "0.3:0.15"}
        found["mask-schedule"] = modern.changed("30 % masked, falling to 15 %", (EntryPhase(DENSE),), **falling)
    return found


def rows(size: str, mask_schedule: bool = False) -> dict[str, Entry]:
    """Return the rows by name, the recipe itself first."""
    modern = contenders(size, mask_schedule)["modern"]
    data, objective = modern.phases[0].data, modern.settings["options"]["objective"]
    same_rate = replace(modern, rates=())
    other = "mlm" if objective != "mlm" else "mlm+nsp"
    causal = (EntryPhase(data, 1, {"objective": "causal"}), EntryPhase(data, 3, {"objective": objective}))
    wide = 4 * PRESETS[size]["hidden_size"]
    block = modern.changed("the block of BERT: post-norm, learned positions, no gate, biases", preset=size)
    return {
        "modern": modern,
        "bert-block": replace(block, rates=(1e-3, 2e-3, 4e-3)),
        "no-rope": _variant(
            modern, size, "learned positions and segments instead of RoPE", {"rotary": False}, type_vocab_size=2
        ),
        "post-norm": _variant(modern, size, "norms after each residual", {"pre_norm": False}),
        "no-gate": _variant(same_rate, size, "no gate, as many weights", {"gated": False}, intermediate_size=wide),
        "biases": _variant(same_rate, size, "biases in dense layers and norms", {"biases": True}),
        "adamw": replace(modern.changed("AdamW instead of Muon", optimizer="adamw"), rates=_ADAMW_RATES),
        "linear": same_rate.changed("linear decay instead of warm-up, stable, decay", schedule="linear"),
        "init-0.02": same_rate.changed("initial weights of 0.02", initializer_range=0.02),
        **_masks(same_rate),
        f"objective-{other}": same_rate.changed(f"the objective {other} instead of {objective}", objective=other),
        "causal-first": same_rate.changed("a causal phase for the first quarter of the steps", causal, objective=None),
        "rtd": replace(
            same_rate.changed("replaced-token detection; compare it with --downstream", objective="rtd"), comparable=False
        ),
        "packed": replace(
            same_rate.changed("packed rows, 15 % masked", (EntryPhase(PACKED),), masked_lm_prob_schedule=None),
            base="no-mask-schedule" if data == DENSE else "modern",
        ),
    }


def differences(row: Candidate, base: Candidate) -> list[float]:
    """Return the final losses of a row less those of the recipe, of the same seeds."""
    return [final_loss(row.runs[seed]) - final_loss(base.runs[seed]) for seed in row.runs if seed in base.runs]


def _cells(row: Candidate, base: Candidate | None) -> list[str]:
    runs = list(row.runs.values())
    loss = spread([final_loss(run) for run in runs]) if row.entry.comparable else "not comparable"
    change = "" if base is None or base is row or not row.entry.comparable else difference(differences(row, base))
    change += f" ({base.name})" if change and base and base.name != "modern" else ""
    step_s = " + ".join(f"{step:.4f}" for _, step in row.costs)
    return [row.name, loss, change, f"{row.rate:g}", f"{runs[0]['steps']:,}", step_s, number(_mean_seconds(runs), 0)]


def _mean_seconds(runs: Sequence[Mapping[str, Any]]) -> float:
    return interval([run["cpu_s"] for run in runs])[0]


def difference(values: Sequence[float]) -> str:
    """'+0.120 ± 0.031': mean and half of the 95 % interval of differences, '-' if a run diverged."""
    if not all(map(math.isfinite, values)):
        return "-"
    return ("+" if interval(values)[0] >= 0 else "") + spread(values)


def lines(plan: Plan, candidates: Sequence[Candidate]) -> list[str]:
    """Return the table. A positive difference means that the change is worse than the recipe, or than the row in brackets."""
    by_name = {one.name: one for one in candidates}
    head = [f"loss after {plan.budget:,.0f} CPU s", "end", "difference", "learning rate", "steps", "s per step", "CPU s"]
    abouts = [f"{one.name}: {one.entry.about}" for one in candidates]
    return [*table([head, *(_cells(one, by_name.get(one.entry.base)) for one in candidates)]), "", *abouts, ""]
