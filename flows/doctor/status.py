"""Where a home stands: its latest runs, champion and candidate, what the endpoint serves, and whether these agree."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import httpx
from mlflow.entities import Run

from flows.registry import Registry
from flows.runtime.catalogues import DEMO, Catalogue
from flows.runtime.endpoint import endpoint_url
from flows.runtime.journal import unfinished_switch
from flows.runtime.settings import Settings
from flows.runtime.stack_file import running_stack
from flows.runtime.tracking import EXPERIMENT, NoRegistryError, reading
from flows.runtime.workspace import made_workspace
from mulan_core.errors import UserError
from serving.client import MulanClient

NUM_RUNS = 3


def find_status(settings: Settings, catalogue: Catalogue | None = None) -> dict[str, Any]:
    """Look at registry, endpoint and data.

    Args:
        settings: where everything is.
        catalogue: whose; None takes the demo.

    Returns:
        ``catalogue``, its name; ``stack`` of a running mulan of it, or null; ``runs``, the latest trainings;
        ``champion``, ``candidate``; ``endpoint``: url, version and tracks, or null; and ``differences``, sentences
        about what does not agree.
    """
    catalogue = catalogue or Catalogue(DEMO)
    runs = _latest_runs(settings)
    versions = Registry.of(settings, catalogue).versions()
    champion, candidate = (
        next((version.summary() for version in versions if alias in version.aliases), None)
        for alias in ("champion", "candidate")
    )
    endpoint, stack = _endpoint(settings, catalogue), running_stack(catalogue.state(settings.home))
    cut_off = unfinished_switch(settings.home, catalogue)
    return {
        "catalogue": catalogue.name,
        "stack": asdict(stack) if stack else None,
        "runs": runs,
        "champion": champion,
        "candidate": candidate,
        "endpoint": endpoint,
        "differences": [
            *([cut_off] if cut_off else []),
            *_differences(champion, candidate, endpoint, _data_hash(settings, catalogue)),
        ],
    }


def _latest_runs(settings: Settings) -> list[dict[str, Any]]:
    try:
        with reading(settings.mlflow_uri) as client:
            named = client.search_experiments(filter_string=f"name = '{EXPERIMENT}'")
            experiments = [experiment.experiment_id for experiment in named]
            trainings = "tags.`mulan.train_key` != ''"
            runs = client.search_runs(experiments, trainings, max_results=NUM_RUNS, order_by=["start_time DESC"])
            return [_about(run, client.get_metric_history(run.info.run_id, "loss")) for run in runs]
    except NoRegistryError:
        return []


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


def _data_hash(settings: Settings, catalogue: Catalogue) -> str | None:
    """Of what is prepared of a catalogue; None where nothing is."""
    workspace = made_workspace(settings.home, catalogue)
    return workspace.find_data_hash() if workspace else None


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
        sentences.append(f"candidate {candidate['version']} {word} the gate and is not champion")
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
