"""The command ``mulan``: thin over flows and the endpoint's client.

Exit codes: 0 done; 1 done, but the answer is no (the gate refused, a check query failed); 2 a mistake of
the user or a server that is away, told in one sentence without a traceback.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows import (
    cli_compare,
    cli_data,
    cli_doctor,
    cli_feedback,
    cli_keys,
    cli_plan,
    cli_query,
    cli_release,
    cli_stage,
    cli_status,
    cli_text,
    cli_versions,
)
from flows.project import VERSION, code_version
from flows.reporting import AsJson, console, print_json
from flows.settings import read_settings
from mulan_core.errors import UserError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(cli_stage.app, name="stage", hidden=True)
app.add_typer(cli_release.app, name="release")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_text.app, name="text")
app.add_typer(cli_keys.app, name="keys")
app.add_typer(cli_feedback.app, name="feedback")
cli_data.app.command()(cli_versions.diff)
cli_data.app.command()(cli_versions.pull)

Manifest = Annotated[
    str | None,
    typer.Option(
        help="Your tracks: a table (.csv, .tsv, .jsonl, .parquet; columns uri and text) or a folder of audio, "
        "by path or URL. Default: the demo."
    ),
]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Take local files outside the manifest's folder, from now on.")
]
Playlists = Annotated[Path | None, typer.Option(help="Table of your playlists (.jsonl, .parquet).")]
Params = Annotated[Path | None, typer.Option(help="Numbers for your manifest. Default: configs/own.yaml.")]
AllowOverlap = Annotated[
    bool,
    typer.Option("--allow-overlap", help="Go on where train and valid or test have the same recording."),
]


@app.callback(invoke_without_command=True)
def about(
    shown: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    """Search a music catalogue by meaning: prepare, train, evaluate, index, serve, search."""
    if shown:
        console.print(VERSION if (code := code_version()) == VERSION else f"{VERSION} ({code})", highlight=False)
        raise typer.Exit


def main() -> None:
    """Run the command; the console script's entry."""
    signal.signal(signal.SIGTERM, _terminate)
    read_settings()  # sets quiet defaults, which count only before the libraries are imported
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit, and 130 for Ctrl-C
    except UserError as error:
        _fail(str(error))
    except (KeyboardInterrupt, typer.Abort):
        _fail("stopped", code=130)
    except Exception as error:
        if getattr(error, "format_message", None):  # click's usage errors
            error.show()  # type: ignore[attr-defined]
            sys.exit(2)
        if os.environ.get("MULAN_DEBUG"):
            raise
        if _behind(error, SystemExit):  # a signal that came while Ray waited
            _fail("stopped", code=143)
        cause = _behind(error, UserError)
        if cause:
            _fail(str(cause))
        _fail(f"unexpected {type(error).__name__}: {error} (set MULAN_DEBUG=1 for the traceback)", code=1)
    if code == 130:
        _fail("stopped", code=130)
    sys.exit(code or 0)


def _terminate(*_: object) -> None:
    sys.exit(143)


def _fail(sentence: str, code: int = 2) -> None:
    Console(stderr=True).print(f"[red]mulan:[/red] {escape(sentence)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def _behind(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    """Find an exception of a kind, such as the sentence for the user, behind what Ray or Prefect wrapped round it."""
    while error is not None:
        if isinstance(error, kind):
            return error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__
    return None


def _arguments(manifest: str | None, playlists: Path | None, params: Path | None) -> dict[str, Any]:
    named = {"manifest": manifest, "playlists": playlists, "params": params}
    return {name: str(path) if path else None for name, path in named.items()}


def _run_flow(name: str, arguments: dict[str, Any], *, allowed: dict[str, Any] | None = None, **more: Any) -> Any:
    """Run a flow on an open stack; mistakes are told before its libraries are imported and anything starts."""
    from flows.session import open_session

    with open_session(**arguments, **(allowed or {}), ahead=f"flows.{name}", ray_client=name == "train"):
        flow = getattr(import_module(f"flows.{name}"), name)
        return flow(**arguments, **more)


@app.command()
def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the check queries.")] = False,
    size: Annotated[int | None, typer.Option(help="Tracks in the demo corpus, when it is first built.")] = None,
    port: Annotated[int | None, typer.Option(help="Port of the endpoint.")] = None,
) -> None:
    """Build a catalogue, train on it, evaluate, index, and serve it until Ctrl-C.

    Example: mulan demo --exit
    """
    from flows.demo import run_demo

    run_demo(leave=leave, size=size, port=port)


@app.command()
def run(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    serve: Annotated[bool, typer.Option(help="Deploy the new release and check it.")] = True,
    min_new: Annotated[
        int,
        typer.Option(
            help="Train only where so many tracks are new since the champion was trained; with fewer, the champion "
            "gets an index of the catalogue as it is now."
        ),
    ] = 0,
    allow_overlap: AllowOverlap = False,
    allow_outside: AllowOutside = False,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow on a manifest of yours: from files to a release.

    Example: mulan run --manifest tracks.csv
    """
    from flows.reporting import show_evaluation, show_stages

    allowed = {"allow_overlap": allow_overlap, "allow_outside": allow_outside}
    options = {"serve": serve, "min_new_tracks": min_new}
    result = _run_flow("end_to_end", _arguments(manifest, playlists, params), allowed=allowed, **options)
    report = result.pop("evaluate", None)
    if as_json:
        print_json(result | ({"metrics": report["metrics"]} if report else {}))
    elif report:
        show_evaluation(report)
        show_stages(result["stages"], result["seconds"])
    else:
        console.print(f"not trained: {result['skipped']}", highlight=False, soft_wrap=True)
    if report:
        _exit_by_gate(result["register"])


@app.command()
def prepare(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    allow_overlap: AllowOverlap = False,
    allow_outside: AllowOutside = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file went to quarantine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn audio and texts into versioned shards; bad files go to quarantine with a reason.

    Example: mulan prepare --manifest tracks.csv
    """
    from flows.reporting import show_prepared, show_quarantine

    allowed = {"allow_overlap": allow_overlap, "allow_outside": allow_outside}
    counts = _run_flow("prepare", _arguments(manifest, playlists, params), allowed=allowed)
    if as_json:
        print_json(counts)
    else:
        show_prepared(counts)
    if strict and counts["quarantined"]:
        show_quarantine(Path(counts["prepared"]))
        raise typer.Exit(1)


@app.command()
def train(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    task: Annotated[
        Literal["contrastive", "tagging", "audioset"],
        typer.Option(
            help="The two towers on pairs; or the audio tower alone on the tracks' labels, as a supervised baseline or "
            "a warm start (audioset is another name for it)."
        ),
    ] = "contrastive",
    *,
    address: Annotated[
        str | None,
        typer.Option(
            help="The Ray cluster: its head's host:port, or ray://host:10001. Default: RAY_ADDRESS, else this machine."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train on the prepared data; started again after a kill it goes on from its last checkpoint.

    Example: mulan train --address ray://head:10001
    """
    if address:
        os.environ["RAY_ADDRESS"] = address
    task = "tagging" if task == "audioset" else task
    result = _run_flow("train", _arguments(manifest, playlists, params), task=task)
    if as_json:
        print_json(result)
        return
    console.print(f"trained {result['steps']} steps; MLflow run {result['run_id']}; `mulan ui` shows its curves")
    if task == "tagging":
        console.print(f"measure it: mulan evaluate {result['model']} --suite tagging", soft_wrap=True)
        console.print("as a warm start: set model.audio.pretrained to that folder")


@app.command()
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="champion, candidate, a version, a folder, a name on the hub, or a file of vectors."),
    ] = None,
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    on: Annotated[
        list[str] | None,
        typer.Option("--on", help="Sets, as `mulan data sets` lists them; NAME=PATH; or a prepared folder."),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Of tagging, probe, retrieval, triplets, with commas. Default: all a set is for.")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option(help="Of a plain text or audio model: cls, mean, max or pooler.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the reports and their evidence.")] = None,
    allow_overlap: Annotated[
        bool, typer.Option("--allow-overlap", help="Measure a set that shares recordings with the training data.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Evaluate a model on evaluation sets. Alone: the trained model on the test split, then the gate, as candidate.

    Example: mulan evaluate champion --on audioset-gen25,ontology-triplets --suite tagging,triplets
    """
    from flows.reporting import show_evaluation, show_evaluations
    from flows.session import open_session
    from flows.steps.sets import find_sets
    from flows.workspace import open_workspace

    arguments = _arguments(manifest, playlists, params)
    if any((model, on, suite, pooling, out, allow_overlap)):
        sets = [name for word in on or [] for name in word.split(",") if name]
        suites = suite.split(",") if suite else None
        settings = read_settings()
        # Mistakes are told before anything starts.
        workspace = open_workspace(settings.home, **arguments)
        find_sets(sets, workspace, home=settings.home, suites=suites)
        if model is not None:
            _check_model(model, pooling)
        result = _run_flow(
            "evaluate",
            arguments,
            model=model,
            sets=sets or None,
            suites=suites,
            pooling=pooling,
            allow_overlap=allow_overlap,
            out=str(out.resolve()) if out else None,
        )
        if as_json:
            print_json(result)
        else:
            show_evaluations(result)
        return
    with open_session(**arguments, ahead="flows.evaluate"):
        report = _run_flow("evaluate", arguments)["sets"]["own"]
        gate = _run_flow("register", arguments)
    if as_json:
        print_json({"metrics": report["metrics"], "gate": gate})
    else:
        show_evaluation(report)
        console.print(
            f"version {gate['version']}: {'passed' if gate['passed'] else 'refused by'} the gate",
            *gate["reasons"],
            *gate["notes"],
            sep="\n  ",
        )
    _exit_by_gate(gate)


@app.command()
def index(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    model: Annotated[
        str | None,
        typer.Option(help="A registered model, by alias or version, for this data. Default: the one trained on it."),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Make the release champion, or only build it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build the candidate's collection, prove it, and make both champion; only what is new is embedded.

    Example: mulan index --model champion
    """
    from flows.reporting import show_index

    built = _run_flow("index", _arguments(manifest, playlists, params), model=model, promote=promote)
    if as_json:
        print_json(built)
    else:
        show_index(built)


@app.command()
def ablate(
    rows: Annotated[
        str | None,
        typer.Option(help="Rows to run, separated by commas: the paper's or your own. Default: params.yaml."),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Runs of each row. Default: params.yaml.")] = None,
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate each set of text sources with several seeds, and say which differences stand.

    Started again after a kill it goes on with what is missing.

    Example: mulan ablate --rows aset,all --seeds 3
    """
    from flows.reporting import show_study

    names = [name.strip() for name in rows.split(",")] if rows else None
    result = _run_flow("ablate", _arguments(manifest, playlists, params), rows=names, seeds=seeds)
    if as_json:
        print_json(result)
    else:
        show_study(result)


@app.command()
def tune(
    manifest: Manifest = None, playlists: Playlists = None, params: Params = None, as_json: AsJson = False
) -> None:
    """Search the hyper-parameters of tune.space in params.yaml, judged on the validation split.

    Started again after a kill it goes on with what is missing.

    Example: mulan tune
    """
    from flows.reporting import show_search

    result = _run_flow("tune", _arguments(manifest, playlists, params))
    if as_json:
        print_json(result)
    else:
        show_search(result)


@app.command()
def serve(
    manifest: Manifest = None,
    params: Params = None,
    port: Annotated[int | None, typer.Option(help="Port of the endpoint.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind. Default: params.yaml, loopback.")] = None,
    allow_open: Annotated[
        bool, typer.Option("--open", help="Without keys on an address that others reach, behind a firewall of yours.")
    ] = False,
) -> None:
    """Serve the champion release until Ctrl-C; flows started elsewhere join this process's Ray and Milvus.

    Example: mulan serve
    """
    from flows.demo import print_addresses, wait_for_interrupt
    from flows.session import open_session
    from serving.ports import check_port_free

    arguments = _arguments(manifest, None, params)
    with open_session(**arguments, port=port, host=host, allow_open=allow_open, join=False) as session:
        from flows.steps.registry import champion_version

        check_port_free(session.host, session.port)
        if champion_version(mlflow_uri=session.settings.mlflow_uri) is None:
            console.print("no champion yet: a flow that promotes one (`mulan run`, or from Prefect) deploys it here")
        else:
            served = _run_flow("serve", arguments)
            print_addresses(served["url"], session)
        wait_for_interrupt()


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="Folder of a saved model.")],
    out: Annotated[Path, typer.Argument(help="Folder to write into.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write the text tower with 8-bit weights.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write both towers as ONNX, which runs without Python and torch, and compare them with the model.

    Example: mulan export model/ onnx/ --int8
    """
    from dataclasses import asdict

    from mulan_core.export import export_onnx
    from mulan_core.model import MuLanModel
    from mulan_core.processor import MuLanProcessor

    opened, processor = MuLanModel.from_pretrained(model), MuLanProcessor.from_pretrained(model)
    written = export_onnx(opened, processor, out, int8=int8)
    if as_json:
        print_json([asdict(program) for program in written])
        return
    table = Table("file", "MB", "largest difference", "smallest cosine", title=f"Exported to {out}")
    for program in written:
        difference, cosine = f"{program.max_difference:.1e}", f"{program.min_cosine:.4f}"
        table.add_row(program.file, f"{program.megabytes:.1f}", difference, cosine)
    console.print(table)


# The help lists commands in this order: the path first, then what asks and looks back.
for command in (
    cli_query.search,
    cli_query.tag,
    cli_query.embed,
    cli_compare.compare,
    cli_versions.lineage,
    cli_status.status,
    cli_status.ui,
    cli_plan.plan,
    cli_doctor.doctor,
):
    app.command()(command)


def _check_model(model: str, pooling: str | None) -> None:
    from flows.steps.models import find_subject
    from flows.steps.tracking import check_tracking

    settings = read_settings()
    check_tracking(settings.mlflow_uri)
    find_subject(model, mlflow_uri=settings.mlflow_uri, cache=settings.home / "models", pooling=pooling)


def _exit_by_gate(gate: dict[str, Any]) -> None:
    if not gate["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
