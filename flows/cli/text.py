"""The commands ``mulan text``: label lines, train the classifier that filters LF text, judge lines, report."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from flows.cli.catalogue import CatalogueName, look
from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import Count, number
from flows.runtime.terminal import Table, console, words
from mulan_core.config import Config, load_config
from mulan_core.errors import UserError

if TYPE_CHECKING:
    from mulan_core.text.labelling import Labelling

app = typer.Typer(help="Text mining: label, train, judge, report.", no_args_is_help=True)
Params = Annotated[Path | None, typer.Option(help="The numbers. Default: params.yaml of this folder, if it has one.")]

KEYS = "y describes music   n does not   s skip   u undo   q quit"


@app.command()
def label(
    file: Annotated[Path, typer.Argument(help="Lines to label: a text file, or a table with LF texts.")],
    out: Annotated[Path, typer.Option(help="File of labels; what it holds is not asked again.")],
    limit: Annotated[int | None, number(Count, "Stop after this many.")] = None,
    params: Params = None,
) -> None:
    """Label lines as describing music or not, one key each; every answer is saved at once.

    Lines that the rule is least sure of come first, mixed with clear ones. Lines that the rules drop by their form
    (links, boilerplate, length) are not asked: no classifier sees them.

    Example: mulan text label .mulan/data/texts/texts.parquet --out labels.jsonl
    """
    from mulan_core.text.labelling import Labelling, read_lines

    session = Labelling(read_lines(file), out, _config(params).text)
    console.print(f"{len(session.labels)} labelled in {out}, {len(session.queue)} left to ask")
    console.print(KEYS if session.queue else "nothing is left to ask")
    stop = len(session.labels) + limit if limit else None
    while session.current is not None and (stop is None or len(session.labels) < stop):
        _ask(session)
        key = _read_key()
        if key in ("q", ""):
            break
        if key == "u":
            session.undo()
        else:
            session.answer({"y": True, "n": False, "s": None}[key])
    descriptions = sum(session.labels.values())
    console.print(
        f"{len(session.labels)} labelled: {descriptions} describe music, {len(session.labels) - descriptions} do not; "
        f"next: mulan text train {out} --out DIR",
    )


@app.command()
def train(
    labels: Annotated[list[Path], typer.Argument(help="Files of labels (mulan text label).")],
    out: Annotated[Path, typer.Option(help="Folder to write the classifier into.")],
    params: Params = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune the classifier on labelled lines, calibrate it and choose its threshold; logged to MLflow.

    Example: mulan text train labels.jsonl --out models/lf
    """
    from mulan_core.text.labelling import read_labels

    config = _config(params).text_classifier
    lines = {text: describes for path in labels for text, describes in read_labels(path).items()}

    from flows.pipeline.text_classifier import train_lf_classifier
    from flows.runtime.progress import bar
    from flows.runtime.project import code_version
    from flows.runtime.settings import read_settings

    with bar("train") as update:
        report = train_lf_classifier(
            lines,
            out,
            config,
            mlflow_uri=read_settings().mlflow_uri,
            tags={"mulan.git_commit": code_version()},
            progress=update,
        )
    if as_json:
        print_json(report)
    else:
        _show_training(report, out)


@app.command()
def judge(
    file: Annotated[Path, typer.Argument(help="Lines to judge: a text file, or a table with LF texts.")],
    classifier: Annotated[
        Path | None, typer.Option(help="Folder of a classifier. Default: text.lf_classifier.")
    ] = None,
    source: Annotated[Literal["sf", "lf"], typer.Option(help="The source whose rules judge.")] = "lf",
    params: Params = None,
    as_json: AsJson = False,
) -> None:
    """Show what the filters do with each line, and why.

    Example: mulan text judge comments.txt --classifier models/lf
    """
    from mulan_core.text.labelling import read_lines

    config, lines = _config(params).text, read_lines(file)
    verdicts = _verdicts(lines, source, config, classifier or config.lf_classifier)
    if as_json:
        print_json(verdicts)
        return
    measure = next((name for name in ("probability", "score") if name in verdicts[0]), None)
    table = Table("", "reason", *([measure] if measure else []), "text", box=None)
    for verdict in verdicts:
        mark = words(("drop", "red") if verdict["drop"] else ("keep", "green"))
        number = verdict.get(measure) if measure else None
        numbers = [f"{number:.2f}" if number is not None else ""] if measure else []
        table.add_row(mark, verdict["drop"] or "", *numbers, verdict["text"])
    console.print(table)
    kept = sum(not verdict["drop"] for verdict in verdicts)
    console.print(f"{kept} of {len(verdicts)} kept")


@app.command()
def report(
    manifest: Annotated[
        Path | None, typer.Option(help="The table that was prepared. Default: the one used last.")
    ] = None,
    params: Annotated[Path | None, typer.Option(help="YAML of what differs from its numbers.")] = None,
    catalogue: CatalogueName = None,
    as_json: AsJson = False,
) -> None:
    """Print tokens and texts per track before and after the filters, with reasons and samples (the paper's Table 2).

    Example: mulan text report
    """
    from mulan_core.text.statistics import read_report, to_markdown

    _, workspace, _ = look(manifest, catalogue, params)
    counted = read_report(workspace.texts)
    if as_json:
        print_json(counted)
        return
    console.print(to_markdown(counted))


def _config(params: Path | None) -> Config:
    if params is None and Path("params.yaml").is_file():
        params = Path("params.yaml")
    return load_config(params) if params else Config()


def _ask(session: Labelling) -> None:
    from mulan_core.text.music_score import music_score

    line, done = str(session.current), len(session.labels)
    console.print(words((f"\n{done} done, {session.left} left, rule {music_score(line):+.2f}", "dim")))
    console.print(line)


def _read_key() -> str:
    """The next key that means something: without Enter on a terminal, one character each from a pipe; "" at its end."""
    while True:
        if sys.stdin.isatty():
            import click

            key = click.getchar()
        else:
            key = sys.stdin.read(1)
        if key in ("\x03", "\x04"):
            return "q"
        if key == "" or key.lower() in "ynsuq":
            return key.lower()


def _show_training(report: dict[str, Any], out: Path) -> None:
    from mulan_core.text.classifier_training import choose_threshold

    held_out = report["held_out"]
    title = f"{held_out['lines']} held-out lines, {held_out['descriptions']} of them descriptions"
    table = Table("precision at least", "threshold", "precision", "recall", title=title)
    for target in sorted({0.8, 0.9, 0.95, 0.99, report["config"]["precision"]}):
        try:
            point = choose_threshold(report["curve"], target)
        except UserError:
            table.add_row(f"{target:g}", "-", "not reached", "")
            continue
        chosen = "  (chosen)" if target == report["config"]["precision"] else ""
        table.add_row(
            f"{target:g}", f"{point['threshold']:.3f}{chosen}", f"{point['precision']:.3f}", f"{point['recall']:.3f}"
        )
    console.print(table)
    console.print(
        f"{len(report['passes'])} passes over {report['lines'] - held_out['lines']} lines, held-out loss "
        f"{held_out['loss']:.3f}, calibrated {held_out['calibrated_loss']:.3f}; MLflow run {report['run_id']}",
        f"use it: set text.lf_classifier to {out} in params.yaml",
        sep="\n",
    )


def _verdicts(lines: list[str], source: str, config: Any, folder: Path | str | None) -> list[dict[str, Any]]:
    """Verdict of each line; with the classifier's probability or the rule's score where that decided."""
    from mulan_core.text.filters import drop_reason, form_reason, normalised
    from mulan_core.text.music_score import music_score

    if source == "sf":
        return [{"text": line, "drop": drop_reason("sf", line, config)} for line in lines]
    reasons = [form_reason("lf", line, config) for line in lines]
    asked = [line for line, reason in zip(lines, reasons, strict=True) if reason is None]
    if folder:
        from mulan_core.text.classifier import TextClassifier

        opened = TextClassifier.from_pretrained(folder)
        name, least = "probability", opened.threshold if config.lf_threshold is None else config.lf_threshold
        numbers = opened.predict(asked, batch_size=config.batch_size).tolist()
    else:
        name, least, numbers = "score", config.min_lf_score, [music_score(normalised(line)) for line in asked]
    given = iter(numbers)
    verdicts = []
    for line, reason in zip(lines, reasons, strict=True):
        number = next(given) if reason is None else None
        drop = reason or (None if number is not None and number >= least else "not_about_music")
        verdicts.append({"text": line, "drop": drop, name: number})
    return verdicts
