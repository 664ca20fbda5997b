"""Dashboard, alert rules and documents name metrics and labels that the service exports, as Prometheus reads them."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from app.inference.drift import MIN_PREDICTIONS
from app.settings import Settings
from tests.pictures import grey_png
from tests.servers import ROOT, serve

RULES = ROOT / "deploy/prometheus/alerts.yml"
OF_PROMETHEUS = {"up"}, {"instance", "job", "le", "pid"}
"""Metrics and labels that Prometheus adds, and the one that tells workers apart."""


@pytest.fixture(scope="module")
def exported():
    """The names and labels of every metric of a service that has done all that is counted."""
    with serve(Settings(shadow_model="fashionnet-deep", shadow_share=1)) as client:
        files = [("files", grey_png(seed)) for seed in range(100)]
        for _ in range(MIN_PREDICTIONS // 100):
            assert client.post("/predict/batch", files=files).status_code == 200
        client.post("/predict", files={"file": b"no picture"})
        for _ in range(16):  # of which one is timed
            client.post("/predict", files={"file": grey_png()})
        families = list(text_string_to_metric_families(client.get("/metrics").text))
    samples = [sample for family in families for sample in family.samples]
    names = {sample.name for sample in samples} | {family.name for family in families}
    return names, {label for sample in samples for label in sample.labels}


def assert_exported(queries, exported):
    metrics, labels = set(), set()
    for query in queries:
        metrics |= set(re.findall(r"\b(?:fashionnet|process)_\w+|\bup\b", query))
        for listed in re.findall(r"\bby \(([^)]*)\)", query):
            labels |= set(re.findall(r"\w+", listed))
        labels |= {label for inner in re.findall(r"{([^}]*)}", query) for label in re.findall(r"(\w+)\s*[=!]", inner)}
    assert metrics <= exported[0] | OF_PROMETHEUS[0]
    assert labels <= exported[1] | OF_PROMETHEUS[1]
    return metrics


def test_the_dashboard_shows_metrics_that_there_are(exported):
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/fashionnet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = assert_exported(queries, exported)
    assert {"fashionnet_drift_psi", "fashionnet_shadow_predictions_total", "process_resident_memory_bytes"} <= shown
    places = [tuple(panel["gridPos"].values())[:2] for panel in dashboard["panels"]]
    assert len(set(places)) == len(places)


def test_the_alerts_watch_metrics_that_there_are(exported):
    rules = [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    assert_exported([rule["expr"] for rule in rules], exported)
    for rule in rules:
        named = re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])
        kept = re.findall(r"^max by \((.*?)\)", rule["expr"])
        assert not kept or set(named) <= set(re.findall(r"\w+", kept[0]))


def test_the_documents_name_metrics_that_there_are(exported):
    text = "".join((ROOT / name).read_text() for name in ("deploy/README.md", "docs/operations.md"))
    assert {name.removesuffix("_total") for name in re.findall(r"fashionnet_\w+", text)} <= exported[0]


def test_the_rules_are_the_same_for_the_prometheus_operator():
    rule = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/rules.yaml").read_text())
    assert rule["kind"] == "PrometheusRule"
    assert rule["spec"] == yaml.safe_load(RULES.read_text())


def test_the_operator_scrapes_the_service():
    monitor = yaml.safe_load((ROOT / "deploy/kubernetes/monitoring/service-monitor.yaml").read_text())
    service = yaml.safe_load((ROOT / "deploy/kubernetes/base/service.yaml").read_text())
    assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == (service["spec"]["ports"][0]["name"], "/metrics")


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (apt: prometheus)")
def test_each_alert_fires_when_it_should():
    command = ["promtool", "test", "rules", ROOT / "tests/alerts.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
