"""README and docs: their commands parse, their blocks run on the demo corpus or say why not, what they name is there.

A block of ```sh or ```python runs here, unless the line before it is a comment: `<!-- not run: REASON -->`, or
`<!-- run by: TEST -->` with a test of this module. A page's blocks run one after another, in a folder of their own.
"""

import ast
import contextlib
import dataclasses
import gzip
import html
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import clozemill
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.pretraining.config import PretrainConfig
from tests.slow import mostly_slow
from tests.trainers import finetune_cases as finetuning
from tests.trainers.diagnosis import journals

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
}
BLOCK = re.compile(r"(?:^<!-- (?P<marker>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
# Options that clozemill passes on.
BEAM_OPTIONS = {"--project", "--region", "--temp_location", "--sdk_container_image", "--sdk_location"}
NOT_OURS = {
    "--local-dir",
    "--job_endpoint",
    "--environment_type",
    "--long",
    "--corpus",
    "--data",
    "--dump",
    "--other",
    "--documents",
    "--compile",
    "--downstream",
    "--jsonl",
    "--work",
}
SENTENCE = "The glacier stays in the same place even though the ice inside it keeps moving downhill."  # 16 known words


@dataclasses.dataclass(frozen=True)
class Block:
    """A block of code: its page and line, its language, and the comment on the line before."""

    where: str
    language: str
    code: str
    marker: str


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    text = PAGES[page]
    return [
        Block(f"{page}:{text.count(chr(10), 0, match.start()) + 1}", match["language"], match["code"], match["marker"] or "")
        for match in BLOCK.finditer(text)
    ]


ALL = [block for page in PAGES for block in blocks(page)]
CODE = [block for block in ALL if block.language in ("sh", "python")]
RUN = sorted({block.where.split(":")[0] for block in CODE if not block.marker})
# The pages whose blocks prepare several datasets.
LONG = [f"docs/how-to/{name}.md" for name in ("near-duplicates", "pack-examples", "resume-and-update", "take-down")]


def commands(code: str) -> list[str]:
    """The command lines of a shell block, without comments; a line that ends in a backslash goes on."""
    lines = code.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def script(name: str) -> ModuleType:
    """A script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_command(line: str) -> None:
    """Fails unless a command line of clozemill has only options that exist, with values that they take."""
    words, _ = clozemill.commands.split_words(shlex.split(line, comments=True)[1:])
    arguments, extra = clozemill.parser().parse_known_args(words)
    command = clozemill.COMMANDS[arguments.command]
    flags = {word for word in extra if word.startswith("-")}
    assert not flags or (command.passes_on and flags <= BEAM_OPTIONS), f"unknown options: {flags}"
    if not (arguments.config and not (ROOT / arguments.config).exists()):
        arguments.config = arguments.config and str(ROOT / arguments.config)
        clozemill.options.resolve(command.config, arguments)


# -- cheap checks of all blocks ----------------------------------------------------------------------------------------------


def test_every_block_has_a_language_and_every_marker_a_reason() -> None:
    tests = {node.name for node in ast.parse(Path(__file__).read_text("utf-8")).body if isinstance(node, ast.FunctionDef)}
    assert len(CODE) > 40
    for block in ALL:
        assert block.language in ("sh", "python", "yaml", ""), f"{block.where}: {block.language}"
        kind, _, reason = block.marker.partition(": ")
        if block.marker:
            assert kind in ("not run", "run by") and reason, f"{block.where}: {block.marker}"
            assert kind == "not run" or reason in tests, f"{block.where}: no test {reason}"


def test_shell_blocks_are_marked_as_such() -> None:
    for block in ALL:
        assert block.language == "sh" or not re.search(r"^\$? ?(clozemill|pip|make|python) ", block.code, re.M), block.where


LINES = [
    (f"{block.where}: {line}", line)
    for block in CODE
    if block.language == "sh"
    for line in commands(block.code)
    if line.startswith("clozemill ")
]


@pytest.mark.parametrize("line", [line for _, line in LINES], ids=[name for name, _ in LINES])
def test_commands_parse(line: str) -> None:
    check_command(line)


@pytest.mark.parametrize(
    "line", ["clozemill prepare --inputs a", "clozemill verify D --cased", "clozemill prepare --masking x"]
)
def test_wrong_commands_are_found(line: str) -> None:
    with pytest.raises((AssertionError, UserError)):
        check_command(line)


def test_configurations_are_accepted_by_a_command() -> None:
    shown = [block for block in ALL if block.language == "yaml"]
    assert len(shown) >= 3
    for block in shown:
        values = yaml.safe_load(block.code)
        fields = {name: {field.name for field in dataclasses.fields(each.config)} for name, each in clozemill.COMMANDS.items()}
        fitting = [name for name, known in fields.items() if set(values) <= known]
        assert fitting, f"{block.where}: {sorted(values)}"
        if "phases" in values:
            clozemill.options.from_values(PretrainConfig, values)


def test_options_in_the_text_exist() -> None:
    known = {"--help", "--version", "--quiet", "--verbose", "--config", "--save-config", "--debug"} | NOT_OURS | BEAM_OPTIONS
    for command in clozemill.COMMANDS.values():
        for field in dataclasses.fields(command.config):
            known |= {"--" + field.name.replace("_", "-"), "--no-" + field.name.replace("_", "-")}
    for page, text in PAGES.items():
        prose = BLOCK.sub("", text)
        named = {flag for code in re.findall(r"`([^`\n]+)`", prose) for flag in re.findall(r"(?<![\w-])--[a-z][\w-]+", code)}
        assert not named - known, f"{page}: {sorted(named - known)}"


def test_files_and_make_targets_in_the_text_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page, text in PAGES.items():
        for name in re.findall(r"`((?:deploy|tests|pipelines|trainers|model|docs)/[\w./-]*)`", text):
            assert (ROOT / name).exists(), f"{page}: {name}"
        for name in re.findall(r"\bmake ([a-z][a-z-]+)\b`", text) + re.findall(r"^make ([a-z-]+)", text, re.MULTILINE):
            assert name in targets, f"{page}: make {name}"
        for name in re.findall(r"python -m (tests\.benchmarks\.\w+)", text):
            path = ROOT / name.replace(".", "/")
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), f"{page}: {name}"


def test_links_between_pages() -> None:
    """mkdocs checks docs/, too, but not README and CONTRIBUTING."""
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", BLOCK.sub("", text)):
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_readme_is_short() -> None:
    assert PAGES["README.md"].count("\n") < 200


def test_the_pages_of_commands_are_current() -> None:
    there = {path.name: path.read_text("utf-8") for path in (ROOT / "docs/reference/cli").glob("*.md")}
    assert there == script("generate_cli").pages(), "run python docs/generate_cli.py"


def test_the_picture_is_current() -> None:
    assert (ROOT / "docs/images/line.svg").read_text("utf-8") == script("draw_line").picture(), "run python docs/draw_line.py"


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md$", (ROOT / "docs/site/mkdocs.yml").read_text(), re.MULTILINE))
    assert listed == {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")}


def test_contributing_names_every_sub_package() -> None:
    (tree,) = (block.code for block in blocks("CONTRIBUTING.md") if not block.language)
    words = set(re.findall(r"[\w/]+", tree))
    for path in [*ROOT.glob("*/*/__init__.py")]:
        if path.parts[-3] in ("pipelines", "model", "trainers"):
            assert path.parts[-2] in words, path.parent.relative_to(ROOT)


def test_public_names_are_documented() -> None:
    page = PAGES["docs/reference/python-api.md"]
    for name in {"main", "UserError", *getattr(clozemill, "__all__", ())}:
        assert re.search(rf"^::: clozemill\.([\w.]+\.)?{name}$", page, re.MULTILINE), name


# -- blocks that run ---------------------------------------------------------------------------------------------------------


def articles(corpus: str) -> list[dict[str, str]]:
    """The articles of the demo corpus, as a reader of it might have stored them."""
    text = Path(corpus).read_text("utf-8")
    found = re.findall(r"<title>(.*?)</title>.*?<text[^>]*>(.*?)</text>", text, re.DOTALL)
    return [
        {"url": f"https://example.org/wiki/{title.replace(' ', '_')}", "title": title, "text": html.unescape(body)}
        for title, body in found
        if not body.startswith("#REDIRECT")
    ]


def write_jsonl(path: Path, rows: list[dict[str, str]]) -> None:
    """JSON lines, compressed if the name says so."""
    path.parent.mkdir(exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@pytest.fixture
def folder(tmp_path: Path, demo_corpus: str, demo_vocab: str, demo_dataset: Path) -> Path:
    """What the pages suppose: a corpus in several forms, a vocabulary, a dataset, evaluation sets."""
    rows = articles(demo_corpus)
    write_jsonl(tmp_path / "corpus/articles-1.jsonl.gz", rows[::2])
    write_jsonl(tmp_path / "corpus/articles-2.jsonl.gz", rows[1::2])
    write_jsonl(tmp_path / "notes/notes.jsonl", [{"headline": row["title"], "body": row["text"]} for row in rows])
    for name in ("texts", "glue/cola", "squad", "imported"):
        (tmp_path / name).mkdir(parents=True)
    for number, row in enumerate(rows):
        (tmp_path / f"texts/{number}.txt").write_text(row["text"], "utf-8")
    (tmp_path / "glue/cola/dev.tsv").write_text(f"sentence\tlabel\n{SENTENCE}\t1\n", "utf-8")
    (tmp_path / "squad/dev.json").write_text(json.dumps({"data": [SENTENCE]}), "utf-8")
    for path in (tmp_path / "vocab.txt", tmp_path / "imported/vocab.txt"):
        shutil.copy(demo_vocab, path)
    shutil.copytree(demo_dataset, tmp_path / "DATASET")
    for name, steps in (("RUN", 1000), ("OTHER-RUN", 800)):
        journals.write_run(tmp_path / name, journals.healthy(steps), journals.about(steps))
    for name in ("pipelines", "trainers", "deploy"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def run_alone(code: str, place: Path) -> str:
    """Run Python that can't import clozemill, and return what it prints. In this process: a new one takes seconds to start."""
    printed, hidden = io.StringIO(), [name for name in sys.modules if name.split(".")[0] == "clozemill"]
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(printed):
        patched.chdir(place)
        for name in (*hidden, "model", "pipelines", "trainers"):
            patched.setitem(sys.modules, name, None)
        exec(compile(code, "block", "exec"), {})
    return printed.getvalue()


def run_block(block: Block, place: Path) -> None:
    """Run a block; commands of clozemill in this process, since a new one takes seconds to start."""
    if block.language == "python" and "clozemill" in block.code:
        exec(compile(block.code, block.where, "exec"), {})
    elif block.language == "python":
        run_alone(block.code, place)
    else:
        for line in commands(block.code):
            if line.startswith("clozemill "):
                words = shlex.split(line, comments=True)[1:]
                assert clozemill.main(words) == 0, f"{block.where}: {line}"
            else:
                subprocess.run(["bash", "-euc", line], cwd=place, check=True)


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("sh", "clozemill verify NOWHERE\n"),
        ("sh", "false\n"),
        ("python", "raise ValueError\n"),
        ("python", "from pipelines import common\n"),
    ],
)
def test_a_failing_block_is_found(language: str, code: str, tmp_path: Path) -> None:
    with pytest.raises((AssertionError, subprocess.CalledProcessError, ValueError, ImportError)):
        run_block(Block("a.md:1", language, code, ""), tmp_path)


@pytest.mark.parametrize("page", mostly_slow(RUN, *(page for page in RUN if page not in LONG)))
def test_blocks_run(page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(folder)
    shown = [block for block in blocks(page) if block.language in ("sh", "python") and not block.marker]
    lines = [line for block in shown for line in commands(block.code)]
    if any(re.match("clozemill vocab .*--output vocab.txt", line) for line in lines):
        (folder / "vocab.txt").unlink()  # the page makes its own
    for block in shown:
        run_block(block, folder)


# -- blocks that run on a small export and a toy task, not the real ones -----------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the commands before those blocks leave one."""
    folder = tmp_path_factory.mktemp("documents")
    init = finetuning.checkpoint(
        folder / "init", encoder=replace(finetuning.ENCODER, max_position_embeddings=64, num_hidden_layers=1)
    )
    assert clozemill.main(["export", str(init), "--output", str(folder / "OUT"), "--formats", "savedmodel"]) == 0
    (folder / "cola").mkdir()
    for name, count, seed in (("in_domain_train", 480, 0), ("in_domain_dev", 40, 1)):
        rows = [("x", int(label == "good"), "", text) for text, label in finetuning.sentences(count, seed)]
        finetuning.table(folder / f"cola/{name}.tsv", rows)
    return folder


def block_of(test: str) -> str:
    """The one block that a test runs."""
    (found,) = (block.code for block in CODE if block.marker == f"run by: {test}")
    return found


@pytest.mark.slow
def test_sentence_vectors_are_trained(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "RUN").symlink_to(place / "init")
    texts = [text for text, _ in finetuning.sentences(256)]
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    finetuning.table(tmp_path / "pairs.tsv", [(one, other, at % 6) for at, (one, other) in enumerate(pairwise(texts[:60]))])
    run_block(Block("sentence-vectors", "sh", block_of("test_sentence_vectors_are_trained"), ""), tmp_path)
    assert (tmp_path / "vectors.parquet").exists()


@pytest.mark.slow
def test_the_savedmodel_gives_outputs(place: Path) -> None:
    code = (
        block_of("test_the_savedmodel_gives_outputs")
        + "print(sorted(encoder.signatures), encoder.signatures['mlm'](text=text, text_pair=none))"
    )
    output = run_alone(code, place)
    assert "'encode', 'encode_tokens', 'mlm', 'nsp', 'preprocess'" in output and "probabilities" in output


@pytest.mark.slow
def test_the_savedmodel_is_fine_tuned(place: Path) -> None:
    code = block_of("test_the_savedmodel_is_fine_tuned")
    output = run_alone(code.replace("AdamW(3e-4", "AdamW(3e-3"), place)
    assert float(output.rsplit(None, 1)[1]) > 0.9, output
