"""What Prometheus and Grafana are told: metrics that are really exported, on dashboards and in alerts."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import ray
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))

from model_fixtures import model_config, processor, tiny_model
from prepared_fixtures import write_prepared

from flows.pipeline.gauges import TrainingGauges
from mulan_core.config import TrainConfig
from mulan_core.data.batches import TrainingBatches
from mulan_core.tasks import ContrastiveTask
from mulan_core.training import fit
from serving.metrics import Metrics

ROOT = Path(__file__).resolve().parents[2]
RULES = yaml.safe_load((ROOT / "infra/prometheus/rules.yaml").read_text(encoding="utf-8"))
ALERTS = {rule["alert"]: rule for group in RULES["groups"] for rule in group["rules"]}
DASHBOARDS = sorted((ROOT / "infra/grafana").glob("*.json"))


def step_metrics(folder: Path) -> dict[str, float]:
    """What the loop reports of one real step."""
    config = TrainConfig(steps=1, batch_size=4, num_workers=1, warmup_steps=1, precision="fp32")
    frontend = model_config().frontend
    pairs = TrainingBatches.of_pairs(
        write_prepared(folder), config, lambda texts: processor()(text=texts), frontend=frontend
    )
    points: list[dict[str, float]] = []
    task = ContrastiveTask(tiny_model(), config)
    fit(
        task,
        pairs.from_step,
        config=config,
        report=lambda _, values: points.append(dict(values)),
        save=lambda *_: None,
    )
    return points[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[set[str]]:
    """Every name that Prometheus would find: the endpoint's, and those of a Ray node on which a worker trains."""
    metrics = step_metrics(tmp_path_factory.mktemp("prepared"))
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)

    @ray.remote
    class Worker:
        def __init__(self) -> None:
            self.gauges = TrainingGauges("train-abc")

        def report(self) -> None:
            self.gauges.set(20, metrics)

    try:
        worker = Worker.remote()
        ray.get(worker.report.remote())
        (node,) = ray.nodes()
        address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        deadline, text = time.monotonic() + 60, ""
        while 'run="train-abc"' not in text and time.monotonic() < deadline:
            time.sleep(1)  # Ray's agent collects every ten seconds
            text = httpx.get(address, timeout=10).text
        yield set(re.findall(r"^(\w+)[{ ]", text + Metrics().text().decode(), re.MULTILINE))
    finally:
        ray.shutdown()


def named(text: str) -> set[str]:
    found = set(re.findall(r"\b(?:ray_)?mulan_\w+|\bray_node_\w+", text))
    # A counter or histogram without a label's value yet has no line of its own; Ray's GPU numbers need a GPU.
    return {name for name in found if not name.startswith(("ray_node_gpu", "ray_node_gram"))}


@pytest.mark.slow
def test_training_numbers_reach_prometheus_through_ray(exported: set[str]) -> None:
    assert {"ray_mulan_train_loss", "ray_mulan_train_tau", "ray_mulan_train_alarm_collapse"} <= exported


@pytest.mark.slow
def test_the_training_dashboard_shows_metrics_that_exist_and_every_alarm(exported: set[str]) -> None:
    dashboard = json.loads((ROOT / "infra/grafana/training.json").read_text(encoding="utf-8"))
    shown = named(json.dumps(dashboard["panels"]))
    assert len(shown) >= 12 and shown <= exported, shown - exported
    assert {name for name in exported if "train_alarm" in name} <= shown


@pytest.mark.slow
@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_watches_what_exists_and_says_where_to_read_on(name: str, exported: set[str]) -> None:
    rule = ALERTS[name]
    metrics = Metrics()
    metrics.count_request("/v1/search", "GET", 200, 0.1)
    metrics.errors.labels("overloaded").inc()
    text = metrics.text().decode()
    endpoint = set(re.findall(r"^# TYPE (\w+)", text, re.MULTILINE)) | set(re.findall(r"^(\w+)[{ ]", text, re.M))
    assert named(rule["expr"]) and named(rule["expr"]) <= exported | endpoint
    assert rule["expr"].count("(") == rule["expr"].count(")")
    assert rule["labels"]["severity"] in ("page", "ticket") and rule["annotations"]["summary"]
    page, _, heading = rule["annotations"]["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert not heading or heading in {title.lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_do_not_overlap_and_have_a_source(path: Path) -> None:
    dashboard = json.loads(path.read_text(encoding="utf-8"))
    cells: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells and at["x"] + at["w"] <= 24, panel["title"]
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"], panel["title"]
        cells |= own
