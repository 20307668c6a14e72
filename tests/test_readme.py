"""README's Python runs as it stands there, where clozemill isn't: on a small export and a toy task, not the real ones."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import clozemill
from tests.trainers import finetune_cases as finetuning

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
ALONE = "import sys\nfor name in ('clozemill', 'model', 'pipelines', 'trainers'):\n    sys.modules[name] = None\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as README's commands leave one."""
    folder = tmp_path_factory.mktemp("readme")
    init = finetuning.checkpoint(folder / "init", encoder=replace(finetuning.ENCODER, max_position_embeddings=64))
    assert clozemill.main(["export", str(init), "--output", str(folder / "OUT"), "--formats", "savedmodel"]) == 0
    (folder / "cola").mkdir()
    for name, count, seed in (("in_domain_train", 480, 0), ("in_domain_dev", 40, 1)):
        rows = [("x", int(label == "good"), "", text) for text, label in finetuning.sentences(count, seed)]
        finetuning.table(folder / f"cola/{name}.tsv", rows)
    return folder


def run(code: str, place: Path) -> str:
    done = subprocess.run([sys.executable, "-c", ALONE + code], cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def block(text: str) -> str:
    """The one block that holds a text."""
    (found,) = (code for code in BLOCKS if text in code)
    return found


def test_the_savedmodel_answers(place: Path) -> None:
    code = (
        block('signatures["encode"]')
        + "print(sorted(encoder.signatures), encoder.signatures['mlm'](text=text, text_pair=none))"
    )
    told = run(code, place)
    assert "'encode', 'encode_tokens', 'mlm', 'nsp', 'preprocess'" in told and "probabilities" in told


@pytest.mark.slow
def test_the_savedmodel_is_fine_tuned(place: Path) -> None:
    told = run(block("Matthews correlation").replace("AdamW(3e-4", "AdamW(3e-3"), place)
    assert float(told.rsplit(None, 1)[1]) > 0.9, told
