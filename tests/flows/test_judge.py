"""The gate on real runs: which reports and evidence it reads, and where it leaves its decision. No Ray is started."""

import sys

import mlflow
import pytest
from flow_fixtures import ROOT

sys.path.insert(0, str(ROOT / "tests" / "core"))

from test_suite import CONFIG, catalogue, evaluate_both

from flows.pipeline.gate import GATE_FILE, MAX_TAG, gate_tags, judge
from flows.pipeline.reports import REPORT_FOLDER
from flows.registry import Registry
from flows.runtime.database import database_uri
from flows.runtime.tracking import tracking
from mulan_core.config import GateConfig
from mulan_core.evaluation.evidence import FILE
from mulan_core.gate import Decision

GENRE = "tagging/genre/roc_auc"
RULES = GateConfig(floors={GENRE: 0.5}, compare=(GENRE,), margin=0.02)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Runs of a clear and a noisy model with report and evidence, two without; and name -> run, report."""
    folder = tmp_path_factory.mktemp("mlflow")
    uri, runs = database_uri(folder / "mlflow.db"), {}
    for name, noise in (("clear", 3.0), ("noisy", 9.0), ("unproven", 3.0), ("lost", 3.0)):
        report, evidence = evaluate_both(**catalogue(noise=noise), config=CONFIG, set_info={"name": "own"})
        evidence.save(folder / FILE)
        with tracking(uri) as client, mlflow.start_run() as run:
            runs[name] = (run.info.run_id, report)
            if name != "lost":
                client.log_dict(run.info.run_id, report, f"{REPORT_FOLDER}/report.json")
            if name not in ("lost", "unproven"):
                client.log_artifact(run.info.run_id, str(folder / FILE), REPORT_FOLDER)
    with tracking(uri) as client:
        client.create_registered_model("mulan")
        for name, (run_id, _) in runs.items():
            version = client.create_model_version("mulan", f"runs:/{run_id}/model", run_id)
            client.set_registered_model_alias("mulan", name, version.version)
    return Registry(uri, folder), runs


@pytest.mark.parametrize(
    ("champion", "candidate", "refusal"),
    [
        ("clear", "clear", None),
        ("noisy", "clear", None),
        ("clear", "noisy", f"compare: {GENRE} is"),
        ("unproven", "clear", "compare: tagging/genre/roc_auc: there is no comparison on this set"),
        ("lost", "clear", "the champion on unknown; evaluate the champion on the candidate's set first"),
    ],
)
@pytest.mark.filterwarnings("ignore:the gate has no comparison")
def test_the_champion_s_own_run_is_judged_against(registry, champion, candidate, refusal):
    registry, runs = registry
    run_id, report = runs[candidate]
    version = registry.find(champion)
    with tracking(registry.uri) as client:
        client.set_registered_model_alias("mulan", "champion", version.number)
        decision = judge(report, run_id, RULES, registry)
        tags = client.get_run(run_id).data.tags
        written = mlflow.artifacts.load_dict(f"runs:/{run_id}/{GATE_FILE}")
    assert decision.promote is (refusal is None)
    assert refusal is None or any(refusal in reason for reason in decision.reasons), decision.reasons
    assert tags["mulan.gate"] == ("refused" if refusal else "passed")
    assert tags["mulan.gate_reasons"].splitlines() == written["reasons"] == list(decision.reasons)
    assert written["champion"] == {"version": version.number, "run_id": runs[champion][0]}
    assert written["set"] == report["set"]["hash"] and written["rules"]["margin"] == 0.02
    assert list(written["differences"] or ()) == ([] if champion in ("unproven", "lost") else [GENRE])


def test_many_reasons_are_cut_in_a_tag():
    tag = gate_tags(Decision(False, tuple(f"slice_margin: class {n} fell" for n in range(500))))["mulan.gate_reasons"]
    assert len(tag) < MAX_TAG + 100 and tag.endswith("(all in gate.json of the run)")
