"""Hosts and peaks of TPU topologies, by hand."""

import pytest

from clozemill.pipelines.common.errors import UserError
from clozemill.trainers.common.tpu_generations import parse_topology


@pytest.mark.parametrize(
    ("name", "hosts", "tflops"),
    [
        ("v5e:1", None, None),
        ("v5e:1x1", 1, 197.0),
        ("v5e:2x4", 1, 197.0),
        ("v5e:4x4", 4, 197.0),
        ("v6e:2x4", 1, 918.0),
        ("v4:2x2x1", 1, 275.0),
        ("v4:2x2x4", 4, 275.0),
        ("v5p:2x2x2", 2, 459.0),
        ("v3:2x2", 1, 123.0),
        ("v3:4x4", 4, 123.0),
        ("v2:2x2", 1, 45.0),
    ],
)
def test_hosts_and_peaks(name: str, hosts: int | None, tflops: float | None) -> None:
    if hosts is None:
        with pytest.raises(UserError, match="a shape of v5e has 2 axes"):
            parse_topology(name)
    else:
        topology = parse_topology(name)
        assert (topology.hosts, topology.chip_tflops) == (hosts, tflops)
