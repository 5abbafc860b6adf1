"""MLflow as the flows use it: one experiment, runs found again by their tags."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlparse

import mlflow
import requests
from mlflow.entities import Run

from mulan_core.config import Config, to_mapping
from mulan_core.errors import UserError

MODEL_NAME = "mulan"
EXPERIMENT = "mulan"
CONNECT_S = 5.0
"""How long a tracking server may take to answer at all."""


@contextmanager
def tracking(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Point MLflow at a server or database, with the experiment made if need be.

    Raises:
        UserError: in one sentence, if the address does not answer.
    """
    check_tracking(uri)
    mlflow.set_tracking_uri(uri)
    if uri.startswith("sqlite:///"):
        folder = Path(uri.removeprefix("sqlite:///")).parent
        folder.mkdir(parents=True, exist_ok=True)
        if mlflow.get_experiment_by_name(EXPERIMENT) is None:
            mlflow.create_experiment(EXPERIMENT, artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)
    yield mlflow.MlflowClient(uri)


def check_tracking(uri: str) -> None:
    """Say at once when a tracking server is away: MLflow itself would retry for minutes."""
    address = urlparse(uri)
    if address.scheme not in ("http", "https"):
        return
    try:
        if requests.utils.select_proxy(uri, requests.utils.get_environ_proxies(uri)):
            with suppress(requests.exceptions.SSLError):  # something answers, and MLflow has settings of its own for it
                requests.get(uri, timeout=CONNECT_S, stream=True).close()
        else:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        said = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
        raise UserError(
            f"MLflow does not answer at {uri} ({said}); start it, or unset MLFLOW_TRACKING_URI to use the local "
            "database"
        ) from error


def find_run(tags: dict[str, str]) -> Run | None:
    """Find the newest run of the current experiment that carries all these tags."""
    conditions = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = mlflow.search_runs(filter_string=conditions, max_results=1, output_format="list")
    return found[0] if found else None


def log_config(config: Config, run: Run) -> None:
    """Log every number of the active run once, flattened to ``section.key``."""
    flat = {
        f"{section}.{key}": value
        for section in ("prepare", "model", "train", "evaluate")
        for key, value in _flatten(to_mapping(getattr(config, section))).items()
    }
    mlflow.log_params({key: value for key, value in flat.items() if key not in run.data.params})


def lineage_tags(commit: str, flow_run_id: str | None) -> dict[str, str]:
    """Tags that lead from a run or version back to its code and its flow run."""
    return {"mulan.git_commit": commit, "mulan.flow_run_id": str(flow_run_id or "none")}


def _flatten(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
