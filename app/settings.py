"""Every setting of the service and the scripts, read once from the environment (prefix ``FASHIONNET_``)."""

import os
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from model import DEFAULT_DATA_URL, WEIGHTS, Choice, EngineName, usable_cores


class SettingsError(Exception):
    """A setting has a value that cannot be; the message is one sentence a setting."""


class Settings(BaseSettings):
    """What can be set. A field ``max_pixels`` is the environment variable ``FASHIONNET_MAX_PIXELS``."""

    model_config = SettingsConfigDict(env_prefix="FASHIONNET_", frozen=True, protected_namespaces=())

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    threads: int = Field(1, ge=1, description="compute threads of one worker")
    workers: int = Field(
        default_factory=lambda settings: max(usable_cores() // settings["threads"], 1),
        ge=1,
        description="server processes; default: as many as the usable cores have threads for",
    )
    engine: EngineName = Field(
        "auto", description="onnx, onnx-int8, torch (needs the extra train), or auto: the quicker ONNX"
    )
    model_dir: Path = Field(
        WEIGHTS, description="folder of the artefacts; default: the weights that come with FashionNet"
    )
    default_model: str = Field(
        "fashionnet", description="the artefact that answers where a request names none, but for photos"
    )
    photo_model: str = Field(
        "fashionnet-photo",
        description="the artefact that answers photos where a request names none; the default model if it is missing",
    )
    data_dir: Path = Field(Path("data"), description="folder that holds FashionMNIST/raw")
    data_url: str = Field(DEFAULT_DATA_URL, description="mirror that the data set is downloaded from")
    max_upload_bytes: int = Field(10_000_000, ge=1, description="largest picture, in bytes")
    max_batch_files: int = Field(256, ge=1, description="most pictures in one /predict/batch")
    max_batch_bytes: int = Field(100_000_000, ge=1, description="largest body of one /predict/batch, in bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="largest picture, in pixels")
    body_timeout: float = Field(30, gt=0, description="seconds that a request's body may take to arrive")
    queue_size: int = Field(48, ge=1, description="pictures that may wait for a worker's engine; past it 429")
    batch_size: int = Field(64, ge=1, description="pictures that the engine takes at once")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["text", "json"] = Field("text", description="lines for people, or JSON for machines")
    access_log: bool = Field(False, description="log every request")
    tracing: bool = Field(False, description="OpenTelemetry traces, by the standard variables OTEL_*; extra otel")
    drain_seconds: float = Field(0, ge=0, description="how long to be unready before stopping, for load balancers")

    @model_validator(mode="after")
    def _folders_are_there(self) -> Self:
        if not self.model_dir.is_dir():
            raise ValueError(f"FASHIONNET_MODEL_DIR: {self.model_dir} is not a folder")
        return self

    @model_validator(mode="after")
    def _engine_is_installed(self) -> Self:
        if self.engine == "torch" and find_spec("torch") is None:
            raise ValueError("FASHIONNET_ENGINE: torch is not installed; install it with: pip install -e '.[train]'")
        return self

    def models_among(self, there: Collection[str]) -> Choice[str]:
        """The names of the networks that answer where none is asked for, of those that are there."""
        return Choice(self.default_model, self.photo_model if self.photo_model in there else self.default_model)


def metrics_folder() -> Path | None:
    """Where the workers share their metrics (prometheus_client's own variable); None where there is one process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def share_metrics(folder: str) -> None:
    """Let the processes that are started from now on share their metrics in ``folder``, unless they do already."""
    os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", folder)


def read_settings() -> Settings:
    """The settings from the environment.

    Raises:
        SettingsError: a variable holds what it cannot; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        problems = [problem for problem in error.errors() if problem["type"] != _CONSEQUENCE]
        sentences = [_sentence(".".join(map(str, p["loc"])), p["msg"], p["input"]) for p in problems]
        raise SettingsError("\n".join(sentences)) from None


_CONSEQUENCE = "default_factory_not_called"
"""pydantic's, of a default that another setting decides, where that one is wrong."""


def _sentence(field: str, message: str, value: object) -> str:
    if not field:  # a validator of the whole class names the variable itself
        return message.removeprefix("Value error, ") + "."
    return f"FASHIONNET_{field.upper()}={value!r}: {message}."
