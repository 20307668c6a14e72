"""What is chosen for options that were left open, by device and data, and what a resumed run keeps."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clozemill.model.config import preset
from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.config import OPTIMIZER_NAMES
from clozemill.trainers.common.hardware import GIB, Hardware
from clozemill.trainers.pretraining import capacity, defaults, pretrain
from clozemill.trainers.pretraining.config import PretrainConfig
from clozemill.trainers.pretraining.defaults import AUTO, OPEN, Data, Shape, choose, needed_bytes, parts_for, suited
from clozemill.trainers.pretraining.pretraining_run import PretrainingRun, plan_run
from clozemill.trainers.pretraining.recipes import Phase
from clozemill.trainers.training import run_folder
from tests.trainers import datasets

LAPTOP = Hardware("CPU", 1, 8 * GIB, 2)
SERVER = Hardware("CPU", 1, 256 * GIB, 64)
A100 = Hardware("GPU", 1, 40 * GIB, 16, bfloat16=True)
T4 = Hardware("GPU", 1, 14 * GIB, 8)
FOUR = replace(A100, devices=4)
TPU = Hardware("TPU", 8, 0, 96, bfloat16=True)
LEFT_OPEN: dict[str, Any] = {
    **dict.fromkeys(OPEN), "preset": AUTO, "precision": AUTO, "objective": "mlm+nsp", "optimizer": "adamw", "remat": False,
    "shard_moments": False,
}  # fmt: skip


def data(tokens: float, length: int = 128, batch_size: int = 0) -> Data:
    shape = Shape(length, max(1, round(0.15 * length)), batch_size)
    return Data(round(tokens / length), length, 30522, (shape,))


@pytest.mark.parametrize(
    ("hardware", "tokens", "length", "expected"),
    [  # preset, precision, batch, micro-batches, learning rate
        (LAPTOP, 1e4, 128, ("tiny", "float32", 8, 1, 2e-3)),
        (LAPTOP, 1e7, 64, ("tiny", "float32", 64, 1, 2e-3)),
        (LAPTOP, 1e10, 32, ("tiny", "float32", 128, 1, 2e-3)),
        (LAPTOP, 1e10, 512, ("tiny", "float32", 8, 1, 2e-3)),
        (SERVER, 1e10, 128, ("small", "float32", 32, 1, 5e-4)),
        (SERVER, 3e7, 128, ("mini", "float32", 32, 1, 1e-3)),
        (A100, 1e10, 128, ("base", "bfloat16", 256, 1, 1e-4)),
        (A100, 1e8, 128, ("small", "bfloat16", 256, 1, 5e-4)),
        (A100, 1e10, 512, ("base", "bfloat16", 256, 8, 1e-4)),
        (T4, 1e10, 128, ("base", "float32", 256, 8, 1e-4)),
        (FOUR, 1e10, 512, ("base", "bfloat16", 256, 2, 1e-4)),
        (replace(A100, devices=3), 1e10, 128, ("base", "bfloat16", 192, 1, 1e-4)),
        (TPU, 1e10, 128, ("medium", "bfloat16", 256, 1, 5e-4)),
    ],
)
def test_choices(hardware: Hardware, tokens: float, length: int, expected: tuple) -> None:
    chosen = choose(LEFT_OPEN, hardware, data(tokens, length)).values
    names = ("preset", "precision", "batch_size", "gradient_accumulation_steps", "learning_rate")
    assert tuple(chosen[name] for name in names) == expected
    assert chosen.keys() == set(OPEN)
    assert expected[2] % (hardware.devices * expected[3]) == 0


def test_what_is_given_is_never_chosen() -> None:
    given = {**LEFT_OPEN, "preset": "large", "precision": "float32", "batch_size": 6, "learning_rate": 3.0, "dropout": 0.5,
             "attention_dropout": 0.25, "initializer_range": 0.5, "weight_decay": 0.0, "clip_norm": 0.0}  # fmt: skip
    choice = choose(given, LAPTOP, data(1e7))
    assert choice.values == {"gradient_accumulation_steps": 3}
    everything = choose({**given, "gradient_accumulation_steps": 2}, LAPTOP, data(1e7))
    assert (everything.values, everything.reasons) == ({}, ())


def test_micro_batches_divide_the_batches_of_every_phase() -> None:
    """Base on a laptop: 48 and 20 examples in parts that divide both, though powers of two alone would be smaller."""
    shapes = (Shape(128, 20, 48), Shape(512, 77, 20))
    choice = choose({**LEFT_OPEN, "preset": "base"}, LAPTOP, Data(10**6, 512, 30522, shapes))
    assert choice.values["gradient_accumulation_steps"] in (2, 4)
    assert 48 % choice.values["gradient_accumulation_steps"] == 0


def test_divided_moments_leave_room_for_larger_micro_batches() -> None:
    """BERT-base has 1.64 GiB of weights, gradients and moments; of eight devices that divide the moments, each has 0.92."""
    eight = Hardware("GPU", 8, int((1.2 * GIB + defaults.RUNTIME) / defaults.FILL), 16, bfloat16=True)
    given = {**LEFT_OPEN, "preset": "base", "batch_size": 64}
    parts = {
        shared: choose({**given, "shard_moments": shared}, eight, data(1e10, 32, 64)).values["gradient_accumulation_steps"]
        for shared in (True, False)
    }
    assert parts == {True: 1, False: 8}


def test_a_batch_that_fits_in_no_way_is_split_as_far_as_it_goes() -> None:
    choice = choose({**LEFT_OPEN, "preset": "large", "batch_size": 6}, replace(LAPTOP, memory=GIB), data(1e7))
    assert choice.values["gradient_accumulation_steps"] == 6


@pytest.mark.parametrize(
    ("replicas", "sizes", "parts"),
    [
        (8, [256], 8),
        (64, [256], 1),  # 4 rows per device, which fitted as one of 8 parts of 32 rows
        (16, [256], 4),
        (4, [256], 16),
        (16, [256, 48], 1),  # 16 and 3 rows per device: only 1 divides both, though 4 would be needed
        (6, [256], 8),  # not divisible at all, which check_batch says
    ],
)
def test_micro_batches_for_the_devices_of_a_tpu(replicas: int, sizes: list[int], parts: int) -> None:
    """Eight were chosen for eight devices: as many rows as in these, or fewer."""
    assert parts_for(replicas, 8, 8, sizes) == parts


def test_only_chosen_micro_batches_change_with_the_devices(tmp_path: Path) -> None:
    datasets.write(tmp_path / "data", [[40]])
    given = {"data": (str(tmp_path / "data"),), "preset": "tiny", "batch_size": 256, "output": str(tmp_path / "run")}
    small = Hardware("TPU", 8, 1 << 28, 8)
    run = plan_run(PretrainConfig(**given), small)
    parts = run.config.gradient_accumulation_steps
    assert parts > 1
    found = pretrain._for_devices(run, 8, 64)
    assert found.config.gradient_accumulation_steps == found.chosen["gradient_accumulation_steps"] == max(1, parts // 8)
    assert pretrain._for_devices(run, 8, 8) is run
    fixed = plan_run(PretrainConfig(**given, gradient_accumulation_steps=4), small)
    assert pretrain._for_devices(fixed, 8, 64) is fixed


def test_the_estimate_is_of_the_devices_of_the_tpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight are assumed, but there are 32."""
    datasets.write(tmp_path / "data", [[40]], [9])
    config = PretrainConfig(data=(str(tmp_path / "data"),), preset="tiny", batch_size=256, output=str(tmp_path / "run"))
    used: list[Hardware] = []
    monkeypatch.setattr(pretrain, "detect", lambda config, workers: TPU)
    monkeypatch.setattr(pretrain, "make_engine", lambda config: SimpleNamespace(replicas=32, process=1, processes=4))
    monkeypatch.setattr(pretrain, "_run", lambda planned, engine, writes, hardware: used.append(hardware))
    pretrain.main(config)
    assert used == [replace(TPU, devices=32)]
    assert capacity.step_bytes(run := plan_run(config, TPU), used[0]) < capacity.step_bytes(run, TPU)


def test_a_warm_start_keeps_its_size_and_half_the_rate() -> None:
    encoder = preset("mini", vocab_size=30522)
    choice = choose(LEFT_OPEN, A100, data(1e10), encoder)
    assert (choice.values["preset"], choice.values["learning_rate"]) == ("", suited(encoder).learning_rate / 2)


def test_what_the_optimizer_decides() -> None:
    """StableAdamW needs no clipping, and Muon less memory for its moments: here that of the matrices of BERT-base."""
    clips = {name: choose({**LEFT_OPEN, "optimizer": name}, LAPTOP, data(1e7)).values["clip_norm"] for name in OPTIMIZER_NAMES}
    assert clips == {"adamw": 1.0, "lamb": 1.0, "muon": 1.0, "stable-adamw": 0.0}
    sizes = [needed_bytes(preset("base"), Shape(128, 20), 8, half=False, optimizer=name) for name in ("adamw", "muon")]
    assert sizes[0] - sizes[1] == 4 * 84_934_656


def test_rates_of_modern_encoders() -> None:
    """Those of base and large are published ones, also with Muon, because nobody measured higher ones here."""
    rates = {
        (name, optimizer): choose({**LEFT_OPEN, "preset": name, "optimizer": optimizer}, LAPTOP, data(1e7)).values[
            "learning_rate"
        ]
        for name in ("modern-tiny", "modern-mini", "modern-small", "modern-base", "modern-large")
        for optimizer in ("adamw", "muon")
    }
    assert list(rates.values()) == [2e-3, 4e-3, 1e-3, 2e-3, *[8e-4] * 4, *[5e-4] * 2]


class ShortHeads:
    """A kernel for heads of up to 64 dimensions."""

    def refusal(self, head_size: int, length: int, dtype: str) -> str:
        return "too large" if head_size > 64 else ""


def test_a_kernel_of_attention_spares_micro_batches() -> None:
    """Scores at 4,096 tokens need most of the memory. A kernel that refuses the heads doesn't help."""
    encoder = preset("modern-base", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=4096)
    long = Data(10**7, 4096, encoder.vocab_size, (Shape(4096, 614, 32),))
    parts = {}
    for name, sizes, kernel in (("plain", encoder, None), ("kernel", encoder, ShortHeads()),
                                ("refused", replace(encoder, num_attention_heads=6), ShortHeads())):  # fmt: skip
        given = {**LEFT_OPEN, "batch_size": 32}
        parts[name] = choose(given, replace(A100, kernel=kernel), long, sizes).values["gradient_accumulation_steps"]
    assert parts["kernel"] < parts["refused"] <= parts["plain"]


def test_lamb_has_rates_of_its_own() -> None:
    rates = {**LEFT_OPEN, "optimizer": "lamb"}
    assert choose({**rates, "batch_size": 512}, A100, data(1e10)).values["learning_rate"] == 6.3e-4
    assert choose({**rates, "batch_size": 32768}, A100, data(1e10)).values["learning_rate"] == 5e-3


def phase(batch_size: int, steps: int, learning_rate: float = 0.0, length: int = 128) -> Shape:
    return Shape(length, 20, batch_size, steps=steps, learning_rate=learning_rate)


@pytest.mark.parametrize(
    ("shapes", "rate"),
    [
        ((phase(32768, 7000), phase(2048, 1500)), 5e-3),  # of the phase that trains longest
        ((phase(32768, 1000), phase(512, 1000)), 5e-3),  # of the first of two that train as long
        ((phase(2048, 7000, learning_rate=1e-3), phase(32768, 1500)), 5e-3),  # the first has a rate of its own
        ((phase(32768, 10), phase(0, 5)), 5e-3),
        ((phase(32768, 5), phase(0, 10)), 4.4e-4),  # with the batch that is chosen, 256
    ],
)
def test_the_rate_of_lamb_follows_the_batches_of_the_phases_that_use_it(shapes: tuple[Shape, ...], rate: float) -> None:
    choice = choose({**LEFT_OPEN, "optimizer": "lamb"}, A100, Data(10**8, 128, 30522, shapes))
    assert choice.values["learning_rate"] == rate
    assert f"learning rate {rate:g} for batches of {32768 if rate == 5e-3 else 256:,}" in choice.reasons


def test_what_every_phase_has_itself_is_neither_chosen_nor_announced() -> None:
    own = Data(10**8, 128, 30522, (phase(64, 10, 1e-3), phase(32, 10, 1e-4)))
    choice = choose(LEFT_OPEN, A100, own)
    assert {"batch_size", "learning_rate"}.isdisjoint(choice.values)
    assert not [reason for reason in choice.reasons if "batches" in reason or "rate" in reason]
    some = Data(10**8, 128, 30522, (phase(64, 10, 1e-3), phase(0, 10)))
    assert {"batches of 256", "learning rate 0.0001"} < set(choose(LEFT_OPEN, A100, some).reasons)


def test_a_batch_is_chosen_for_the_phases_without_one() -> None:
    """On a laptop, 8 rows of 512 tokens, but 32 of 128."""
    mixed = Data(10**6, 512, 30522, (phase(0, 10), phase(8, 10, length=512)))
    assert choose(LEFT_OPEN, LAPTOP, mixed).values["batch_size"] == 32


@pytest.mark.parametrize(
    ("name", "examples", "length", "predictions", "vocabulary", "dropout", "peak"),
    [  # peak: growth of a process's memory, in MB, over the first two steps, measured on a CPU with glibc's malloc
        ("tiny", 512, 64, 10, 4000, 0.0, 1374),
        ("tiny", 256, 128, 20, 30522, 0.1, 3336),
        ("mini", 64, 128, 20, 30522, 0.1, 2107),
    ],
)
def test_the_estimated_memory_is_that_of_a_measured_step(
    name: str, examples: int, length: int, predictions: int, vocabulary: int, dropout: float, peak: int
) -> None:
    encoder = preset(name, vocab_size=vocabulary, hidden_dropout_prob=dropout, attention_probs_dropout_prob=dropout)
    estimate = needed_bytes(encoder, Shape(length, predictions), examples, half=False)
    assert 0.85 < estimate / (peak << 20) <= 1.05


def planned(folder: Path, hardware: Hardware, **given: Any) -> PretrainingRun:
    values = {"data": (str(folder / "data"),), "output": str(folder / "run"), "steps": 4, "max_position_embeddings": 16}
    return plan_run(PretrainConfig(**{**values, **given}), hardware)


def test_a_resumed_run_keeps_what_was_chosen_on_another_machine(tmp_path: Path) -> None:
    datasets.write(tmp_path / "data", [[400, 400]], [9])
    first = planned(tmp_path, LAPTOP)
    run_folder.claim_run_folder(first, first.config.output)
    assert first.reasons[0] == "preset tiny for 2 CPU cores with 8 GiB free"
    again = planned(tmp_path, SERVER)
    assert (again.config, again.reasons, again.identity()) == (first.config, (), first.identity())
    elsewhere = planned(tmp_path, A100, output=str(tmp_path / "elsewhere"))
    assert (elsewhere.config.batch_size, elsewhere.config.precision) == (64, "bfloat16")
    with pytest.raises(
        UserError,
        match="was started with phase 1's batch_size 64, not 32: give the same, --overwrite to start over, or another",
    ):
        run_folder.claim_run_folder(planned(tmp_path, LAPTOP, batch_size=32), first.config.output)


def test_a_run_of_phases_with_batches_of_their_own(tmp_path: Path) -> None:
    """Their sizes, steps and rates reach the choice; an option that no phase uses stays open."""
    datasets.write(tmp_path / "data", [[400]], [9])
    phases = (Phase(str(tmp_path / "data"), 1, 8, 1e-3), Phase(str(tmp_path / "data"), 3, 32))
    run = planned(tmp_path, A100, data=(), phases=phases, optimizer="lamb")
    assert (run.config.batch_size, run.config.learning_rate) == (None, 1.6e-4)
    assert run.reasons[-1] == "learning rate 0.00016 for batches of 32" and "batch_size" not in run.chosen


@pytest.mark.parametrize(
    ("steps", "batch_size", "evaluated", "given", "interval"),
    [(4000, 64, 1000, None, 400), (4000, 64, 0, None, 0), (500, 64, 1000, None, 100), (400, 32, 3000, None, 400),
     (4000, 64, 1000, 7, 7), (4000, 64, 1000, 0, 0)],
)  # fmt: skip
def test_evaluations(tmp_path: Path, steps: int, batch_size: int, evaluated: int, given: int | None, interval: int) -> None:
    """Ten per run and 100 steps apart, fewer if a large eval split would take much of the time; none without one."""
    datasets.write(tmp_path / "data", [[8]], [evaluated] if evaluated else [])
    found = planned(tmp_path, LAPTOP, steps=steps, batch_size=batch_size, eval_steps=given)
    assert found.config.eval_steps == interval


def test_what_can_t_fit_is_refused_in_a_sentence(tmp_path: Path) -> None:
    datasets.write(tmp_path / "data", [[8]], [9])
    small = replace(LAPTOP, memory=GIB)
    capacity.check_memory(planned(tmp_path, small), small)
    with pytest.raises(
        UserError, match=r"a training step of base with --batch-size 256 .* needs about .* GiB, but 1.0 are free"
    ):
        capacity.check_memory(planned(tmp_path, small, preset="base", batch_size=256), small)
    gpu = replace(T4, memory=GIB)
    with pytest.raises(UserError, match=r"leave these options out, raise --gradient-accumulation-steps, or give a smaller"):
        capacity.check_memory(planned(tmp_path, gpu, preset="large", precision="float32"), gpu)
    capacity.check_memory(planned(tmp_path, replace(gpu, memory=0), preset="large"), replace(gpu, memory=0))  # unknown
