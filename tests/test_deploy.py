"""What lies under deploy/ fits the service: schemas, paths, variables and metrics."""

import json
import re

import kubernetes_validate
import pytest
import yaml

from app.main import create_app
from app.metrics import BATCH_SIZE, CONFIDENCE, IN_PROGRESS, MODEL_INFO, QUEUE_DEPTH, REJECTIONS, REQUESTS, STAGES
from app.settings import Settings
from tests.servers import ROOT

KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
YAML = sorted((ROOT / "deploy").rglob("*.y*ml"))


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_every_file_is_yaml(path):
    assert list(yaml.safe_load_all(path.read_text()))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_follow_the_schemas_of_kubernetes(path):
    for resource in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def test_kustomize_lists_every_manifest():
    listed = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed) == [path.name for path in MANIFESTS]


@pytest.fixture(scope="module")
def container():
    (container,) = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"][
        "containers"
    ]
    return container


def test_the_probes_ask_for_what_is_served(container, client):
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [client.get(path).status_code for path in paths] == [200, 200, 200]


def test_the_variables_are_settings(container):
    names = {variable["name"].removeprefix("FASHIONNET_").lower() for variable in container["env"]}
    assert names <= set(Settings.model_fields)


def test_there_is_time_to_drain(container):
    pod = yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = float(next(v["value"] for v in container["env"] if v["name"] == "FASHIONNET_DRAIN_SECONDS"))
    assert wait + drain + 30 <= pod["terminationGracePeriodSeconds"], "uvicorn gives open requests 30 s"


def test_selectors_find_the_pods():
    manifests = {path.stem: yaml.safe_load(path.read_text()) for path in MANIFESTS}
    labels = manifests["deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests["deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["service"]["spec"]["selector"] == labels
    assert manifests["disruption-budget"]["spec"]["selector"]["matchLabels"] == labels
    assert manifests["autoscaler"]["spec"]["scaleTargetRef"]["name"] == manifests["deployment"]["metadata"]["name"]


def test_the_dashboard_shows_metrics_that_there_are():
    collectors = (BATCH_SIZE, CONFIDENCE, IN_PROGRESS, MODEL_INFO, QUEUE_DEPTH, REJECTIONS, REQUESTS, STAGES)
    suffixes = ("", "_total", "_count", "_sum", "_bucket")
    there = {metric.name + suffix for collector in collectors for metric in collector.collect() for suffix in suffixes}
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/fashionnet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"fashionnet_\w+", query)}
    assert len(named) > 8
    assert named <= there


def test_compose_mounts_what_there_is():
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    mounts = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", [])]
    assert len(mounts) == 3
    assert all((ROOT / "deploy" / mount).exists() for mount in mounts)


def test_the_image_version_is_that_of_the_app(container):
    assert container["image"] == f"fashionnet:{create_app(Settings()).version}"
