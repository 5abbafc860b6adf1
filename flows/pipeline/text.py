"""The stage ``text``: the texts judged, with Ray Data, apart from the audio: a changed rule decodes nothing again.

The rules run in tasks, a classifier in actors that hold it. Verdicts do not depend on how the rows are dealt, rows
stream in order, and memory does not grow with the catalogue.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.config import TextConfig
from mulan_core.data import shards
from mulan_core.data.tracks import open_manifest
from mulan_core.errors import UserError
from mulan_core.text.filters import NAME_COLUMNS
from mulan_core.text.judging import judge_tracks
from mulan_core.text.statistics import TextStatistics, count_words, write_report
from mulan_core.text.tokens import open_tokens
from mulan_core.towers.pretrained import locate

if TYPE_CHECKING:
    from flows.runtime.workspace import Workspace
    from mulan_core.text.classifier import TextClassifier

TRACKS_PER_BLOCK = 1000
"""Tracks judged by one task; the texts of so many fill a classifier's batches and no memory."""
JUDGED = pa.schema([pa.field("track_id", pa.string(), nullable=False), ("texts", pa.list_(shards.PREPARED_TEXT))])
"""Columns of ``texts.parquet``."""
ROWS = "rows.parquet"


def judge_catalogue(workspace: Workspace) -> dict[str, Any]:
    """Judge the texts of a workspace's catalogue into its ``texts``; see ``judge_texts``."""
    from flows.runtime.progress import bar  # here, as Ray's workers import this file and need neither
    from flows.runtime.stack import ray_for_stage

    config, folder = workspace.config, workspace.folder
    with ray_for_stage(), bar("text") as update:
        return judge_texts(
            (folder / config.catalogue).resolve(),
            workspace.texts,
            config.text,
            tokenizer=config.model.text.pretrained,
            root=folder,
            progress=update,
        )


def judge_texts(
    catalogue: Path,
    out: Path,
    config: TextConfig,
    *,
    tokenizer: str | None = None,
    root: Path = Path(),
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judge the texts of a catalogue.

    Args:
        catalogue: folder with ``manifest.parquet``.
        out: folder for ``texts.parquet`` (track_id and judged texts, in the manifest's order), ``report.json`` and
            ``report.md``; replaced as a whole once everything is written.
        config: the limits, and the classifier's folder.
        tokenizer: the text tower's weights, whose tokens the report counts; null, or one that does not open
            here, counts words.
        root: where relative paths of classifier and tokenizer begin.
        progress: called with (tracks done, tracks in all).

    Returns:
        The report (mulan_core.text.statistics).

    Raises:
        UserError: if the manifest is wrong, or the classifier does not open.
    """
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    num_tracks = _write_rows(catalogue / "manifest.parquet", building / ROWS)
    if config.lf_classifier:
        config = replace(config, lf_classifier=str((root / config.lf_classifier).resolve()))
    statistics, done = _statistics(tokenizer, root), 0
    with pq.ParquetWriter(building / shards.TEXTS, JUDGED) as file:
        for block in _judge(building / ROWS, config):
            file.write_table(block)
            statistics.add(block["texts"].to_pylist())
            done += len(block)
            if progress:
                progress(done, num_tracks)
    (building / ROWS).unlink()
    report = statistics.report()
    write_report(building, report)
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return report


def _write_rows(manifest: Path, path: Path) -> int:
    """Write what the filters need of a manifest, checked, a batch at a time; returns the number of rows."""
    with open_manifest(manifest) as opened:
        columns = [name for name in ("track_id", *NAME_COLUMNS, "texts") if name in opened.schema.names]
        schema = pa.schema([opened.schema.field(name) for name in columns])
        with pq.ParquetWriter(path, schema) as file:
            for batch in opened.batches:
                file.write_batch(batch.select(columns))
    return int(pq.read_metadata(path).num_rows)


def _judge(path: Path, config: TextConfig) -> Iterator[pa.Table]:
    """Judged blocks in the order of the rows."""
    # Ray's own reader takes a path for an address, in which ?, # and % mean something else.
    groups = [{"group": number} for number in range(pq.read_metadata(path).num_row_groups)]
    rows = (
        ray.data.from_items(groups, override_num_blocks=len(groups))
        .map_batches(lambda block: _read_group(path, block), batch_size=1, batch_format="pyarrow")
        .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
    )
    if config.lf_classifier is None:
        judged = rows.map_batches(lambda block: _judge_block(block, config), batch_size=None, batch_format="pyarrow")
    else:
        from mulan_core.text.classifier import TextClassifier

        TextClassifier.from_pretrained(config.lf_classifier)  # a wrong folder is told here in one sentence
        judged = rows.map_batches(
            _ClassifierActor,
            fn_constructor_args=(config.lf_classifier, config),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=config.num_actors),
            num_cpus=1,
        )
    judged.context.execution_options.preserve_order = True
    return iter(cast(Iterable[pa.Table], judged.iter_batches(batch_size=None, batch_format="pyarrow")))


def _read_group(path: Path, block: Any) -> pa.Table:
    return pq.ParquetFile(path).read_row_group(block["group"][0].as_py())


class _ClassifierActor:
    """Callable of the pipeline that holds the classifier."""

    def __init__(self, folder: str, config: TextConfig) -> None:
        from mulan_core.text.classifier import TextClassifier

        self._classifier, self._config = TextClassifier.from_pretrained(folder), config

    def __call__(self, block: Any) -> pa.Table:
        return _judge_block(block, self._config, self._classifier)


def _judge_block(block: Any, config: TextConfig, classifier: TextClassifier | None = None) -> pa.Table:
    texts = judge_tracks(block.to_pylist(), config, classifier)
    return pa.table({"track_id": block["track_id"], "texts": texts}, JUDGED)


def _statistics(tokenizer: str | None, root: Path) -> TextStatistics:
    if tokenizer is None:
        return TextStatistics(count_words, tokens="words, as the text tower names no weights")
    where = locate(tokenizer)
    where = str(root / where) if (root / where).is_dir() else where
    try:
        encode = open_tokens(where).encode
    except UserError:  # no network, say: training will need it, a count of tokens may do without
        return TextStatistics(count_words, tokens=f"words, as the tokenizer of {tokenizer} does not open here")
    return TextStatistics(lambda texts: [len(ids) for ids in encode(texts)], tokens=f"of {tokenizer}")
