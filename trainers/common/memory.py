"""Tunes the memory allocator of the C library for training on a CPU."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


def keep_freed() -> bool:
    """Make glibc keep freed memory for later allocations. Returns False if the C library has no mallopt.

    TensorFlow allocates a new buffer for every array. By default glibc maps large ones from the kernel and unmaps them at
    once, so the kernel clears every page on first write: half the CPU time of a training step of a small model. Keeping
    the memory raises the peak of a process by about a fifth.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 << 20)])
