"""Seconds per stage, for the summary. They are never part of a dataset's bytes."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Stopwatch:
    """A sum of the seconds spent in `with watch.time("stage"):` blocks."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def time(self, stage: str) -> Iterator[None]:
        """Time a block, even if it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin


def cores(root: str = "/") -> int:
    """Return the number of cores that this process may use, by its affinity and the quota of a container.

    root: the folder that holds `sys`.
    """
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    group = Path(root, "sys/fs/cgroup")
    for files in ((group / "cpu.max",), (group / "cpu/cpu.cfs_quota_us", group / "cpu/cpu.cfs_period_us")):
        words = [word for file in files if file.exists() for word in file.read_text().split()]
        if len(words) == 2 and all(map(str.isdigit, words)):  # "max" or -1: no quota
            found = min(found, max(1, math.ceil(int(words[0]) / int(words[1]))))
    return found
