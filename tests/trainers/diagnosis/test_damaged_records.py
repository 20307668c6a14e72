"""Values of another type anywhere in the records of a run: one sentence, or a result without them, but never a crash."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.comparison import pictures, table
from clozemill.trainers.diagnosis.dataset_figures import find_datasets, trained_datasets
from clozemill.trainers.diagnosis.diagnoses import diagnose
from clozemill.trainers.diagnosis.figures import figures_of
from clozemill.trainers.diagnosis.recorded_run import read_recorded_run
from tests.trainers.diagnosis import journals

STRANGE = (None, "x", [1], {}, -5.5, 10**400, float("nan"))
LINES = journals.healthy(200, 100)
FILES: dict[str, Any] = {
    "run.json": journals.about(200, {"phases": [{"data": "D"}]}),
    "metrics.jsonl": LINES,
    "report.json": {"sessions": [journals.SESSION]},
    "diverged.json": {"step": 900, "learning_rate": 1.0},
}


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield where a JSON value has values."""
    yield path
    for name in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield from places(value[name], (*path, name))


def changed(value: Any, path: tuple, new: Any) -> Any:
    if not path:
        return new
    found = inner = copy.deepcopy(value)
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = new
    return found


def examine(folder: Path) -> None:
    run = read_recorded_run(str(folder))
    assert table.as_text([table.row(run)]) and table.as_csv([table.row(run)])
    table.remarks_on([run, run])
    pictures.comparison_plots([run])
    assert all(map(str, diagnose(figures_of(run, find_datasets(run, trained_datasets(run))))))


@pytest.mark.parametrize("name", FILES)
def test_values_of_another_type(name: str, tmp_path: Path) -> None:
    for each, value in FILES.items():
        lines = each.endswith(".jsonl")
        (tmp_path / each).write_text("".join(json.dumps(line) + "\n" for line in value) if lines else json.dumps(value))
    examined = 0
    for path in places(FILES[name]):
        for new in STRANGE:
            value = changed(FILES[name], path, new)
            lines = value if name.endswith(".jsonl") and isinstance(value, list) else [value]
            (tmp_path / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
            try:
                examine(tmp_path)
                examined += 1
            except UserError as error:
                assert name == "run.json" and "is not that of a run" in str(error)
    assert examined > 10
