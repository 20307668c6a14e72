"""Architecture: which package may import which, and which libraries an import must not load."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "model", "trainers", "deploy")
# The sub-packages in the order of the data: each imports itself and earlier ones, but not those of the same level.
PIPELINES = (
    "common", "files", "pages", "command_line", "config", "wikitext", "readers", "text", "filtering", "shuffle", "examples",
    "shards", "dataset", "quality", "data_card", "beam", "vocab", "prepare", "inspection", "estimate",
)  # fmt: skip
TRAINERS = (
    ("common",),
    ("data", "diagnosis"),
    ("engines",),
    ("training",),
    ("pretraining", "finetuning"),
    ("inference", "export", "planning", "comparison", "contrast"),
)
# What trainers and model may import from pipelines.
SHARED = {
    "trainers": {
        "common",
        "files",
        "pages",
        "command_line",
        "text",
        "dataset",
        "shards",
        "config",
        "examples.columns",
        "examples.masking",
        "examples.packing",
    },
    "model": {"common"},
}
SEEDED = {"Generator", "Philox", "SeedSequence", "SeedGenerator"}  # in numpy.random and keras.random: the seed comes first
APART = (
    "model.export.hf_reference"  # a program that needs transformers and torch, which must not be in one process with TensorFlow
)
# Modules that load TensorFlow: those of its engine, of SavedModels, of google-research/bert's and of older checkpoints.
TENSORFLOW = {
    "model.conversion.savedmodel",
    "model.conversion.tf_errors",
    "model.conversion.tf_variables",
    "model.export.graph_tokenizer",
    "model.export.savedmodel",
    "model.export.signatures",
    "trainers.common.distribution",
    "trainers.common.tensorflow_files",
    "trainers.data.graph_lanes",
    "trainers.data.graph_reader",
    "trainers.engines.tensorflow_engine",
    "trainers.engines.tensorflow_step",
}
PEERS = {  # benchmarks' peers, in separate processes
    "tests/benchmarks/contenders.py",
    "tests/benchmarks/hf_tasks.py",
    "tests/benchmarks/time_to_loss/torch_child.py",
}
SKIPPED = re.compile(r"(^|/)(\.[^/]+|__pycache__|build|demo-out|[^/]+\.egg-info)(/|$)")


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files of a checkout, without looking into folders that are skipped, such as .venv."""
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if SKIPPED.search(path.relative_to(ROOT).as_posix()):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _files(path)
        elif entry.is_file():
            yield path


FILES = list(_files(ROOT))
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in FILES if path.suffix == ".py"}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}
OURS = {name[:-3].replace("/", ".") for name in SOURCES}


def modules(package: str) -> list[str]:
    return sorted(name[:-3].replace("/", ".") for name in SOURCES if name.startswith(package + "/") and "__init__" not in name)


def load(names: list[str]) -> str:
    """Code that imports some of our modules."""
    return "\n".join(f"import clozemill.{name}" for name in names)


@cache
def nodes(tree: ast.Module) -> list[ast.AST]:
    """Return all nodes of a module."""
    return list(ast.walk(tree))


@cache
def imports(tree: ast.Module) -> set[str]:
    """Return every imported name with its module: `from a import b` gives a and a.b; ours without "clozemill."."""
    found = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.removeprefix("clozemill.") for name in found}


def imported_on_load(name: str) -> set[str]:
    """What one of our modules imports when it is loaded: modules, or names in them; ours without "clozemill."."""
    found = set()
    for node in TREES[f"{name.replace('.', '/')}.py"].body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {each.removeprefix("clozemill.") for each in found}


def modules_imported(tree: ast.Module) -> set[str]:
    """Our modules that a module imports, anywhere in it."""
    return imports(tree) & OURS


def loaded(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after running some code."""
    code += "\nimport sys\nprint('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_modules_are_found() -> None:
    assert {"pipelines.text.wordpiece", "pipelines.prepare.graph", "pipelines.beam.launcher"} <= set(modules("pipelines"))
    assert "model.encoder" in modules("model") and "trainers.pretraining.pretrain" in modules("trainers")
    assert "tests/test_layering.py" in SOURCES and "clozemill.py" in SOURCES


def test_pipelines_load_neither_keras_nor_tensorflow() -> None:
    names = loaded(load(modules("pipelines")))
    assert "apache_beam" in names
    assert names.isdisjoint({"keras", "tensorflow", "tf_keras", "jax", "torch"})


OPTIONS = (
    "model.config",
    "trainers.pretraining.config",
    "trainers.export.config",
    "trainers.planning.config",
    "trainers.planning.estimate",
    "trainers.pretraining.recipes",
    "deploy.submit",
    "trainers.diagnosis.config",
    "trainers.diagnosis.recorded_run",
    "trainers.comparison.config",
)


def loaded_after_each(steps: Sequence[str]) -> list[set[str]]:
    """The top-level packages that one fresh interpreter has loaded after each of several pieces of code."""
    names = "print('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    code = "\n".join(f"{step}\n{names}" for step in ["import sys", *steps])
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return [set(part.split("\n")[0].split()) for part in done.stdout.split("loaded:")[2:]]


def test_training_options_load_neither_keras_nor_tensorflow() -> None:
    found = loaded_after_each([load([module]) for module in OPTIONS])
    assert len(found) == len(OPTIONS)
    for module, names in zip(OPTIONS, found, strict=True):
        assert names.isdisjoint({"apache_beam", "keras", "tensorflow", "numpy"}), module


def test_planning_loads_neither_beam_nor_tensorflow() -> None:
    """The stages of `prepare` run without Beam's start-up."""
    code = (
        "import clozemill, importlib.resources as r\n"
        "path = str(r.files('clozemill.pipelines') / 'data/demo-corpus.xml')\n"
        "assert clozemill.main(['plan', '--input', path, '--vocab-size', '2000', '--recipe', 'demo', '--no-progress']) == 0"
    )
    assert loaded(code).isdisjoint({"apache_beam", "tensorflow", "keras", "jax"})


def test_shared_modules_load_no_beam() -> None:
    shared = [
        name for name in modules("pipelines") for room in SHARED["trainers"] if f"{name}.".startswith(f"pipelines.{room}.")
    ]
    assert len(shared) > 30
    assert loaded(load(shared)).isdisjoint({"apache_beam", "keras", "tensorflow"})


@pytest.mark.slow
def test_model_and_trainers_load_no_beam() -> None:
    names = [name for package in ("model", "trainers") for name in [package, *modules(package)] if name != APART]
    assert "apache_beam" not in loaded(load(names))


LIGHT = (
    ["--help"],
    ["prepare", "--help"],
    ["vocab", "--help"],
    ["pretrain", "--help"],
    ["evaluate", "--help"],
    ["export", "--help"],
    ["import", "--help"],
    ["preflight", "--help"],
    ["plan", "--help"],
    ["submit", "--help"],
    [
        "submit",
        "tpu",
        "--config",
        "deploy/config.example.yaml",
        "--dry-run",
        "--",
        "--data",
        "gs://b/d",
        "--output",
        "gs://b/o",
    ],
    ["nonsense"],
    ["verify", "--limt"],
    ["pretrain", "--data", "a", "--steps", "many"],
)


def test_help_and_errors_load_neither_beam_nor_tensorflow() -> None:
    found = loaded_after_each([f"import clozemill\ntry: clozemill.main({words})\nexcept SystemExit: pass" for words in LIGHT])
    assert len(found) == len(LIGHT)
    for words, names in zip(LIGHT, found, strict=True):
        heavy = {"apache_beam", "tensorflow", "keras", "tokenizers", "sentencex", "pyarrow"}
        assert "clozemill" in names and names.isdisjoint(heavy), words


def test_a_vocabulary_is_parsed_without_beam_s_help() -> None:
    """So that the trainer can tokenize: loads and uses what WordPiece needs."""
    code = (
        "from clozemill.pipelines.text.wordpiece import *\n"
        "WordPiece(Vocabulary.from_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a'])).encode(['a b'], True)"
    )
    assert loaded(code).isdisjoint({"apache_beam", "tensorflow", "keras"})


def level(module: str) -> int:
    """Return the level of a module of pipelines or trainers in the order of the data."""
    package, room = module.split(".")[:2]
    rooms = PIPELINES if package == "pipelines" else [name for names in TRAINERS for name in names]
    assert room in rooms, f"{module}: {package}/{room} isn't in the order of this file"
    return PIPELINES.index(room) if package == "pipelines" else next(n for n, names in enumerate(TRAINERS) if room in names)


def check_import(name: str, module: str) -> None:
    """Check that a module may import another one."""
    package, room = name.split(".")[:2]
    other, there = module.split(".")[:2]
    what = f"{name} imports {module}"
    if package == other and package in ("pipelines", "trainers"):
        assert level(module) < level(name) or room == there, what
    elif package == other == "model":
        order = ["", "conversion", "export"]
        rank = [order.index(found.split(".")[1]) if found.count(".") > 1 else 0 for found in (name, module)]
        assert rank[1] <= rank[0], what
    elif package in SHARED and other == "pipelines":
        assert any(f"{module}.".startswith(f"pipelines.{shared}.") for shared in SHARED[package]), what
    elif package == "trainers":
        assert other == "model", what
    elif package != "deploy":
        assert package == other, what


def test_imports_between_packages() -> None:
    for path, tree in TREES.items():
        name = path[:-3].replace("/", ".")
        if path.split("/")[0] in PACKAGES:
            for module in modules_imported(tree):
                check_import(name, module)
            assert not {found.split(".")[0] for found in imports(tree)} & {"tests", "clozemill"}, path
        if path != "clozemill.py":  # by installed names, so that nothing is imported twice
            plain = {node.module for node in nodes(tree) if isinstance(node, ast.ImportFrom)}
            plain |= {alias.name for node in nodes(tree) if isinstance(node, ast.Import) for alias in node.names}
            assert not {found.split(".")[0] for found in plain} & set(PACKAGES), path


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("pipelines.readers.jsonl", "pipelines.text.cleaning"),
        ("pipelines.text.cleaning", "trainers.common.storage"),
        ("trainers.data.input_pipeline", "trainers.training.loop"),
        ("trainers.finetuning.finetune", "trainers.pretraining.pretraining_run"),
        ("trainers.engines.tensorflow_step", "pipelines.prepare.prepare"),
        ("model.encoder", "model.export.base"),
        ("model.encoder", "trainers.training.loop"),
    ],
)
def test_a_forbidden_import_is_found(name: str, module: str) -> None:
    with pytest.raises(AssertionError, match="imports"):
        check_import(name, module)


def test_there_are_no_import_cycles() -> None:
    arrows = {
        name[:-3].replace("/", "."): modules_imported(tree) for name, tree in TREES.items() if name.split("/")[0] in PACKAGES
    }
    while leaves := {name for name, others in arrows.items() if not others & set(arrows)}:
        arrows = {name: others for name, others in arrows.items() if name not in leaves}
    assert not arrows


def test_only_some_modules_load_tensorflow() -> None:
    """Those that import it, and nothing imports these on load: a run on JAX, and all else, works without TensorFlow."""
    names = [name for package in PACKAGES for name in modules(package)]
    found = {
        name for name in names if {each.split(".")[0] for each in imported_on_load(name)} & {"tensorflow", "tensorflow_text"}
    }
    assert found == TENSORFLOW
    for name in sorted({*names, "clozemill"} - TENSORFLOW):
        assert not imported_on_load(name) & TENSORFLOW, name


def test_tensorflow_and_torch_are_never_in_one_process() -> None:
    """One program imports torch and transformers, and no module imports it; among the tests, only peers in processes do."""
    heavy = {"torch", "transformers", "triton"}
    for name, tree in TREES.items():
        names = {found.split(".")[0] for found in imports(tree)}
        calls = [node for node in nodes(tree) if isinstance(node, ast.Call)]
        names |= {call.args[0].value for call in calls if ast.unparse(call.func) == "pytest.importorskip"}
        if name == APART.replace(".", "/") + ".py":
            assert names & heavy and not names & {*PACKAGES, "keras", "tensorflow"}
        elif name not in PEERS:
            assert not names & heavy and APART not in imports(tree), name


def test_randomness_is_an_argument() -> None:
    for name, tree in TREES.items():
        if name.split("/")[0] in (*PACKAGES, "clozemill.py"):
            assert not {"random", "secrets"} & {found.split(".")[0] for found in imports(tree)}, name
            for node in nodes(tree):
                called = node.func if isinstance(node, ast.Call) else None
                assert not (isinstance(called, ast.Name) and called.id == "hash"), f"{name}, line {node.lineno}: hash()"
                if isinstance(called, ast.Attribute) and getattr(called.value, "attr", "") == "random":
                    seeded = (node.args and called.attr in SEEDED) or "seed" in {word.arg for word in node.keywords}
                    assert seeded, f"{name}, line {node.lineno}: {ast.unparse(called)} without a seed"


def test_init_files_contain_only_a_docstring() -> None:
    inits = [name for name in TREES if name.endswith("__init__.py") and name.split("/")[0] in PACKAGES]
    folders = {name.rsplit("/", 1)[0] for name in TREES if name.split("/")[0] in PACKAGES}
    assert {name.rsplit("/", 1)[0] for name in inits} == folders and len(folders) > 30
    for name in inits:
        assert ast.get_docstring(TREES[name]) and len(TREES[name].body) == 1, name


def test_no_file_contains_a_machine_path() -> None:
    places = re.compile(rb"(?<![\w.:/-])/(?:" + b"work|root|home|Users" + rb")/")
    held = [path.relative_to(ROOT).as_posix() for path in FILES if places.search(path.read_bytes())]
    assert held == []


def test_sizes_of_functions_and_modules() -> None:
    """About 40 lines and 300: STYLE's anchors, with a little air."""
    for name, tree in TREES.items():
        if name.split("/")[0] in (*PACKAGES, "clozemill.py"):
            assert len(SOURCES[name].read_text("utf-8").splitlines()) <= 310, name
            for node in nodes(tree):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 50, f"{name}: {node.name}"
