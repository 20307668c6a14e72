"""Architecture: which package may import which, and what importing one part must not load."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipelines", "model", "trainers", "deploy")
# What deploy may import from the others.
DEPLOYED = {
    "pipelines.config",
    "pipelines.options",
    "pipelines.schema",
    "trainers.config",
    "trainers.estimate",
    "trainers.topologies",
}
# What trainers may import from pipelines.
SHARED = {
    "schema", "charsets", "features", "json_objects", "locks", "manifest", "options", "places", "process", "text_rules",
    "tokenizer_rules", "wordpiece",
}  # fmt: skip
SEEDED = {"Generator", "Philox", "SeedSequence", "SeedGenerator"}  # of numpy.random and keras.random: what takes a seed first
APART = "model.hf_outputs"  # a program that needs transformers and torch, which must not meet TensorFlow in one process
SKIPPED = re.compile(r"(^|/)(\.[^/]+|__pycache__|build|demo-out|[^/]+\.egg-info)(/|$)")
FILES = [path for path in ROOT.rglob("*") if path.is_file() and not SKIPPED.search(path.relative_to(ROOT).as_posix())]
SOURCES = {path.relative_to(ROOT).as_posix(): path for path in FILES if path.suffix == ".py"}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def modules(package: str) -> list[str]:
    return sorted(name[:-3].replace("/", ".") for name in SOURCES if name.startswith(package + "/") and "__init__" not in name)


def imports(tree: ast.Module) -> set[str]:
    """Every imported name, with its module: `from a import b` gives a and a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def loaded(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter has loaded after running some code."""
    code += "\nimport sys\nprint('loaded:', *sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.rsplit("loaded:", 1)[1].split())


def test_there_is_something_to_check() -> None:
    assert {"pipelines.wordpiece", "pipelines.build", "pipelines.launch"} <= set(modules("pipelines"))
    assert "model.encoder" in modules("model") and "trainers.pretrain" in modules("trainers")
    assert "tests/test_layering.py" in SOURCES and "clozemill.py" in SOURCES


def test_pipelines_load_neither_keras_nor_tensorflow() -> None:
    names = loaded("\n".join(f"import {name}" for name in modules("pipelines")))
    assert "apache_beam" in names
    assert names.isdisjoint({"keras", "tensorflow", "tf_keras", "jax", "torch"})


@pytest.mark.parametrize(
    "module",
    [
        "model.config",
        "trainers.config",
        "trainers.config_export",
        "trainers.config_plan",
        "trainers.estimate",
        "trainers.recipes",
        "deploy.submit",
    ],
)
def test_what_the_command_line_needs_of_training_loads_neither_keras_nor_tensorflow(module: str) -> None:
    assert loaded(f"import {module}").isdisjoint({"apache_beam", "keras", "tensorflow", "numpy"})


def test_planning_loads_neither_beam_nor_tensorflow() -> None:
    """The stages of `prepare` run without Beam's start-up."""
    code = (
        "import clozemill, importlib.resources as r\n"
        "path = str(r.files('pipelines') / 'data/demo-corpus.xml')\n"
        "assert clozemill.main(['plan', '--input', path, '--vocab-size', '2000', '--recipe', 'demo', '--no-progress']) == 0"
    )
    assert loaded(code).isdisjoint({"apache_beam", "tensorflow", "keras", "jax"})


@pytest.mark.parametrize("module", sorted(SHARED))
def test_what_trainers_share_loads_no_beam(module: str) -> None:
    assert loaded(f"import pipelines.{module}").isdisjoint({"apache_beam", "keras", "tensorflow"})


@pytest.mark.parametrize("package", ["model", "trainers"])
def test_model_and_trainers_load_no_beam(package: str) -> None:
    names = [name for name in modules(package) if name != APART]
    assert "apache_beam" not in loaded("\n".join(f"import {name}" for name in [package, *names]))


@pytest.mark.parametrize(
    "arguments",
    [
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
    ],
)
def test_help_and_mistakes_load_neither_beam_nor_tensorflow(arguments: list[str]) -> None:
    code = f"import clozemill\ntry: clozemill.main({arguments})\nexcept SystemExit: pass"
    assert loaded(code).isdisjoint({"apache_beam", "tensorflow", "keras", "tokenizers", "sentencex", "pyarrow"})


def test_a_vocabulary_is_parsed_without_beam_s_help() -> None:
    """So that the trainer can tokenize: what WordPiece needs, loaded and used."""
    code = (
        "from pipelines.wordpiece import *\n"
        "WordPiece(Vocabulary.from_tokens(['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a'])).encode(['a b'], True)"
    )
    assert loaded(code).isdisjoint({"apache_beam", "tensorflow", "keras"})


def test_who_imports_whom() -> None:
    for name, tree in TREES.items():
        package, names = name.split("/")[0], imports(tree)
        own = {found for found in names if found.split(".")[0] in PACKAGES}
        if package == "pipelines":
            assert all(found.startswith("pipelines") for found in own), name
        if package == "model":
            rules = {
                found for found in own if found.startswith(("pipelines.text_rules", "pipelines.tokenizer_rules"))
            }  # an export tokenizes by the same
            assert all(found.startswith("model") for found in own - rules), name
        if package == "trainers":
            shared = {found.split(".")[1] for found in own if found.startswith("pipelines.")}
            assert shared <= SHARED and "pipelines" not in names - {found.rsplit(".", 1)[0] for found in names}, name
        if package == "deploy":
            others = {found for found in own if found.count(".") and not found.startswith("deploy")}
            assert {".".join(found.split(".")[:2]) for found in others} <= DEPLOYED, name
        if package in PACKAGES:
            assert not {found.split(".")[0] for found in names} & {"tests", "clozemill"}, name


def test_tensorflow_and_torch_never_meet_in_one_process() -> None:
    """One program imports torch and transformers, and nothing imports it; of the tests, the one of peers in processes."""
    heavy = {"torch", "transformers", "triton"}
    for name, tree in TREES.items():
        names = {found.split(".")[0] for found in imports(tree)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        names |= {call.args[0].value for call in calls if ast.unparse(call.func) == "pytest.importorskip"}
        if name == APART.replace(".", "/") + ".py":
            assert names & heavy and not names & {*PACKAGES, "keras", "tensorflow"}
        elif name not in ("tests/benchmarks/contenders.py", "tests/benchmarks/hf_tasks.py"):  # peers, in processes of their own
            assert not names & heavy and APART not in imports(tree), name


def test_no_randomness_that_is_not_an_argument() -> None:
    for name, tree in TREES.items():
        if name.split("/")[0] in (*PACKAGES, "clozemill.py"):
            assert not {"random", "secrets"} & {found.split(".")[0] for found in imports(tree)}, name
            for node in ast.walk(tree):
                called = node.func if isinstance(node, ast.Call) else None
                assert not (isinstance(called, ast.Name) and called.id == "hash"), f"{name}, line {node.lineno}: hash()"
                if isinstance(called, ast.Attribute) and getattr(called.value, "attr", "") == "random":
                    seeded = (node.args and called.attr in SEEDED) or "seed" in {word.arg for word in node.keywords}
                    assert seeded, f"{name}, line {node.lineno}: {ast.unparse(called)} without a seed"


def test_init_files_import_nothing() -> None:
    inits = [name for name in TREES if name.endswith("__init__.py")]
    assert {"pipelines/__init__.py", "model/__init__.py", "trainers/__init__.py"} <= set(inits)
    for name in inits:
        assert all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in TREES[name].body), name


def test_no_file_names_a_place_of_one_machine() -> None:
    places = re.compile(rb"(?<![\w.:/-])/(?:" + b"work|root|home|Users" + rb")/")
    held = [path.relative_to(ROOT).as_posix() for path in FILES if places.search(path.read_bytes())]
    assert held == []


def test_sizes_of_functions_and_modules() -> None:
    """About 40 lines and 300: STYLE's anchors, with a little air."""
    for name, tree in TREES.items():
        if name.split("/")[0] in (*PACKAGES, "clozemill.py"):
            assert len(SOURCES[name].read_text("utf-8").splitlines()) <= 310, name
            for node in ast.walk(tree):
                if isinstance(node, ast.FunctionDef):
                    assert node.end_lineno - node.lineno < 50, f"{name}: {node.name}"
