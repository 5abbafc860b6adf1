"""Where a home stands: its latest runs, champion and candidate, what the endpoint serves, and whether these agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import urlencode

import httpx
from mlflow import MlflowClient
from mlflow.entities import Run

from flows.model_version import Version
from flows.registry import Registry
from flows.runtime.catalogues import DEMO, Catalogue, read_records
from flows.runtime.endpoint import endpoint_url
from flows.runtime.journal import unfinished_switch
from flows.runtime.settings import Settings
from flows.runtime.stack_file import is_running, running_stack, starting
from flows.runtime.tracking import EXPERIMENT, NoRegistryError, reading
from flows.runtime.workspace import Workspace, made_workspace
from mulan_core.errors import UserError
from serving.client import MulanClient

NUM_RUNS, RUNS_PER_PAGE = 3, 100


def find_status(settings: Settings, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """Look at registry, endpoint and data.

    Args:
        settings: where everything is.
        catalogue: whose; None takes the demo.

    Returns:
        ``catalogue``, its name; ``stack`` of a running mulan of it, or null; ``starting``, the process that starts
        one, or null; ``others``, the names of the other catalogues for which a mulan runs; ``runs``, the latest
        trainings on its data; ``champion``, ``candidate``; ``endpoint``: url, version and tracks, or null; and
        ``differences``, sentences about what does not agree.
    """
    catalogue = catalogue or Catalogue(DEMO)
    state, workspace = catalogue.state(settings.home), made_workspace(settings.home, catalogue)
    registry = Registry.of(settings, catalogue)
    versions = registry.versions()
    champion, candidate = (
        next((registry.summary(version) for version in versions if alias in version.aliases), None)
        for alias in ("champion", "candidate")
    )
    endpoint, stack, owner = _endpoint(settings, catalogue), running_stack(state), starting(state)
    catalogues = read_records(settings.home).all()
    cut_off = unfinished_switch(settings.home, catalogue)
    return {
        "catalogue": catalogue.name,
        "stack": asdict(stack) if stack else None,
        "starting": asdict(owner) if owner else None,
        "others": sorted(
            name
            for name, other in catalogues.items()
            if name != catalogue.name and is_running(other.state(settings.home))
        ),
        "runs": _latest_runs(settings, workspace, versions),
        "champion": champion,
        "candidate": candidate,
        "endpoint": endpoint,
        "differences": [
            *([cut_off] if cut_off else []),
            *_differences(champion, candidate, endpoint, workspace.find_data_hash() if workspace else None),
        ],
    }


def _latest_runs(settings: Settings, workspace: Workspace | None, versions: list[Version]) -> list[dict[str, Any]]:
    """The newest trainings on a catalogue's data, as it is or was: all catalogues have one experiment."""
    own = {version.run_id for version in versions if not version.tag("trained_on")}

    def is_own(run: Run) -> bool:
        data_hash = run.data.tags.get("mulan.data_hash", "")
        return run.info.run_id in own or bool(workspace and data_hash and workspace.has_had(data_hash))

    try:
        with reading(settings.mlflow_uri) as client:
            runs = list(islice(filter(is_own, _trainings(client)), NUM_RUNS))
            return [_about(run, client.get_metric_history(run.info.run_id, "loss")) for run in runs]
    except NoRegistryError:
        return []


def _trainings(client: MlflowClient) -> Iterator[Run]:
    """Every training of every catalogue, the newest first."""
    named = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
    experiments, token = [experiment.experiment_id for experiment in named], None
    while token != "":
        page = client.search_runs(
            experiments,
            "tags.`mulan.train_key` != ''",
            max_results=RUNS_PER_PAGE,
            order_by=["start_time DESC"],
            page_token=token,
        )
        yield from page
        token = page.token or ""


def _about(run: Run, losses: list[Any]) -> dict[str, Any]:
    last = max(losses, key=lambda point: point.step, default=None)
    return {
        "run_id": run.info.run_id,
        "kind": run.data.tags.get("mulan.kind"),
        "status": run.info.status.lower(),
        "started": datetime.fromtimestamp(run.info.start_time / 1000, UTC).isoformat(timespec="seconds"),
        "step": last and last.step,
        "loss": last and last.value,
    }


def _endpoint(settings: Settings, catalogue: Catalogue) -> dict[str, Any] | None:
    url = endpoint_url(settings, catalogue)
    if url is None:
        return None
    try:
        answer = MulanClient(url, key=settings.key, retries=0).release()
    except (UserError, httpx.HTTPError):
        return None
    return {"url": url, "num_tracks": answer["num_tracks"], "model_version": answer["model_version"]}


def _differences(
    champion: dict[str, Any] | None,
    candidate: dict[str, Any] | None,
    endpoint: dict[str, Any] | None,
    data_hash: str | None,
) -> list[str]:
    sentences = []
    if endpoint and champion and endpoint["model_version"] != champion["version"]:
        sentences.append(
            f"the endpoint serves version {endpoint['model_version']}, the champion is {champion['version']}: "
            "`mulan release promote` or `mulan serve` brings them together"
        )
    if candidate and candidate != champion:
        word = "passed" if candidate["gate"] == "passed" else "was refused by"
        judged = f" (measured on {candidate['judged_on']})" if candidate["judged_on"] else ""
        sentences.append(f"candidate {candidate['version']} {word} the gate{judged} and is not champion")
    if champion and data_hash and not data_hash.startswith(champion["data_hash"]):
        sentences.append(
            f"the data prepared here ({data_hash[:8]}) is not the champion's ({champion['data_hash']}): "
            "`mulan index --model champion` indexes it, `mulan run` trains on it"
        )
    return sentences


def mlflow_pages(settings: Settings, url: str, catalogue: Catalogue | None = None) -> dict[str, str]:
    """What there is to open in MLflow's UI at a URL, each by its address.

    Args:
        settings: of the home.
        url: where the UI answers.
        catalogue: whose candidate and champion; None takes the demo.

    Returns:
        ``MLflow UI``, the experiment or the start page while nothing was run; ``candidate beside champion``, MLflow's
        comparison of their training runs, which hold their evaluations; the champion is the one before, where the
        candidate was promoted. Left out where there are not two.
    """
    try:
        with reading(settings.mlflow_uri) as client:
            experiment = client.get_experiment_by_name(EXPERIMENT)
    except NoRegistryError:
        experiment = None
    if experiment is None:
        return {"MLflow UI": url}
    pages = {"MLflow UI": f"{url}/#/experiments/{experiment.experiment_id}/runs"}
    registry = Registry.of(settings, catalogue or Catalogue(DEMO))
    candidate, champions = registry.get("candidate"), registry.champions()
    if candidate and candidate.number in champions:  # it was promoted: beside the one that it took the place of
        champions = champions[: champions.index(candidate.number)]
    before = registry.get(champions[-1]) if champions else None
    runs = [version.run_id for version in (candidate, before) if version]
    if len(set(runs)) == 2:
        lists = {"runs": runs, "experiments": [experiment.experiment_id]}
        asked = urlencode({name: json.dumps(ids, separators=(",", ":")) for name, ids in lists.items()})
        pages["candidate beside champion"] = f"{url}/#/compare-runs?{asked}"
    return pages
