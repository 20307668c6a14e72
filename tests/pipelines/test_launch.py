"""A pipeline that fails leaves no temporary folder."""

import tempfile
import time
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from clozemill.pipelines.beam import launcher


def _slow(pipeline: beam.Pipeline) -> None:
    _ = pipeline | beam.Create([1]) | beam.Map(lambda _: time.sleep(3))


def _wrong(pipeline: beam.Pipeline) -> None:
    raise ValueError("it can't be built")


def _interrupt() -> list:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("build", "error"), [(_slow, KeyboardInterrupt), (_wrong, ValueError)])
def test_no_temporary_folder_is_left(build, error: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(launcher, "kill_children", lambda: None)  # this process has others
    with pytest.raises(error):
        launcher.launch(build, PipelineOptions(["--runner", "FnApiRunner"]), _interrupt, show=False)
    assert list(tmp_path.iterdir()) == []
