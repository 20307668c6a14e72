"""Export: each format is compared with the checkpoint before it is published; a differing export leaves nothing."""

import gc
import hashlib
import json
import shutil
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import clozemill
from clozemill.model.export import hf_process, huggingface, keras_file
from clozemill.model.export.base import FORMATS, TOLERANCE
from clozemill.model.task_model import Task
from clozemill.pipelines.command_line import process
from clozemill.trainers.common import storage
from clozemill.trainers.engines import train_state
from clozemill.trainers.engines.train_state import TrainState
from clozemill.trainers.export import config as export_config
from clozemill.trainers.export import export
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun
from clozemill.trainers.training import checkpoint_index, checkpoints
from tests.apart import pretend_torch
from tests.faults import test_disk_full
from tests.model import sources
from tests.slow import mostly_slow

VOCABULARY = "".join(f"{token}\n" for token in sources.TOKENS).encode()
disk = test_disk_full.disk  # a fixture
LONG = {"max_position_embeddings": 160}


def checkpoint(folder: Path, name: str = "mlm+nsp", index: dict | None = None, **changes) -> Path:
    """Write a checkpoint like that of a run, with random weights."""
    source = sources.source(name, index, **LONG)
    told = {"sha256": "0" * 64, "size": len(sources.TOKENS), "cased": False}
    about = source.about | {"vocabulary": told, "trained_length": 128} | changes
    checkpoints.write(str(folder), {"weights": TrainState(source.model).weights()}, VOCABULARY, about)
    return folder


def run(source: Path, output: Path, *arguments: str) -> int:
    return clozemill.main(["export", str(source), "--output", str(output), *arguments])


def test_formats_match_the_dict() -> None:
    assert list(export_config.FORMATS) == list(FORMATS)


def test_a_killed_export_to_an_object_store_leaves_no_old_file(tmp_path: Path) -> None:
    """A killed --overwrite removes the file that marks an export as complete first; the record still has the others."""
    (tmp_path / "out/hf").mkdir(parents=True)
    (tmp_path / "out/hf/modules.json").write_text("[]")
    (tmp_path / "out" / export.RECORD).write_text(json.dumps({"hf": ["config.json", "modules.json"]}))
    config = export_config.ExportConfig(run="run", output=f"file://{tmp_path}/out", formats="hf")
    place = export._places(config, str(tmp_path / "scratch"))["hf"]
    place.temporary.mkdir(parents=True)
    (place.temporary / "config.json").write_text("{}")
    export._put("hf", place)
    assert [path.name for path in (tmp_path / "out/hf").iterdir()] == ["config.json"]


def test_an_encoder_of_replaced_tokens_is_read_back(tmp_path: Path) -> None:
    """Without its generator, it is an encoder, as a SavedModel has it; in a checkpoint the generator must not be missing."""
    source = sources.source("mlm", {"objective": "rtd"})
    weights = TrainState(source.model).weights()
    kept = {name: value.numpy() for name, value in weights.items() if name.startswith("encoder/")}
    model = train_state.loaded(source.about, kept)
    inputs = sources.features()
    expected, found = source.model.encoder(*inputs.values()), model(inputs)
    np.testing.assert_array_equal(found["sequence_output"], expected["sequence_output"])
    with pytest.raises(ValueError, match=r"masked_lm|replaced_token|generator"):
        train_state.loaded(source.about, kept | {"generator/dense/kernel": kept["encoder/pooler/kernel"]})


@pytest.mark.parametrize("name", mostly_slow(("mlm+nsp", "classify"), "mlm+nsp"))
def test_every_format_has_its_folder(name: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = checkpoint(tmp_path / "checkpoint", name)
    assert run(one, tmp_path / "out", "--formats", "hf,keras") == 0
    told = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [export.RECORD, "hf", "keras"]
    assert (tmp_path / "out/keras/model.keras").exists() and (tmp_path / "out/hf/model.safetensors").exists()
    rows = [line.split() for line in told.splitlines() if line.startswith(("hf  ", "keras  ")) and "compared" not in line]
    names = {"sequence_output", *sources.OUTPUTS[name]}
    assert {row[1] for row in rows if row[0] == "keras"} == names
    assert {row[1] for row in rows if row[0] == "hf"} >= {"sequence_output", "pooled_output"}
    assert all(float(row[2]) <= TOLERANCE <= float(row[3]) for row in rows)
    assert f"{one}, step 7: {len(export.TEXTS)} texts of up to 128 tokens" in told
    assert "(compared by " in told and told.endswith(f"done: {tmp_path}/out/hf, {tmp_path}/out/keras\n")


@pytest.mark.slow
def test_the_model_card_states_the_metrics_of_the_run(tmp_path: Path) -> None:
    one = checkpoint(tmp_path / "checkpoint", eval={"masked_lm_loss": 2.5, "examples": 3})
    assert run(one, tmp_path / "out", "--formats", "hf") == 0
    text = (tmp_path / "out/hf/README.md").read_text("utf-8")
    assert "On the eval split: masked_lm_loss 2.5000." in text
    assert hashlib.sha256(VOCABULARY).hexdigest() in text


def test_the_comparison_texts_cover_all_cases(tmp_path: Path) -> None:
    source = export.read(checkpoints.find(str(checkpoint(tmp_path / "checkpoint"))))
    found = export.features(source, export.TEXTS)
    lengths = found["input_mask"].sum(axis=1)
    assert len(export.TEXTS) >= 12 and source.max_seq_length == 128 and lengths.min() == 2
    assert (lengths == 128).sum() == 2 and (found["segment_ids"].sum(axis=1) > 0).sum() == 8
    seen = "".join(text for pair in export.TEXTS for text in pair)
    assert all(any(low <= char <= high for char in seen) for low, high in ("az", "ая", "αω", "一龥", "가힣", "अह", "ءي", "את"))


class Shifted:
    """A format whose outputs are slightly wrong."""

    def __init__(self, module, by: float) -> None:
        self.module, self.by, self.write = module, by, module.write

    def outputs(self, folder: str, texts: list, features: dict) -> dict[str, np.ndarray]:
        found = self.module.outputs(folder, texts, features)
        found["pooled_output"] = found["pooled_output"] + self.by
        return found

    def checked_with(self) -> str:
        return ""


@pytest.mark.parametrize("by", mostly_slow((2e-5, np.nan), 2e-5))
def test_a_differing_export_is_not_published(by: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """The formats that don't differ aren't published either."""
    monkeypatch.setitem(FORMATS, "keras", Shifted(keras_file, by))
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf,keras") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "keras: difference from the checkpoint exceeds the bound; nothing was exported" in capsys.readouterr().out


def test_an_unloadable_export_is_not_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def outputs(*_: object) -> None:
        raise ValueError("tokenizer.json gives other ids for the text 'a'")

    monkeypatch.setattr(huggingface, "outputs", outputs)
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf,keras") == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "tokenizer.json gives other ids for the text 'a'; nothing was exported" in capsys.readouterr().out


def test_non_finite_weights_are_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = sources.source(**LONG)
    source.model.encoder.pooler.bias.assign(np.full(16, np.nan, np.float32))
    about = source.about | {"vocabulary": {"cased": False}}
    checkpoints.write(str(tmp_path / "one"), {"weights": TrainState(source.model).weights()}, VOCABULARY, about)
    assert run(tmp_path / "one", tmp_path / "out", "--formats", "keras") == 2
    assert "encoder/pooler/bias holds NaN or infinite values" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_crash_leaves_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def write(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keras_file, "write", write)
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf,keras") == 2
    assert list((tmp_path / "out").iterdir()) == []
    assert "out/.keras.tmp can't be written (No space left on device): free some" in capsys.readouterr().err


def test_a_crash_of_the_comparison_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    pretend_torch("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", tmp_path / "pretended", monkeypatch)
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf,keras") == 2
    assert list((tmp_path / "out").iterdir()) == [] and "torch" not in sys.modules
    assert capsys.readouterr().err == (
        f"clozemill: {tmp_path}/out/hf can't be checked: the process that loads it with transformers was killed by SIGSEGV "
        "(exit code -11); nothing was exported: fix that installation, or leave hf out of --formats\n"
    )


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_no_files(number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a second signal during the cleanup."""
    real = shutil.rmtree

    def rmtree(*arguments, **options) -> None:
        if written:
            signal.raise_signal(number)
            monkeypatch.setattr(shutil, "rmtree", real)  # a third signal would end the process
        real(*arguments, **options)

    written: list[str] = []
    module = SimpleNamespace(write=lambda _, folder: (written.append(folder), signal.raise_signal(number)))
    monkeypatch.setitem(FORMATS, "keras", module)
    monkeypatch.setattr(shutil, "rmtree", rmtree)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    one = checkpoint(tmp_path / "checkpoint")
    before = signal.signal(number, signal.default_int_handler)  # a shell's background jobs ignore SIGINT, nohup's SIGHUP
    gc.disable()  # a signal during a callback of the garbage collector (Hypothesis has one) is lost
    try:
        with pytest.raises(KeyboardInterrupt), process.unwinding():
            export.main(export_config.ExportConfig(str(one), str(tmp_path / "out"), "hf,keras"))
    finally:
        gc.enable()
        signal.signal(number, before)
    assert written == [f"{tmp_path}/out/.keras.tmp"] and list((tmp_path / "out").iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint", "out"}


def test_a_concurrent_export_into_a_folder_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = checkpoint(tmp_path / "checkpoint")
    with storage.locked(f"{tmp_path}/out"):
        assert run(one, tmp_path / "out", "--formats", "keras") == 2
    assert f"another clozemill is writing to {tmp_path}/out: wait" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "kilobytes"), [("hf", 8), ("hf", 28), ("keras", 12), pytest.param("savedmodel", 40, marks=pytest.mark.slow)]
)
def test_a_full_disk_is_one_sentence(
    name: str, kilobytes: int, tmp_path: Path, disk: test_disk_full.Disk, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    disk.resize(kilobytes)
    assert run(checkpoint(tmp_path / "checkpoint"), disk.folder / "out", "--formats", name) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"clozemill: {disk.folder}/out/.{name}.tmp can't be written (") and told.count("\n") == 1
    assert "free some space there" in told and list((disk.folder / "out").iterdir()) == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_a_full_temporary_folder_is_one_sentence(
    tmp_path: Path, disk: test_disk_full.Disk, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    pretend_torch("raise SystemExit('it was started')", tmp_path / "pretended", monkeypatch)
    disk.resize(8)
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder))
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf") == 2
    told = capsys.readouterr().err
    assert f"out/hf can't be checked (No space left on device); nothing was exported: free some space in {disk.folder}" in told
    assert list((tmp_path / "out").iterdir()) == [] and list(disk.folder.iterdir()) == []


@pytest.mark.slow
def test_leftovers_of_a_killed_export_are_overwritten(tmp_path: Path) -> None:
    (tmp_path / "out/.hf.tmp").mkdir(parents=True)
    (tmp_path / "out/.hf.tmp/more").write_text("half")
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf") == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [export.RECORD, "hf"]
    assert not (tmp_path / "out/hf/more").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = checkpoint(tmp_path / "checkpoint")
    (tmp_path / "out/hf").mkdir(parents=True)
    assert run(one, tmp_path / "out", "--formats", "keras,hf") == 2
    assert f"{tmp_path}/out/hf already exists: give --overwrite to replace it, or another --output" in capsys.readouterr().err
    assert run(one, tmp_path / "out", "--formats", "keras,hf", "--overwrite") == 2
    assert f"{tmp_path}/out/hf exists, but {export.RECORD} doesn't list it as an export" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hf"]


def test_an_export_is_replaced_when_it_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that export didn't write stay, and a kill at any moment leaves the old export or the new one."""
    out, replaced = tmp_path / "out", tmp_path / "out/.hf.replaced"
    assert run(checkpoint(tmp_path / "old"), out, "--formats", "hf") == 0
    (out / "hf/onnx").mkdir()
    (out / "hf/onnx/model.onnx").write_text("mine")
    (out / "hf/old.bin").write_text("of an older version")
    record = json.loads((out / export.RECORD).read_text())
    (out / export.RECORD).write_text(json.dumps({"hf": [*record["hf"], "old.bin"]}))
    before = {path.name: path.read_bytes() for path in (out / "hf").glob("*.*")}
    one = checkpoint(tmp_path / "new", "classify")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export, "_differences", killed)
        export.main(export_config.ExportConfig(run=str(one), output=str(out), formats="hf", overwrite=True))
    assert {path.name: path.read_bytes() for path in (out / "hf").glob("*.*")} == before
    (out / "hf").rename(replaced)  # as between the two renames
    assert run(one, out, "--formats", "hf") == 2
    assert {path.name: path.read_bytes() for path in (out / "hf").glob("*.*")} == before
    shutil.copytree(out / "hf", replaced)  # as after them
    assert run(one, out, "--formats", "hf", "--overwrite") == 0
    assert "ForSequenceClassification" in (out / "hf/config.json").read_text()
    assert (out / "hf/onnx/model.onnx").read_text() == "mine" and not (out / "hf/old.bin").exists()
    assert sorted(path.name for path in out.iterdir()) == [export.RECORD, "hf"]


BILSTM = {"task": Task("tags", ("O", "B"), head="bilstm").to_dict()}


@pytest.mark.parametrize(
    ("index", "changes", "arguments", "sentence"),
    [
        (
            BILSTM,
            {},
            [],
            "the format hf: transformers has no class for the head bilstm: export to keras or savedmodel, or leave",
        ),
        (None, {"encoder": {}}, [], "can't be exported ("),
        (None, {"objective": "mlm"}, [], "can't be exported (next_sentence/dense/bias is not a variable of the model): give"),
        (None, {"vocabulary": {}}, [], "can't be exported ('cased'): give another checkpoint"),
        (None, {}, ["--max-seq-length", "129"], "was trained on at most 128 tokens: give 128 or less"),
    ],
)
def test_errors_are_one_sentence(
    index: dict | None, changes: dict, arguments: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    one = checkpoint(tmp_path / "checkpoint", index=index, **changes)
    assert run(one, tmp_path / "out", "--formats", "hf", *arguments) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("clozemill: ") and told.count("\n") == 1
    assert not (tmp_path / "out/hf").exists()


def test_the_export_states_which_parts_were_trained(tmp_path: Path) -> None:
    """In configuration, tokenizer and card; untrained positions are left out, also after an import."""
    one = checkpoint(tmp_path / "checkpoint", "encoder")
    assert run(one, tmp_path / "out", "--formats", "hf") == 0
    config, tokenizer = (json.loads((tmp_path / f"out/hf/{name}.json").read_text()) for name in ("config", "tokenizer_config"))
    assert (config["max_position_embeddings"], tokenizer["model_max_length"]) == (128, 128)
    assert run(one, tmp_path / "short", "--formats", "hf", "--max-seq-length", "64") == 0  # as predict would cut texts
    assert json.loads((tmp_path / "short/hf/tokenizer_config.json").read_text())["model_max_length"] == 64
    assert "| longest training sequence | 128 |" in (tmp_path / "out/hf/README.md").read_text()
    whole = checkpoints.weights(checkpoints.find(str(one)))[export.POSITIONS]
    assert whole.shape[0] == 160
    assert clozemill.main(["import", str(tmp_path / "out/hf"), "--output", str(tmp_path / "imported")]) == 0
    again = checkpoints.find(str(tmp_path / "imported"))
    assert np.array_equal(checkpoints.weights(again)[export.POSITIONS], whole[:128])
    assert export.read(again).max_seq_length == checkpoint_index.trained_length(again.index) == 128


def test_the_comparison_is_no_wider_than_its_texts() -> None:
    """A model of 8,192 positions would need gigabytes for the attention between padding."""
    source = replace(sources.source(max_position_embeddings=8192), max_seq_length=8192)
    short, long = (given for _, given in export._groups(source))
    assert short["input_ids"].shape[1] == export.SHORT
    assert export.SHORT < long["input_ids"].shape[1] == long["input_mask"].sum(axis=1).max() < 8192


def test_the_best_run_of_a_sweep_is_exported(tmp_path: Path) -> None:
    for step, name in enumerate(("one", "other"), 1):
        checkpoint(tmp_path / f"sweep/{name}/checkpoints/step-{step:08d}", step=step, eval={"masked_lm_loss": 1.0})
    (tmp_path / "sweep/sweep.json").write_text('{"best": "other"}')
    assert run(tmp_path / "sweep", tmp_path / "out", "--formats", "hf") == 0
    assert "Steps: 2." in (tmp_path / "out/hf/README.md").read_text("utf-8")


@pytest.mark.slow
def test_long_sequences_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    one = checkpoint(tmp_path / "checkpoint", "encoder", trained_length=160)
    source = export.read(checkpoints.find(str(one)))
    assert [len(texts) for texts, _ in export._groups(source)] == [len(export.TEXTS) - 2, 2]
    assert run(one, tmp_path / "out", "--formats", "hf") == 0
    assert "texts of up to 160 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("index", "length"),
    [({}, 160), ({"trained_length": 32}, 32), ({"trained_length": 512}, 160), ({"trained_length": "x"}, 160)],
)
def test_the_trained_length(index: dict, length: int) -> None:
    """For an import or an older run without it, the length that the model declares."""
    assert checkpoint_index.trained_length({"encoder": {"max_position_embeddings": 160}} | index) == length


def test_the_trained_length_of_a_run_covers_its_phases_so_far() -> None:
    phases = tuple(SimpleNamespace(begin=begin, max_seq_length=length) for begin, length in ((0, 32), (10, 128)))
    plan = PretrainingRun(None, phases, None, b"", None)
    assert [plan.trained_length(step) for step in (0, 10, 11)] == [32, 32, 128]
    assert replace(plan, start=SimpleNamespace(trained_length=64)).trained_length(10) == 64


def test_a_vocabulary_of_another_model(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = sources.source(**LONG)
    about = source.about | {"vocabulary": {"cased": False}}
    checkpoints.write(str(tmp_path / "one"), {"weights": TrainState(source.model).weights()}, VOCABULARY + b"more\n", about)
    assert run(tmp_path / "one", tmp_path / "out", "--formats", "hf") == 2
    count = len(sources.TOKENS)
    assert f"vocab.txt has {count + 1} tokens, but the model has {count}: restore it" in capsys.readouterr().err


@pytest.mark.slow
def test_the_best_checkpoint_of_a_run_is_exported(tmp_path: Path) -> None:
    for step, loss in ((1, 3.0), (2, 1.0), (3, 2.0)):
        checkpoint(tmp_path / f"run/checkpoints/step-{step:08d}", step=step, eval={"masked_lm_loss": loss})
    assert run(tmp_path / "run", tmp_path / "best", "--formats", "hf") == 0
    assert run(tmp_path / "run", tmp_path / "latest", "--formats", "hf", "--checkpoint", "latest") == 0
    steps = [(tmp_path / name / "hf/README.md").read_text("utf-8") for name in ("best", "latest")]
    assert "Steps: 2." in steps[0] and "Steps: 3." in steps[1]


def test_the_length_of_a_fine_tuned_model(tmp_path: Path) -> None:
    index = {"task": Task("classify", ("no", "yes"), max_seq_length=24).to_dict()}
    one = checkpoints.find(str(checkpoint(tmp_path / "one", index=index)))
    assert export.read(one).max_seq_length == 24 and export.read(one, 100).max_seq_length == 100
    small = sources.source()
    about = small.about | {"vocabulary": {"cased": True}}
    checkpoints.write(str(tmp_path / "two"), {"weights": TrainState(small.model).weights()}, VOCABULARY, about)
    found = export.read(checkpoints.find(str(tmp_path / "two")))
    assert (found.max_seq_length, found.cased, found.vocabulary) == (sources.LENGTH, True, sources.TOKENS)


def test_missing_transformers_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(hf_process, "missing", lambda: ["transformers", "torch"])
    assert run(checkpoint(tmp_path / "checkpoint"), tmp_path / "out", "--formats", "hf") == 0
    told = capsys.readouterr().out
    assert (
        "(compared by clozemill's own reader, not by transformers, for transformers and torch are not installed: pip in" in told
    )
    assert "hf          (not compared: masked_lm_logits, next_sentence_logits)\n" in told
    assert tf.io.gfile.exists(str(tmp_path / "out/hf/config.json"))
