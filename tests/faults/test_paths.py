"""Malicious names: nothing is written outside the output, messages stay on one line, files stay valid."""

import ast
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import clozemill
from clozemill.pipelines.files import filesystem
from tests import corpora
from tests.slow import mostly_slow
from tests.test_layering import TREES
from tests.test_resume import CODE

TEXT = corpora.jsonl(corpora.texts(30))
SMALL = ["--max-seq-length", "32", "--num-groups", "1", "--dupe-factor", "1", "--in-memory", "--no-progress", "--provenance"]


def below(folder: Path) -> dict[str, bytes]:
    """Return the contents of a folder by name, without following links."""
    found = [Path(place) / name for place, folders, names in os.walk(folder) for name in (*folders, *names)]
    return {os.fsdecode(path.relative_to(folder)): path.read_bytes() if path.is_file() else b"" for path in found}


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """Disable Beam's log: it contains names that aren't UTF-8, which xdist's workers can't report."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    corpora.write_vocabulary(tmp_path / "vocab.txt")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/thesis").write_text("dear")
    return tmp_path


def prepare(place: Path, source: str, output: str = "out", *more: str) -> int:
    words = ["prepare", f"--input={source}", "--vocab", str(place / "vocab.txt"), f"--output={place / output}", *SMALL, *more]
    return clozemill.main(words)


NAMES = {
    "a newline": "a\nclozemill: all is well\n.jsonl",
    "a leading dash": "-rf.jsonl",
    "dots": "..jsonl",
    "a glob": "[a]*?.jsonl",
    "quotes": "a'\"$(touch owned)`;.jsonl",
    "an escape": "a\x1b[2J\r.jsonl",
    "no UTF-8": "a\udcff\udc80.jsonl",
    "very long": "a" * 249 + ".jsonl",
    "a name of our own": "dataset.json.tmp-1.jsonl",
}


@pytest.mark.parametrize("name", mostly_slow(NAMES, "a newline", "a glob", "no UTF-8", "a name of our own"))
def test_input_with_any_name(place: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """It is read, and named in rejects and dataset.json; in an error it stays on one line."""
    (place / "in").mkdir()
    monkeypatch.chdir(place / "in")
    (place / "in" / NAMES[name]).write_bytes(b"{\n" + TEXT)
    assert prepare(place, NAMES[name]) == 2
    error = capfd.readouterr().err
    assert error.count("\n") == 1 and error.startswith("clozemill: 1 of 31 records are malformed"), error
    assert "\x1b" not in error and "\r" not in error
    assert prepare(place, NAMES[name], "out", "--max-reject-rate", "0.1") == 0
    assert capfd.readouterr().err == ""
    manifest = json.loads((place / "out/dataset.json").read_text("utf-8"))
    assert manifest["config"]["input"] == [NAMES[name]]
    (reject,) = [json.loads(line) for path in (place / "out/rejects").iterdir() for line in path.open(encoding="utf-8")]
    assert reject["source"] == f"{NAMES[name]}, line 1"
    assert yaml.safe_load((place / "out/prepare.yaml").read_bytes().decode("utf-8"))["input"]
    assert clozemill.main(["verify", str(place / "out"), "--no-progress"]) == 0
    assert set(os.listdir(place)) == {"in", "out", "vocab.txt", "elsewhere"}


@pytest.mark.parametrize("output", ["a\nb", "-out", "o\udcffut", "[o]*", "a/../b"])
def test_output_with_any_name(place: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    (place / "a.jsonl").write_bytes(TEXT)
    (place / "a").mkdir()
    monkeypatch.chdir(place)
    words = ["prepare", "--input", "a.jsonl", "--vocab", "vocab.txt", f"--output={output}", *SMALL]
    assert clozemill.main(words) == 0
    assert capfd.readouterr().err == ""
    assert (Path(output) / "dataset.json").exists()
    assert clozemill.main(["verify", "--no-progress", "--", output]) == 0
    assert (place / "elsewhere/thesis").read_text() == "dear"


@pytest.mark.slow
def test_a_name_that_is_not_utf_8_is_printed(place: Path) -> None:
    """Also if standard output accepts only UTF-8."""
    (place / "a.jsonl").write_bytes(TEXT)
    words = ["prepare", "--input", str(place / "a.jsonl"), "--vocab", str(place / "vocab.txt"), "--output", f"{place}/o\udcff"]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([sys.executable, "-c", CODE, *words, *SMALL], capture_output=True, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"wrote " in done.stdout and rb"/o\udcff" in done.stdout


def test_a_name_that_is_too_long(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "a.jsonl").write_bytes(TEXT)
    for source, output in (("a" * 300 + ".jsonl", "out"), ("a.jsonl", "o" * 300)):
        assert prepare(place, str(place / source), output) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and ("no file matches" in error or "(File name too long)" in error)


def test_links_as_input(place: Path, capsys: pytest.CaptureFixture) -> None:
    """A link to a file is read; a dangling link, or a link to itself, matches nothing."""
    (place / "elsewhere/a.jsonl").write_bytes(TEXT)
    (place / "good.jsonl").symlink_to("elsewhere/a.jsonl")
    (place / "loop.jsonl").symlink_to("loop.jsonl")
    assert prepare(place, str(place / "good.jsonl")) == 0
    assert prepare(place, str(place / "loop.jsonl"), "other") == 2
    error = capsys.readouterr().err
    assert f"{place}/loop.jsonl can't be listed (Too many levels of symbolic links)" in error and error.count("\n") == 1


def test_a_recursive_glob_does_not_follow_links(tmp_path: Path) -> None:
    """Two links that point upwards give 2**40 paths: the glob would never end."""
    for name in ("a.txt", "one/b.txt", "one/two/c.txt", "one/.hidden/d.txt", ".e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    for number in range(3):
        (tmp_path / f"one/up{number}").symlink_to("..")
    for pattern in ("**/*.txt", "*/../**/*.txt", "**/**/*.txt"):
        found = filesystem.match([f"{tmp_path}/{pattern}"])
        assert {os.path.basename(info.path) for info in found} == {"a.txt", "b.txt", "c.txt"}, pattern
    assert [info.path for info in filesystem.match([f"{tmp_path}/**/two/*"])] == [f"{tmp_path}/one/two/c.txt"]


@pytest.mark.parametrize("name", ["train", "rejects", ".work", "eval/deep", "vocab.txt", ".work/lock", ".work/workers.log"])
def test_an_output_folder_with_an_outside_link_is_rejected(place: Path, capsys: pytest.CaptureFixture, name: str) -> None:
    before = below(place / "elsewhere")
    (place / "a.jsonl").write_bytes(TEXT)
    link = place / "out" / name
    link.parent.mkdir(parents=True)
    link.symlink_to(
        place / "elsewhere" if "." not in Path(name).name[1:] and name != ".work/lock" else place / "elsewhere/thesis"
    )
    assert prepare(place, str(place / "a.jsonl")) == 2
    error = capsys.readouterr().err
    assert f"{link} is a symbolic link, and nothing is written outside {place}/out: remove it" in error
    assert below(place / "elsewhere") == before
    assert not (place / "out/dataset.json").exists()


def test_vocab_does_not_write_through_a_link(place: Path) -> None:
    (place / "a.jsonl").write_bytes(TEXT)
    before = below(place / "elsewhere")
    for name, target in {"v.txt": "elsewhere/thesis", "v.txt.yaml": "elsewhere/thesis", "v.txt.work": "elsewhere"}.items():
        (place / name).symlink_to(place / target)
    words = ["vocab", "--input", str(place / "a.jsonl"), "--output", str(place / "v.txt"), "--vocab-size", "100", "--in-memory"]
    assert clozemill.main([*words, "--no-progress"]) == 2
    assert clozemill.main([*words, "--no-progress", "--overwrite"]) == 0
    assert below(place / "elsewhere") == before
    assert not (place / "v.txt").is_symlink() and (place / "v.txt").read_text().startswith("[PAD]\n")
    assert not os.path.lexists(place / "v.txt.work")


def test_dots_do_not_leave_a_folder(place: Path) -> None:
    """File names within a dataset are generated; no writer follows other names in a manifest."""
    (place / "a.jsonl").write_bytes(TEXT)
    assert prepare(place, str(place / "a.jsonl")) == 0
    outside = {path for path in below(place) if not path.startswith("out/")}
    assert outside == {"a.jsonl", "vocab.txt", "out", "elsewhere", "elsewhere/thesis"}


# Nothing is unpickled or evaluated

LOADERS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle", "code", "codeop"}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "execfile"}
ALLOWED = {
    ("pipelines/command_line/lazy_import.py", "import_module"): "the module of a command, out of COMMANDS",
    ("model/export/base.py", "import_module"): "a format's module, out of FORMATS",
    ("trainers/training/trackers.py", "import_module"): "a tracker's library, out of TRACKERS",
    ("pipelines/command_line/yaml_files.py", "yaml.load"): "with a subclass of SafeLoader",
}


def dangers(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of every call that could execute data or build arbitrary objects from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in LOADERS)
        if not isinstance(node, ast.Call):
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        words = {word.arg: ast.unparse(word.value) for word in node.keywords}
        plain = not owner or owner in ("os", "builtins", "subprocess")
        if called in CALLS and plain:
            yield node.lineno, called
        if called == "import_module":
            yield node.lineno, called
        if words.get("shell", "False") != "False" or words.get("allow_pickle", "False") != "False":
            yield node.lineno, f"{called} with shell or allow_pickle"
        if (
            words.get("safe_mode", "True") != "True"
            or words.get("weights_only", "True") != "True"
            or "trust_remote_code" in words
        ):
            yield node.lineno, f"{called} with safe_mode off"
        if owner == "yaml" and called in ("load", "load_all", "unsafe_load", "full_load"):
            safe = "Safe" in words.get("Loader", "") or any("Safe" in ast.unparse(word) for word in node.args[1:])
            yield from [] if safe else [(node.lineno, f"yaml.{called}")]
        if owner in ("torch", "np", "numpy") and called == "load" and "allow_pickle" not in words:
            yield from [] if owner != "torch" else [(node.lineno, "torch.load")]


def test_nothing_is_unpickled_or_evaluated() -> None:
    packages = ("pipelines", "model", "trainers", "deploy", "clozemill.py")
    sources = {name: tree for name, tree in TREES.items() if name.split("/")[0] in packages}
    assert len(sources) > 80
    found = {(name, what): line for name, tree in sources.items() for line, what in dangers(tree)}
    unknown = {f"{name}, line {line}: {what}" for (name, what), line in found.items() if (name, what) not in ALLOWED}
    assert not unknown
    assert set(ALLOWED) <= set(found), "an entry that is no longer needed"


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from marshal import loads", "eval(x)", "os.system(x)", "exec(x)", "yaml.load(x)",
        "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=True)", "keras.saving.load_model(x, safe_mode=False)",
        "torch.load(x)", "AutoModel.from_pretrained(x, trust_remote_code=True)", "importlib.import_module(x)",
    ],
)  # fmt: skip
def test_the_source_check_finds_unsafe_calls(code: str) -> None:
    assert list(dangers(ast.parse(code)))


def test_yaml_creates_no_objects(place: Path, capsys: pytest.CaptureFixture) -> None:
    (place / "job.yaml").write_text("input: !!python/object/apply:os.system ['touch owned']\n")
    assert clozemill.main(["prepare", "--config", str(place / "job.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (place / "owned").exists() and not os.path.exists("owned")
