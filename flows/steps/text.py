"""Judge a catalogue's texts, with a Ray Data pipeline, apart from the audio: a changed rule decodes nothing again.

The rules run in tasks, a classifier in actors that hold it. Verdicts do not depend on how the rows are dealt.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import ray.data

from mulan_core.config import TextConfig
from mulan_core.data import shards
from mulan_core.data.tracks import read_manifest
from mulan_core.text.filters import NAME_COLUMNS
from mulan_core.text.judging import judge_tracks
from mulan_core.text.statistics import TextStatistics, count_words, write_report
from mulan_core.towers.warm_start import load_tokenizer

if TYPE_CHECKING:
    from mulan_core.text.classifier import TextClassifier

TRACKS_PER_BLOCK = 1000
"""Tracks judged by one task; the texts of so many fill a classifier's batches and no memory."""


def judge_texts(
    catalogue: Path,
    out: Path,
    config: TextConfig,
    *,
    tokenizer: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Judge the texts of a catalogue.

    Args:
        catalogue: folder with ``manifest.parquet``.
        out: folder for ``texts.parquet`` (track_id and judged texts, in the manifest's order), ``report.json`` and
            ``report.md``; replaced as a whole once everything is written.
        config: the limits, and the classifier's folder.
        tokenizer: the text tower's weights, whose tokens the report counts; null counts words.
        progress: called with (tracks done, tracks in all).

    Returns:
        The report (mulan_core.text.statistics).

    Raises:
        UserError: if the manifest is wrong, or the classifier or the tokenizer does not open.
    """
    tracks = read_manifest(catalogue / "manifest.parquet")
    columns = [name for name in ("track_id", *NAME_COLUMNS, "texts") if name in tracks.column_names]
    rows = tracks.select(columns).append_column("row", pa.array(range(len(tracks)), pa.int64()))
    blocks = [rows.slice(start, TRACKS_PER_BLOCK) for start in range(0, len(rows), TRACKS_PER_BLOCK)]
    statistics = _statistics(tokenizer)
    judged: list[pa.Table] = []
    done = _judge(ray.data.from_arrow(blocks), config).iter_batches(batch_size=None, batch_format="pyarrow")
    for block in cast(Iterable[pa.Table], done):
        judged.append(block)
        statistics.add(block["texts"].to_pylist())
        if progress:
            progress(sum(map(len, judged)), len(tracks))
    table = pa.concat_tables(judged).sort_by("row").drop_columns("row")
    report = statistics.report()
    _write(out, table, report)
    return report


def _judge(rows: ray.data.Dataset, config: TextConfig) -> ray.data.Dataset:
    if config.lf_classifier is None:
        return rows.map_batches(lambda block: _judge_block(block, config), batch_size=None, batch_format="pyarrow")
    from mulan_core.text.classifier import TextClassifier

    folder = Path(config.lf_classifier).resolve()
    TextClassifier.from_pretrained(folder)  # a wrong folder is told here in one sentence
    return rows.map_batches(
        _ClassifierActor,
        fn_constructor_args=(str(folder), config),
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=config.num_actors),
        num_cpus=1,
    )


class _ClassifierActor:
    """Callable of the pipeline that holds the classifier."""

    def __init__(self, folder: str, config: TextConfig) -> None:
        from mulan_core.text.classifier import TextClassifier

        self._classifier, self._config = TextClassifier.from_pretrained(folder), config

    def __call__(self, block: Any) -> pa.Table:
        return _judge_block(block, self._config, self._classifier)


def _judge_block(block: Any, config: TextConfig, classifier: TextClassifier | None = None) -> pa.Table:
    texts = judge_tracks(block.to_pylist(), config, classifier)
    judged = pa.array(texts, pa.list_(shards.PREPARED_TEXT))
    return pa.table({"row": block["row"], "track_id": block["track_id"], "texts": judged})


def _statistics(tokenizer: str | None) -> TextStatistics:
    if tokenizer is None:
        return TextStatistics(count_words, tokens="words, as the text tower names no weights")
    opened = load_tokenizer(tokenizer)

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in opened(list(texts), add_special_tokens=False, verbose=False)["input_ids"]]

    return TextStatistics(lambda texts: count(texts) if texts else [], tokens=f"of {tokenizer}")


def _write(out: Path, table: pa.Table, report: dict[str, Any]) -> None:
    building = out.with_name(f".{out.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    pq.write_table(table, building / shards.TEXTS)
    write_report(building, report)
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
