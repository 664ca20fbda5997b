"""From ``scripts/train.py`` on little data, interrupted and resumed, to the service and the scripts over the run."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from model import ModelCard, list_artifacts
from model.artifact import read_card
from tests.data_sets import make_data_set
from tests.journeys.walks import copy_repository
from tests.servers import ROOT, client_of

pytestmark = pytest.mark.slow


class Trained:
    """A run in a fresh copy of the repository: its folder there, and what the training printed last."""

    def __init__(self, clone: Path, environment: dict[str, str], last_line: str) -> None:
        self.clone = clone
        self.environment = environment
        self.last_line = last_line

    def python(self, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *command], cwd=self.clone, env=self.environment | environment, capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Trained:
    """One epoch, Ctrl-C, then the command that the training names."""
    clone = copy_repository(tmp_path_factory.mktemp("clone") / "fashionnet")
    make_data_set(clone / "data")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FASHIONNET_", "COV_"))}
    environment["PYTHONPATH"] = str(clone)
    command = ["scripts/train.py", "--epochs", "3", "--out", "runs/my first run"]
    with subprocess.Popen(
        [sys.executable, *command], cwd=clone, env=environment, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:  # fmt: skip
        for line in running.stdout:
            if line.startswith("epoch 1"):
                running.send_signal(signal.SIGINT)
                break
        _, told = running.communicate(timeout=120)
    assert running.returncode == 130
    assert "Traceback" not in told
    resume = shlex.split(told.strip().splitlines()[-1])
    assert resume[0] == "python"
    done = subprocess.run(
        [sys.executable, *resume[1:]], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return Trained(clone, environment, done.stdout.strip().splitlines()[-1])


def test_the_last_line_serves_what_came_out(trained):
    assignment = re.search(r"Serve it:  (FASHIONNET_MODEL_DIR=.+) make serve$", trained.last_line)[1]
    (variable,) = shlex.split(assignment)
    run_folder = trained.clone / variable.partition("=")[2]
    environment = trained.environment | dict([variable.split("=", 1)]) | {"FASHIONNET_PORT": "0"}
    with subprocess.Popen([sys.executable, "-m", "app"], cwd=trained.clone, env=environment) as server:
        try:
            with client_of(server) as client:
                assert_serves(client, read_card(run_folder, "fashionnet"))
        finally:
            server.terminate()


def assert_serves(client: httpx.Client, card: ModelCard) -> None:
    (served,) = client.get("/models").json()["models"]
    assert (served["name"], served["version"], served["default"]) == ("fashionnet", card.version, True)
    shirt = (ROOT / "examples/shirt.png").read_bytes()
    assert client.post("/predict", files={"file": shirt}).json()["model_version"] == card.version
    evaluation = client.get("/evaluate").json()
    assert evaluation["accuracy"] == pytest.approx(card.measured_with(served["engine"])["test"].accuracy)
    assert client.get("/gallery").headers["content-type"] == "image/png"


def test_the_scripts_use_the_run(trained):
    folder = ["--model-dir", "runs/my first run"]
    answer = json.loads(trained.python("scripts/predict.py", "examples/shirt.png", "--json", *folder).stdout)
    card = read_card(trained.clone / "runs/my first run", "fashionnet")
    assert answer["model_version"] == card.version
    figures = json.loads(trained.python("scripts/evaluate.py", "--json", "--engine", "onnx", *folder).stdout)
    assert figures["accuracy"] == pytest.approx(card.metrics["test"].accuracy)
    assert f"accuracy {card.metrics['test'].accuracy:.2%}" in trained.python(
        "scripts/evaluate.py", FASHIONNET_MODEL_DIR="runs/my first run", FASHIONNET_ENGINE="onnx"
    ).stdout  # fmt: skip


def test_the_run_is_no_second_model(trained):
    assert list_artifacts(trained.clone / "runs/my first run") == ["fashionnet"]
