"""The programs that docs/api.md shows, run against the service."""

import shutil
import subprocess
import sys

import pytest

from tests.journeys.walks import blocks_of
from tests.servers import ROOT

NODE = shutil.which("node")
COMMANDS = {
    "python": [sys.executable, "-c"],
    "javascript": [NODE, "--input-type=module", "-e"],
}


@pytest.mark.parametrize("language", COMMANDS)
def test_the_example_classifies_one_picture_many_and_shows_an_error(client, language):
    if not all(COMMANDS[language]):
        pytest.skip("there is no Node: install nodejs")
    (code,) = (b.text for b in blocks_of("docs/api.md") if b.language == language and "/predict/batch" in b.text)
    address = str(client.base_url).rstrip("/")
    assert "http://127.0.0.1:8000" in code
    command = [*COMMANDS[language], code.replace("http://127.0.0.1:8000", address)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=120, check=False)
    one, *many, error = done.stdout.splitlines()
    assert one == "Shirt", done.stderr
    assert many == ["examples/bag.png Bag", f"README.md {error.removeprefix('415 ')}"]
    assert error.startswith("415 This is not a picture")
