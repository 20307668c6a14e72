"""The clock of a child process, and what it reports of its calls."""

import json
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def cpu_seconds() -> float:
    """Return user and system time of this process so far, and of the compilers that it ran."""
    each = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in each)


@dataclass
class StepClock:
    """Adds up the CPU seconds of training calls: (phase, steps, seconds) of each. `path` keeps them for a killed run."""

    path: Path | None = None
    calls: list[tuple[int, int, float]] = field(default_factory=list)
    _starting: bool = False  # the next call pays once more what the killed process had paid

    def add(self, phase: int, steps: int, seconds: float) -> None:
        """Add a call. The first one after `resume` counts as its steps usually do: a start isn't charged twice."""
        if self._starting and (usual := self._costs().get(phase)):
            seconds = min(seconds, usual["step_s"] * steps)
        self._starting = False
        self.calls.append((phase, steps, seconds))
        if self.path:
            with self.path.open("a") as file:
                file.write(json.dumps(self.calls[-1]) + "\n")

    def resume(self, step: int) -> None:
        """Continue the clock of a killed run from the call that ended at `step`. Raises ValueError if none did."""
        if not self.path:
            return
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        calls = [tuple(json.loads(line)) for line in lines]
        while calls and sum(steps for _, steps, _ in calls) > step:
            calls.pop()
        if sum(steps for _, steps, _ in calls) != step:
            raise ValueError(f"{self.path} has no call that ended at step {step:,}: remove its folder, to run the job again")
        self.calls, self._starting = calls, step > 0
        self.path.write_text("".join(json.dumps(call) + "\n" for call in calls))

    def seconds_until(self, step: int) -> float:
        """Return the CPU seconds of the first `step` steps, up to the end of the call that contains the last one."""
        done, total = 0, 0.0
        for _, steps, seconds in self.calls:
            if done >= step:
                break
            done, total = done + steps, total + seconds
        return total

    def costs(self) -> list[dict[str, float]]:
        """Return for each phase `start_s`, what its first call took longer than its steps, and `step_s`, the cost of a step.

        A phase of one call has a start of 0.
        """
        return list(self._costs().values())

    def _costs(self) -> dict[int, dict[str, float]]:
        """Return the costs by phase."""
        found = {}
        for phase in sorted({phase for phase, _, _ in self.calls}):
            (first_steps, first), *rest = [(steps, seconds) for number, steps, seconds in self.calls if number == phase]
            steady = rest or [(first_steps, first)]
            step_s = sum(seconds for _, seconds in steady) / sum(steps for steps, _ in steady)
            found[phase] = {"start_s": max(0.0, first - first_steps * step_s), "step_s": step_s}
        return found

    def report(self, evaluations: list[tuple[int, float]], **more: Any) -> dict[str, Any]:
        """Return the result of a job from the losses after some steps."""
        steps = sum(count for _, count, _ in self.calls)
        points = [[step, self.seconds_until(step), loss] for step, loss in evaluations]
        return {"points": points, "cpu_s": self.seconds_until(steps), "steps": steps, "phases": self.costs(), **more}
