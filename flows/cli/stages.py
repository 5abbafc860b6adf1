"""The commands that run flows: the whole path, and its stages one by one."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from flows.cli.catalogue import CatalogueName, Moved, manifest_of
from flows.cli.reporting import AsJson, print_json
from flows.runtime.numbers import CountOrNone, number
from flows.runtime.settings import read_settings
from flows.runtime.terminal import console, errors
from mulan_core.config import CorpusSize, Port
from mulan_core.counts import counted
from mulan_core.data.places import parse_moves

Manifest = Annotated[
    str | None,
    typer.Option(
        help="Your tracks: a table (.csv, .tsv, .jsonl, .parquet, .xlsx, .ods; columns uri and text) or a folder of "
        "audio, by path or URL. Default: the catalogue that was used last, at first the demo."
    ),
]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Take local files outside the manifest's folder, from now on.")
]
Playlists = Annotated[
    Path | None,
    typer.Option(
        help="Your playlists: a table (.jsonl, .parquet), a player's file (.m3u, .m3u8, .pls, .xspf, .jspf, .xml of "
        "iTunes or Rekordbox) or a folder of those; kept once prepare took it."
    ),
]
Params = Annotated[
    Path | None,
    typer.Option(help="YAML of what differs from your catalogue's numbers (at first configs/own.yaml), from now on."),
]
AllowOverlap = Annotated[
    bool,
    typer.Option("--allow-overlap", help="Go on where train and valid or test share recordings, from now on."),
]

MODULES = {"register": "gate", "serve": "release"}
"""Where a flow is that does not give its module the name."""


def arguments_of(
    manifest: str | None, playlists: Path | None, params: Path | None, catalogue: str | None
) -> dict[str, Any]:
    """Which workspace, as flows take it."""
    named = {"manifest": manifest_of(manifest, catalogue), "playlists": playlists, "params": params}
    return {name: str(path) if path else None for name, path in named.items()}


def run_flow(name: str, arguments: dict[str, Any], *, session: dict[str, Any] | None = None, **more: Any) -> Any:
    """Run a flow on an open stack; mistakes are told before its libraries are imported and anything starts.

    Args:
        name: of the flow.
        arguments: of the flow and of ``open_session``.
        session: more arguments of ``open_session`` alone.
        more: arguments of the flow alone.
    """
    from flows.runtime.session import open_session

    module = f"flows.pipeline.{MODULES.get(name, name)}"
    with open_session(**arguments, **(session or {}), ahead=module, ray_client=name == "train"):
        flow = getattr(import_module(module), name)
        return flow(**arguments, **more)


def demo(
    leave: Annotated[bool, typer.Option("--exit", help="Stop after the check queries.")] = False,
    size: Annotated[int | None, number(CorpusSize, "Tracks in the demo corpus, when it is first built.")] = None,
    port: Annotated[int | None, number(Port, "Port of the endpoint.")] = None,
) -> None:
    """Build a catalogue, train on it, evaluate, index, and serve it until Ctrl-C.

    Example: mulan demo --exit
    """
    from flows.cli.demo import run_demo

    run_demo(leave=leave, size=size, port=port)


def run(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
    serve: Annotated[bool, typer.Option(help="Deploy the new release and check it.")] = True,
    min_new: Annotated[
        int,
        number(
            CountOrNone,
            "Train only where so many tracks are new since the champion was trained; with fewer, the champion "
            "gets an index of the catalogue as it is now.",
        ),
    ] = 0,
    allow_overlap: AllowOverlap = False,
    allow_outside: AllowOutside = False,
    moved: Moved = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole flow on a manifest of yours: from files to a release.

    Example: mulan run --manifest tracks.csv
    """
    from flows.cli.reporting import show_edits, show_evaluation, show_gate, show_stages

    allowed = {"allow_overlap": allow_overlap, "allow_outside": allow_outside, "moved": parse_moves(moved)}
    session = allowed | {"serves": serve}
    options = {"serve": serve, "min_new_tracks": min_new}
    result = run_flow("end_to_end", arguments_of(manifest, playlists, params, catalogue), session=session, **options)
    report = result.pop("evaluate", None)
    if as_json:
        print_json(result | ({"metrics": report["metrics"]} if report else {}))
    else:
        if report:
            show_evaluation(report)
            show_stages(result["stages"], result["seconds"])
        else:
            console.print(f"not trained: {result['skipped']}")
        show_edits((result.get("serve") or result.get("index") or {}).get("edits"))
        if report:
            show_gate(result["register"])
    if report:
        _exit_by_gate(result["register"])


def prepare(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
    allow_overlap: AllowOverlap = False,
    allow_outside: AllowOutside = False,
    moved: Moved = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 if any file went to quarantine.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn audio and texts into versioned shards; bad files go to quarantine with a reason.

    Example: mulan prepare --manifest tracks.csv
    """
    from flows.cli.reporting import show_prepared, show_quarantine

    allowed = {"allow_overlap": allow_overlap, "allow_outside": allow_outside, "moved": parse_moves(moved)}
    counts = run_flow("prepare", arguments_of(manifest, playlists, params, catalogue), session=allowed)
    if as_json:
        print_json(counts)
    else:
        show_prepared(counts)
    if strict and counts["quarantined"]:
        show_quarantine(Path(counts["prepared"]))
        raise typer.Exit(1)


def train(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    catalogue: CatalogueName = None,
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
    result = run_flow("train", arguments_of(manifest, playlists, params, catalogue), task=task)
    if as_json:
        print_json(result)
        return
    console.print(
        f"trained {counted(result['steps'], 'step')}; MLflow run {result['run_id']}; `mulan ui` shows its curves"
    )
    if task == "tagging":
        console.print(f"measure it: mulan evaluate {result['model']} --suite tagging")
        console.print("as a warm start: set model.audio.pretrained to that folder")


def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(help="champion, candidate, a version, a folder, a name on the hub, or a file of vectors."),
    ] = None,
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
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
    from flows.cli.reporting import show_evaluation, show_gate
    from flows.runtime.session import open_session

    arguments = arguments_of(manifest, playlists, params, catalogue)
    if any((model, on, suite, pooling, out, allow_overlap)):
        sets = [name for word in on or [] for name in word.split(",") if name]
        suites = suite.split(",") if suite else None
        asked: dict[str, Any] = {"model": model, "sets": sets or None, "suites": suites, "pooling": pooling}
        asked |= {"allow_overlap": allow_overlap, "out": str(out.resolve()) if out else None}
        _evaluate_on_sets(arguments, asked, as_json=as_json)
        return
    with open_session(**arguments, ahead="flows.pipeline.evaluate"):
        report = run_flow("evaluate", arguments)["sets"]["own"]
        gate = run_flow("register", arguments)
    if as_json:
        print_json({"metrics": report["metrics"], "gate": gate})
    else:
        show_evaluation(report)
        show_gate(gate)
    _exit_by_gate(gate)


def _evaluate_on_sets(arguments: dict[str, Any], asked: dict[str, Any], *, as_json: bool) -> None:
    """Measure, and print; mistakes are told before anything starts."""
    from flows.cli.reporting import show_evaluations
    from flows.pipeline.sets import find_sets
    from flows.runtime.workspace import open_workspace

    settings = read_settings()
    workspace = open_workspace(settings.home, **arguments)
    find_sets(asked["sets"] or [], workspace, home=settings.home, suites=asked["suites"])
    if asked["model"] is not None:
        _check_model(asked["model"], asked["pooling"], workspace.folder)
    result = run_flow("evaluate", arguments, **asked)
    if as_json:
        print_json(result)
    else:
        show_evaluations(result)


def index(
    manifest: Manifest = None,
    playlists: Playlists = None,
    params: Params = None,
    *,
    catalogue: CatalogueName = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A registered model, by alias or version, for this data; of another catalogue as NAME/champion. "
            "Default: the one trained on it."
        ),
    ] = None,
    promote: Annotated[bool, typer.Option(help="Make the release champion, or only build it.")] = True,
    as_json: AsJson = False,
) -> None:
    """Build the candidate's collection, prove it, and make both champion; only what is new is embedded.

    Example: mulan index --model champion
    """
    from flows.cli.reporting import show_index

    built = run_flow("index", arguments_of(manifest, playlists, params, catalogue), model=model, promote=promote)
    if as_json:
        print_json(built)
    else:
        show_index(built)


def serve(
    manifest: Manifest = None,
    params: Params = None,
    port: Annotated[int | None, number(Port, "Port of the endpoint.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to bind. Default: params.yaml, loopback.")] = None,
    *,
    catalogue: CatalogueName = None,
    allow_open: Annotated[
        bool, typer.Option("--open", help="Without keys on an address that others reach, behind a firewall of yours.")
    ] = False,
) -> None:
    """Serve the champion release until Ctrl-C; flows started elsewhere join this process's Ray and Milvus.

    Example: mulan serve
    """
    from flows.cli.demo import print_addresses, wait_for_interrupt
    from flows.runtime.session import open_session

    arguments = arguments_of(manifest, None, params, catalogue)
    with open_session(**arguments, port=port, host=host, allow_open=allow_open, join=False) as session:
        champion = session.registry.get("champion")
        if champion is None:
            console.print("no champion yet: a flow that promotes one (`mulan run`, or from Prefect) deploys it here")
        else:
            errors.print(f"mulan: the services run; starting the endpoint with version {champion.number}")
            served = run_flow("serve", arguments)
            print_addresses(served["url"], session)
        wait_for_interrupt()


def _check_model(model: str, pooling: str | None, folder: Path) -> None:
    from flows.pipeline.subjects import find_subject
    from flows.registry import Registry
    from flows.runtime.catalogues import find_catalogue
    from flows.runtime.tracking import check_tracking

    settings = read_settings()
    check_tracking(settings.mlflow_uri)
    catalogue = find_catalogue(settings.home, folder)
    find_subject(model, Registry.of(settings, catalogue), pooling=pooling)


def _exit_by_gate(gate: dict[str, Any]) -> None:
    if not gate["passed"]:
        raise typer.Exit(1)
