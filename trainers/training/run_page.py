"""The page of a run, RUN/report.html, with curves.png: drawn while it trains, whenever that is cheap, and at its end.

RUN/report.json holds what the page needs besides metrics.jsonl: the processes that worked on the run, with their dates, and
what the best evaluation exhibited. A page that can't be drawn costs a warning, never the run.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clozemill.pipelines.command_line import options
from clozemill.pipelines.common.formatting import large
from clozemill.pipelines.pages import html
from clozemill.pipelines.pages.content import Page, Section, section_from_dict
from clozemill.trainers.common import storage
from clozemill.trainers.engines.engine import Engine
from clozemill.trainers.training import checkpoints, curves, environment, run_sections
from clozemill.trainers.training.metrics_log import MetricsLog, duration
from clozemill.trainers.training.run_protocols import PhaseEvaluation, TrainingRun

FILES = PAGE, PICTURE, MEMORY = "report.html", "curves.png", "report.json"
COMPLETE = "complete"
_FORMAT_VERSION = 1
_LEAST_SECONDS, _SHARE = 10.0, 0.02  # between two drawings, at least; of the time, at most, to spend on drawing


def is_complete(folder: str) -> bool:
    """Return whether a run has its page and its curves, and they show that it is complete."""
    if not set(FILES) <= set(storage.listed(folder)):
        return False
    try:
        told = json.loads(storage.read(storage.join(folder, MEMORY), "-"))
        return told.get("ended", COMPLETE) == COMPLETE  # an earlier version didn't note it
    except (ValueError, AttributeError, RecursionError):
        return False


@dataclass
class RunPage:
    """Draws the page of a run.

    Args:
        plan: the run.
        folder: folder of the run.
        engine: the devices.
        journal: the metrics so far.
        first_step: the step at which this process started.
    """

    plan: TrainingRun
    folder: str
    engine: Engine
    journal: MetricsLog
    first_step: int
    exhibits: list[Section] = field(default_factory=list)
    exhibited_step: int = -1  # of the evaluation that `exhibits` are of
    _sessions: list[dict[str, Any]] = field(default_factory=list)
    _warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._start = self._drawn = time.monotonic()
        self._cpu_start = time.process_time()
        self._cost = 0.0
        self._began = environment.now()

    def due(self) -> bool:
        """Return whether to draw again, so that drawing takes a small share of the time."""
        return time.monotonic() - self._drawn >= max(_LEAST_SECONDS, self._cost / _SHARE)

    def exhibit(self, evaluation: PhaseEvaluation, step: int) -> None:
        """Take what an evaluation can show of the model's answers, if its checkpoint, that of `step`, is the best one so far.

        It is noted in report.json at once: if the process is killed, the next one draws the page with it.
        """
        try:
            best = _best(self.folder)
            if best and best["step"] == step:
                self.exhibits, self.exhibited_step = evaluation.exhibits(), step
                self._note(step)
        except Exception as error:
            self._warn("the model's answers can't be shown", error)

    def write(self, step: int, ended: str = "", failed: bool = False) -> None:
        """Write the page, curves.png and report.json; failures are warnings.

        Args:
            step: steps done.
            ended: why the run doesn't train any more: COMPLETE, "stopped by SIGTERM"; "": it does.
            failed: whether the end is a failure.
        """
        began = time.monotonic()
        try:
            self._write(step, ended, failed)
        except Exception as error:
            self._warn(f"{storage.join(self.folder, PAGE)} was not drawn", error)
        self._drawn = time.monotonic()
        self._cost = self._drawn - began

    def _warn(self, what: str, error: Exception) -> None:
        why = " ".join(str(error).split()) or type(error).__name__
        if why not in self._warned:
            self._warned.add(why)
            print(f"warning: {what} ({why[:300]}); training is not affected", file=sys.stderr, flush=True)

    def _note(self, step: int, ended: str = "") -> None:
        """Write report.json. See `write`."""
        if not self._sessions:
            self._remember()
        cpu = round(time.process_time() - self._cpu_start, 1)
        self._sessions[-1] |= {"to_step": step, "seconds": round(time.monotonic() - self._start, 1), "cpu_seconds": cpu}
        memory = {
            "format_version": _FORMAT_VERSION,
            "ended": ended,
            "sessions": self._sessions,
            "exhibited_step": self.exhibited_step,
            "exhibits": [asdict(section) for section in self.exhibits],
        }
        storage.write_json(storage.join(self.folder, MEMORY), memory)

    def _write(self, step: int, ended: str, failed: bool) -> None:
        self._note(step)
        best = _best(self.folder)
        exhibits = run_sections.of_step(self.exhibits, self.exhibited_step, best["step"] if best else -1)
        told = ended, failed, self.journal.findings()
        page = build(self.plan, self.journal.entries(), step, best, self._sessions, exhibits, *told)
        storage.write(storage.join(self.folder, PAGE), html.page_html(page).encode())
        marked = best["step"] if best else None
        picture = curves.draw(self.journal.entries(), self.plan.title, marked, self.plan.story().expected)
        storage.write(storage.join(self.folder, PICTURE), picture)
        self._note(step, ended)  # at last: what it says of the end is true of the page

    def _remember(self) -> None:
        """Read report.json of earlier processes, and add this one. A damaged file counts as none."""
        try:
            told = json.loads(storage.read(storage.join(self.folder, MEMORY), "-"))
            sessions = [each for each in told["sessions"] if each["from_step"] <= self.first_step]
            run_sections.environment_section(sessions or [self._session()])
            if not self.exhibits and 0 <= told.get("exhibited_step", -1) <= self.first_step:
                self.exhibits = [section_from_dict(section) for section in told["exhibits"]]
                self.exhibited_step = told["exhibited_step"]
        except Exception:  # it is only for people
            sessions = []
        self._sessions = [*sessions, self._session()]

    def _session(self) -> dict[str, Any]:
        own = environment.describe(self.engine, self.plan)
        return {"from_step": self.first_step, "to_step": self.first_step, "began": self._began, "seconds": 0.0, **own}


def _best(folder: str) -> dict[str, Any] | None:
    """Return the metrics of the best checkpoint, with its step; None if nothing was evaluated."""
    whole = list(checkpoints.saved(folder))
    best = checkpoints.best_of(whole) if whole else None
    return best.index["eval"] | {"step": best.step} if best and best.index.get("eval") else None


def build(
    plan: TrainingRun,
    entries: list[dict[str, Any]],
    step: int,
    best: dict[str, Any] | None,
    sessions: Sequence[dict[str, Any]],
    exhibits: Sequence[Section] = (),
    ended: str = "",
    failed: bool = False,
    findings: Sequence[str] = (),
) -> Page:
    """Return the page of a run. See `RunPage.write`.

    best: the best evaluation with its step, None if there is none. findings: what is wrong with the run.
    """
    story, config = plan.story(), options.to_dict(plan.config)
    tiles = plan.summary(best)[1] if best else []
    at = f"step {step:,} of {plan.steps:,}"
    if ended == COMPLETE:
        verdict = f"Complete, {plan.steps:,} steps." if step >= plan.steps else f"Stopped early at {at}."
    else:
        verdict = f"{ended[0].upper()}{ended[1:]} at {at}." if ended else f"Training: {at}."
    verdict += " Nothing was evaluated yet." * (not ended and not best)
    remarks = list(best.get("remarks", ())) if best else []
    result, result_state = _result(plan, best, remarks, ended)
    defaults = options.to_dict(type(plan.config)())
    sections = [
        run_sections.curve_section(entries, best["step"] if best else None, story),
        run_sections.evaluation_section(entries, best["step"] if best else None),
        *exhibits,
        run_sections.configuration_section(config, defaults, plan.chosen, story.tables),
        run_sections.environment_section(sessions),
    ]
    return Page(
        story.kind,
        plan.config.output.rstrip("/").rsplit("/", 1)[-1] or plan.title,
        story.lead,
        [],
        "failed" if failed else "passed" if ended == COMPLETE else "open",
        verdict,
        [*dict.fromkeys([*remarks, *findings, *story.warnings])],
        [("steps", f"{step:,} of {plan.steps:,}"), *tiles, *_speed(entries, sessions)],
        [section for section in sections if not section.empty],
        f"Drawn by clozemill at step {step:,}, {environment.now()}. metrics.jsonl has all values.",
        result=result,
        result_state=result_state,
    )


def _result(plan: TrainingRun, best: dict[str, Any] | None, remarks: Sequence[str], ended: str) -> tuple[str, str]:
    """Return the sentence about the best checkpoint and its state; ("", "open") if nothing was evaluated."""
    if best is None:
        return "", "open"
    found = f"{plan.summary(best)[0]}, at step {best['step']:,}"
    if not remarks:
        return f"Best: {found}.", "passed" if ended == COMPLETE else "open"
    where = "see the warning" + "s" * (len(remarks) > 1)
    if not ended:
        return f"Best: {found}; not useful yet: {where}.", "open"
    return f"Not useful: the best is {found}; {where}.", "failed"


def _speed(entries: list[dict[str, Any]], sessions: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the tiles about time: throughput over the whole run, and the time of all processes."""
    lines, before = [], 0.0
    for entry in curves.split_entries(entries)[0]:
        tokens = entry.get("tokens", before + 1)  # an earlier version didn't record them: then all lines weigh the same
        if entry.get("tokens_per_second", 0) > 0:
            lines.append((tokens - before, entry["tokens_per_second"]))
        before = tokens
    seconds = sum(tokens / rate for tokens, rate in lines)
    speed = [("tokens per second", large(sum(tokens for tokens, _ in lines) / seconds))] if seconds else []
    return [*speed, ("time", duration(sum(each["seconds"] for each in sessions)))]
