"""`clozemill compare RUN ...`: runs beside each other, as a table and as curves, also while they train.

clozemill compare RUN RUN --output comparison.html
"""

import csv
import io
from collections.abc import Sequence

from clozemill.pipelines.command_line.overwriting import check_new_file
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.common.formatting import counted, enumerated
from clozemill.pipelines.files import filesystem
from clozemill.pipelines.pages import html, svg
from clozemill.pipelines.pages.content import Page, Section, Table
from clozemill.trainers.comparison import pictures, table
from clozemill.trainers.comparison.config import CompareConfig
from clozemill.trainers.diagnosis.recorded_run import RecordedRun, read_recorded_run, require_entries


def main(config: CompareConfig) -> int:
    """Print the table, and write the file of --output."""
    if config.output:
        check_new_file(config.output, config.overwrite)
    runs, rows = read_rows(config.runs)
    remarks = table.remarks_on(runs)
    data = _written(config.output, runs, rows, remarks) if config.output else b""
    print("\n".join(table.as_text(rows)))
    for remark in remarks:
        print(f"note: {remark}")
    if config.output:
        filesystem.write_bytes(config.output, data)
        print(f"written: {config.output}", flush=True)
    return 0


def read_rows(folders: Sequence[str]) -> tuple[list[RecordedRun], list[table.Row]]:
    """Return runs, each once, and their rows. Raises UserError for what is no run, or can't be compared."""
    runs = [read_recorded_run(folder) for folder in dict.fromkeys(folders)]
    require_entries(runs)
    if len(commands := sorted({run.command for run in runs})) > 1:
        raise UserError(f"RUNS are of {enumerated(commands)}, which have no result in common: compare them separately")
    return runs, [table.row(run) for run in runs]


def _written(output: str, runs: Sequence[RecordedRun], rows: Sequence[table.Row], remarks: Sequence[str]) -> bytes:
    """Return the contents of --output, of the kind that its ending names."""
    if output.endswith(".csv"):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(table.as_csv(rows))
        return text.getvalue().encode("utf-8", "backslashreplace")
    plots = pictures.comparison_plots(runs)
    if output.endswith(".png"):
        return svg.draw_png(plots, enumerated(pictures.short_names([run.folder for run in runs])))
    return html.page_html(comparison_page(runs, rows, plots, remarks)).encode()


def comparison_page(runs: Sequence[RecordedRun], rows: Sequence[table.Row], plots: list, remarks: Sequence[str]) -> Page:
    """Return the comparison as a page."""
    known = [run for run in runs if run.planned_steps is not None]
    ended = sum(run.step >= (run.planned_steps or 0) for run in known)
    verdict = f"{ended} of {counted(len(known), 'run')} are complete." if known else f"{counted(len(runs), 'run')}."
    names = pictures.short_names([run.folder for run in runs])
    listed = Table(
        "Runs", table.KINDS, table.HEAD, [(name, *table.cells(row)[1:]) for name, row in zip(names, rows, strict=True)]
    )
    note = "Time is that of training steps, without evaluations and checkpoints. A run that didn't record an axis isn't drawn."
    return Page(
        "Comparison",
        enumerated(names),
        [],
        [],
        "passed" if known and ended == len(runs) else "open",
        verdict,
        list(remarks),
        [],
        [Section("Results", tables=[listed]), Section("Curves", [note], plots=plots)],
        f"Drawn by clozemill compare from metrics.jsonl of {enumerated([run.folder for run in runs])}.",
    )
