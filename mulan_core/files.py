"""Local files: what may stand in the place of one that is to be read, and one that is written whole or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def why_no_file(path: str | Path) -> str | None:
    """Why a path is no file that can be read from its start to its end, as the begin of a sentence; None for one."""
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return f"there is no file {path}"
    except OSError as error:  # a name that is too long, a folder that may not be looked into
        return f"cannot look for {path}: {error.strerror}"
    except ValueError:
        return f"{str(path)!r} holds a zero byte"
    if stat.S_ISDIR(mode):
        return f"{path} is a folder, and a file is needed"
    if not stat.S_ISREG(mode):  # opening a pipe would wait for whoever writes to it
        return f"{path} is a pipe, a socket or a device, and a file is needed"
    return None


def write_whole(path: Path, text: str) -> None:
    """Replace a small file: whoever reads it meanwhile, or after a crash, finds all of the old one or of the new."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
