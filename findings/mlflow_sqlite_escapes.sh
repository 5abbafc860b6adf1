#!/usr/bin/env bash
# MLflow on SQLAlchemy 2.1: of one sqlite:/// address two folders are made, the path as it is meant and as it is written.
#
# Guess:  the path of a SQLite address is taken as it stands, so `%20` is a folder called `%20`, and only `?` needs
#         another form (`file:...?uri=true`).
# Seen:   SQLAlchemy 2.1 decodes it: `%3F` is `?` and `%20` a blank, so escaping is the way to any name, and an address
#         that is made of a path with `%20` in it opens another file. The form with `file:` is decoded twice. MLflow
#         makes the parent folder before SQLAlchemy opens it, and takes the path as it is written: beside the folder
#         `a?b` with the database lies an empty one called `a%3Fb`. An address that names the driver,
#         sqlite+pysqlite:///, opens the same database and makes no other folder.
# With:   mlflow 3.17.2, SQLAlchemy 2.1.9, Python 3.11 (30 November 2026)
# Ours:   flows/runtime/database.py escapes `%` and `?`, and names the driver where it does.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/pip install --quiet "mlflow==3.17.2" "SQLAlchemy==2.1.9"
cat >make.py <<'PYTHON'
import os
import sys
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
from mlflow import MlflowClient


def made_by(scheme, folder):
    """What lies in a new folder once an experiment was made in its `a?b/mlflow.db`."""
    (folder / "a?b").mkdir(parents=True)
    MlflowClient(f"{scheme}:///{folder}/a%3Fb/mlflow.db").create_experiment("x", str(folder / "artifacts"))
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != "artifacts")


plain = made_by("sqlite", Path.cwd() / "plain")
named = made_by("sqlite+pysqlite", Path.cwd() / "named")
print("sqlite:///           ", plain)
print("sqlite+pysqlite:///  ", named)
sys.exit(not (plain == ["a%3Fb", "a?b", "a?b/mlflow.db"] and named == ["a?b", "a?b/mlflow.db"]))
PYTHON
venv/bin/python make.py 2>/dev/null
