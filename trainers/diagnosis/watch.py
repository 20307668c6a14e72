"""Diagnoses a run while it trains: the same findings as `clozemill doctor`, each once per run."""

from dataclasses import dataclass, field, replace

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.diagnosis.dataset_figures import DatasetFigures, find_datasets, find_eval_sets, trained_datasets
from clozemill.trainers.diagnosis.diagnoses import diagnose
from clozemill.trainers.diagnosis.figures import Finding, figures_of
from clozemill.trainers.diagnosis.recorded_run import Entries, RecordedRun, read_recorded_run


@dataclass
class Watch:
    """Reports findings about a run that this process trains.

    Args:
        folder: folder of the run.
        earlier: entries of metrics.jsonl from before this process, whose findings were reported then.
    """

    folder: str
    earlier: Entries
    current: list[Finding] = field(default_factory=list)  # all that were found last time
    _run: RecordedRun | None = None
    _datasets: list[list[DatasetFigures | None]] = field(default_factory=list)
    _eval_sets: list[DatasetFigures] = field(default_factory=list)
    _reported: set[str] = field(default_factory=set)

    def new_findings(self, entries: Entries) -> list[Finding]:
        """Return the findings that weren't reported before; [] for a folder without run.json. entries: all of the run."""
        if self._run is None:
            try:
                self._run = read_recorded_run(self.folder)
            except UserError:
                return []
            trained = trained_datasets(self._run)
            self._datasets, self._eval_sets = find_datasets(self._run, trained), find_eval_sets(self._run, trained)
            self._reported = {finding.kind for finding in self._findings(self.earlier)} if self.earlier else set()
        self.current = self._findings(entries)
        known = self._reported | ({"plateau"} if self._ends(entries) else set())
        found = [finding for finding in self.current if finding.kind not in known]
        self._reported |= {finding.kind for finding in found}
        return found

    def _ends(self, entries: Entries) -> bool:
        """Return whether the run ends here: the trainer then compares the best loss with word frequencies itself."""
        assert self._run
        return bool(entries and self._run.planned_steps and entries[-1]["step"] >= self._run.planned_steps)

    def _findings(self, entries: Entries) -> list[Finding]:
        assert self._run
        # diverged.json is that of an earlier process: this one trains on.
        run = replace(self._run, entries=entries, diverged=None)
        return diagnose(figures_of(run, self._datasets, self._eval_sets))
