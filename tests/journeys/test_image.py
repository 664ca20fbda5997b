"""The image is built and run as the Kubernetes manifest says: its user, mounts, limits, probes and signals."""

import contextlib
import io
import json
import logging
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from PIL import Image

from tests.journeys.containers import install_docker_shim, why_not
from tests.journeys.walks import ADDRESS, Walk, blocks_of, port_8000
from tests.servers import ROOT, is_ready, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(why_not() is not None, reason=str(why_not()))]

POD = yaml.safe_load((ROOT / "deploy/kubernetes/base/deployment.yaml").read_text())["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
(PORT,) = (port["containerPort"] for port in CONTAINER["ports"])
SHIRT = (ROOT / "examples/shirt.png").read_bytes()
SERVICE_LINKS = {
    "FASHIONNET_SERVICE_HOST": "10.96.12.34",
    "FASHIONNET_SERVICE_PORT": "80",
    "FASHIONNET_SERVICE_PORT_HTTP": "80",
    "FASHIONNET_PORT": "tcp://10.96.12.34:80",
    "FASHIONNET_PORT_80_TCP": "tcp://10.96.12.34:80",
    "FASHIONNET_PORT_80_TCP_PROTO": "tcp",
    "FASHIONNET_PORT_80_TCP_PORT": "80",
    "FASHIONNET_PORT_80_TCP_ADDR": "10.96.12.34",
}
"""What Kubernetes sets in a pod beside a Service named fashionnet, unless enableServiceLinks is false."""
PEAK = "cat /sys/fs/cgroup/memory.peak 2>/dev/null || cat /sys/fs/cgroup/memory/memory.max_usage_in_bytes"


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    install_docker_shim(folder)
    return folder / "docker"


@pytest.fixture(scope="module")
def image(docker: Path) -> dict:
    """The image that the manifest names, as ``docker image inspect`` describes it."""
    run(docker, "build", "-t", CONTAINER["image"], str(ROOT))
    (found,) = json.loads(run(docker, "image", "inspect", CONTAINER["image"]))
    return found


@pytest.fixture(scope="module")
def health_check(image: dict) -> list[str]:
    """The command of the image's HEALTHCHECK."""
    kind, *command = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    return command


def run(docker: Path, *arguments: str) -> str:
    """Runs ``docker`` and returns what it prints."""
    done = subprocess.run([docker, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@contextlib.contextmanager
def container(docker: Path, *options: str) -> Iterator[tuple[str, httpx.Client]]:
    """A container on a free port, ready within the time of the startup probe: its name, and a client for it."""
    name = f"fashionnet-{uuid.uuid4().hex[:8]}"
    log = docker.with_name(name)
    command = [docker, "run", f"--name={name}", f"--publish=127.0.0.1::{PORT}", *options, CONTAINER["image"]]
    probe = CONTAINER["startupProbe"]
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            wait_until(lambda: published(docker, name) or process.poll() is not None)
            with httpx.Client(base_url=f"http://{published(docker, name)}", timeout=60) as client:
                wait_until(
                    lambda: is_ready(client) or process.poll() is not None,
                    probe["periodSeconds"] * probe["failureThreshold"],
                )
                assert process.poll() is None, log.read_text()
                yield name, client
        finally:
            run(docker, "rm", "--force", "--ignore", "--time=0", name)


def published(docker: Path, name: str) -> str:
    """The address of a container's port on this machine; empty before it runs."""
    done = subprocess.run([docker, "port", name, f"{PORT}/tcp"], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def limits_of_the_pod() -> list[str]:
    """The options of ``docker run`` that stand for the manifest's."""
    user, allowed, limits = POD["securityContext"], CONTAINER["securityContext"], CONTAINER["resources"]["limits"]
    sizes = {volume["name"]: volume["emptyDir"]["sizeLimit"] for volume in POD["volumes"]}
    return [
        f"--user={user['runAsUser']}:{user['runAsGroup']}",
        f"--read-only={json.dumps(allowed['readOnlyRootFilesystem'])}",
        "--read-only-tmpfs=false",
        f"--security-opt=no-new-privileges:{json.dumps(not allowed['allowPrivilegeEscalation'])}",
        *(f"--cap-drop={capability}" for capability in allowed["capabilities"]["drop"]),
        f"--cpus={limits['cpu']}",
        f"--memory={size_in_bytes(limits['memory'])}",
        f"--memory-swap={size_in_bytes(limits['memory'])}",
        *(
            f"--mount=type=tmpfs,destination={mount['mountPath']},tmpfs-size={size_in_bytes(sizes[mount['name']])}"
            for mount in CONTAINER["volumeMounts"]
        ),
    ]


def size_in_bytes(quantity: str) -> int:
    assert quantity.endswith("Mi"), quantity
    return int(quantity.removesuffix("Mi")) << 20


def as_options(environment: dict[str, str]) -> list[str]:
    return [f"--env={name}={value}" for name, value in environment.items()]


def photo() -> bytes:
    """Twelve megapixels, as a phone takes them."""
    content = io.BytesIO()
    Image.radial_gradient("L").resize((4000, 3000)).convert("RGB").save(content, "JPEG")
    return content.getvalue()


def test_the_configuration_of_the_image_is_that_of_the_manifest(image: dict):
    user = POD["securityContext"]
    assert image["Config"]["User"] == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert list(image["Config"]["ExposedPorts"]) == [f"{PORT}/tcp"]


def test_the_health_check_fails_where_nothing_listens(docker: Path, health_check: list[str]):
    with pytest.raises(AssertionError, match="ConnectionRefusedError"):
        run(docker, "run", CONTAINER["image"], *health_check)


@pytest.mark.parametrize("links", [{}, SERVICE_LINKS], ids=["manifest", "service-links"])
def test_the_pod_becomes_ready_answers_and_stops(links: dict[str, str], docker: Path, health_check: list[str]):
    environment = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    with container(docker, *limits_of_the_pod(), *as_options(environment | links)) as (name, client):
        probes = [CONTAINER[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")]
        assert [client.get(path).status_code for path in probes] == [200, 200, 200]
        assert client.post("/predict", files={"file": SHIRT}).json()["label"] == "Shirt"
        run(docker, "exec", name, *health_check)
        seconds = POD["terminationGracePeriodSeconds"] - CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
        start = time.monotonic()
        run(docker, "stop", f"--time={seconds}", name)
        assert time.monotonic() - start < seconds, "killed"


def status_once_admitted(client: httpx.Client, picture: bytes) -> int:
    """Returns the status of a picture, which is sent again while the service is busy."""
    while (answer := client.post("/predict", files={"file": picture})).status_code == 429:
        time.sleep(int(answer.headers["retry-after"]))
    return answer.status_code


def test_the_memory_that_the_pod_requests_is_enough(docker: Path, image: dict):
    with container(docker, *limits_of_the_pod()) as (name, client), ThreadPoolExecutor(8) as threads:
        pictures = [SHIRT] * 400 + [photo()] * 16
        statuses = threads.map(lambda picture: status_once_admitted(client, picture), pictures)
        assert set(statuses) == {200}
        peak = int(run(docker, "exec", name, "sh", "-c", PEAK))
    logging.getLogger(__name__).warning("peak of the memory of the pod: %d MiB", peak >> 20)
    assert peak < size_in_bytes(CONTAINER["resources"]["requests"]["memory"])


def test_the_commands_of_readme_build_and_run_the_image(docker: Path):
    (block,) = (block for block in blocks_of("README.md") if "docker" in block.text)
    with port_8000():
        walk = Walk(ROOT, PATH=f"{docker.parent}:{os.environ['PATH']}", log=docker.with_name("readme.log"))
        try:
            for command in block.commands:
                walk.run(command)
            answer = walk.run(f"curl -F file=@examples/shirt.png {ADDRESS}/predict")
            assert json.loads(answer)["label"] == "Shirt"
        finally:
            walk.stop()
