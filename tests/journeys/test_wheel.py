"""From ``pip wheel .`` to a prediction, in an environment of its own and another folder."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.data_sets import make_data_set
from tests.journeys.walks import copy_repository, mirror
from tests.servers import ROOT, client_of

pytestmark = pytest.mark.slow


class Installed:
    """FashionNet installed from its wheel, used from an empty folder with an empty home."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.bin = environment / "bin"
        self.folder = folder
        kept = {"PATH": os.environ["PATH"], "LANG": os.environ.get("LANG", "C.UTF-8")}
        self.variables = kept | {"HOME": str(folder / "home")}

    def run(self, command: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.bin / command, *arguments], cwd=self.folder, env=self.variables | variables, capture_output=True,
            text=True, check=False, timeout=120,
        )  # fmt: skip

    @contextlib.contextmanager
    def serving(self, *arguments: str) -> Iterator[httpx.Client]:
        command = [self.bin / "fashionnet", "--port", "0", *arguments]
        with subprocess.Popen(command, cwd=self.folder, env=self.variables) as server:
            try:
                with client_of(server) as client:
                    yield client
            finally:
                server.terminate()


def checked(*command: str, cwd: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Installed:
    clone = copy_repository(tmp_path_factory.mktemp("clone") / "fashionnet")
    wheels, environment, folder = (tmp_path_factory.mktemp(name) for name in ("wheels", "environment", "elsewhere"))
    checked(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), ".", cwd=clone)
    (wheel,) = wheels.glob("fashionnet-*.whl")
    checked(sys.executable, "-m", "venv", str(environment), cwd=folder)
    pip = (str(environment / "bin/pip"), "install", "--quiet")
    checked(*pip, "--require-hashes", "--requirement", str(ROOT / "requirements/serve.txt"), cwd=folder)
    checked(*pip, "--no-deps", str(wheel), cwd=folder)
    checked(str(environment / "bin/pip"), "check", cwd=folder)
    return Installed(environment, folder)


def test_the_command_serves_and_every_message_is_true_here(installed, tmp_path):
    small = make_data_set(tmp_path / "mirror")
    raw = installed.folder / "home/.local/share/fashionnet/FashionMNIST/raw"
    with installed.serving("--workers", "2") as client:
        shirt = (ROOT / "examples/shirt.png").read_bytes()
        assert client.post("/predict", files={"file": shirt}).json()["label"] == "Shirt"
        assert client.get("/").status_code == client.get("/docs").status_code == 200
        assert client.get("/page/examples/shirt.png").content == shirt
        problem = client.get("/evaluate")
        assert problem.status_code == 503
        assert "`fashionnet download`" in problem.json()["detail"]
        raw.mkdir(parents=True)
        (raw / "SHA256SUMS").write_text((small.folder / "SHA256SUMS").read_text())
        with mirror(small) as url:
            done = installed.run("fashionnet", "download", FASHIONNET_DATA_URL=url)
        assert done.stdout == f"Fashion-MNIST is complete in {raw}.\n", done.stderr
        assert client.get("/evaluate").json()["count"] == 200


def test_help_and_errors_are_true_here(installed):
    assert "--workers" in installed.run("fashionnet", "--help").stdout
    assert "--workers" in installed.run("python", "-m", "app", "--help").stdout
    done = installed.run("fashionnet", FASHIONNET_ENGINE="torch")
    assert done.returncode == 1
    assert "pip install 'fashionnet[train]'" in done.stderr
    empty = installed.folder / "empty"
    empty.mkdir()
    done = installed.run("fashionnet", "--model-dir", str(empty), "--port", "0")
    assert done.returncode == 1
    assert "scripts/" not in done.stderr
    assert "has no model" in done.stderr
    assert len(done.stderr.splitlines()) == 1
