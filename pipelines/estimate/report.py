"""The estimate of `clozemill plan` as a table and as JSON: for `prepare`, and what is derived from it for training."""

import json
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.estimates import Estimate
from clozemill.pipelines.estimate.config import EstimateConfig
from clozemill.pipelines.estimate.extrapolation import STARTUP_SECONDS, DataEstimate
from clozemill.pipelines.files import filesystem

_SCALES = {"": ("", " k", " M", " G", " T"), "B": (" B", " kB", " MB", " GB", " TB"), "x": ("",)}
_MAX_STAGES = 6


def _rounded(value: float) -> str:
    """Format with three significant digits; an integer below a thousand stays as it is."""
    if value == int(value) and abs(value) < 1000:
        return f"{value:,.0f}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def format_value(value: float, unit: str, currency: str = "") -> str:
    """Format a value with its unit: '3.21 M', '1.5 GB', '2.4 h', '95 s', '12 EUR'."""
    if unit == "%":
        return f"{value:.2f} %"
    if unit == "price":
        return f"{_rounded(value)} {currency}".rstrip()
    if unit in ("s", "h"):
        seconds = value * (3600 if unit == "h" else 1)
        size, name = next(pair for pair in ((3600, "h"), (60, "min"), (1, "s")) if seconds >= pair[0] * 1.5 or pair[0] == 1)
        return f"{_rounded(seconds / size)} {name}"
    for name in _SCALES[unit]:
        if abs(value) < 1000 or name == _SCALES[unit][-1]:
            return _rounded(value) + name
        value /= 1000
    raise AssertionError(unit)


def table(estimates: list[Estimate], currency: str = "") -> list[str]:
    """Return a line per estimate: name, estimate, and low..high if they differ."""
    lines = [f"{'':<34}{'estimate':>12}   low .. high"]
    for row in estimates:
        value, low, high = (format_value(each, row.unit, currency) for each in (row.estimate, row.low, row.high))
        span = f"{low} .. {high}" if row.low != row.high else ""
        lines.append(f"{row.name:<34}{value:>12}   {span}".rstrip())
    return lines


def notes(config: EstimateConfig, data: DataEstimate) -> list[str]:
    """Return what the estimate is based on, one sentence each."""
    basis, found = data.basis, list(data.notes)
    left = [f"--dedup {config.dedup}"] if config.dedup == "near" else []
    left += ["--decontaminate"] if config.decontaminate else []
    left += ["--exclude-ids"] if config.exclude_ids else []
    text = f"{basis['sample_characters'] / 1e6:,.1f} M characters, {basis['sample_documents']:,} documents"
    if basis["whole"]:
        exact = "so counts and bytes are exact" + (" except as noted below" if left else "")
        found.insert(0, f"the corpus is small: all of it was processed ({text}), {exact}")
    else:
        found.insert(0, f"based on a sample: {text}, processed as by prepare")
        found.append(
            "duplicates across the complete corpus can't be seen in a sample: if there are any, all values will be lower"
        )
    if left:
        found.append(f"documents that {' and '.join(left)} will drop are counted as kept: the estimate doesn't search for them")
    if config.clustered:
        found.append("near-duplicates are found in a separate pass, which isn't included in these seconds")
    if basis["vocabulary_learnt"]:
        found.append(
            f"without --vocab, a vocabulary of {basis['vocabulary_size']:,} tokens was learned on the text that was read: one "
            "learned on more text gives slightly different token counts"
        )
    found.append(f"seconds were measured on one core of this machine ({basis['measured_on']}) and scaled")
    startup = STARTUP_SECONDS["dataflow" if "dataflow" in config.target else "local"]
    found.append(f"wall time is that of prepare, with {format_value(startup, 's')} for the start of its workers")
    if "dataflow" in config.target and config.price_cpu_hour:
        found.append("the cost of prepare is for CPUs alone: memory, disks and shuffle of Dataflow's workers are not included")
    if "dataflow" in config.target:
        found.append(
            ("" if config.num_workers else "--num-workers was not given: one worker is assumed; ")
            + "a worker is one core here: give two for each machine of four vCPUs, such as submit's n2-standard-4"
        )
    return found


def print_report(config: EstimateConfig, data: DataEstimate, training: tuple[list[Estimate], list[str], list[str]]) -> None:
    """Print the table, notes and warnings, and write --output. `training`: its estimates, notes and warnings."""
    estimates = [*data.estimates.values(), *training[0]]
    sentences, warnings = notes(config, data) + training[1], data.warnings + training[2]
    spent = sum(data.stage_seconds.values())
    longest = sorted(data.stage_seconds.items(), key=lambda pair: -pair[1])[:_MAX_STAGES]
    shares = [f"{name} {100 * seconds / spent:.0f} %" for name, seconds in longest]
    print("\n".join(table(estimates, config.currency)))
    print(f"\ntime of prepare by stage: {', '.join(shares)}" if spent else "")
    print("\n".join(f"note: {sentence}" for sentence in sentences))
    print("\n".join(f"warning: {sentence}" for sentence in warnings), end="\n" if warnings else "", flush=True)
    if config.output:
        filesystem.write_bytes(
            config.output, json.dumps(_json(config, data, estimates, sentences, warnings), indent=1).encode()
        )
        print(f"wrote {config.output}")


def _json(
    config: EstimateConfig, data: DataEstimate, estimates: list[Estimate], sentences: list[str], warnings: list[str]
) -> dict[str, Any]:
    values = {row.name: {"unit": row.unit, "estimate": row.estimate, "low": row.low, "high": row.high} for row in estimates}
    return {
        "figures": values,
        "notes": sentences,
        "warnings": warnings,
        "sample": data.basis,
        "stage_seconds": data.stage_seconds,
        "config": options.to_dict(config),
    }
