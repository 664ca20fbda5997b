"""A photo of an iPhone: first without the extra heic, whose name the message gives, then with it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.installation import install_command
from tests.pictures import FILES
from tests.servers import client_of, process, run, service

pytestmark = pytest.mark.slow
PHOTO = str(FILES / "phone.heic")
WITHOUT_EXTRA = "import sys; sys.modules['pillow_heif'] = None; from app.__main__ import main; main()"
FASHIONNET = str(Path(sys.executable).with_name("fashionnet"))


def curl(address: object) -> dict:
    command = ["curl", "--silent", "-F", f"file=@{PHOTO}", f"{str(address).rstrip('/')}/predict"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_without_the_extra_service_and_command_say_how_to_install_it():
    with process("-c", WITHOUT_EXTRA, "--port", "0", "--workers", "1") as server, client_of(server) as client:
        problem = curl(client.base_url)
    assert (problem["status"], problem["title"]) == (415, "Unsupported image format")
    assert problem["detail"].startswith("This is a file of the format HEIC; PNG, JPEG, ")
    assert problem["detail"].endswith(f"convert it first, or install its decoder: {install_command('heic')}.")
    done = run("-c", WITHOUT_EXTRA, "predict", PHOTO)
    assert (done.returncode, done.stdout) == (1, f"{PHOTO} error: {problem['detail']}\n")


def test_with_the_extra_a_turned_photo_is_classified():
    with service(workers=1) as (_, client):
        found = curl(client.base_url)
    assert (found["label"], found["model_choice"]) == ("Trouser", "picture with a plain background")
    assert found["warnings"] == []
    for place in (PHOTO, str(FILES)):
        done = subprocess.run([FASHIONNET, "predict", place, "--json"], capture_output=True, text=True, check=True)
        answers = {Path(row["file"]).name: row for row in map(json.loads, done.stdout.splitlines())}
        assert answers["phone.heic"]["confidence"] == pytest.approx(found["confidence"], abs=1e-4)
        assert {row["label"] for row in answers.values()} == {"Trouser"}
