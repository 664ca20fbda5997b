"""The service does what its OpenAPI document says, by schemathesis."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model import FashionMnist
from tests.fuzz.target import start
from tests.servers import ROOT

EXAMPLES = 6
"""Of each operation and phase; the cases at the limits of the schema come in addition."""


@pytest.mark.slow
def test_every_operation_passes_all_checks_of_schemathesis(tmp_path: Path, small_data: FashionMnist) -> None:
    config = ROOT / "tests" / "fuzz" / "schemathesis.toml"
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", "--checks", "all"]
    options = [
        "--max-examples",
        str(EXAMPLES),
        "--continue-on-failure",
        "--generation-deterministic",
        "--no-color",
        "--request-timeout",
        "60",
    ]  # /evaluate measures a model when it is asked for the first time
    environment = os.environ | {"PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.fuzz.hooks"}
    with start(tmp_path, workers=2, data_dir=small_data.root) as target:
        address = f"http://127.0.0.1:{target.port}/openapi.json"
        done = subprocess.run(
            [*command, *options, address], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
    assert done.returncode == 0, done.stdout + done.stderr
