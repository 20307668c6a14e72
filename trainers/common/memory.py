"""How the C library hands out memory while a model trains on a CPU."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def keep_freed() -> bool:
    """Has glibc keep memory that was freed, for what is allocated next; False where there is no such call.

    TensorFlow allocates every array anew. By default glibc takes large ones from the kernel and gives them back at once, so
    each is cleared page by page when it is written for the first time: half the CPU time of a training step of a small model.
    A process holds about a fifth more memory at its peak then.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 << 20)])
