"""The commands that messages name work in the folder in which they are typed."""

import shlex
import subprocess
from pathlib import Path

import pytest

from model.installation import IS_CLONE, download_command, install_command, python_command, serve_command
from tests.servers import ROOT


def test_in_the_clone_commands_are_those_of_the_documents(monkeypatch):
    monkeypatch.chdir(ROOT)
    assert download_command().endswith("scripts/download.py")
    assert install_command("heic").endswith("pip install -e '.[heic]'")
    assert serve_command(Path("runs/my run")) == "FASHIONNET_MODEL_DIR='runs/my run' make serve"


@pytest.mark.skipif(not IS_CLONE or python_command() == "python", reason="the environment is not in the clone")
def test_elsewhere_commands_have_absolute_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = download_command(), serve_command(Path("runs/my run")), install_command("heic")
    for command in commands:
        help_ = subprocess.run([*shlex.split(command), "--help"], cwd=tmp_path, capture_output=True, check=True)
        assert b"sage: " in help_.stdout
    assert commands[1].endswith("--model-dir 'runs/my run'")
    assert commands[2].endswith(f"-e '{ROOT}[heic]'")
