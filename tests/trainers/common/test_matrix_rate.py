"""The rate of matrix products is a plausible one."""

from clozemill.trainers.common.matrix_rate import measured_flops


def test_the_rate_is_that_of_a_computer() -> None:
    assert 1e7 < measured_flops() < 1e15
