"""What this machine has, found out cheaply."""

from __future__ import annotations

import ctypes
import os

# Each comes with the graphics driver: NVIDIA's on Linux and Windows, AMD's runtime for torch.
DRIVER_LIBRARIES = ("libcuda.so.1", "nvcuda.dll", "libamdhip64.so")


def has_graphics_driver() -> bool:
    """Whether there can be a CUDA device at all: without a driver, torch need not be asked, whose
    import takes longer than all else that a run does before its first frame."""
    for name in DRIVER_LIBRARIES:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False


def count_cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
