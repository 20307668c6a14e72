import importlib.util
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.tpu_generations import GENERATIONS, GIB, parse_topology
from clozemill.trainers.planning import compiler, preflight
from clozemill.trainers.planning.compiler import Figures, Refused
from clozemill.trainers.planning.config import PreflightConfig

ROOT = Path(__file__).parents[3]
CONFIG = PreflightConfig(preset="base", batch_size=32)
V5E = parse_topology("v5e:2x2")
COUNTS = dict.fromkeys(compiler.COLLECTIVES, 0) | {"all-reduce": 2}
needs_libtpu = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason="JAX or libtpu isn't installed (the extra preflight)",
)


def figures(needed: float, flops: float = 1e12) -> Figures:
    """Return invented statistics: GiB and FLOPs."""
    return Figures(61.4, int(GIB), int((needed - 1.25) * GIB), GIB // 4, flops, 12.34e9, COUNTS)


def fresh(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Run Python in a new process: JAX, libtpu and Keras read the environment when they are loaded."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=900
    )


@pytest.mark.parametrize(
    ("name", "chips", "devices", "device", "available"),
    [
        ("v5e:2x2", 4, 4, "chip", 15.75),
        ("v5e:16x16", 256, 256, "chip", 15.75),
        ("v6e:1x1", 1, 1, "chip", 31.25),
        ("v4:2x2x4", 16, 16, "chip", 30.75),
        ("v5p:2x2x1", 4, 4, "chip", 95.74),
        ("v3:2x2", 4, 8, "core", 15.48),
        ("v2:4x4", 16, 32, "core", 7.48),
    ],
)
def test_a_topology_by_its_name(name: str, chips: int, devices: int, device: str, available: float) -> None:
    topology = parse_topology(name)
    assert (topology.chips, topology.devices, topology.generation.device) == (chips, devices, device)
    assert topology.available == available * 1024**3


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:", "v5e:2", "v5e:0x2", "v5e:2x2x1", "v4:2x2", "v9:2x2", "v5litepod-4", "v5e:axb"]
)
def test_an_unknown_topology_is_one_sentence(name: str) -> None:
    with pytest.raises(UserError, match=r"--topology .*[;:] use for example v5e:2x2 \(v5litepod-4\), v5e:2x4") as caught:
        parse_topology(name)
    assert "\n" not in str(caught.value)


def test_libtpu_reserves_some_memory_of_every_device() -> None:
    for generation in GENERATIONS.values():
        assert generation.memory - 1.5 < generation.available < generation.memory


def test_descriptions_of_topologies() -> None:
    assert str(V5E) == "v5e:2x2, 4 chips; a chip has 16 GiB, of which a program can use 15.75"
    assert str(parse_topology("v6e:1x1")) == "v6e:1x1, 1 chip; a chip has 32 GiB, of which a program can use 31.25"
    text = "v3:2x2, 4 chips of 2 cores; a core has 16 GiB, of which a program can use 15.48"
    assert str(parse_topology("v3:2x2")) == text


@pytest.mark.parametrize(
    ("message", "needed"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (45.67G) exceeds "
            "available HBM (15.75G).",
            45.67 * GIB,
        ),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 17.70G of 15.75G hbm. Exceeded by 1.95G.", 17.7 * GIB),
        ("RESOURCE_EXHAUSTED: something new", math.inf),
        ("INTERNAL: Mosaic failed\nat line 3", None),
    ],
)
def test_compiler_messages_are_parsed(message: str, needed: float | None) -> None:
    assert compiler.refused(message, 3.0) == Refused(3.0, message.replace("\n", " "), needed)


def test_collectives_are_counted() -> None:
    text = """
      %ar = (f32[8]{0}, f32[4]{0}) all-reduce(%a, %b), channel_id=1, replica_groups={{0,1}}
      %s = f32[8]{0} all-reduce-start(%a), channel_id=2
      %d = f32[8]{0} all-reduce-done(%s)
      %g = f32[8]{0} all-gather(%all-reduce.3), dimensions={0}
    """
    expected = {"all-reduce": 2, "all-gather": 1, "reduce-scatter": 0, "all-to-all": 0, "collective-permute": 0}
    assert compiler.collectives(text) == expected


@pytest.mark.parametrize(
    ("found", "ceiling", "batch"),
    [
        ({32: 3200}, None, 96),  # a line needs two points: 100 would fill 10,000 if all memory were proportional to the batch
        ({32: 200}, None, 128),  # small batches can't be extrapolated far
        ({32: 3200, 64: 5200}, None, 136),  # 1,200 + 62.5 each: 140.8 fill 10,000
        ({32: 3200, 64: 5200, 136: 9700}, None, None),  # 140 aren't worth a compilation
        ({32: 3200, 64: 5200}, 136, 120),  # the line was too optimistic: reduce by a tenth
        ({32: 100, 64: 101}, None, 256),  # it is extrapolated at most by a factor of four
        ({}, 32, 16),
        ({16: 9000}, 32, 24),
        ({}, 8, 4),
        ({}, 1, None),
        ({32: 9990, 64: 9995, 8: 1}, 72, None),
        ({32: 12000, 16: 8000}, None, None),  # fits, although above the target
    ],
)
def test_the_next_batch_to_try(found: dict[int, int], ceiling: int | None, batch: int | None) -> None:
    assert preflight.next_batch(found, ceiling, 10_000) == batch


@pytest.mark.parametrize(
    ("first", "tried", "largest"),
    [
        (32, [32, 96, 136], 136),
        (8, [8, 32, 128, 136], 136),
        (20, [20, 80, 136], 136),
        (136, [136], 136),  # a little more would fit, but isn't worth a compilation
        (144, [144], 144),  # above the target
        (150, [150, 72, 104, 136], 136),
        (4096, [4096, 2048, 1024, 512, 256, 128], 128),  # the largest within six compilations
    ],
)
def test_the_search_works_for_affine_memory(first: int, tried: list[int], largest: int) -> None:
    """1,200 and 62 each; at most 144 fit, and the target is 9,900 (140 of them)."""
    seen = []

    def measure(batch: int) -> int | None:
        seen.append(batch)
        return 1200 + 62 * batch if batch <= 144 else None

    assert (preflight.search(measure, first, room=9_900), seen) == (largest, tried)


def test_the_search_works_if_small_batches_use_on_chip_memory() -> None:
    sizes = {batch: max(60, 2 * batch - 90) for batch in range(1, 8001)}
    assert preflight.search(sizes.get, 8, room=15_120) in range(7272, 7606)


def test_nothing_fits() -> None:
    assert preflight.search(lambda batch: None, 32, room=9_900) == 0


def test_the_report() -> None:
    assert preflight.title(CONFIG, V5E, 20, 110_106_428, "plain, because") == [
        "topology     v5e:2x2, 4 chips; a chip has 16 GiB, of which a program can use 15.75",
        "model        base, vocabulary of 30,522: 110,106,428 parameters; mlm+nsp, bfloat16, adamw",
        "batch        32 per chip, 128 in all; 128 tokens, 20 predictions",
        "attention    plain, because",
    ]
    packed = preflight.title(replace(CONFIG, examples_per_row=4), V5E, 20, 110_106_428, "")
    assert packed[2] == "batch        32 per chip, 128 in all; 128 tokens, 20 predictions, up to 4 packed examples per row"
    assert preflight.described(figures(3.5, 2.5e12), V5E, 2_400_000_000_000) == [
        "compiles     yes, in 61 s",
        "memory       per chip: 3.50 GiB of 15.75 GiB: arguments 1.00 GiB, temporaries 2.25 GiB, the program 256.0 MiB",
        "work         per chip and step: 2.50 TFLOP by XLA's count, 2.40 TFLOP by formula",
        "traffic      per chip and step: 12.34 GB read and written",
        "collectives  2 all-reduce, 0 all-gather, 0 reduce-scatter, 0 all-to-all, 0 collective-permute",
    ]
    assert preflight.described(Refused(3.2, "INTERNAL: no"), V5E, 1) == ["compiles     no, after 3 s: INTERNAL: no"]


def test_the_line_about_the_largest_batch() -> None:
    results = {32: figures(3.5), 64: figures(6, 2e12), 168: figures(14.7, 5.25e12), 176: Refused(9, "too much", 16.0 * GIB)}
    expected = (
        "largest      batch 168 per chip, 672 in all, takes 14.70 GiB; compiled: 32, 64, 168, 176, aiming at 94% of the memory "
        "by the line through two batches"
    )
    assert preflight.largest_line(results, V5E) == expected
    again = "; recomputed activations cost 20% more FLOPs per example"
    assert preflight.largest_line(results | {168: figures(14.7, 6.3e12)}, V5E) == expected + again
    line = preflight.largest_line({32: Refused(9, "too much", 16.0 * GIB), 16: figures(15.8)}, V5E)
    assert line == "largest      none of the batches compiled (32, 16 per chip) fits"


def test_the_sentence_about_a_batch_that_does_not_fit() -> None:
    expected = "does not fit: batch 32 needs 21.30 GiB, but a program can use 15.75 GiB of a chip: lower --batch-size"
    assert preflight.verdict(CONFIG, V5E, 21.3 * GIB, 24) == expected + " (to 24, the largest found) or give --remat"
    assert preflight.verdict(PreflightConfig(remat=True), V5E, 21.3 * GIB, 0) == expected


@pytest.mark.parametrize(("length", "given", "expected"), [(128, 0, 20), (512, 0, 77), (8, 0, 2), (128, 125, 125)])
def test_predictions(length: int, given: int, expected: int) -> None:
    assert preflight.checked_predictions(PreflightConfig(max_seq_length=length, max_predictions=given)) == expected


@pytest.mark.parametrize(
    ("options", "rates"),
    [
        ({"preset": "base"}, (0.1, 0.1)),
        ({"preset": "mini"}, (0.0, 0.0)),
        ({"preset": "modern-base"}, (0.0, 0.0)),
        ({"preset": "base", "attention_dropout": 0.0}, (0.1, 0.0)),
        ({"preset": "modern-base", "dropout": 0.2}, (0.2, 0.0)),
    ],
)
def test_dropout_is_that_of_pretrain(options: dict[str, Any], rates: tuple[float, float]) -> None:
    encoder = preflight.encoder_config(PreflightConfig(**options))
    assert (encoder.hidden_dropout_prob, encoder.attention_probs_dropout_prob) == rates


def test_errors_are_reported_before_loading_anything() -> None:
    with pytest.raises(
        UserError, match="--max-predictions 126 is more than --max-seq-length 128 has room for: give 125 at most"
    ):
        preflight.main(PreflightConfig(max_predictions=126))
    with pytest.raises(UserError, match="unknown --topology 'v7'"):
        preflight.main(PreflightConfig(topology="v7"))


@pytest.mark.parametrize("missing", ["jax", "libtpu"])
def test_missing_packages_are_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else found("json"))
    with pytest.raises(UserError, match=r'preflight needs JAX and libtpu: pip install "clozemill\[preflight\]"'):
        preflight.main(CONFIG)


def test_another_keras_backend_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(backend=SimpleNamespace(backend=lambda: "tensorflow")))
    with pytest.raises(UserError, match="preflight needs its own process"):
        preflight.main(CONFIG)


def test_importing_it_loads_no_framework() -> None:
    code = "import sys, clozemill.trainers.planning.preflight; print(*{'jax', 'keras', 'tensorflow'} & set(sys.modules))"
    assert fresh("-c", code).stdout.strip() == ""


UPDATES = """
import json, sys, jax, numpy as np
from clozemill.trainers.planning.config import PreflightConfig
from clozemill.trainers.planning.preflight import encoder_config
from clozemill.trainers.planning import absent_step

sizes = {"preset": "tiny", "vocab_size": 64, "max_seq_length": 16, "dropout": 0, "attention_dropout": 0}
config = PreflightConfig(**sizes, precision="float32", optimizer=sys.argv[1])
random, results = np.random.Generator(np.random.Philox(1)), []
words = random.integers(5, 64, (4, 16), dtype=np.int32)
weights = np.array([[1, 1, 1]] * 3 + [[1, 0, 0]], np.float32)  # not the same number on both devices
batch = {
    "input_ids": words, "input_mask": np.ones_like(words), "segment_ids": np.zeros_like(words),
    "masked_lm_positions": np.array([[1, 4, 9]] * 4, np.int32), "masked_lm_ids": words[:, 5:8],
    "masked_lm_weights": weights, "next_sentence_labels": np.array([[0], [1], [1], [0]], np.int32),
}
for count in (1, 2):
    step = absent_step.make(config, encoder_config(config), jax.devices()[:count])
    random = np.random.Generator(np.random.Philox(2))
    values = [random.normal(0, 0.05, variable.shape).astype("float32") for variable in step.trained]
    fixed = [np.zeros(variable.shape, variable.dtype) for variable in step.fixed]
    compiled = absent_step.lowered(step, config, 3, 4 // count).compile()
    slots = [(0 * value,) * len(rule.moments) for value, rule in zip(values, step.rules)]
    losses = []
    for done in range(3):
        placed = jax.tree.map(jax.device_put, (values, slots, fixed, np.int32(done), batch), compiled.input_shardings[0])
        values, slots, metrics = compiled(*placed)
        losses.append(float(metrics[0] / metrics[1]))
    moments = [float(np.abs(first).sum()) for first, *_ in slots]
    results.append({"losses": losses, "moments": moments})
print(json.dumps(results))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX isn't installed")
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_devices_match_one(optimizer: str) -> None:
    """The step runs on CPU devices: sums over devices equal those of the complete batch."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    done = fresh("-c", UPDATES, optimizer, **flags)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert two["moments"] == pytest.approx(one["moments"], rel=1e-4, abs=1e-6)


SMALL = ("-m", "clozemill", "preflight", "--topology", "v5e:2x2", "--preset", "tiny", "--no-largest-batch")


@pytest.mark.slow
@needs_libtpu
@pytest.mark.parametrize(
    ("options", "attention"),
    [
        (("--attention-dropout", "0.1"), "plain"),
        (("--examples-per-row", "4"), "splash"),
        (("--preset", "modern-tiny", "--remat"), "splash"),
    ],
)
def test_a_small_step_compiles_for_a_real_topology(options: tuple[str, ...], attention: str) -> None:
    done = fresh(*SMALL, "--vocab-size", "512", "--batch-size", "8", *options)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(None, 1) for line in done.stdout.splitlines())
    assert lines["topology"].startswith("v5e:2x2, 4 chips") and lines["attention"].startswith(attention)
    assert lines["compiles"].startswith("yes")
    assert " 0 all-gather" in lines["collectives"] and "0 all-reduce" not in lines["collectives"]
    assert "TPUStrategy" in done.stdout and "tiny, batch 8, for v5e:2x2" in done.stderr


@pytest.mark.slow
@needs_libtpu
def test_the_report_of_a_too_large_step_states_the_needed_memory() -> None:
    done = fresh(*SMALL, "--vocab-size", str(1 << 20), "--batch-size", "512")
    assert done.returncode == 1, done.stderr
    assert "RESOURCE_EXHAUSTED" in done.stdout
    assert "does not fit: batch 512 needs " in done.stdout and "lower --batch-size or give --remat" in done.stdout
    assert "inf" not in done.stdout and "Traceback" not in done.stderr


@needs_libtpu
def test_a_shape_that_libtpu_rejects_is_a_user_error() -> None:
    done = fresh("-m", "clozemill", "preflight", "--topology", "v5e:3x2")
    assert done.returncode == 2 and done.stderr.startswith("clozemill: --topology v5e:3x2: libtpu says"), done.stderr
    assert done.stderr.count("\n") == 1
