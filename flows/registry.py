"""The MLflow registry: versions of the model ``mulan``, the aliases ``candidate`` and ``champion``.

A version carries what it was made of as tags (data hash, git commit, flow run, weights) and the gate's
decision with its reasons. Only ``promote`` moves ``champion``, and only for a version the gate passed.
"""

from __future__ import annotations

import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from flows.pipeline.reports import read_evidence, read_report
from flows.pipeline.train import Trained
from flows.runtime.project import PACKAGES
from flows.runtime.tracking import MODEL_NAME, NoRegistryError, reading, tracking
from mulan_core.config import GateConfig, to_mapping
from mulan_core.errors import UserError
from mulan_core.evaluation.compare import compare
from mulan_core.evaluation.encoders import weights_hash
from mulan_core.gate import Decision, decide_promotion

GATE_FILE = "gate.json"
"""The gate's decision among the artifacts of a run, with its rules and the differences that it judged."""
MAX_TAG = 4_500
"""MLflow refuses tags that are much longer."""
CHAMPIONS = "mulan.champions"
"""Tag of the registered model: its champions in order, the last one being the present one."""
MAX_CHAMPIONS = 100


def champion_version(*, mlflow_uri: str) -> str | None:
    """The version that ``champion`` names, or None while there is none."""
    try:
        with reading(mlflow_uri) as client:
            return str(client.get_model_version_by_alias(MODEL_NAME, "champion").version)
    except (MlflowException, NoRegistryError):
        return None


def judge(report: dict[str, Any], run_id: str, rules: GateConfig, *, mlflow_uri: str) -> Decision:
    """Hold a candidate's report against the rules and the champion; record the decision on its run, as tags and file.

    The champion's report and evidence are those that its own run holds.
    """
    champion, comparison = None, None
    with tracking(mlflow_uri) as client:
        try:
            version = client.get_model_version_by_alias(MODEL_NAME, "champion")
        except MlflowException:
            version = None
        if version is not None:
            champion = _report_of_champion(str(version.run_id), mlflow_uri=mlflow_uri)
            comparison = _compared(champion, str(version.run_id), report, run_id, rules, mlflow_uri=mlflow_uri)
        decision = decide_promotion(report, champion, rules, comparison)
        tags = gate_tags(decision)
        for name, value in tags.items():
            client.set_tag(run_id, name, value)
        record = {
            **asdict(decision),
            "rules": to_mapping(rules),
            "set": report["set"]["hash"],
            "champion": None if version is None else {"version": str(version.version), "run_id": version.run_id},
            "differences": comparison and comparison["metrics"],
        }
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
        for one, run in ((champion, champion_run), (report, run_id)):
            asked = {name: value for name, value in one["metrics"].items() if name in rules.compare}
            measured.append((one | {"metrics": asked}, read_evidence(run, mlflow_uri=mlflow_uri)))
        return compare(measured[0], measured[1], names=("champion", "candidate")).as_mapping()
    except UserError as error:
        warnings.warn(f"the gate has no comparison: {error}", stacklevel=2)
        return None


def register(trained: Trained, decision: Decision, *, card: str, tags: dict[str, str], mlflow_uri: str) -> str:
    """Log the model to its run and register it as ``candidate``; the same weights are registered once.

    Args:
        trained: the finished run.
        decision: the gate's.
        card: the model's card; the registry shows it as the version's description.
        tags: lineage (data hash, git commit, flow run, preprocessing hash).
        mlflow_uri: the registry.

    Returns:
        The version.
    """
    weights = weights_hash(trained.model)
    with tracking(mlflow_uri) as client:
        known = client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{trained.run_id}'")
        own = [v for v in known if v.tags.get("mulan.weights") == weights and "mulan.trained_on" not in v.tags]
        version = own[0].version if own else None
        if version is None:
            with mlflow.start_run(run_id=trained.run_id):
                info = mlflow.pyfunc.log_model(
                    name="model",
                    python_model=str(PACKAGES / "serving" / "pyfunc.py"),
                    artifacts={"model": trained.model.as_uri()},
                    code_paths=[str(PACKAGES / "mulan_core")],
                    pip_requirements=requirements(),
                    registered_model_name=MODEL_NAME,
                )
            version = info.registered_model_version
        version = str(version)
        for name, value in {**tags, "mulan.weights": weights, **gate_tags(decision)}.items():
            client.set_model_version_tag(MODEL_NAME, version, name, value)
        client.update_model_version(MODEL_NAME, version, description=card)
        client.log_text(trained.run_id, card, "model_card.md")
        client.set_registered_model_alias(MODEL_NAME, "candidate", version)
    return version


def requirements() -> list[str]:
    """What a registered model needs, in the versions that it was made with: others may load it otherwise."""
    names = ("torch", "transformers", "numpy", "soxr", "soundfile", "pyyaml")
    # A build's own mark, as in 2.13.0+cpu, is not in the index that others install from.
    return [f"{name}=={metadata.version(name).partition('+')[0]}" for name in names]


def version_of(trained: Trained, *, mlflow_uri: str) -> str:
    """The registered version of a finished run and its own data.

    Raises:
        UserError: if the run was never registered.
    """
    with tracking(mlflow_uri) as client:
        found = client.search_model_versions(f"name = '{MODEL_NAME}' and run_id = '{trained.run_id}'")
    own = [int(version.version) for version in found if "mulan.trained_on" not in version.tags]
    if not own:
        raise UserError("the trained model is not registered; run `mulan evaluate` first")
    return str(max(own))


def find_version(client: mlflow.MlflowClient, name: str) -> ModelVersion:
    """A version of the registered model by alias or number.

    Raises:
        UserError: if there is none.
    """
    try:
        if name.isdecimal():
            return client.get_model_version(MODEL_NAME, name)
        return client.get_model_version_by_alias(MODEL_NAME, name)
    except MlflowException as error:
        raise UserError(
            f"{name!r} is no alias or version of the model `{MODEL_NAME}`; see `mulan release list`"
        ) from error


def tag_version(version: str, tags: dict[str, str], *, mlflow_uri: str) -> None:
    """Add tags to a version, such as the collection that was built for it."""
    with tracking(mlflow_uri) as client:
        for name, value in tags.items():
            client.set_model_version_tag(MODEL_NAME, version, name, value)


def media_root(version: str, *, mlflow_uri: str) -> str | None:
    """The folder under which a version's tracks may be played; None where they are not local files."""
    with reading(mlflow_uri) as client:
        return client.get_model_version(MODEL_NAME, version).tags.get("mulan.media_root") or None


def check_gate(version: str, *, mlflow_uri: str) -> None:
    """Refuse a version that the gate has not passed. There is no way round the gate.

    Raises:
        UserError: if it has not.
    """
    with reading(mlflow_uri) as client:
        if find_version(client, version).tags.get("mulan.gate") != "passed":
            raise UserError(f"version {version} of {MODEL_NAME} was not passed by the gate; it stays candidate")


def promote(version: str, *, mlflow_uri: str) -> None:
    """Make a version the champion, and remember the champion before it.

    Raises:
        UserError: if the gate has not passed it.
    """
    check_gate(version, mlflow_uri=mlflow_uri)
    champions = list_champions(mlflow_uri=mlflow_uri)
    if champions[-1:] != [version]:
        _set_champion([*champions, version], mlflow_uri=mlflow_uri)


def demote(*, mlflow_uri: str) -> None:
    """Make the champion before this one the champion again; ``list_champions`` says which one that is."""
    _set_champion(list_champions(mlflow_uri=mlflow_uri)[:-1], mlflow_uri=mlflow_uri)


def list_champions(*, mlflow_uri: str) -> list[str]:
    """Versions that were champion and not rolled back, in that order; the last one is champion now."""
    now = champion_version(mlflow_uri=mlflow_uri)
    if now is None:
        return []
    with reading(mlflow_uri) as client:
        kept = client.get_registered_model(MODEL_NAME).tags.get(CHAMPIONS, "").split()
    # Whoever moved the alias by hand, in the MLflow UI, promoted too.
    return kept if kept[-1:] == [now] else [*kept, now]


def _set_champion(champions: list[str], *, mlflow_uri: str) -> None:
    with tracking(mlflow_uri) as client:
        client.set_registered_model_alias(MODEL_NAME, "champion", champions[-1])
        client.set_registered_model_tag(MODEL_NAME, CHAMPIONS, " ".join(champions[-MAX_CHAMPIONS:]))


def list_versions(*, mlflow_uri: str) -> list[dict[str, Any]]:
    """All versions, newest first, with what ``mulan release list`` shows."""
    try:
        with reading(mlflow_uri) as client:
            aliases = client.get_registered_model(MODEL_NAME).aliases
            versions = client.search_model_versions(f"name = '{MODEL_NAME}'")
    except (MlflowException, NoRegistryError):
        return []
    return [
        {
            "version": str(version.version),
            "aliases": ", ".join(sorted(a for a, v in aliases.items() if str(v) == str(version.version))),
            "gate": version.tags.get("mulan.gate", ""),
            "collection": version.tags.get("mulan.collection", ""),
            "data_hash": version.tags.get("mulan.data_hash", "")[:8],
            "git_commit": version.tags.get("mulan.git_commit", "")[:8],
            "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        }
        for version in sorted(versions, key=lambda v: int(v.version), reverse=True)
    ]
