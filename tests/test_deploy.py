"""The image and what lies under deploy/ fit the service: schemas, users, paths, variables, metrics and commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from app.main import create_app
from app.settings import Settings
from tests.servers import ROOT, port_of, process, run, wait_until

KUBERNETES = ROOT / "deploy" / "kubernetes"
BASE = KUBERNETES / "base"
VARIANTS = ("one-worker", "several-workers")
FOLDERS = sorted(path.parent for path in KUBERNETES.glob("*/kustomization.yaml"))
MANIFESTS = sorted(
    path for folder in ("base", "ingress") for path in (KUBERNETES / folder).glob("*.yaml") if "kustom" not in path.name
)
NEEDS_KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
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


def test_ci_runs_the_versions_of_python_that_the_documents_name():
    matrix = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["check"]["strategy"]["matrix"]
    table = (ROOT / "docs/operations.md").read_text().partition("## Tested systems")[2]
    assert matrix["python"] == re.findall(r"^\| Python (3\.\d+)", table, re.MULTILINE)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_the_manifests_follow_the_schemas_of_kubernetes(path):
    for resource in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_kustomize_lists_every_manifest(folder):
    listed = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    manifests = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(listed) == manifests or (listed == ["../base"] and not manifests)


def built(folder):
    """What ``kubectl apply -k`` applies, by kind."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True)
    return {resource["kind"]: resource for resource in yaml.safe_load_all(done.stdout)}


@NEEDS_KUBECTL
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_has_the_documented_image_and_as_many_workers_as_its_limit(variant):
    resources = built(KUBERNETES / variant)
    for resource in resources.values():
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    deployment = resources["Deployment"]["spec"]
    (container,) = deployment["template"]["spec"]["containers"]
    assert shlex.split(f"docker build -t {container['image']} .") in COMMANDS
    assert (int(container["resources"]["limits"]["cpu"]) > 1) == (variant == "several-workers")
    assert "replicas" not in deployment, "applying it again would undo what the autoscaler decided"


@pytest.fixture(scope="module")
def pod():
    return yaml.safe_load((BASE / "deployment.yaml").read_text())["spec"]["template"]["spec"]


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


@pytest.mark.parametrize("uds", [False, True], ids=["port", "Unix socket"])
def test_the_health_check_follows_the_readiness(uds, tmp_path):
    (check,) = re.findall(r"^HEALTHCHECK .*CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    _, *command = json.loads(check)
    # Docker's client sets the proxies of its user in every container.
    environment = {"FASHIONNET_PORT": "9", "http_proxy": "http://127.0.0.1:9"}
    environment |= {"FASHIONNET_UDS": str(tmp_path / "http.sock")} if uds else {}
    assert run(*command, **environment).returncode != 0, "nothing listens"
    with process("-m", "app", **environment | {"FASHIONNET_PORT": "0"}) as server:
        if not uds:
            environment["FASHIONNET_PORT"] = str(port_of(server))
        wait_until(lambda: run(*command, **environment).returncode == 0)


def test_a_build_that_gets_no_test_set_says_how_to_get_it(tmp_path):
    (command,) = re.findall(r"^RUN (.* scripts/download\.py .*)$", DOCKERFILE, re.MULTILINE)
    for name in ("app", "model", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    done = subprocess.run(
        ["sh", "-c", command.replace("/opt/venv/bin/python", sys.executable)], cwd=tmp_path, text=True,
        capture_output=True, check=True, env=os.environ | {"FASHIONNET_DATA_URL": "http://127.0.0.1:9/"},
    )  # fmt: skip
    assert "build again with --no-cache" in done.stdout
    assert (tmp_path / "data").is_dir()


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
    assert manifests["network-policy"]["spec"]["podSelector"]["matchLabels"] == labels


def test_the_port_that_others_name_is_the_services():
    (port,) = yaml.safe_load((BASE / "service.yaml").read_text())["spec"]["ports"]
    policy = yaml.safe_load((BASE / "network-policy.yaml").read_text())["spec"]
    assert policy["ingress"] == [{"ports": [{"port": port["targetPort"], "protocol": "TCP"}]}]
    ingress = yaml.safe_load((KUBERNETES / "ingress" / "ingress.yaml").read_text())
    (path,) = ingress["spec"]["rules"][0]["http"]["paths"]
    assert path["backend"]["service"] == {"name": "fashionnet", "port": {"name": port["name"]}}
    annotations = {name.partition("/")[2]: value for name, value in ingress["metadata"]["annotations"].items()}
    assert int(annotations["proxy-body-size"]) == Settings().max_request_bytes
    assert int(annotations["proxy-read-timeout"]) >= 600, "an evaluation of the photo model takes minutes"


def test_compose_mounts_what_there_is(compose):
    mounts = [mount.split(":")[0] for service in compose.values() for mount in service.get("volumes", [])]
    assert len(mounts) == 3
    assert all((ROOT / "deploy" / mount).exists() for mount in mounts)


def test_compose_builds_and_starts_the_image_of_the_readme(compose):
    service = compose["fashionnet"]
    assert (ROOT / "deploy" / service["build"] / "Dockerfile").resolve() == ROOT.resolve() / "Dockerfile"
    assert f"docker build -t {service['image']} .\n" in (ROOT / "README.md").read_text()
    assert "HEALTHCHECK" in DOCKERFILE, "the others wait for it"
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


def test_compose_restarts_what_ends_and_starts_each_when_the_one_before_is_healthy(compose):
    assert {service["restart"] for service in compose.values()} == {"unless-stopped"}
    waits = {name: service.get("depends_on") for name, service in compose.items()}
    healthy = {"condition": "service_healthy"}
    assert waits == {"fashionnet": None, "prometheus": {"fashionnet": healthy}, "grafana": {"prometheus": healthy}}
    assert compose["prometheus"]["healthcheck"]["test"]


def test_compose_has_no_account_and_opens_only_the_service_to_others(compose):
    environment = compose["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true", "else it is admin with admin"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    ports = {name: service["ports"][0].rpartition(":")[0] for name, service in compose.items()}
    assert ports == {"fashionnet": "8000", "prometheus": "127.0.0.1:9090", "grafana": "127.0.0.1:3000"}


def test_the_image_version_is_that_of_the_app(container):
    assert container["image"] == f"fashionnet:{create_app(Settings()).version}"


def test_the_guide_builds_the_image_of_the_manifest(container):
    assert shlex.split(f"docker build -t {container['image']} .") in COMMANDS
    assert f"kind load docker-image {container['image']}" in GUIDE
    assert f"minikube image load {container['image']}" in GUIDE


def test_the_guide_applies_what_there_is():
    applied = {command[-1] for command in COMMANDS if command[:3] == ["kubectl", "apply", "-k"]}
    assert {ROOT / folder for folder in applied} == set(FOLDERS) - {BASE}
    (up,) = (command for command in COMMANDS if command[:2] == ["docker", "compose"])
    assert (ROOT / up[up.index("-f") + 1]).is_file()
    service = yaml.safe_load((BASE / "service.yaml").read_text())
    (forward,) = (command for command in COMMANDS if command[:2] == ["kubectl", "port-forward"])
    assert forward[2:] == [f"service/{service['metadata']['name']}", f"8000:{service['spec']['ports'][0]['port']}"]


@NEEDS_KUBECTL
def test_kustomize_takes_the_image_from_the_registry_of_its_comment(container, tmp_path):
    folder = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    text = (folder / "base" / "kustomization.yaml").read_text()
    changed = re.sub(r"^# (?=images:|  - )", "", text, flags=re.MULTILINE)
    (folder / "base" / "kustomization.yaml").write_text(changed)
    (found,) = built(folder / "one-worker")["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert found["image"] == f"registry.example.com/{container['image']}"


@pytest.mark.slow
def test_ray_serves_what_the_guide_names():
    (serve,) = (command for command in COMMANDS if command[0] == ".venv/bin/serve")
    module, name = serve[2].split(":")
    found = run("-W", "ignore", "-c", f"from {module} import {name}; print(type({name}).__name__)")
    assert found.stdout.strip() == "Application", found.stderr


def test_the_script_has_the_options_of_the_guide():
    (predict,) = (command for command in COMMANDS if command[1:2] == ["scripts/predict.py"])
    options = {word for word in predict if word.startswith("--")}
    assert options <= set(re.findall(r"--\w+", run("scripts/predict.py", "--help").stdout))


def test_the_guide_mounts_data_and_models_where_the_service_looks_for_them():
    data, models = (command for command in COMMANDS if "-v" in command)
    place_of_data, place_of_models = (command[command.index("-v") + 1].split(":")[1] for command in (data, models))
    assert f"FASHIONNET_DATA_DIR={place_of_data}" in DOCKERFILE
    assert f"FASHIONNET_MODEL_DIR={place_of_models}" in models
