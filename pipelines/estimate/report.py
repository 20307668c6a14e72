"""The estimate of `clozemill plan` as a table and as JSON: the mill's figures, and others that were made from them."""

import json
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.estimate.config import MillPlan
from clozemill.pipelines.estimate.extrapolation import Mill
from clozemill.pipelines.files import filesystem

_SCALES = {"": ("", " k", " M", " G", " T"), "B": (" B", " kB", " MB", " GB", " TB"), "x": ("",), "price": ("",)}
_SHOWN_STAGES = 6


def _rounded(value: float) -> str:
    """Three digits that count, no more: a whole number below a thousand that is one is left as it is."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def shown(value: float, unit: str) -> str:
    """'3.21 M', '1.5 GB', '2.4 h', '95 s'."""
    if unit in ("s", "h"):
        seconds = value * (3600 if unit == "h" else 1)
        size, name = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= pair[0] * 1.5 or pair[0] == 1)
        return f"{_rounded(seconds / size)} {name}"
    for name in _SCALES[unit]:
        if abs(value) < 1000 or name == _SCALES[unit][-1]:
            return _rounded(value) + name
        value /= 1000
    raise AssertionError(unit)


def table(figures: list[Estimate]) -> list[str]:
    """A line per figure: what, estimate, and low..high where they differ."""
    lines = [f"{'':<34}{'estimate':>12}   low .. high"]
    for figure in figures:
        span = f"{shown(figure.low, figure.unit)} .. {shown(figure.high, figure.unit)}" if figure.low != figure.high else ""
        lines.append(f"{figure.name:<34}{shown(figure.estimate, figure.unit):>12}   {span}".rstrip())
    return lines


def notes(config: MillPlan, mill: Mill) -> list[str]:
    """What the estimate rests on, a sentence each."""
    about, found = mill.about, list(mill.notes)
    left = [f"--dedup {config.dedup}"] if config.dedup == "near" else []
    left += ["--decontaminate"] if config.decontaminate else []
    text = f"{about['sample_characters'] / 1e6:,.1f} M characters, {about['sample_documents']:,} documents"
    if about["whole"]:
        exact = "so that counts and bytes are exact" + (" but for what is said below" if left else "")
        found.insert(0, f"the corpus is small: all of it was milled ({text}), {exact}")
    else:
        found.insert(0, f"from a sample: {text}, milled as prepare does it")
        found.append(
            "duplicates of the whole corpus can't be seen in a sample: where there are some, there will be less of all"
        )
    if left:
        found.append(f"what {' and '.join(left)} will keep out is counted as kept: prepare tells by the whole corpus")
    if config.clustered:
        found.append("near-duplicates are told apart in a reading of their own, which isn't in these seconds")
    if about["vocabulary_learnt"]:
        found.append(
            f"without --vocab, a vocabulary of {about['vocabulary_size']:,} tokens was learnt on what was read: one learnt "
            "on more text gives some tokens more or fewer"
        )
    found.append(f"seconds were measured on this machine ({about['measured_on']}), one core, and scaled")
    if "dataflow" in config.target and not config.num_workers:
        found.append("no --num-workers was given: one is assumed")
    return found


def tell(config: MillPlan, mill: Mill, training: tuple[list[Estimate], list[str], list[str]]) -> None:
    """Prints the table, notes and warnings, and writes --output. `training`: its figures, notes and warnings."""
    figures = [*mill.figures.values(), *training[0]]
    said, warnings = notes(config, mill) + training[1], mill.warnings + training[2]
    spent = sum(mill.stages.values())
    longest = sorted(mill.stages.items(), key=lambda pair: -pair[1])[:_SHOWN_STAGES]
    stages = [f"{name} {100 * seconds / spent:.0f} %" for name, seconds in longest]
    print("\n".join(table(figures)))
    print(f"\nwhere the mill's time goes: {', '.join(stages)}" if spent else "")
    print("\n".join(f"note: {sentence}" for sentence in said))
    print("\n".join(f"warning: {sentence}" for sentence in warnings), end="\n" if warnings else "", flush=True)
    if config.output:
        filesystem.write_bytes(config.output, json.dumps(_json(config, mill, figures, said, warnings), indent=1).encode())
        print(f"wrote {config.output}")


def _json(config: MillPlan, mill: Mill, figures: list[Estimate], said: list[str], warnings: list[str]) -> dict[str, Any]:
    values = {
        figure.name: {"unit": figure.unit, "estimate": figure.estimate, "low": figure.low, "high": figure.high}
        for figure in figures
    }
    return {
        "figures": values,
        "notes": said,
        "warnings": warnings,
        "sample": mill.about,
        "stage_seconds": mill.stages,
        "config": options.to_dict(config),
    }
