import dataclasses

import pytest

from clozemill.deploy import plan
from clozemill.model.config import preset
from clozemill.model.flops import flops_per_row
from clozemill.pipelines.common.estimates import Estimate
from clozemill.trainers.planning import estimate
from clozemill.trainers.planning.config import TrainingPlan
from clozemill.trainers.planning.estimate import Dataset
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.recipes import RECIPES, Part, Phase


def dataset(examples: float = 1e6, shards: int = 64, length: int = 128) -> Dataset:
    figure = Estimate("train examples per copy", "", examples, 0.9 * examples, 1.1 * examples)
    return Dataset(figure, shards, length, 20 * length // 128, 30522)


def figures(config: TrainingPlan, data: Dataset) -> dict[str, Estimate]:
    return {figure.name: figure for figure in estimate.estimate(config, data)[0]}


def warnings(data: Dataset, **options) -> list[str]:
    return estimate.estimate(TrainingPlan(**{"topology": "v5e:2x2", "batch_size": 256, **options}), data)[2]


def test_hours_are_steps_times_batch_times_flops_over_chips() -> None:
    """Base at 128: 66.0 GFLOP per example, so 1,000 x 256 of them are 16.9 PFLOP: 53.6 s of 4 x 197 TFLOP/s at 40 %."""
    found = figures(TrainingPlan(steps=1000, batch_size=256, price_chip_hour=2.0), dataset())
    flops = flops_per_row(preset("base"), 128, 20)
    assert flops == pytest.approx(66.0e9, rel=0.001)
    seconds = found["training on v5e:2x2"]
    assert seconds.estimate == pytest.approx(1000 * 256 * flops / (4 * 197e12 * 0.4)) == pytest.approx(53.6, rel=0.01)
    assert (seconds.low, seconds.high) == pytest.approx((seconds.estimate / 1.5, seconds.estimate * 1.5))
    assert found["TPU chip hours"].estimate == pytest.approx(4 * seconds.estimate / 3600)
    assert found["cost of training on TPUs"].estimate == pytest.approx(8 * seconds.estimate / 3600)
    assert (found["epochs"].estimate, found["epochs"].low, found["epochs"].high) == pytest.approx(
        (0.256, 0.256 / 1.1, 0.256 / 0.9)
    )
    faster = figures(TrainingPlan(steps=1000, batch_size=256, utilisation=0.8, topology="v5e:4x4"), dataset())
    assert faster["training on v5e:4x4"].estimate == pytest.approx(seconds.estimate / 8)
    assert faster["TPU chip hours"].estimate == pytest.approx(found["TPU chip hours"].estimate / 2)
    assert "cost of training on TPUs" not in faster


def test_epochs_of_a_mixture_depend_on_its_weights() -> None:
    parts = (Part("a", 0.5), Part("b", 0.5))
    _, notes, _ = estimate.estimate(TrainingPlan(phases=(Phase(parts, 5),)), dataset())
    assert any("epochs count all rows of a mixture as rows of this corpus" in note for note in notes)


def test_phases_of_a_recipe_have_their_own_lengths() -> None:
    config = TrainingPlan(recipe="lamb-large", **TrainingPlan.RECIPES["lamb-large"].options)
    large = preset("large")
    flops = 7_038 * 65_536 * flops_per_row(large, 128, 20) + 1_563 * 32_768 * flops_per_row(large, 512, 80)
    made, notes, _ = estimate.estimate(config, dataset())
    found = {figure.name: figure for figure in made}
    assert found["training on v5e:2x2"].estimate == pytest.approx(flops / (4 * 197e12 * 0.4))
    assert found["epochs"].estimate == pytest.approx(7_038 * 65_536 / 1e6)
    assert any("epochs count only the phases of 128 tokens" in note for note in notes)


def test_recipes_give_the_options_that_matter() -> None:
    known = {field.name: field for field in dataclasses.fields(PretrainConfig)}
    for name, recipe in TrainingPlan.RECIPES.items():
        config = TrainingPlan(recipe=name, **recipe.options)
        for key in recipe.options:
            assert getattr(config, key) == RECIPES[name].options[key]
    for field in dataclasses.fields(TrainingPlan):
        chosen = field.name == "recipe" or getattr(known.get(field.name), "default", None) in (None, "auto")  # by pretrain
        assert chosen or field.default == known[field.name].default, field.name


def test_a_good_plan_has_no_warning() -> None:
    assert warnings(dataset()) == []


def test_any_number_of_shards_suits_any_number_of_hosts() -> None:
    """A host reads its share of the blocks, not of the files: `pretrain` reads one shard on four hosts."""
    for shards in (1, 3, 5):
        assert warnings(dataset(shards=shards), topology="v5e:4x4") == []


def test_a_batch_that_replicas_cannot_share() -> None:
    assert warnings(dataset(), batch_size=258) == ["--batch-size 258 isn't divisible by 4 replicas: give 260"]
    assert warnings(dataset(), batch_size=256, gradient_accumulation_steps=3) == [
        "--batch-size 256 isn't divisible by 4 replicas x 3 gradient accumulation steps: give 264"
    ]
    assert warnings(dataset(), topology="v3:2x2", batch_size=12) == ["--batch-size 12 isn't divisible by 8 replicas: give 16"]
    assert warnings(dataset(), phases=(Phase(steps=5, batch_size=6), Phase(steps=5, batch_size=8))) == [
        "--batch-size 6 isn't divisible by 4 replicas: give 8"
    ]


def test_an_input_slower_than_the_chips() -> None:
    """Tiny at 128 on four chips needs millions of examples per second; base needs 4,800."""
    (told,) = warnings(dataset(), preset="tiny")
    assert "its input delivers 89,000 (as one core was measured), so the chips will wait" in told
    assert warnings(dataset(), preset="tiny", input_rate=1e7) == []
    (told,) = warnings(dataset(), input_rate=4000)
    assert told.startswith("the chips of a host consume 4,7") and "delivers 4,000 (--input-rate)" in told
    assert warnings(dataset(), input_rate=5000) == []


def test_gpus_and_this_machine() -> None:
    """16.9 PFLOP on 8 x 312 TFLOP/s at 50 %, and on 100 GFLOP/s at 60 %."""
    config = TrainingPlan(steps=1000, batch_size=256, utilisation=0.5, num_gpus=8, price_gpu_hour=3.0)
    made, notes, _ = estimate.estimate(config, dataset(), ("local", "gpu"), 1e11)
    found, flops = {figure.name: figure for figure in made}, 1000 * 256 * flops_per_row(preset("base"), 128, 20)
    assert list(found) == [
        "epochs",
        "training on this machine",
        "training on 8 x A100",
        "GPU hours",
        "cost of training on GPUs",
    ]
    assert found["training on this machine"].estimate == pytest.approx(flops / 0.6e11)
    seconds = found["training on 8 x A100"].estimate
    assert seconds == pytest.approx(flops / (8 * 312e12 * 0.5))
    assert found["GPU hours"].estimate == pytest.approx(8 * seconds / 3600)
    assert found["cost of training on GPUs"].estimate == pytest.approx(24 * seconds / 3600)
    assert (
        "on this machine (base: 1,000 steps) is estimated at 60 % of the 100 GFLOP/s that matrix products reached" in notes[0]
    )
    assert "on 8 x A100 (base: 1,000 steps) is estimated at 50 % of 312 TFLOP/s per GPU" in notes[1]
    assert estimate.estimate(config, dataset(), ("gpu",))[2] == []
    (told,) = estimate.estimate(dataclasses.replace(config, batch_size=252), dataset(), ("gpu",))[2]
    assert told == "--batch-size 252 isn't divisible by 8 replicas: give 256"


def test_thousands_of_epochs() -> None:
    assert warnings(dataset(examples=257), steps=1000) == []
    (told,) = warnings(dataset(examples=128), steps=1000)
    assert told == (
        "training goes through the text 2,000 times, and the model will learn it by heart (BERT: 40 times): give more text, or "
        "about 20 --steps"
    )


def test_targets_of_training() -> None:
    def targets(*target: str, **options: str | int) -> list[str]:
        return plan.training_targets(plan.PlanConfig(input=("a",), target=target, **options))

    assert targets() == targets("dataflow") == [] and targets("local", "gpu", "dataflow") == ["local", "gpu"]
    assert targets(recipe="demo") == ["local", "tpu"] and targets("dataflow", recipe="demo") == ["tpu"]
    assert targets("gpu", recipe="demo") == ["gpu"]
    assert targets(preset="tiny") == targets(steps=7) == ["local"] and targets("dataflow", steps=7) == []


def test_packed_rows() -> None:
    """Epochs count rows, and a row's FLOPs have all its predictions and every [CLS]."""
    figure = Estimate("train rows per copy", "", 1000, 900, 1100)
    packed = Dataset(figure, 8, 512, 80, 30522, max_examples=9)
    by_name = figures(TrainingPlan(preset="base", steps=1000, batch_size=256), packed)
    flops = 1000 * 256 * flops_per_row(preset("base"), 512, 80, examples=9)
    assert by_name["epochs"].estimate == 256
    assert by_name["training on v5e:2x2"].estimate == pytest.approx(flops / (4 * 197e12 * 0.4))
