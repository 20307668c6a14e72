"""The arithmetic of the benchmark of a device on literals, and, among the slow tests, its checks on a CPU."""

from collections import Counter
from pathlib import Path

import pytest

from tests.benchmarks import device
from tests.trainers import datasets


def test_device_seconds() -> None:
    """Operations of the host, and lanes that repeat those of the streams, don't count."""
    lanes = {(1, 10): "Stream #14(Compute)", (1, 11): "XLA Modules", (2, 10): "python", (3, 5): "XLA Ops"}
    names = {1: "/device:GPU:0", 2: "/host:CPU", 3: "/device:TPU:0"}
    events = [{"ph": "M", "pid": pid, "name": "process_name", "args": {"name": name}} for pid, name in names.items()]
    events += [
        {"ph": "M", "pid": pid, "tid": tid, "name": "thread_name", "args": {"name": name}} for (pid, tid), name in lanes.items()
    ]
    events += [
        {"ph": "X", "pid": pid, "tid": tid, "name": f"operation {pid}", "dur": 250_000}
        for pid, tid in [(1, 10), (1, 10), (1, 11), (2, 10), (3, 5)]
    ]
    assert device.device_seconds(events) == {"operation 1": 0.5, "operation 3": 0.25}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cudnn_generated_fort_native_sdpa_sm90_flash_bprop_wgmma", "attention kernel"),
        ("splash_mha_fwd_segmented", "attention kernel"),
        ("nvjet_hsh_128x256_64x4_2x1_v_bz_coopB_NNT", "matrix products"),
        ("loop_dot_fusion.2", "matrix products"),
        ("MemcpyD2D", "copies"),
        ("input_transpose_fusion_1", "copies"),
        ("input_reduce_fusion_3", "sums and norms"),
        ("loop_multiply_fusion", "element-wise"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("rng", "others"),
    ],
)
def test_kinds_of_operations(name: str, kind: str) -> None:
    assert device.kind_of(name) == kind


def test_the_profile_is_a_table_of_shares() -> None:
    lines = device.profile_lines(Counter({"nvjet_a": 3.0, "gemm_b": 3.0, "loop_add_fusion": 2.0}), most=2)
    assert [line.split("  ")[0] for line in lines[1:]] == ["matrix products", "element-wise", "nvjet_a", "gemm_b"]
    assert [line.split()[-2] for line in lines[1:]] == ["75.0", "25.0", "37.5", "37.5"]
    assert device.profile_lines(Counter()) == ["no operations of a GPU or TPU in the profile"]


def test_cells() -> None:
    row = {"dataset": "d", "batch_size": 64, "attention_kernel": "auto"}
    speed = {"examples_per_second": 1234.5, "tokens_per_second": 5e5, "input_share": 0.013}
    assert device.cells(row | speed | {"mfu": 0.512}) == ["d", "64", "auto", "1,234", "500,000", "51.2 %", "1.3 %"]
    assert device.cells(row | {"error": "out of memory"})[-1] == "out of memory"
    assert len(device.cells(row | speed)) == len(device.HEAD)


@pytest.mark.slow
def test_a_run_where_the_device_is_a_cpu(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "data").mkdir()
    datasets.write(tmp_path / "data", [[30, 40]], [24])
    words = ["--data", str(tmp_path / "data"), "--preset", "tiny", "--batch-sizes", "4", "--steps", "3"]
    assert device.main([*words, "--output", str(tmp_path / "figures.json")]) == 0
    told = capsys.readouterr().out
    assert "equality: device, attention plain: losses of 8 steps within 0.0e+00 of the CPU's (bound 0.0001)" in told
    assert "no operations of a GPU or TPU in the profile" in told and (tmp_path / "figures.json").exists()
