"""The process that loads a folder with transformers, without TensorFlow; each way to fail is one sentence."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from clozemill.model.export import hf_process
from tests.apart import pretend_torch

FEATURES = {name: np.ones([2, 3], np.int32) for name in ("input_ids", "input_mask", "segment_ids")}
CRASH = "import os, signal; os.kill(os.getpid(), signal.{})"
ANSWERS = "import sys, pathlib; place = pathlib.Path(sys.argv[3])\n"


@pytest.mark.parametrize(
    ("torch", "sentence"),
    [
        (CRASH.format("SIGSEGV"), r"^was killed by SIGSEGV \(exit code -11\)$"),
        ("import os; os.abort()", r"^was killed by SIGABRT \(exit code -6\)$"),
        (CRASH.format("SIGKILL"), r"^was killed by SIGKILL \(exit code -9\), perhaps because it ran out of memory$"),
        ("raise ImportError('libcudart.so is missing')", "^ended with exit code 1: ImportError: libcudart.so is missing$"),
        ("import os; print('bye'); os._exit(77)", "^ended with exit code 77: bye$"),
        ("import os; os._exit(0)", r"^left no readable answer \(\[Errno 2\] No such file"),
        (ANSWERS + "(place / 'answers.json').write_bytes(b'\\xff{'); sys.exit(0)", r"^left no readable answer \('utf-8' codec"),
        (ANSWERS + "(place / 'answers.json').write_text('[]'); sys.exit(0)", "^left no readable answer"),
        (ANSWERS + "(place / 'answers.json').write_text('{\"outputs\": [\"a\"]}'); sys.exit(0)", "^left no readable answer"),
        (
            ANSWERS + "import numpy; numpy.save(place / 'a.npy', [1]); (place / 'answers.json')"
            ".write_text('{\"outputs\": [\"a\"]}'); sys.exit(0)",
            "^left an answer that isn't of float32: a$",
        ),
    ],
)  # fmt: skip
def test_every_kind_of_failure_is_reported(torch: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(torch, tmp_path, monkeypatch)
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    before = psutil.Process().children()  # left by other tests
    with pytest.raises(hf_process.ProcessDied, match=sentence):
        hf_process.outputs(str(tmp_path), FEATURES)
    assert list((tmp_path / "tmp").iterdir()) == []
    assert set(psutil.Process().children()) <= set(before)


def test_an_invalid_folder_is_a_value_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch(
        ANSWERS + "(place / 'answers.json').write_text('{\"error\": \"a key is missing\"}'); sys.exit(0)", tmp_path, monkeypatch
    )
    with pytest.raises(ValueError, match=r"^a key is missing$"):
        hf_process.outputs(str(tmp_path), FEATURES)


def test_a_process_without_an_answer_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch("import time; time.sleep(600)", tmp_path, monkeypatch)
    monkeypatch.setattr(hf_process, "TIMEOUT", 1)
    before = psutil.Process().children()
    with pytest.raises(hf_process.ProcessDied, match=r"^gave no answer within 0 minutes and was stopped$"):
        hf_process.outputs(str(tmp_path), FEATURES)
    assert set(psutil.Process().children()) <= set(before)


def test_it_loads_neither_tensorflow_nor_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process never loads torch."""
    code = (
        "import sys, importlib.util\n"
        "assert importlib.util.find_spec('tensorflow') is None\n"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('keras', 'model', 'jax')]\n"
        "assert '' not in sys.path and not [place for place in sys.path if place.endswith('/model')]\n"
        "raise SystemExit('as it should be')"
    )
    (tmp_path / "pretended").mkdir()
    pretend_torch(code, tmp_path / "pretended", monkeypatch)
    (tmp_path / "safetensors.py").write_text("raise SystemExit('the current folder is searched')")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(hf_process.ProcessDied, match=r"^ended with exit code 1: as it should be$"):
        hf_process.outputs(str(tmp_path), FEATURES)
    assert not {"torch", "transformers", "triton"} & sys.modules.keys()


def test_it_exits_with_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if the parent is killed: the program notices that the other end of its pipe is closed."""
    (tmp_path / "p").mkdir()
    pretend_torch("", tmp_path / "p", monkeypatch)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'p'}:{Path(__file__).parents[3]}")
    (tmp_path / "config.json").write_text('{"architectures": ["BertForMaskedLM"]}')
    code = "import sys; from clozemill.model.export.hf_process import *\n"
    code += "outputs(sys.argv[1], {'input_ids': np.ones([1, 1], np.int32)})"
    (tmp_path / "p/transformers/__init__.py").write_text("import time\ndef __getattr__(name): time.sleep(600)")
    parent = psutil.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (children := parent.children()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.kill()
    assert parent.wait() == -9 and children
    assert psutil.wait_procs(children, timeout=60)[1] == []


@pytest.mark.parametrize("absent", [["torch"], ["transformers"], ["transformers", "torch"]])
def test_missing_packages(absent: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_torch("raise SystemExit('imported')", tmp_path, monkeypatch)
    assert hf_process.missing() == []
    for name in absent:
        monkeypatch.setitem(sys.modules, name, None)
    assert hf_process.missing() == absent
