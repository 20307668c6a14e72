"""The installed distribution: one package, whose base doesn't need the trainer's libraries."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from clozemill.pipelines.command_line import lazy_import
from tests import absent

ROOT = Path(__file__).parents[1]
NAMES = ("model", "pipelines", "trainers", "deploy", "setup")
SCRIPT = """
import model  # the user's own
import clozemill
assert model.MINE and clozemill.__file__.startswith({site!r}), clozemill.__file__
dataset = clozemill.prepare(input={corpus!r}, vocab={vocab!r}, output="dataset", num_workers=2, in_memory=False, progress=False)
assert not clozemill.verify("dataset")
print(dataset)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel in it."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for name in ("clozemill", *NAMES[:4]):  # a build writes into its source folder
        shutil.copytree(ROOT / name, folder / "source" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), *ROOT.glob("*.md"), ROOT / "pyproject.toml"):
        shutil.copy(path, folder / "source")
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(folder / "source")]
    subprocess.run(build, check=True, capture_output=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.split("/")[0] for name in archive.namelist()}
        assert tops == {"clozemill", wheel.name.split("-py3")[0] + ".dist-info"}
        archive.extractall(folder / "packages")
    return folder / "packages"


@pytest.mark.slow  # test_local_runner.py shows the same of workers, without a wheel
def test_scripts_and_workers_ignore_modules_with_our_names(
    site: Path, tmp_path: Path, demo_corpus: str, demo_vocab: str
) -> None:
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "script.py").write_text(SCRIPT.format(site=str(site), corpus=demo_corpus, vocab=demo_vocab))
    environment = os.environ | {"PYTHONPATH": str(site)}
    run = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "script.py"], **run)
    assert done.returncode == 0 and "Dataset('dataset'" in done.stdout, done.stderr
    made = {path.name for path in tmp_path.iterdir()}
    for name in ("queue", "proto"):  # names of standard and Google modules, which a script here would import
        (tmp_path / f"{name}.py").write_text("raise ImportError('the user\\'s own')\n")
    done = subprocess.run([sys.executable, "-m", "clozemill", "inspect", "dataset", "--limit", "1"], **run)
    assert done.returncode == 0 and "record 0: " in done.stdout, done.stderr
    assert made - {"__pycache__"} == {f"{name}.py" for name in NAMES} | {"script.py", "dataset"}


# Runs the examples of --help from the wheel: to their end, or else until everything is checked and the command would load.
EXAMPLES = r"""
import re, shlex, clozemill
from clozemill.deploy.commands import COMMANDS, parser
from clozemill.pipelines.command_line import lazy_import
assert clozemill.__file__.startswith({site!r}), clozemill.__file__
real, started = lazy_import.function, []
lazy_import.function = lambda path: (lambda *arguments: started.append(path))
stages = next(action.choices for action in parser()._actions if action.dest == "command")
for name, stage in stages.items():
    (text,) = re.findall(r"^example:\n((?:.*\\\n)*.*)$", stage.format_help(), re.MULTILINE)
    function = lazy_import.function
    if name in ("verify", "inspect", "submit", "completion"):
        lazy_import.function = real
    assert clozemill.main(shlex.split(text.replace("\\\n", " "))[1:]) == 0, text
    lazy_import.function = function
assert len(started) == len(stages) - 4, started
"""


def test_the_examples_in_help_run(site: Path, tmp_path: Path, demo_dataset: Path) -> None:
    shutil.copytree(demo_dataset, tmp_path / "DATASET")
    for name in ("corpus", "RUN", "OTHER-RUN", "FT", "bert-base-uncased"):
        (tmp_path / name).mkdir()
    for name in ("corpus/a.jsonl.gz", "texts.tsv", "texts.txt", "pairs.tsv", "in_domain_train.tsv", "in_domain_dev.tsv"):
        (tmp_path / name).touch()
    environment = os.environ | {"PYTHONPATH": str(site), "COLUMNS": "80"}
    code = EXAMPLES.replace("{site!r}", repr(str(site)))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "complete and consistent" in done.stdout and "gcloud dataflow" in done.stdout


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["plan", "--vocab-size", "2000", "--no-progress", "--input"], 0),
        (["pretrain", "--data", ".", "--output", "o"], 2),
        (["demo", "--output", "o"], 2),
        (["export", ".", "--output", "o"], 2),
    ],
)
def test_a_command_whose_extra_is_missing_says_so(words: list[str], code: int, demo_corpus: str, tmp_path: Path) -> None:
    words = [*words, demo_corpus] if words[-1] == "--input" else words
    program = [sys.executable, "-c", absent.without((*lazy_import.TRAIN, "jax")), *words]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    if code:
        missing = r"clozemill: \w+ is not installed, and this command needs it: pip install 'clozemill\[train\]'\n"
        assert re.fullmatch(missing, done.stderr) and list(tmp_path.iterdir()) == []


def test_the_base_requires_no_trainer_packages(site: Path) -> None:
    (metadata,) = site.glob("*.dist-info/METADATA")
    asked = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata.read_text("utf-8"), re.MULTILINE)
    names = {name.lower().replace("-", "_") for name in asked}
    assert "apache_beam" in names and not names & {*lazy_import.TRAIN, "scikit_learn"}
