"""Fixtures shared by several test modules: the demo corpus, a vocabulary learnt from it, and a small dataset."""

import gc
import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

import clozemill
from tests import drawings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
gc.disable()  # until all tests are collected: a third of that time


def pytest_collection_finish() -> None:
    """Exempt everything imported, some million objects, from garbage collection, which would traverse it again and again."""
    gc.enable()
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def drawings_are_reused() -> Iterator[None]:
    with drawings.each_once():
        yield


@pytest.fixture(scope="module")
def every_drawing() -> Iterator[None]:
    """Every plot is drawn, for tests of plots and pages."""
    with drawings.every_one():
        yield


@pytest.fixture(scope="module")
def one_layer() -> Iterator[None]:
    """The preset tiny with one layer instead of two, for runs in this process: tracing a step takes half the time."""
    from clozemill.model.config import PRESETS

    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(PRESETS, "tiny", PRESETS["tiny"] | {"num_hidden_layers": 1})
        yield


@pytest.fixture(scope="session")
def demo_corpus() -> str:
    """The MediaWiki XML file that comes with the package."""
    return str(resources.files("clozemill.pipelines") / "data/demo-corpus.xml")


@pytest.fixture(scope="session")
def demo_vocab(demo_corpus: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A vocabulary of 4,000 entries learnt from the demo corpus."""
    path = str(tmp_path_factory.mktemp("vocab") / "vocab.txt")
    assert clozemill.main(["vocab", "--input", demo_corpus, "--output", path, "--vocab-size", "4000", "--no-progress"]) == 0
    return path


@pytest.fixture(scope="session")
def demo_dataset(demo_corpus: str, demo_vocab: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo corpus as a dataset with provenance: 3 groups, 2 copies. Read-only: copy it before damaging it."""
    folder = tmp_path_factory.mktemp("dataset") / "demo"
    arguments = ["--num-groups", "3", "--dupe-factor", "2", "--eval-fraction", "0.2", "--provenance", "--seed", "7"]
    with drawings.every_one():
        assert clozemill.main(["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(folder),
                               "--no-progress", *arguments]) == 0  # fmt: skip
    return folder


@pytest.fixture(scope="session")
def packed_dataset(demo_corpus: str, demo_vocab: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """demo_dataset with packed examples, and with the ids of its documents. Read-only."""
    folder = tmp_path_factory.mktemp("packed") / "demo"
    arguments = ["--num-groups", "3", "--dupe-factor", "2", "--eval-fraction", "0.2", "--provenance", "--seed", "7"]
    with drawings.every_one():
        assert clozemill.main(["prepare", "--input", demo_corpus, "--vocab", demo_vocab, "--output", str(folder), "--packing",
                               "on", "--id-field", "id", "--no-progress", *arguments]) == 0  # fmt: skip
    return folder
