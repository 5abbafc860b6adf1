"""Which file of a home is damaged, where something failed over Parquet: pyarrow's words name none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mulan_core.errors import UserError

_SIGNS = re.compile(r"parquet|thrift|corrupt|snappy|zstd|decompress|deserialize", re.IGNORECASE)
"""Of these pyarrow speaks when a file is damaged."""


def damage_behind(error: BaseException, folders: Sequence[Path]) -> UserError | None:
    """The sentence that names the damaged file behind an error; None where it has another cause.

    Args:
        error: what was raised, by whatever read the file, in a worker too.
        folders: where to look: prepared data, vectors.
    """
    if not any(_SIGNS.search(f"{type(cause).__name__} {cause}") for cause in _chain(error)):
        return None
    paths = [path for folder in folders for path in sorted(folder.rglob("*.parquet"))]
    for is_damaged in (_lacks_its_end, _cannot_be_read):  # what is quickly seen first
        for path in paths:
            if is_damaged(path):
                return UserError(f"{path} is damaged; {_remedy(path)}")
    return None


def folders_of(home: Path) -> list[Path]:
    """Where a home, and the working folder, have Parquet files."""
    workspaces = [*sorted((home / "workspaces").glob("*")), Path.cwd()]
    return [home / "embeddings", *(folder / ".mulan" / "data" for folder in workspaces)]


def _remedy(path: Path) -> str:
    if "embeddings" in path.parts:
        return "delete it and run this again: its vectors are made anew"
    return "delete it and run `mulan prepare`, which makes it anew"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__


def _lacks_its_end(path: Path) -> bool:
    import pyarrow.parquet as pq

    try:
        pq.read_metadata(path)
    except Exception:  # of several kinds, by what is wrong
        return True
    return False


def _cannot_be_read(path: Path) -> bool:
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            file.read_row_group(group)
    except Exception:
        return True
    return False
