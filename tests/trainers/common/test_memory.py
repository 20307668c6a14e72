"""Freed memory is kept by the process, so that later allocations aren't cleared page by page."""

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from clozemill.trainers.common import memory
if sys.argv[1] == "kept":
    assert memory.keep_freed()
for count in (1, 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        np.ones(24 << 18, np.float32)  # 24 MB
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return the page faults of twenty arrays of 24 MB, allocated one after another."""
    return int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library isn't glibc")
def test_freed_memory_is_reused() -> None:
    assert faults("kept") < faults("given back") / 10
