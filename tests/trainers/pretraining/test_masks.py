"""Fresh masks and falling mask rates in a run: rates by step, the dataset's shares, exact resume, and refusals."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import clozemill
from clozemill.model.mask_policies import MaskRules
from clozemill.model.masking import KEYS, original_ids
from clozemill.pipelines.common.errors import UserError
from clozemill.pipelines.config import ExampleConfig
from clozemill.pipelines.examples import masking
from clozemill.trainers.data.prepared_dataset import PreparedDataset
from clozemill.trainers.pretraining import masks, pretraining_run
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.masks import MaskDrawing, MaskRates, mask_drawing, mask_rules, parse_rates
from tests.model import test_masking
from tests.trainers import datasets, steps
from tests.trainers.datasets import LENGTH, PREDICTIONS, ROW_LENGTH

RUN = ["--preset", "tiny", "--max-position-embeddings", "64", "--batch-size", "8", "--log-steps", "1", "--no-tensorboard",
       "--objective", "mlm", "--checkpoint-steps", "2", "--steps", "4", "--steps-per-call", "2"]  # fmt: skip

pytestmark = pytest.mark.usefixtures("one_layer")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("plain"), [[12, 9], [10, 11]], [7])


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return datasets.write(tmp_path_factory.mktemp("packed"), [[40, 36]], [9], length=ROW_LENGTH, packing="on")


def test_rates_by_step() -> None:
    once = parse_rates("0.3:0.15@0.5", 1000)
    assert once == MaskRates((0.3, 0.15), (0, 500))
    assert [once.at(step) for step in (0, 499, 500, 999)] == [0.3, 0.3, 0.15, 0.15]
    falling = parse_rates("0.3:0.15", 3000)
    assert len(falling.rates) == 151 and falling.rates[:3] == (0.3, 0.299, 0.298)
    assert [falling.at(step) for step in (0, 19, 20, 1500, 2999)] == [0.3, 0.3, 0.299, 0.225, 0.15]
    assert parse_rates("0.3:0.1", 3) == MaskRates((0.3, 0.2, 0.1), (0, 1, 2))
    assert parse_rates(".15:0.15", 10) == MaskRates((0.15,), (0,))


@pytest.mark.parametrize(
    "text", ["0.3", "0.15:0.3", "0.3:0", "1.0:0.5", "0.3:0.15@1", "0.3:0.15@", "a:b", "-0.3:0.1", "nan:0.1"]
)
def test_malformed_rates(text: str) -> None:
    with pytest.raises(
        UserError, match=rf"^--masked-lm-prob-schedule is '{text}': give two falling rates such as 0.3:0.15, or"
    ):
        parse_rates(text, 100)


def test_rules_are_those_of_the_dataset(plain: PreparedDataset, packed: PreparedDataset) -> None:
    """A packed row has as many slots as any row in the shards, and more if words can come closer to the quotas."""
    found = mask_rules(plain, True, (0.15, 0.1))
    assert (found.policy, found.max_predictions, found.slots, found.fresh) == ("subword", PREDICTIONS, PREDICTIONS, True)
    assert found.quotas.tolist() == [[0] + [1] * 9 + [2, 2, 2], [0] + [1] * 12]
    assert found.mask_id == 4 and found.random_ids.tolist() == list(range(5, datasets.ENTRIES))
    assert (found.mask_share, found.random_share) == (0.8, 0.1)
    assert np.flatnonzero(found.is_special).tolist() == [0, 1, 2, 3, 4] and not found.is_continuation.any()
    geometric = np.cumsum(0.2 * 0.8 ** np.arange(10)) / (1 - 0.8**10)  # of up to 1, 2, ... 10 words
    assert found.span_shares == pytest.approx(geometric, abs=1e-9) and geometric[:2] == pytest.approx(
        [0.224058, 0.403304], abs=1e-6
    )
    assert mask_rules(packed, True).slots == packed.sizes["max_predictions"]
    words = replace(packed, manifest={**packed.manifest, "config": {**packed.manifest["config"], "masking": "span"}})
    assert mask_rules(words, False).slots == packed.sizes["max_predictions"]
    assert mask_rules(words, True).slots == max(packed.sizes["max_predictions"], 3 + packed.sizes["max_examples"])


def test_pieces_of_words(tmp_path: Path) -> None:
    pieces = datasets.VOCABULARY.replace(b"\n38\n39\n", b"\n##38\n##39\n")
    found = mask_rules(datasets.write(tmp_path, [[12]], [7], vocabulary=pieces), True)
    assert np.flatnonzero(found.is_continuation).tolist() == [38, 39] and len(found.is_continuation) == datasets.ENTRIES


@pytest.mark.parametrize("policy", masking.MASKERS)
def test_the_same_shares_as_the_pipeline(policy: str) -> None:
    """Masked tokens per example, and runs of them, of 3,000 examples: within 4.5 deviations of those of the pipeline."""
    count = 3000
    features, given = test_masking.rows(count, seed=2), test_masking.rules(policy)
    config = ExampleConfig(masking=policy, masked_lm_prob=0.25, max_predictions=test_masking.MOST)
    ids, lengths = features["input_ids"], features["input_mask"].sum(axis=1)
    candidates = ~test_masking.SPECIAL[ids]
    starts = ~test_masking.PIECES[ids]
    starts[:, 1:] |= test_masking.SPECIAL[ids[:, :-1]]
    rng = np.random.Generator(np.random.Philox(7))
    chosen = masking.MASKERS[policy].choose(candidates, starts, masking.quota(lengths, config), config, rng)
    found = test_masking.drawn(features, given)

    def measures(positions: np.ndarray, counts: np.ndarray) -> np.ndarray:
        masked = np.zeros((count, ids.shape[1] + 1), bool)
        for row in range(count):
            masked[row, positions[row, : counts[row]]] = True
        return np.stack([masked.sum(axis=1), (masked[:, 1:] & ~masked[:, :-1]).sum(axis=1)], axis=1)

    ours = measures(found["masked_lm_positions"], found["masked_lm_weights"].sum(axis=1).astype(int))
    theirs = measures(chosen.positions, chosen.count)
    if policy == "subword":
        assert (ours[:, 0] == theirs[:, 0]).all()
    deviation = (ours - theirs).std(axis=0) / count**0.5
    assert (abs((ours - theirs).mean(axis=0)) <= 4.5 * deviation).all()


def keyed(count: int) -> dict[str, tf.Tensor]:
    """A batch with keys."""
    features = {name: values[0] for name, values in steps.batches(1, rows=count).items()}
    keys = np.random.default_rng(3).integers(-(2**31), 2**31, (count, 2)).astype(np.int32)
    return {name: tf.constant(values) for name, values in {**features, KEYS: keys}.items()}


def test_a_drawing_does_not_depend_on_the_batch(plain: PreparedDataset) -> None:
    """Rows drawn together, and in halves; the rate is that of the step, and tokens under the masks stay."""
    drawing = mask_drawing(plain, True, "0.15:0.08@0.5", 10)
    assert isinstance(drawing, MaskDrawing)
    batch = keyed(32)
    whole = drawing(batch, tf.constant(4))
    halves = [drawing({name: value[at : at + 16] for name, value in batch.items()}, tf.constant(4)) for at in (0, 16)]
    for name, value in whole.items():
        np.testing.assert_array_equal(value, np.concatenate([half[name] for half in halves]), name)
    np.testing.assert_array_equal(original_ids(whole), original_ids(batch))
    lengths = batch["input_mask"].numpy().sum(axis=1)
    for step, row in ((0, 0), (4, 0), (5, 1)):
        found = drawing(batch, tf.constant(step))["masked_lm_weights"].numpy().sum(axis=1)
        assert found.tolist() == drawing.rules.quotas[row][lengths].tolist()


def pretrain(run: Path, *arguments: object, code: int = 0) -> None:
    assert clozemill.main(["pretrain", *RUN, "--output", str(run), *map(str, arguments)]) == code


def metrics(run: Path) -> list[dict[str, Any]]:
    rates = ("examples_per_second", "tokens_per_second", "input_share", "seconds", "mfu")
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in rates} for row in found]


def test_a_resumed_run_draws_the_same_masks(packed: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics and weights after step 4 are bit-identical if the run is resumed after step 2."""
    drawn: list[MaskRules] = []  # with an entry for each trace of a step
    plain = masks.draw_masks
    monkeypatch.setattr(masks, "draw_masks", lambda batch, rules, rate: drawn.append(rules) or plain(batch, rules, rate))
    options = ["--data", packed.folder, "--masks", "fresh", "--masked-lm-prob-schedule", "0.15:0.1@0.5"]
    options += ["--gradient-accumulation-steps", "2"]
    pretrain(tmp_path / "whole", *options)
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    shutil.rmtree(tmp_path / "again/checkpoints/step-00000004")
    pretrain(tmp_path / "again", *options)
    assert metrics(tmp_path / "again") == metrics(tmp_path / "whole")
    assert len(drawn) >= 2 and all(rules.fresh and len(rules.quotas) == 2 for rules in drawn)
    files = [tmp_path / run / "checkpoints/step-00000004/weights.safetensors" for run in ("again", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_refusals(plain: PreparedDataset, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pretrain(tmp_path / "run", "--data", plain.folder, "--masked-lm-prob-schedule", "0.3:0.1", code=2)
    assert capsys.readouterr().err.endswith(
        f"--masked-lm-prob-schedule 0.3:0.1 begins above 0.15, the fraction of tokens that {plain.folder} masks: begin at 0.15 "
        "at most, or prepare with --masked-lm-prob 0.3\n"
    )
    with pytest.raises(UserError, match=r"^--masks fresh has no effect with --objective causal"):
        PretrainConfig(objective="causal", masks="fresh").validate()
    with pytest.raises(UserError, match=r"^--masked-lm-prob-schedule has no effect with --objective causal"):
        PretrainConfig(objective="causal", masked_lm_prob_schedule="0.3:0.15").validate()


def test_estimates_know_the_slots(packed: PreparedDataset, plain: PreparedDataset) -> None:
    config = PretrainConfig(data=(plain.folder,), preset="tiny", batch_size=8, masks="fresh")
    (phase,) = pretraining_run.plan_run(config).phases
    assert (phase.shape.predictions, phase.shape.length) == (PREDICTIONS, LENGTH)
    assert phase.reader(config, 0, 1).keyed
    (phase,) = pretraining_run.plan_run(replace(config, masks="static")).phases
    assert phase.masks is None and not phase.reader(config, 0, 1).keyed
    falling = replace(config, masks="static", masked_lm_prob_schedule="0.15:0.1")
    (phase,) = pretraining_run.plan_run(falling).phases
    assert phase.masks is not None and not phase.masks.rules.fresh  # a part of the masks in the shards
