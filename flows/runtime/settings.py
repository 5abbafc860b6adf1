"""Addresses and secrets: the only place where flows read environment variables.

| variable | means | default |
|---|---|---|
| MULAN_HOME | folder of local state | `.mulan` in the working folder |
| MLFLOW_TRACKING_URI | MLflow server or database | SQLite in MULAN_HOME |
| MULAN_MILVUS_URI, MULAN_MILVUS_TOKEN | Milvus | a `milvus-lite server` of our own |
| MULAN_CHECKPOINTS | checkpoints of training: a folder or URL that each worker reaches | `ray_results` in MULAN_HOME |
| MULAN_DVC_REMOTE | where DVC keeps data: a folder or s3://bucket/path | none: DVC's cache alone |
| RAY_ADDRESS | Ray cluster | a private one on this machine |
| MULAN_URL | the endpoint that `mulan search` asks | the address in params.yaml |
| MULAN_KEY | the API key that it shows there | none |
| MULAN_KEYS_FILE | the endpoint's file of API keys | `keys.json` in MULAN_HOME |
| MULAN_NOTIFY_URL | told in JSON (`text`) when a flow fails: a webhook of Slack, Mattermost, ... | none |
| PREFECT_API_URL, PREFECT_HOME | Prefect server and its local state | one of our own, state in MULAN_HOME |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flows.runtime.database import database_uri

QUIET = {
    # Nothing of ours phones home or is fetched behind the user's back.
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    # A call of Ray's that comes before its start would start another one, open to the network.
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # `mulan ui` shows runs; MLflow would start ten more processes for jobs that nobody here gives it.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Ray reads the working folder's code; its warnings about defaults to come are not the user's business.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",  # Tune's newer terminal output has a banner that nothing silences
    # Ctrl-C ends the command (flows/runtime/ending.py), not a part of it.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    # Errors reach the user as one sentence; the traceback is in the Prefect UI.
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    "GIT_PYTHON_REFRESH": "quiet",
    "GRPC_VERBOSITY": "ERROR",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_LOG_TO_DRIVER_EVENT_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class Settings:
    """Where everything is."""

    home: Path
    mlflow_uri: str
    milvus_uri: str | None
    milvus_token: str | None
    ray_address: str | None
    dvc_remote: str | None
    checkpoints: str
    url: str | None
    key: str | None
    keys_file: Path
    notify_url: str | None


def read_settings() -> Settings:
    """Read the environment; also set quiet defaults for the libraries that have not been told otherwise."""
    home = Path(os.environ.get("MULAN_HOME") or ".mulan").resolve()
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    prefect = Path(os.environ.setdefault("PREFECT_HOME", str(home / "prefect")))
    if "%" in str(prefect) or "?" in str(prefect):  # Prefect itself takes the path for an address as it is
        address = database_uri(prefect.absolute() / "prefect.db", "aiosqlite")
        os.environ.setdefault("PREFECT_SERVER_DATABASE_CONNECTION_URL", address)
    return Settings(
        home=home,
        mlflow_uri=os.environ.get("MLFLOW_TRACKING_URI") or database_uri(home / "mlflow.db"),
        milvus_uri=os.environ.get("MULAN_MILVUS_URI") or None,
        milvus_token=os.environ.get("MULAN_MILVUS_TOKEN") or None,
        ray_address=os.environ.get("RAY_ADDRESS") or None,
        dvc_remote=os.environ.get("MULAN_DVC_REMOTE") or None,
        checkpoints=os.environ.get("MULAN_CHECKPOINTS") or str(home / "ray_results"),
        url=os.environ.get("MULAN_URL") or None,
        key=os.environ.get("MULAN_KEY") or None,
        keys_file=Path(os.environ.get("MULAN_KEYS_FILE") or home / "keys.json").absolute(),
        notify_url=os.environ.get("MULAN_NOTIFY_URL") or None,
    )
