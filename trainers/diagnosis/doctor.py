"""`clozemill doctor RUN`: name what is wrong with a run, with the evidence and what to do; exit code 1 if anything is.

clozemill doctor RUN
"""

import json
from dataclasses import asdict

from clozemill.pipelines.command_line.exit_codes import EXIT_CHECK_FAILED, EXIT_OK
from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.common.formatting import counted, enumerated
from clozemill.pipelines.files import filesystem
from clozemill.trainers.diagnosis.config import DoctorConfig
from clozemill.trainers.diagnosis.dataset_figures import find_datasets, find_eval_sets, trained_datasets
from clozemill.trainers.diagnosis.diagnoses import DIAGNOSES, diagnose
from clozemill.trainers.diagnosis.figures import Finding, figures_of
from clozemill.trainers.diagnosis.recorded_run import RecordedRun, read_recorded_run, require_entries
from clozemill.trainers.diagnosis.training_diagnoses import LEAST_STEPS


def main(config: DoctorConfig) -> int:
    """Print all findings; return 1 if there are any, else 0."""
    if config.output:
        check_new_file(config.output, config.overwrite)
    run, found, notes = examine(config.run)
    for finding in found:
        print(finding)
    for note in notes:
        print(f"note: {note}")
    steps = f"step {run.step:,}" + (f" of {run.planned_steps:,}" if run.planned_steps else "")
    result = counted(len(found), "finding") if found else "nothing wrong"
    print(f"{run.folder}, {steps}: {result} in {len(DIAGNOSES)} diagnoses", flush=True)
    if config.output:
        told = {"run": run.folder, "step": run.step, "steps": run.planned_steps, "diagnoses": list(DIAGNOSES)}
        told |= {"findings": [asdict(finding) for finding in found], "notes": notes}
        filesystem.write_bytes(config.output, (json.dumps(told, indent=1) + "\n").encode())
    return EXIT_CHECK_FAILED if found else EXIT_OK


def examine(folder: str) -> tuple[RecordedRun, list[Finding], list[str]]:
    """Return a run, its findings, and what limits them. Raises UserError for a folder without a run, or an empty journal."""
    run = read_recorded_run(folder)
    if not run.diverged:  # which can come before the first entry
        require_entries([run])
    trained = trained_datasets(run)
    datasets = find_datasets(run, trained)
    return (
        run,
        diagnose(figures_of(run, datasets, find_eval_sets(run, trained))),
        _notes(run, [None in each for each in datasets]),
    )


def _notes(run: RecordedRun, missing: list[bool]) -> list[str]:
    """Return what limits the diagnoses. missing: by phase, whether a dataset of it wasn't found."""
    notes = []
    if run.command != "pretrain":
        notes.append(f"this is a run of {run.command}, for which most diagnoses have no figures")
    if any(missing):
        phases = [str(number) for number, lacks in enumerate(missing, 1) if lacks]
        which = f"the dataset of phase {enumerated(phases)}" if len(missing) > 1 else "the dataset"
        which = f"a{which[3:]}" if any(len(phase["mixture"]) > 1 for phase in run.phases) else which
        notes.append(f"{which} isn't where the run read it, or was changed since: its data were not examined")
    if run.step < LEAST_STEPS:
        notes.append(f"after {run.step:,} steps, plateaus and trends can't be judged yet; that takes {LEAST_STEPS}")
    if not run.evaluated:
        notes.append("nothing was evaluated yet, so diagnoses that need the eval split were left out")
    return notes
