"""Every command of README and docs, typed in order in a fresh copy of the repository."""

import json
import re
import shlex
import subprocess

import httpx
import pytest

from app.commands import evaluate, export, predict, train
from model import WEIGHTS
from model.artifact import read_card
from tests.data_sets import make_data_set
from tests.journeys.walks import ADDRESS, Walk, blocks_of, copy_repository, mirror, parse_shown, port_8000, shape
from tests.servers import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    """A reader in a fresh copy, without the data set; a small one comes from a mirror.

    ``test_wheel`` shows that requirements/serve.txt installs, and is all that serving needs.
    """
    small = make_data_set(tmp_path_factory.mktemp("mirror"))
    folder = copy_repository(tmp_path_factory.mktemp("clone") / "fashionnet")
    raw = folder / "data/FashionMNIST/raw"
    raw.mkdir(parents=True)
    (raw / "SHA256SUMS").write_text((small.folder / "SHA256SUMS").read_text())
    jupyter = tmp_path_factory.mktemp("jupyter")
    (jupyter / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true, "open_browser": false}}')
    with port_8000(), mirror(small) as url:
        # ARGS is of make train: the small set needs no 12 epochs.
        walk = Walk(folder, FASHIONNET_DATA_URL=url, JUPYTER_CONFIG_DIR=str(jupyter), ARGS="--epochs 2")
        walk.use_packages_of_the_tests(tmp_path_factory.mktemp("bin"))
        yield walk
        walk.stop()


def follow(walk: Walk, document: str) -> None:
    """Type every shell block, and compare what is printed last with the JSON block that follows."""
    printed = ""
    for block in blocks_of(document):
        if block.language == "sh" and "docker" not in block.text:  # those are in test_image.py
            for command in block.commands:
                if command == "make train":
                    walk.stop()
                printed = walk.run(command) or printed
                if command.startswith("FASHIONNET_MODEL_DIR="):
                    (served,) = httpx.get(f"{ADDRESS}/models").json()["models"]
                    assert served["version"] == read_card(walk.folder / "runs/baseline-1", "fashionnet").version
                if command.startswith("curl 127.0.0.1:8000/evaluate"):
                    evaluation = printed
        if block.language == "json" and '"accuracy"' in block.text:
            assert shape(json.loads(evaluation)) == shape(parse_shown(block.text))
        elif block.language == "json" and '"label"' in block.text:
            answer, shown = json.loads(printed), parse_shown(block.text)
            assert shape(answer) == shape(shown)
            assert (answer["label"], answer["model_version"]) == (shown["label"], shown["model_version"])
            assert answer["confidence"] == pytest.approx(shown["confidence"], abs=0.01)


def test_readme(walk):
    follow(walk, "README.md")
    walk.stop()


def test_docs_operations(walk):
    follow(walk, "docs/operations.md")
    walk.stop()


def test_docs_api(walk):
    walk.start("make serve")
    follow(walk, "docs/api.md")
    for python, module in {".venv/bin/python": "tritonclient.http", "client/bin/python": "tritonclient.grpc"}.items():
        (code,) = (block.text for block in blocks_of("docs/api.md") if f"import {module} as" in block.text)
        assert walk.run(f"{python} -c {shlex.quote(code)}") == "[b'Shirt']\n"
    (shown,) = (parse_shown(block.text) for block in blocks_of("docs/api.md") if block.text.startswith('{"type"'))
    assert json.loads(walk.run("curl -F file=@README.md 127.0.0.1:8000/predict")) == shown
    assert (walk.folder / "why.png").read_bytes().startswith(b"\x89PNG")
    assert (walk.folder / "wrong.png").read_bytes().startswith(b"\x89PNG")


def test_docs_training(walk):
    walk.stop()
    follow(walk, "docs/training.md")
    assert (walk.folder / "runs/two-processes/fashionnet.onnx").is_file()
    drawings = list((walk.folder / "examples").glob("*.png"))
    assert len((walk.folder / "found.csv").read_text().splitlines()) == 1 + len(drawings), "a header and the drawings"
    assert (walk.folder / "plots/reliability.png").is_file()


def test_the_shown_evaluation_is_that_of_the_card():
    (shown,) = (parse_shown(b.text) for b in blocks_of("docs/api.md") if b.language == "json" and '"ece"' in b.text)
    card = read_card(WEIGHTS, "fashionnet")
    figures = json.loads(card.int8_metrics["test"].model_dump_json())
    assert shown["model_version"] == card.version
    for name in ("count", "accuracy", "accuracy_interval", "loss", "brier", "ece"):
        assert shown[name] == pytest.approx(figures[name], abs=5e-5), name
    assert shown["confusion_matrix"][0] == figures["confusion_matrix"][0]
    assert shown["classes"][0] == pytest.approx(figures["classes"][0], abs=5e-5)
    assert shown["reliability"][-1] == pytest.approx(figures["reliability"][-1], abs=5e-5)


PARSERS = {"train": train, "evaluate": evaluate, "predict": predict, "export": export}


@pytest.mark.parametrize("document", ["docs/model.md", "deploy/README.md"])
def test_the_scripts_take_the_flags_that_documents_name(document):
    """These trainings take hours, on a GPU; here their command lines are parsed."""
    lines = [line for b in blocks_of(document) if b.language == "sh" for line in b.commands if "scripts/" in line]
    assert lines
    for line in lines:
        words = shlex.split(line, comments=True)
        script = next(word for word in words if word.startswith("scripts/"))
        PARSERS[script.removeprefix("scripts/").removesuffix(".py")].parse_arguments(words[words.index(script) + 1 :])


def test_make_help_lists_the_targets():
    command = ["make", "--no-print-directory", "help"]  # as if it did not run inside of make check
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (targets,) = re.findall(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    listed = dict(line.removeprefix("make ").split(maxsplit=1) for line in done.stdout.splitlines())
    assert list(listed) == targets.split()
