"""Fixtures that many tests share."""

from collections.abc import Iterator
from pathlib import Path

import httpx
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
from tests.servers import serve


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
def settings(small_data: FashionMnist) -> Settings:
    return Settings(
        data_dir=small_data.root,
        model_dir=WEIGHTS,
        max_upload_bytes=200_000,
        max_request_bytes=500_000,
        max_files=8,
    )


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[httpx.Client]:
    with serve(settings) as client:
        yield client


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Tests see the settings that they make; only the data folder comes from outside."""
    import os

    for name in os.environ:
        if name.startswith("FASHIONNET_") and name != "FASHIONNET_DATA_DIR":
            monkeypatch.delenv(name)


@pytest.fixture
def fresh_data(tmp_path: Path) -> FashionMnist:
    """A small data set that the test may damage."""
    return make_data_set(tmp_path / "fresh", train=100, test=50)
