"""The requirements of images: pinned, and those of the trainer on JAX agree with setup.py."""

import re
import runpy
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_layering import APART, OURS, TENSORFLOW, imported_on_load, modules

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# In setup.py, but only for the pipelines, which the image of the trainer doesn't run.
PIPELINES = {"apache-beam", "protobuf", "psutil", "sentencex"}


def required(path: Path) -> dict[str, Requirement]:
    """Return the requirements in a file, and in those that it includes, by name."""
    found: dict[str, Requirement] = {}
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("-r "):
            found |= required(path.parent / line[3:])
        elif not line.startswith("#"):
            found[canonicalize_name(Requirement(line).name)] = Requirement(line)
    return found


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The variables of setup.py."""
    monkeypatch.setattr("setuptools.setup", lambda **_: None)
    return runpy.run_path(str(ROOT / "setup.py"))


def test_pins() -> None:
    for path in (DEPLOY / "dataflow/requirements.txt", DEPLOY / "tpu/requirements-no-deps.txt"):
        lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        assert lines and all(re.fullmatch(r"[a-z0-9._-]+(\[[a-z]+\])?==[^ ]+", line) for line in lines)
    there = {str(each) for each in required(DEPLOY / "tpu/requirements.txt").values()}
    assert {"tensorflow-tpu==2.20.0", "libtpu==0.0.21.1", "keras==3.15.1"} <= there


@pytest.mark.parametrize("stack", ["jax-tpu", "jax-cuda"])
def test_an_image_for_jax_has_what_its_extra_has(stack: str, setup: dict[str, Any]) -> None:
    """The same JAX, every other library in an allowed version, and the libtpu that preflight compiles with."""
    there = required(DEPLOY / f"tpu/requirements-{stack}.txt")
    extra = [Requirement(text) for text in (*setup["INSTALL"], *setup["EXTRAS"][stack])]
    for each in extra:
        name = canonicalize_name(each.name)
        if name not in PIPELINES:
            assert all(each.specifier.contains(spec.version) for spec in there[name].specifier if spec.operator == "=="), each
            assert there[name].extras == each.extras, each
    assert str(there["jax"]) == next(str(each).split(";")[0] for each in extra if each.name == "jax")
    libtpu = [text.split(";")[0] for text in setup["EXTRAS"]["preflight"] if text.startswith("libtpu")]
    assert [str(there[name]) for name in there if name == "libtpu"] == libtpu * (stack == "jax-tpu")
    assert set(there) <= {canonicalize_name(each.name) for each in extra} | {"libtpu"}


def test_an_image_for_jax_has_what_the_trainer_imports() -> None:
    """The libraries that its modules, but for TensorFlow's, and those of ours that they import, load on import.

    (google.protobuf comes with tensorboard.)
    """
    todo = [name for package in ("model", "trainers") for name in modules(package) if name not in {APART, *TENSORFLOW}]
    seen, libraries = set(todo), set()
    while todo:
        names = imported_on_load(todo.pop())
        libraries |= {name.split(".")[0] for name in names - OURS}
        todo += sorted((names & OURS) - seen)
        seen |= names
    libraries -= {"clozemill", "google", *sys.stdlib_module_names, *(name.split(".")[0] for name in OURS)}
    distributions = {canonicalize_name(packages_distributions()[name][0]) for name in libraries}
    there = set(required(DEPLOY / "tpu/requirements-jax-tpu.txt"))
    assert {"jax", "keras", "google-crc32c"} <= distributions <= there
    assert not {name for name in there if name.startswith("tensorflow")}


def test_the_stacks_of_the_image() -> None:
    """The stages of the Dockerfile are those that submit can ask for, and each installs its own requirements."""
    text = (DEPLOY / "gke/Dockerfile").read_text()
    stages = dict(re.findall(r"^FROM base AS (\S+)\nRUN pip install --no-cache-dir --requirement (\S+)", text, re.MULTILINE))
    assert stages == {
        "tensorflow-tpu": "requirements.txt",
        "jax-tpu": "requirements-jax-tpu.txt",
        "jax-cuda": "requirements-jax-cuda.txt",
    }
    build = (DEPLOY / "gke/cloudbuild.yaml").read_text()
    default = "tensorflow-tpu"  # submit names the others
    assert f"ARG STACK={default}\n" in text and f"substitutions: {{_STACK: {default}}}\n" in build
