"""MLflow as the flows use it: one experiment, runs found again by their tags."""

from __future__ import annotations

import os
import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlparse

import mlflow
import requests
from mlflow.entities import Run

from flows.runtime.database import check_database, database_path
from flows.runtime.moved import settle
from mulan_core.config import Config, to_mapping
from mulan_core.errors import UserError

EXPERIMENT = "mulan"
KINDS = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "file", "databricks", "uc", "")
"""What an address of MLflow's may begin with."""
CONNECT_S = 5.0
"""How long a tracking server may take to answer at all."""


class NameTakenError(UserError):
    """A registered model has that name already."""


class NoRegistryError(UserError):
    """Nothing was ever kept there."""


@contextmanager
def tracking(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Point MLflow at a server or database, with the experiment made if need be.

    Raises:
        UserError: in one sentence, if the address does not answer, the database cannot be used, or the experiment was
            deleted.
    """
    with _opened(uri) as client:
        if database := database_path(uri):
            database.parent.mkdir(parents=True, exist_ok=True)
            if mlflow.get_experiment_by_name(EXPERIMENT) is None:
                mlflow.create_experiment(EXPERIMENT, artifact_location=(database.parent / "artifacts").as_uri())
        check_experiment(client, uri)
        mlflow.set_experiment(EXPERIMENT)
        yield client


@contextmanager
def reading(uri: str) -> Iterator[mlflow.MlflowClient]:
    """Point MLflow at a server or database, and make nothing there.

    Raises:
        NoRegistryError: if there is no database yet.
        UserError: as of ``tracking``.
    """
    database = database_path(uri)
    if database is not None and not (database.exists() and database.stat().st_size):
        check_tracking(uri)
        raise NoRegistryError(f"no runs and no models are kept yet in {database.parent}; `mulan run` makes some")
    with _opened(uri) as client:
        check_experiment(client, uri)
        yield client


@contextmanager
def _opened(uri: str) -> Iterator[mlflow.MlflowClient]:
    check_tracking(uri)
    mlflow.set_tracking_uri(uri)
    try:
        yield mlflow.MlflowClient(uri)
    except Exception as error:  # of MLflow's, or of SQLAlchemy's as it comes
        if "sqlite3." in str(error) and (database := database_path(uri)):
            check_database(database, thorough=True)  # what breaks at work is told as what is found before it
            if "readonly database" in str(error):
                raise UserError(
                    f"MLflow's database {database} cannot be written; give yourself the right, or copy its folder to "
                    "where you have it"
                ) from error
        if type(error).__module__.startswith("sqlalchemy."):
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"MLflow's database does not answer: {reason}; start it, or correct MLFLOW_TRACKING_URI"
            ) from error
        raise


def check_experiment(client: mlflow.MlflowClient, uri: str) -> None:
    """Refuse a registry whose experiment somebody has deleted; MLflow keeps such a one, and its name.

    Raises:
        UserError: with the command that brings it back.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is not None and experiment.lifecycle_stage == "deleted":
        restore = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow experiments restore --experiment-id"
        raise UserError(
            f"the experiment {EXPERIMENT} of {uri} was deleted in MLflow; bring it back with `{restore} "
            f"{experiment.experiment_id}`"
        )


def check_tracking(uri: str) -> None:
    """Say at once when a tracking server is away: MLflow itself would retry for minutes; or what ails a database.

    Raises:
        UserError: in one sentence.
    """
    if database := database_path(uri):
        check_database(database)
        settle(database.parent, database)
    address = urlparse(uri)
    kind = address.scheme.partition("+")[0]
    if kind in ("", "file") and os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() != "true":
        raise UserError(
            f"MLFLOW_TRACKING_URI names a folder, {uri}, which MLflow keeps no runs in any more; `mlflow "
            "migrate-filestore` moves its runs to a database: name that (sqlite:////path/mlflow.db), or a server"
        )
    if kind not in KINDS:
        raise UserError(f"MLFLOW_TRACKING_URI is {uri!r}, which is none of {', '.join(KINDS[:4])}; correct or unset it")
    if kind not in ("http", "https"):
        return
    try:
        if requests.utils.select_proxy(uri, requests.utils.get_environ_proxies(uri)):
            with suppress(requests.exceptions.SSLError):  # something answers, and MLflow has settings of its own for it
                requests.get(uri, timeout=CONNECT_S, stream=True).close()
        else:
            port = address.port or (443 if address.scheme == "https" else 80)
            socket.create_connection((address.hostname or "", port), timeout=CONNECT_S).close()
    except (OSError, ValueError) as error:  # requests' own errors are OSErrors
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())[:160]
        raise UserError(
            f"MLflow does not answer at {uri} ({reason}); start it, or unset MLFLOW_TRACKING_URI to use the local "
            "database"
        ) from error


def find_run(tags: dict[str, str]) -> Run | None:
    """Find the newest run of the current experiment that carries all these tags."""
    conditions = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    runs = mlflow.search_runs(filter_string=conditions, max_results=1, output_format="list")
    return runs[0] if runs else None


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
