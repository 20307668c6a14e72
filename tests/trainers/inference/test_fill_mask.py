"""The most likely pieces for every [MASK], those that the pretraining model itself gives."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import clozemill
from clozemill.trainers.training import pretrained
from tests.model import sources
from tests.trainers.models import checkpoint

TEXTS = ["The [MASK] is a river!", "[MASK] un[MASK] corpus in the mill, in the mill"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("runs") / "one", "mlm+nsp", trained_length=16)


def expected(trained: Path, text: str, pair: str = "") -> list[list[tuple[str, float]]]:
    """All pieces with their probabilities, best first, from a batch as the shards have it."""
    found = pretrained.read(str(trained))
    model, texts, vocabulary = sources.source("mlm+nsp").model, found.text_encoder(16), found.vocabulary

    def ids(text: str) -> list[int]:
        parts = [texts.ids([part])[0].tolist() for part in text.split("[MASK]")]
        return [piece for part in parts for piece in (*part, vocabulary.mask_id)][:-1]

    batch = texts.pack([(np.array(ids(text), np.int32), np.array(ids(pair), np.int32) if pair else None)])
    batch["masked_lm_positions"] = np.flatnonzero(batch["input_ids"][0] == vocabulary.mask_id)[None]
    logits = np.asarray(model(batch)["masked_lm_logits"], np.float64)[0]
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return [[(vocabulary.tokens[n], row[n]) for n in np.argsort(-row, kind="stable")] for row in probs]


def candidates(masks: list[list[dict]]) -> list[list[tuple]]:
    return [[(piece["token"], pytest.approx(piece["probability"], abs=1e-5)) for piece in mask] for mask in masks]


def test_masks_of_a_typed_text(trained: Path, capsys: pytest.CaptureFixture) -> None:
    assert clozemill.main(["predict", str(trained), "--text", TEXTS[1], "--top-k", "3", "--no-progress"]) == 0
    told = capsys.readouterr().out
    found, right = json.loads(told), expected(trained, TEXTS[1])
    assert candidates(found["masks"]) == [mask[:3] for mask in right]
    words = [mask[0][0].removeprefix("##") for mask in right]
    assert found["filled"] == f"{words[0]} un{words[1]} corpus in the mill, in the mill"
    assert told.count('{"token": ') == 6, "a line for each candidate"


def test_files(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Texts with several masks, one, and none; in every format."""
    (tmp_path / "in.txt").write_text("\n".join([*TEXTS, "no mask"]) + "\n", "utf-8")
    for ending in ("jsonl", "parquet", "csv"):
        arguments = [
            "--input",
            f"{tmp_path}/in.txt",
            "--output",
            f"{tmp_path}/a.{ending}",
            "--no-progress",
            "--batch-size",
            "2",
        ]
        assert clozemill.main(["predict", str(trained), *arguments]) == 0
        assert capsys.readouterr().out == f"wrote {tmp_path}/a.{ending}: 3 answers (texts without [MASK]: 1)\n"
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text("utf-8").splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2] and [len(line["masks"]) for line in lines] == [1, 2, 0]
    for line, text in zip(lines, TEXTS, strict=False):
        assert candidates(line["masks"]) == [mask[:5] for mask in expected(trained, text)]
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [row["masks"] for row in table] == [line["masks"] for line in lines] and table[2]["filled"] == "no mask"


def test_the_api_and_pairs(trained: Path) -> None:
    one, other = clozemill.predict(str(trained), TEXTS, ["in [MASK]", "a"], top_k=1)
    assert candidates(one["masks"]) == [mask[:1] for mask in expected(trained, TEXTS[0], "in [MASK]")]
    assert one["filled_pair"] == "in " + one["masks"][1][0]["token"].removeprefix("##") and len(other["masks"]) == 2


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("mlm", ["--text", "a mill"], "--text has no [MASK]: write it in place of the words to predict"),
        ("mlm", ["--text", "mill " * 20 + "[MASK]"], "--text: a [MASK] is beyond the 16 tokens that the model was trained on"),
        ("mlm", ["--text", "[MASK]", "--threshold", "0.5"], "--threshold is for multilabel, but "),
        ("causal", ["--text", "[MASK]"], "one predicts next words, not masked ones: fine-tune it with clozemill finetune"),
        ("encoder", ["--text", "[MASK]"], "one has neither a task nor a masked-LM head: fine-tune it with clozemill finetune"),
    ],
)
def test_mistakes_are_one_sentence(name: str, arguments: list, sentence: str, tmp_path: Path, capsys) -> None:
    folder = checkpoint(tmp_path / "one", name, trained_length=16)
    assert clozemill.main(["predict", str(folder), *arguments]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("clozemill: ") and told.count("\n") == 1
