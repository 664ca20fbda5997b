"""The image and what lies under deploy/ fit the service: schemas, users, paths, variables, metrics and commands."""

import json
import re
import shlex
import shutil
import subprocess

import kubernetes_validate
import pytest
import yaml

from app.main import create_app
from app.metrics import BATCH_SIZE, CONFIDENCE, IN_PROGRESS, MODEL_INFO, PROBLEMS, QUEUE_DEPTH, REQUESTS, STAGES
from app.settings import Settings
from tests.servers import ROOT, port_of, process, run, wait_until

KUBERNETES = ROOT / "deploy" / "kubernetes"
MANIFESTS = sorted(path for path in KUBERNETES.glob("*.yaml") if path.name != "kustomization.yaml")
YAML = sorted((ROOT / "deploy").rglob("*.y*ml"))
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
GUIDE = (ROOT / "deploy" / "README.md").read_text()
COMMANDS = [
    shlex.split(line) for block in re.findall(r"```sh\n(.*?)```", GUIDE, re.DOTALL) for line in block.splitlines()
]
"""The commands of the guide."""


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
def pod():
    return yaml.safe_load((KUBERNETES / "deployment.yaml").read_text())["spec"]["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]


def test_the_user_is_a_number_and_the_same_in_image_and_manifest(pod):
    (user,) = re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "the kubelet cannot tell whether a named user is root"
    security = pod["securityContext"]
    assert user == f"{security['runAsUser']}:{security['runAsGroup']}"
    uid, gid = user.split(":")
    assert f"groupadd --gid {gid} " in DOCKERFILE
    assert f"useradd --uid {uid} --gid {gid} " in DOCKERFILE


def test_the_pod_meets_the_restricted_security_standard(pod, container):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_service_sets_no_variables_in_the_pods(pod):
    assert pod["enableServiceLinks"] is False, "FASHIONNET_PORT would be tcp://..."


def test_what_is_mounted_is_there(pod, container):
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_the_port_is_that_of_the_image(container):
    exposed = re.findall(r"^EXPOSE (\d+)$", DOCKERFILE, re.MULTILINE)
    assert exposed == [str(port["containerPort"]) for port in container["ports"]] == [str(Settings().port)]


def test_the_health_check_follows_the_readiness():
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    _, *command = json.loads(check)
    # Docker's client sets the proxies of its user in every container.
    environment = {"FASHIONNET_PORT": "9", "http_proxy": "http://127.0.0.1:9"}
    assert run(*command, **environment).returncode != 0, "nothing listens"
    with process("-m", "app", **environment | {"FASHIONNET_PORT": "0"}) as server:
        environment["FASHIONNET_PORT"] = str(port_of(server))
        wait_until(lambda: run(*command, **environment).returncode == 0)


def test_the_probes_ask_for_what_is_served(container, client):
    paths = [container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    assert [client.get(path).status_code for path in paths] == [200, 200, 200]


def test_the_variables_are_settings(container):
    names = {variable["name"].removeprefix("FASHIONNET_").lower() for variable in container["env"]}
    assert names <= set(Settings.model_fields)


def test_there_is_time_to_drain(pod, container):
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


def metric_names():
    """Every metric of the service, with what Prometheus appends to its name."""
    collectors = (BATCH_SIZE, CONFIDENCE, IN_PROGRESS, MODEL_INFO, QUEUE_DEPTH, PROBLEMS, REQUESTS, STAGES)
    suffixes = ("", "_total", "_count", "_sum", "_bucket")
    return {metric.name + suffix for collector in collectors for metric in collector.collect() for suffix in suffixes}


def test_the_dashboard_shows_metrics_that_there_are():
    dashboard = json.loads((ROOT / "deploy/grafana/dashboards/fashionnet.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for query in queries for name in re.findall(r"fashionnet_\w+", query)}
    assert len(named) > 8
    assert named <= metric_names()


def test_the_guide_names_metrics_that_there_are():
    named = re.findall(r"fashionnet_\w+", GUIDE + (ROOT / "docs/operations.md").read_text())
    assert len(set(named)) > 6
    assert set(named) <= metric_names()


def test_compose_mounts_what_there_is(compose):
    mounts = [mount.split(":")[0] for service in compose.values() for mount in service.get("volumes", [])]
    assert len(mounts) == 3
    assert all((ROOT / "deploy" / mount).exists() for mount in mounts)


def test_compose_builds_and_starts_the_image_of_the_readme(compose):
    service = compose["fashionnet"]
    assert (ROOT / "deploy" / service["build"] / "Dockerfile").resolve() == ROOT.resolve() / "Dockerfile"
    assert f"docker build -t {service['image']} .\n" in (ROOT / "README.md").read_text()
    names = {name.removeprefix("FASHIONNET_").lower() for name in service["environment"]}
    assert names <= set(Settings.model_fields)


def test_compose_connects_grafana_prometheus_and_the_service(compose):
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"fashionnet:{Settings().port}"]}]
    (source,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((ROOT / "deploy/grafana/provisioning/dashboards/fashionnet.yaml").read_text())[
        "providers"
    ]
    targets = [mount.split(":")[1] for mount in compose["grafana"]["volumes"]]
    assert provider["options"]["path"] in targets
    assert {"fashionnet", "prometheus"} <= set(compose)


def test_the_image_version_is_that_of_the_app(container):
    assert container["image"] == f"fashionnet:{create_app(Settings()).version}"


def test_the_guide_builds_the_image_of_the_manifest(container):
    assert shlex.split(f"docker build -t {container['image']} .") in COMMANDS
    assert f"kind load docker-image {container['image']}" in GUIDE
    assert f"minikube image load {container['image']}" in GUIDE


def test_the_guide_applies_what_there_is():
    (apply,) = (command for command in COMMANDS if command[:2] == ["kubectl", "apply"])
    assert (ROOT / apply[apply.index("-k") + 1]) == KUBERNETES
    (up,) = (command for command in COMMANDS if command[:2] == ["docker", "compose"])
    assert (ROOT / up[up.index("-f") + 1]).is_file()
    service = yaml.safe_load((KUBERNETES / "service.yaml").read_text())
    (forward,) = (command for command in COMMANDS if command[:2] == ["kubectl", "port-forward"])
    assert forward[2:] == [f"service/{service['metadata']['name']}", f"8000:{service['spec']['ports'][0]['port']}"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_takes_the_image_from_the_registry_of_its_comment(container, tmp_path):
    folder = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    text = (folder / "kustomization.yaml").read_text()
    (folder / "kustomization.yaml").write_text(re.sub(r"^# (?=images:|  - )", "", text, flags=re.MULTILINE))
    built = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    images = [
        resource["spec"]["template"]["spec"]["containers"][0]["image"]
        for resource in yaml.safe_load_all(built)
        if resource["kind"] == "Deployment"
    ]
    assert images == [f"registry.example.com/{container['image']}"]


@pytest.mark.slow
def test_ray_serves_what_the_guide_names():
    (serve,) = (command for command in COMMANDS if command[0] == "serve")
    module, name = serve[2].split(":")
    found = run("-W", "ignore", "-c", f"from {module} import {name}; print(type({name}).__name__)")
    assert found.stdout.strip() == "Application", found.stderr


def test_the_script_has_the_options_of_the_guide():
    (predict,) = (command for command in COMMANDS if command[:2] == ["python", "scripts/predict.py"])
    options = {word for word in predict if word.startswith("--")}
    assert options <= set(re.findall(r"--\w+", run("scripts/predict.py", "--help").stdout))


def test_the_guide_mounts_the_data_where_the_image_looks_for_it():
    (mount,) = (command[command.index("-v") + 1] for command in COMMANDS if "-v" in command)
    assert f"FASHIONNET_DATA_DIR={mount.split(':')[1]}" in DOCKERFILE
