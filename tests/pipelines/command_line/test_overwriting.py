"""--overwrite: what is refused without it and with it, before a command starts."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

import clozemill
from clozemill.pipelines.command_line import options, overwriting
from clozemill.pipelines.command_line.options import OUTPUT
from clozemill.pipelines.command_line.overwriting import OverwriteOption, check_outputs
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import PrepareConfig, VocabConfig
from clozemill.trainers.export.config import ExportConfig
from clozemill.trainers.inference.config import PredictConfig
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import Phase


def test_every_command_that_writes_has_the_option() -> None:
    for name, command in clozemill.COMMANDS.items():
        fields = {field.name: field for field in dataclasses.fields(command.config)}
        assert ("overwrite" in fields) == bool({"output", "html"} & set(fields)), name
        if "overwrite" in fields:
            assert fields["overwrite"].metadata["group"] == OUTPUT and not fields["overwrite"].metadata["identity"], name


def test_it_is_not_saved() -> None:
    config = VocabConfig(overwrite=True)
    assert "overwrite" not in options.to_dict(config) and "overwrite" not in options.to_yaml(config)
    assert options.to_dict(config) == options.to_dict(replace(config, overwrite=False))
    assert overwriting.same_command(config) == "the same command without --overwrite"


def test_a_file_that_exists_is_refused_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    config = VocabConfig(output=str(path))
    check_outputs(config)
    path.write_text("mine")
    with pytest.raises(UserError) as told:
        check_outputs(config)
    assert str(told.value) == f"{path} already exists: give --overwrite to replace it, or another --output"
    check_outputs(replace(config, overwrite=True))
    path.unlink()
    path.symlink_to("nowhere")
    with pytest.raises(UserError, match="already exists"):
        check_outputs(config)
    with pytest.raises(UserError, match=f"--output {tmp_path} is a folder: give the name of the file to write"):
        check_outputs(VocabConfig(output=str(tmp_path), overwrite=True))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (PredictConfig(run="r", input="d/a.jsonl", output="d/../d/a.jsonl"), "--input d/a.jsonl"),
        (PrepareConfig(input=("d/*.jsonl",), vocab="v.txt", output="d"), "--input d/a.jsonl"),
        (PrepareConfig(input=("x",), vocab="d/a.jsonl", output="d"), "--vocab d/a.jsonl"),
        (PrepareConfig(input=("x",), decontaminate=("d/*",), output="d"), "--decontaminate d/a.jsonl"),
        (PretrainConfig(data=("x",), init="d/checkpoints", output="d"), "--init d/checkpoints"),
        (PretrainConfig(phases=(Phase("d"),), output="d"), "--phases d"),
        (ExportConfig(run="d/hf", output="d"), "RUN d/hf"),
    ],
)
def test_input_is_never_replaced(config: OverwriteOption, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d/checkpoints", "d/hf", "d/run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "d/a.jsonl").touch()
    with pytest.raises(UserError) as told:
        check_outputs(replace(config, overwrite=True))
    assert str(told.value).startswith(f"{said} is input, and --overwrite could replace it, because it writes to d")


def test_input_beside_the_output_is_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d/run").mkdir(parents=True)
    check_outputs(ExportConfig(run="d/run", output="d", overwrite=True))
    check_outputs(PredictConfig(run="d/run", text="d", output="d/run/answers.jsonl", overwrite=True))
    check_outputs(PretrainConfig(data=("d",), output="d/run", overwrite=True))
