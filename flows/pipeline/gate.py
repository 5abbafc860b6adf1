"""The flow ``register``: the gate's decision, and the model as ``candidate`` in the MLflow registry."""

from __future__ import annotations

from typing import Any

from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE

from flows import registry
from flows.pipeline.reports import read_report
from flows.pipeline.train import Trained, trained_run
from flows.runtime.library_log import into_log
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.project import code_version
from flows.runtime.session import Session, open_session
from flows.runtime.tracking import lineage_tags
from mulan_core.evaluation.card import model_card
from mulan_core.gate import Decision
from serving.release import preprocessing_hash


@flow(
    name="register",
    description="Hold the candidate against the gate and register it.",
    timeout_seconds=3600,
    **FAILURE_HOOKS,
)
def register(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Judge and register the workspace's evaluated run; see ``prepare`` for the arguments."""
    with open_session(manifest, playlists, params) as session, session.stage("register"):
        trained, uri = trained_run(session), session.settings.mlflow_uri
        report = read_report(trained.run_id, mlflow_uri=uri)
        decision = registry.judge(report, trained.run_id, session.workspace.config.gate, mlflow_uri=uri)
        made_by = {"MLflow run": trained.run_id, "data": session.workspace.data_hash, "code": code_version()}
        card = model_card(report, session.workspace.config, decision, made_by=made_by)
        version = register_model(session, trained, decision, card)
        said = {"reasons": list(decision.reasons), "notes": list(decision.notes)}
        return {"version": version, "passed": decision.promote, **said}


@task(name="register model", retries=2, retry_delay_seconds=5, timeout_seconds=1800, cache_policy=NO_CACHE)
def register_model(session: Session, trained: Trained, decision: Decision, card: str) -> str:
    """Log and register; the same weights are registered once, so a retry is safe."""
    tags = lineage_tags(code_version(), runtime.flow_run.id) | {
        "mulan.data_hash": session.workspace.data_hash,
        "mulan.preprocessing_hash": preprocessing_hash(trained.model),
    }
    with into_log():  # MLflow tells of it on stderr
        return registry.register(trained, decision, card=card, tags=tags, mlflow_uri=session.settings.mlflow_uri)
