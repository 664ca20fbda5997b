"""Fixtures that many tests share."""

import contextlib
import fcntl
import io
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import hypothesis
import pytest

from app.settings import Settings
from model import (
    WEIGHTS,
    Artifact,
    Engine,
    FashionMnist,
    create_engine,
    load_artifact,
)
from tests.data_sets import make_data_set
from tests.pictures import encode, grey_png, trousers
from tests.servers import serve

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

    from model.training.run import Run
    from tests.browser import Page

for number in (signal.SIGINT, signal.SIGHUP):  # what nohup and a shell's & ignore, the programs under test inherit
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process has one left when the other is done."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> FashionMnist:
    return make_data_set(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def artifact() -> Artifact:
    return load_artifact(WEIGHTS, "fashionnet")


@pytest.fixture(scope="session")
def engine(artifact: Artifact) -> Engine:
    return create_engine("auto", artifact)


@pytest.fixture(scope="session")
def trained(small_data: FashionMnist, tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """Four epochs of the recipe baseline without an interruption."""
    from model.training.run import Run
    from tests.training_runs import finished, make_config

    return finished(Run.start(tmp_path_factory.mktemp("trained"), make_config(small_data, 4), small_data))


@pytest.fixture(scope="session")
def exported_run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run ``trained``, exported by ``scripts/train.py --resume``, with its output in output.txt.

    With several test processes, one of them makes it for all. Tests must not write into it.
    """
    temporary = tmp_path_factory.getbasetemp()
    folder = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / "exported_run"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "output.txt").exists():
            _export(request.getfixturevalue("trained"), folder)
    return folder


def _export(run: "Run", folder: Path) -> None:
    from app.commands import train

    shutil.copytree(run.folder.path, folder)
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert train.main(["--resume", str(folder), "--data-dir", str(run.data_set.root)]) == 0
    (folder / "output.txt").write_text(output.getvalue())


@pytest.fixture(scope="session")
def exported() -> dict[str, bytes]:
    """The graphs of a FashionNet with random weights, the one in 8 bits calibrated on dark images: {file: content}."""
    import torch

    from model.export.build import build_graphs
    from model.network import FashionNet
    from model.ood.score import load_score

    torch.manual_seed(0)
    dark = torch.randint(0, 9, (20, 28, 28), dtype=torch.uint8).numpy()
    score = load_score((WEIGHTS / "fashionnet.detector.safetensors").read_bytes())
    return build_graphs(FashionNet().eval(), score, dark)


@pytest.fixture(scope="session")
def settings(small_data: FashionMnist) -> Settings:
    return Settings(
        data_dir=small_data.root,
        model_dir=WEIGHTS,
        max_upload_bytes=200_000,
        max_request_bytes=700_000,
        max_files=8,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serve(settings) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Tests see the settings that they make; only the data folder comes from outside."""
    for name in os.environ:
        if name.startswith("FASHIONNET_") and name != "FASHIONNET_DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def fresh_data(tmp_path: Path) -> FashionMnist:
    """A small data set that the test may damage."""
    return make_data_set(tmp_path / "fresh", train=100, test=50)


@pytest.fixture(scope="module")
def client_without_data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with serve(Settings(data_dir=tmp_path_factory.mktemp("empty"))) as client:
        yield client


@pytest.fixture(scope="module")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What Chromium downloads."""
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def driver(downloads: Path) -> "Iterator[Chrome]":
    """Chromium, for all tests of a module."""
    from tests.browser import browser

    with browser(downloads) as driver:
        yield driver


@pytest.fixture
def page(driver: "Chrome", client: httpx.Client) -> "Iterator[Page]":
    """The page, fresh."""
    from tests.browser import watched

    with watched(driver, client) as page:
        yield page


@pytest.fixture
def page_without_data(driver: "Chrome", client_without_data: httpx.Client) -> "Iterator[Page]":
    from tests.browser import watched

    with watched(driver, client_without_data) as page:
        yield page


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Files: one of trousers, one of noise, and one that is no picture."""
    contents = {"trousers.png": encode(trousers()), "noise.png": grey_png(), "bad.png": b"nonsense"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {Path(name).stem: tmp_path / name for name in contents}
