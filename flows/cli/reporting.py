"""What the commands print: what prepare did, the evaluation beside chance, stages with their times, hits."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Column

from flows.pipeline.words import edits_words, mended_words, recall_words, served_words
from flows.runtime.terminal import Table, console, end_quietly, errors, words
from mulan_core.counts import counted

if TYPE_CHECKING:
    from mulan_core.evaluation.comparison import Comparison, Difference
    from serving.answers import Hit, SearchAnswer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
"""The option of every command that ``print_json`` serves."""


def print_json(value: Any) -> None:
    """Print what a machine reads, and nothing else."""
    try:
        print(json.dumps(value, indent=1, default=str), flush=True)  # noqa: T201
    except BrokenPipeError:
        end_quietly()


MAX_ROWS = 20
"""Rows of a table that grows with the catalogue; files and ``--json`` hold the rest."""
MAX_MOVED = 3
"""Classes and queries of a comparison that are printed for each side."""


def show_prepared(counts: dict[str, Any]) -> None:
    """Print what prepare counted and what it found changed."""
    from mulan_core.data.shards import QUARANTINE

    table = Table("", title="Prepared")
    table.add_column("count", justify="right")
    table.add_row("tracks in the manifest", f"{counts['tracks']:,}")
    for change, number in counts["changes"].items():
        table.add_row(f"  {change}", f"{number:,}")
    table.add_row("usable", f"{counts['usable']:,}")
    for split, number in counts["splits"].items():
        table.add_row(f"  {split}", f"{number:,}")
    for reason, number in counts["quarantined"].items():
        table.add_row(f"quarantined: {reason}", f"{number:,}")
    for what, number in counts.get("clips", {}).items():
        table.add_row(f"clips: {what}", f"{number:,}")
    table.add_row("hours of clips", f"{counts['hours']:,.2f}")
    for source, texts in counts["texts"].items():
        table.add_row(f"texts {source}: before -> after the filters", f"{texts['before']:,} -> {texts['after']:,}")
    console.print(table)
    if counts["quarantined"]:
        console.print(f"the files in quarantine, each with the reason: {Path(counts['prepared']) / QUARANTINE}")
    _show_not_taken(counts)


def _show_not_taken(report: dict[str, Any]) -> None:
    """Print what of a folder and of playlists was left out."""
    from mulan_core.data.listing import notes_of
    from mulan_core.data.playlist_match import notes_of_playlists

    playlists = report.get("playlists")
    notes = [*notes_of(report.get("left_out")), *(notes_of_playlists(playlists, MAX_ROWS) if playlists else ())]
    for note in notes:
        console.print(f"note: {note}")


def show_quarantine(prepared: Path) -> None:
    """Print the files that could not be used, on stderr: stdout may hold JSON."""
    import pyarrow.parquet as pq

    from mulan_core.data.shards import QUARANTINE

    rows = pq.read_table(prepared / QUARANTINE)
    table = Table("uri", "reason", "detail", title=f"Quarantined: {len(rows)} (all in {prepared / QUARANTINE})")
    for row in rows.slice(0, MAX_ROWS).to_pylist():
        table.add_row(row["uri"], row["reason"], row["detail"])
    errors.print(table)


def show_check(report: dict[str, Any]) -> None:
    """Print what the stages of `mulan run` would say of a manifest; why they would refuse it stands last."""
    from mulan_core.outlook import MIN_TRACKS

    table = Table("", title=report["manifest"])
    table.add_column("count", justify="right")
    table.add_row("rows", f"{report['rows']:,}")
    table.add_row("bad rows", f"{len(report['bad_rows']):,}")
    table.add_row("  of them ids that come twice", f"{report['duplicate_ids']:,}")
    for reason, number in report["reasons"].items():
        table.add_row(f"files: {reason}", f"{number:,}")
    if report["remote"]:
        table.add_row("files on servers, not opened", f"{report['remote']:,}")
    table.add_row("usable, by their headers", f"{report['usable']:,}")
    for split, number in report["splits"].items():
        table.add_row(f"  {split}", f"{number:,}")
    table.add_row("hours of clips", f"{report['hours']:,.2f}")
    for source, texts in report["texts"].items():
        table.add_row(f"texts {source}: before -> after the rules", f"{texts['before']:,} -> {texts['after']:,}")
    console.print(table)
    for row in report["bad_rows"][:MAX_ROWS]:
        for problem in row["problems"]:
            console.print(f"row {row['row']}, {problem}")
    for file in report["bad_files"][:MAX_ROWS]:
        console.print(f"{file['uri']}: {file['reason']}, {file['detail']}")
    _show_not_taken(report)
    for warning in report["warnings"][:MAX_ROWS]:
        console.print(f"note: {warning}")
    if max(len(report["bad_rows"]), len(report["bad_files"]), len(report["warnings"])) > MAX_ROWS:
        console.print("--json lists all")
    for note in report["notes"]:
        console.print(f"note: {note}")
    console.print(report["needs"])
    for refusal in report["refusals"]:
        console.print(words(("`mulan run` would refuse this: ", "red"), refusal))
    if report["few"]:
        console.print(
            f"with fewer than {MIN_TRACKS} usable tracks a training teaches little; search them with the demo's model "
            "(`mulan demo --exit` makes it where there is none): "
            f"`mulan prepare --manifest {shlex.quote(report['manifest'])}` with the options that you gave here, then "
            "`mulan index --model demo/champion`"
        )
        if report["proposal"] or report["advice"]:
            console.print("or train on them all the same:")
    if report["proposal"]:
        console.print(
            f"as it is, it passes with these lines in a file that you give as --params:\n\n{report['proposal']}"
        )
    if report["advice"]:
        console.print(report["advice"])


def show_index(built: dict[str, Any]) -> None:
    """Print what a build measured, and what it changed."""
    if built["built"]:
        words = f"{built['index_type']}, recall@10 {recall_words(built)}"
    else:
        words = ", ".join(filter(None, ["stood already", mended_words(built)]))
    status = "champion" if built["promoted"] else "built, not promoted"
    console.print(f"version {built['version']} ({status}), {built['collection']}: {words}")
    if built["judged_on"]:
        console.print(f"the gate judged this model on the tracks of {built['judged_on']}, not on these")
    changes = ", ".join(f"{number:,} {change}" for change, number in built["changes"].items())
    console.print(f"{counted(built['count'], 'track')}: {changes} since the collection that was live")
    if "windows" in built:
        console.print(f"{counted(built['windows'], 'window')} beside them")
    if built.get("reads_filtered"):
        console.print(
            "the graph loses tracks under filters, so filtered searches read all tracks that pass, which is slow; "
            "with a higher index.hnsw_from the index is exact instead"
        )
    show_edits(built["edits"])
    console.print(served_words(built))


def show_edits(edits: dict[str, Any] | None) -> None:
    """Print what the API's edits came to; nothing where there are none."""
    for sentence in edits_words(edits):
        console.print(sentence)


def show_evaluation(report: dict[str, Any]) -> None:
    """Print every metric of a report beside chance, with its 95 % interval."""
    about = report["set"]
    tracks = about["counts"].get("test_tracks")
    table = Table("metric", title=f"Evaluation: {about['title']}" + (f", {counted(tracks, 'track')}" if tracks else ""))
    for heading in ("value", "95 % interval", "chance"):
        table.add_column(heading, justify="right")
    for name, value in report["metrics"].items():
        low_high, chance = report["intervals"].get(name), report["chance"].get(name)
        table.add_row(
            name,
            f"{value:.3f}",
            f"{low_high[0]:.3f} - {low_high[1]:.3f}" if low_high else "",
            f"{chance:.3f}" if chance is not None else "",
        )
    console.print(table)
    for note in report["notes"]:
        console.print(f"note: {note}")


def show_gate(gate: dict[str, Any]) -> None:
    """Print the gate's verdict with its reasons and notes; it stands last, as it decides what happens."""
    console.print(f"gate: version {gate['version']} {'passed' if gate['passed'] else 'is refused'}")
    for reason in (*gate["reasons"], *gate["notes"]):
        console.print(f"  {reason}")


def show_evaluations(result: dict[str, Any]) -> None:
    """Print what was measured of one model on several sets, and where the reports are."""
    model = result["model"]
    console.print(f"{model['name']} ({model['kind']}, {model['embedding_dim']} dimensions)")
    for report in result["sets"].values():
        show_evaluation(report)
    for note in result["notes"]:
        console.print(f"note: {note}")
    if result["out"]:
        console.print(f"reports and their evidence: {result['out']}")
    if result["logged"]:
        sets = ", ".join(result["logged"])
        console.print(f"logged: {sets}, in MLflow run {model['run_id']}; `mulan ui` shows it")
    elif not result["out"]:
        console.print("measured in part, so nothing is logged; --out DIR writes it")


def show_comparison(comparison: Comparison) -> None:
    """Print two models beside each other: every metric, the classes and queries that moved most, and what stands."""
    title = f"a: {comparison.name_a}, b: {comparison.name_b}, on {comparison.about.get('title', 'an unnamed set')}"
    table = Table(Column("metric", overflow="fold"), title=title, title_justify="left")
    for heading in ("a", "b", "b - a", "95 % interval", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading, entries in comparison.grouped():
        table.add_row(heading, style="dim")
        for number, (label, difference) in enumerate(entries, start=1):
            style = "bold" if difference.stands else ""
            table.add_row(f"  {label}", *_difference(difference), style=style, end_section=number == len(entries))
    console.print(table)
    for word, classes in zip(("gained", "lost"), comparison.moved_classes(), strict=True):
        _show_moved(f"classes that {word} most, by ROC-AUC", [change.difference for change in classes])
    for kind, sides in comparison.moved_queries().items():
        for word, queries in zip(("gained", "lost"), sides, strict=True):
            _show_moved(f"queries by {kind} that {word} most, by AP", [change.difference for change in queries])
    for note in comparison.notes:
        console.print(f"note: {note}")
    console.print(comparison.verdict())


def _show_moved(heading: str, moved: Sequence[Difference]) -> None:
    each = "; ".join(f"{difference.name} {difference.a:.3f} to {difference.b:.3f}" for difference in moved[:MAX_MOVED])
    if each:
        console.print(f"{heading}: {each}")


def _difference(difference: Difference) -> list[str]:
    interval = f"{difference.interval[0]:+.3f} to {difference.interval[1]:+.3f}" if difference.interval else ""
    stands = ("better" if difference.gain > 0 else "worse") if difference.stands else ""
    return [f"{difference.a:.3f}", f"{difference.b:.3f}", f"{difference.value:+.3f}", interval, stands]


def show_stages(stages: dict[str, float], seconds: float) -> None:
    """Print how long each stage took, and all of them with what lies between and around them."""
    table = Table("stage", title="Time")
    table.add_column("seconds", justify="right")
    for stage, stage_s in stages.items():
        table.add_row(stage, f"{stage_s:.1f}")
    stages_s = sum(stages.values())
    table.add_row("around them", f"{seconds - stages_s:.1f}")
    table.add_row(f"all, {seconds / stages_s:.2f} times the stages", f"{seconds:.1f}", style="bold")
    console.print(table)


def show_hits(query: str, answer: SearchAnswer) -> None:
    """Print the hits of a search with the release that gave them and the time it took."""
    table = Table("", "track", "title", "labels", title=f'"{query}"')
    table.add_column("score", justify="right")
    table.add_column("match", justify="right")
    has_spans = any(hit["start_s"] is not None for hit in answer["hits"])  # where the index keeps windows
    if has_spans:
        table.add_column("where", justify="right")
    for rank, hit in enumerate(answer["hits"], start=1):
        labels = ", ".join(label.partition(":")[2] or label for label in hit["labels"])
        match = "" if hit["match"] is None else f"{hit['match']:.0%}"
        cells = [str(rank), hit["track_id"], hit["title"], labels, f"{hit['score']:.3f}", match]
        table.add_row(*cells, *([_span(hit)] if has_spans else []))
    console.print(table)
    if answer["no_good_match"]:
        console.print("no good match: the catalogue seems to have nothing of the kind")
    timing, release = answer["timing_ms"], answer["release"]
    console.print(
        f"release {release['model_version']} ({release['collection']}), {timing['total']:.0f} ms "
        f"(encode {timing['encode']:.0f}, search {timing['search']:.0f})",
    )


def _span(hit: Hit) -> str:
    """The window that fits best, as a player shows times: 1:05-1:15."""
    ends = (hit["start_s"], hit["end_s"])
    return "-".join(f"{int(end // 60)}:{int(end % 60):02}" for end in ends if end is not None)


def show_study(result: dict[str, Any]) -> None:
    """Print an ablation: a line for each row and metric, so that no interval is cut, and in words what stands."""
    from mulan_core.evaluation.report import PAPER, ROWS, ablation_columns

    metrics = {name for row in result["rows"] for name in row["metrics"]}
    for heading, columns in ablation_columns(metrics):
        table = Table("metric", Column("trained on", overflow="fold"), title=heading, title_justify="left")
        has_paper = any(
            paper_column in PAPER.get(row["name"], {}) for row in result["rows"] for *_, paper_column in columns
        )
        for name in ("mean", "95 % interval", *(["paper"] if has_paper else [])):
            table.add_column(name, justify="right", no_wrap=True)
        for name, metric, paper_column in columns:
            best = max(row["metrics"].get(metric, 0.0) for row in result["rows"])
            for number, row in enumerate(result["rows"]):
                value, interval = row["metrics"].get(metric), row["intervals"].get(metric)
                paper = PAPER.get(row["name"], {}).get(paper_column or "")
                table.add_row(
                    "" if number else name,
                    ROWS.get(row["name"], row["name"]),
                    "" if value is None else f"{value:.3f}",
                    f"{interval[0]:.3f} - {interval[1]:.3f}" if interval else "",
                    *([] if paper is None else [f"{paper:.3f}"]),
                    style="bold" if value == best else "",
                    end_section=number == len(result["rows"]) - 1,
                )
        console.print(table)
    console.print(result["words"])
    console.print(f"MLflow run {result['run_id']} holds the page (ablation.html); its children are the runs")


def show_search(result: dict[str, Any]) -> None:
    """Print a search's trials, the best first, and its numbers as a part of params.yaml."""
    table = Table(Column("numbers", overflow="fold"), title=f"{result['metric']} on the validation split")
    for name in ("score", "95 % interval", "steps"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in result["trials"]:
        low_high = row["interval"]
        interval = f"{low_high[0]:.3f} - {low_high[1]:.3f}" if low_high else ""
        table.add_row(row["name"], f"{row['score']:.3f}", interval, f"{row['steps']:,}")
    console.print(table)
    console.print(result["verdict"])
    if result["params"]:
        console.print(result["params"])
    console.print(f"MLflow run {result['run_id']} holds the page (search.html); its children are the trials")
