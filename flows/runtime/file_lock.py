"""Locks on files: the kernel gives one back when its owner dies, however it dies. Whoever looks keeps nobody out."""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO, Any

TRIES = 5
"""Who looks whether the lock is held holds it for a moment; so often it is tried before another counts as the owner."""


def try_lock(lock: IO[Any], *, shared: bool = False) -> bool:
    """Take a file's lock, to own it or (shared) beside others who do not; False where somebody owns it.

    On a file system without locks it is always had.
    """
    for left in range(TRIES, 0, -1):
        try:
            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if left > 1 and not shared:
                time.sleep(0.05)
        except OSError:  # a file system without locks
            return True
        else:
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether somebody owns a file's lock; not where there is no such file."""
    try:
        with path.open("rb") as file:
            return not try_lock(file, shared=True)
    except OSError:  # nobody ever was there
        return False
