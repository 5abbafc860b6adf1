"""The flow ``register``: the gate's decision, and the model as ``candidate`` in the MLflow registry."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from importlib import metadata
from typing import Any

import mlflow
from mlflow.exceptions import MlflowException
from prefect import flow, runtime, task
from prefect.cache_policies import NO_CACHE

from flows.pipeline.reports import read_evidence, read_report
from flows.pipeline.train import Trained, trained_run
from flows.registry import Registry
from flows.runtime.library_log import into_log
from flows.runtime.notifications import FAILURE_HOOKS
from flows.runtime.project import PACKAGES, code_version
from flows.runtime.session import Session, open_session
from flows.runtime.tracking import lineage_tags, tracking
from mulan_core.config import GateConfig, to_mapping
from mulan_core.errors import UserError
from mulan_core.evaluation.card import model_card
from mulan_core.evaluation.compare import compare
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.gate import Decision, decide_promotion
from serving.release import preprocessing_hash

GATE_FILE = "gate.json"
"""The gate's decision among the artifacts of a run, with its rules and the differences that it judged."""
MAX_TAG = 4_500
"""MLflow refuses tags that are much longer."""
REQUIREMENTS = ("torch", "transformers", "numpy", "soxr", "soundfile", "pyyaml")
"""What a registered model needs."""


@flow(
    name="register",
    description="Hold the candidate against the gate and register it.",
    timeout_seconds=3600,
    **FAILURE_HOOKS,
)
def register(manifest: str | None = None, playlists: str | None = None, params: str | None = None) -> dict[str, Any]:
    """Judge and register the workspace's evaluated run; see ``prepare`` for the arguments."""
    with open_session(manifest, playlists, params) as session, session.stage("register"):
        trained = trained_run(session)
        report = read_report(trained.run_id, mlflow_uri=session.registry.uri)
        decision = judge(report, trained.run_id, session.workspace.config.gate, session.registry)
        made_by = {"MLflow run": trained.run_id, "data": session.workspace.data_hash, "code": code_version()}
        card = model_card(report, session.workspace.config, decision, made_by=made_by)
        version = register_model(session, trained, decision, card)
        explanation = {"reasons": list(decision.reasons), "notes": list(decision.notes)}
        return {"version": version, "passed": decision.promote, **explanation}


@task(name="register model", retries=2, retry_delay_seconds=5, timeout_seconds=1800, cache_policy=NO_CACHE)
def register_model(session: Session, trained: Trained, decision: Decision, card: str) -> str:
    """Log the model to its run and make it the candidate; the same weights are registered once, so a retry is safe.

    Returns:
        The version.
    """
    registry, weights = session.registry, weights_hash(trained.model)
    own = [version for version in registry.of_run(trained.run_id) if version.tag("weights") == weights]
    with into_log():  # MLflow tells of it on stderr
        number = own[0].number if own else log_model(trained, registry)
    tags = lineage_tags(code_version(), runtime.flow_run.id) | {
        "mulan.data_hash": session.workspace.data_hash,
        "mulan.preprocessing_hash": preprocessing_hash(trained.model),
        "mulan.weights": weights,
    }
    registry.nominate(number, tags | gate_tags(decision), card=card)
    with tracking(registry.uri) as client:
        client.log_text(trained.run_id, card, "model_card.md")
    return number


def log_model(trained: Trained, registry: Registry) -> str:
    """Log a model to its run, with the code that opens it, and register it. Returns the version."""
    # Others may load it with other versions than it was made with. A build's own mark, as in 2.13.0+cpu, is not in the
    # index that they install from.
    needs = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in REQUIREMENTS]
    with tracking(registry.uri), mlflow.start_run(run_id=trained.run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(PACKAGES / "serving" / "pyfunc.py"),
            artifacts={"model": trained.model.as_uri()},
            code_paths=[str(PACKAGES / "mulan_core")],
            pip_requirements=needs,
            registered_model_name=registry.name,
        )
    return str(info.registered_model_version)


def judge(report: dict[str, Any], run_id: str, rules: GateConfig, registry: Registry) -> Decision:
    """Hold a candidate's report against the rules and the champion; record the decision on its run, as tags and file.

    The champion's report and evidence are those that its own run holds.
    """
    champion, champion_report, comparison = registry.get("champion"), None, None
    if champion is not None:
        champion_report = _report_of_champion(champion.run_id, mlflow_uri=registry.uri)
        comparison = _compared(champion_report, champion.run_id, report, run_id, rules, mlflow_uri=registry.uri)
    decision = decide_promotion(report, champion_report, rules, comparison)
    record = {
        **asdict(decision),
        "rules": to_mapping(rules),
        "set": report["set"]["hash"],
        "champion": champion and {"version": champion.number, "run_id": champion.run_id},
        "differences": comparison and comparison["metrics"],
    }
    with tracking(registry.uri) as client:
        for name, value in gate_tags(decision).items():
            client.set_tag(run_id, name, value)
        client.log_dict(run_id, record, GATE_FILE)
    return decision


def gate_tags(decision: Decision) -> dict[str, str]:
    """The gate's word and its reasons, for a run and for a version."""
    word = "passed" if decision.promote else "refused"
    reasons = "\n".join(decision.reasons)
    if len(reasons) > MAX_TAG:
        reasons = f"{reasons[:MAX_TAG]} ... (all in {GATE_FILE} of the run)"
    return {"mulan.gate": word, "mulan.gate_reasons": reasons}


def _report_of_champion(run_id: str, *, mlflow_uri: str) -> dict[str, Any]:
    """An empty one where it is lost: the gate refuses, and says how to get it."""
    try:
        return read_report(run_id, mlflow_uri=mlflow_uri)
    except (MlflowException, OSError):
        return {}


def _compared(
    champion: dict[str, Any],
    champion_run: str,
    report: dict[str, Any],
    run_id: str,
    rules: GateConfig,
    *,
    mlflow_uri: str,
) -> dict[str, Any] | None:
    """The differences on the metrics that the gate compares; None where there are none, for which the gate refuses."""
    if not champion or not rules.paired or not rules.compare:
        return None
    measured = []
    try:
        for model_report, run in ((champion, champion_run), (report, run_id)):
            asked = {name: value for name, value in model_report["metrics"].items() if name in rules.compare}
            measured.append((model_report | {"metrics": asked}, read_evidence(run, mlflow_uri=mlflow_uri)))
        return compare(measured[0], measured[1], names=("champion", "candidate")).as_mapping()
    except UserError as error:
        warnings.warn(f"the gate has no comparison: {error}", stacklevel=2)
        return None
