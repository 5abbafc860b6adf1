"""The clips of one split by number, read from their shards one row group at a time.

A split of any size costs memory for its small columns and for the row groups in use. Rows are numbered in
shard order, from 0.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mulan_core.data.shards import shard_paths


class Split:
    """Rows of a split.

    Args:
        prepared: the prepared folder.
        split: ``train``, ``valid`` or ``test``.
        columns: what ``row`` can return.
        keep_groups: row groups that stay in memory, the last used.

    Raises:
        UserError: if the folder holds no shard of that split.
    """

    def __init__(self, prepared: str | Path, split: str, columns: list[str], *, keep_groups: int = 64) -> None:
        self._files = [pq.ParquetFile(path, memory_map=True) for path in shard_paths(prepared, split)]
        self._columns, self.keep_groups = columns, keep_groups
        self._groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        sizes = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._first = np.concatenate([[0], np.cumsum(sizes)])
        self._loaded: OrderedDict[int, pa.Table] = OrderedDict()

    def __len__(self) -> int:
        return int(self._first[-1])

    @property
    def rows_of_group(self) -> int:
        """Rows of the largest row group."""
        return int(np.diff(self._first).max())

    def row(self, number: int, *names: str) -> tuple[Any, ...]:
        """Values of one clip, by names of columns."""
        group = int(np.searchsorted(self._first, number, side="right")) - 1
        if group in self._loaded:
            self._loaded.move_to_end(group)
        else:
            while len(self._loaded) >= max(1, self.keep_groups):
                self._loaded.popitem(last=False)
            file, group_in_file = self._groups[group]
            self._loaded[group] = file.read_row_group(group_in_file, columns=self._columns)
        index = number - int(self._first[group])
        return tuple(self._loaded[group].column(name)[index].as_py() for name in names)

    def column(self, *names: str) -> pa.ChunkedArray:
        """A whole column; of a nested one the parts that are named, such as ``texts.list.element.source``."""
        tables = [file.read(columns=list(names)) for file in self._files]
        return pa.concat_tables(tables).column(0)

    def sources(self, *, use_filtered: bool) -> dict[str, NDArray[np.bool_]]:
        """Source -> whether each track has a text of it, (N,).

        Args:
            use_filtered: only texts that the filters kept count; False counts all but empty ones.
        """
        texts = self.column("texts.list.element.source", "texts.list.element.drop")
        masks: dict[str, NDArray[np.bool_]] = {}
        first = 0
        for chunk in texts.chunks:
            parts = chunk.flatten()
            drop = parts.field("drop")
            drawable = pc.is_null(drop) if use_filtered else pc.fill_null(pc.not_equal(drop, "empty"), True)
            rows = np.asarray(pc.list_parent_indices(chunk))[np.asarray(drawable)] + first
            names = np.asarray(pc.filter(parts.field("source"), drawable))
            for source in np.unique(names):
                masks.setdefault(str(source), np.zeros(len(self), bool))[rows[names == source]] = True
            first += len(chunk)
        return masks
