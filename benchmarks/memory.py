"""Peak memory of a call, for the benchmarks beside it: of the process on Linux, of the allocator on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch


def peak_bytes(call: Callable[[], object], device: str) -> int:
    """Most memory that was in use during ``call``, above what was in use before, bytes.

    Call it in a fresh process, where no memory lies about that an earlier call has left.
    """
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark to what is resident now
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024
