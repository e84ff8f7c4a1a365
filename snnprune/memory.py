"""How much memory has been needed so far."""

from __future__ import annotations

import sys


def peak_memory() -> int | None:
    """The largest resident set of this process so far, in bytes; None where nobody tells."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def peak_gpu_memory() -> int | None:
    """The most that torch has had of the current GPU, in bytes; None where none is in use.

    torch is asked only if somebody has imported it: importing it takes seconds.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return None
    peak: int = torch.cuda.max_memory_allocated()
    return peak
