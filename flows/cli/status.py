"""``mulan status`` and ``mulan ui``: where a home stands, on the terminal and in MLflow."""

from __future__ import annotations

import sys
from typing import Annotated, Any

from flows.cli.catalogue import CatalogueName, chosen
from flows.cli.reporting import AsJson, print_json
from flows.pipeline.words import gate_words
from flows.runtime.numbers import number
from flows.runtime.settings import read_settings
from flows.runtime.terminal import Table, console, moment, words
from mulan_core.config import Port
from mulan_core.counts import counted


def status(catalogue: CatalogueName = None, as_json: AsJson = False) -> None:
    """Show the latest trainings, champion and candidate, what the endpoint serves, and what does not agree.

    Example: mulan status
    """
    from flows.doctor.status import find_status

    report = find_status(read_settings(), chosen(catalogue))
    if as_json:
        print_json(report)
        return
    table = Table(show_header=False, box=None, pad_edge=False)
    endpoint = report["endpoint"]
    table.add_row("catalogue", report["catalogue"])
    table.add_row("running", _running(report))
    table.add_row("champion", _version(report["champion"]) or "none yet: `mulan run` makes one")
    table.add_row("candidate", _version(report["candidate"]) or "none")
    table.add_row("served", _served(endpoint) if endpoint else _unserved(report))
    for run in report["runs"]:
        where = f"step {run['step']:,}, loss {run['loss']:.3f}" if run["step"] else "no step yet"
        table.add_row(run["kind"], f"{moment(run['started'])}  {run['status']}, {where}  {run['run_id']}")
    for sentence in report["differences"]:
        table.add_row(words(("look", "yellow")), sentence)
    console.print(table)


def _running(report: dict[str, Any]) -> str:
    stack, owner, others = report["stack"], report["starting"], report["others"]
    if stack:
        running = f"process {stack['pid']} since {stack['started']}"
    else:
        running = f"starting (process {owner['pid']}, since {owner['started']})" if owner else "nothing of it"
    return running + (f"; of other catalogues: {', '.join(others)}" if others else "")


def _served(endpoint: dict[str, Any]) -> str:
    tracks = counted(endpoint["num_tracks"], "track")
    return f"version {endpoint['model_version']}, {tracks}, at {endpoint['url']}"


def _unserved(report: dict[str, Any]) -> str:
    """Why nothing answers: an endpoint of it may be on its way."""
    if report["starting"] or (report["stack"] and report["stack"]["endpoint"]):
        return "nothing answers yet; what runs for it is still starting"
    return "nothing answers; `mulan serve` would"


def _version(summary: dict[str, Any] | None) -> str | None:
    if summary is None:
        return None
    collection = summary["collection"] or "no collection"
    return f"version {summary['version']}, gate {gate_words(summary)}, {collection}, made {moment(summary['created'])}"


def ui(catalogue: CatalogueName = None, port: Annotated[int, number(Port, "Port of the MLflow UI.")] = 5000) -> None:
    """Start the MLflow UI on the local database; print once it answers what to open: runs, candidate beside champion.

    Example: mulan ui --port 5001
    """
    from flows.cli.demo import wait_for_interrupt
    from flows.doctor.status import mlflow_pages
    from flows.runtime.database import database_path
    from flows.runtime.tracking import check_tracking
    from serving.ports import check_port_free, is_up
    from serving.supervised_process import SupervisedProcess

    settings = read_settings()
    check_tracking(settings.mlflow_uri)
    if database_path(settings.mlflow_uri) is None:
        for what, address in mlflow_pages(settings, settings.mlflow_uri, chosen(catalogue)).items():
            console.print(f"{what}: {address}")
        return
    check_port_free("127.0.0.1", port)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", settings.mlflow_uri, "--port", str(port)]
    command += ["--default-artifact-root", (settings.home / "artifacts").as_uri()]
    # One worker is up four times sooner on a laptop, and each request need not be told to the terminal.
    command += ["--workers", "1", "--uvicorn-opts", "--log-level=warning"]
    url = f"http://127.0.0.1:{port}"
    server = SupervisedProcess("MLflow", command, log_path=settings.home / "mlflow.log")
    try:
        server.wait_until(lambda: is_up(f"{url}/health"), timeout_s=120)
        for what, address in mlflow_pages(settings, url, chosen(catalogue)).items():
            console.print(f"{what}: {address}")
        wait_for_interrupt()
    finally:
        server.stop()
