"""The settings of the service and the scripts. The only module that reads the environment."""

import difflib
import os
import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.validation import plain_message
from model import WEIGHTS, usable_cores
from model.data import DEFAULT_URL as DEFAULT_DATA_URL
from model.engines import EngineName
from model.errors import ArtifactMissing
from model.files import user_path
from model.installation import DATA_DIR as DEFAULT_DATA_DIR
from model.installation import install_command
from model.prediction import ModelPair

PREFIX = "FASHIONNET_"
DAY = 86_400
GRPC_STOP_SECONDS = 10
"""Seconds that open gRPC calls get when the process stops, after those that HTTP gets."""
MEMORY_PER_WORKER = 150_000_000
"""Bytes."""
_FALLBACK_MODEL = "fashionnet"
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)=|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=|_PORT=\w+://")
"""The variables by which Kubernetes and Docker describe a service, such as one named ``fashionnet``."""

RENAMED = {
    "threads": "engine_threads",
    "batch_size": "max_batch_size",
    "max_batch_files": "max_files",
    "max_batch_bytes": "max_request_bytes",
    "body_timeout": "body_timeout_seconds",
}
"""Settings of 0.1 by their old names, which are still read in 0.2."""

LINKED = {"FASHIONNET_PORT", "FASHIONNET_GRPC_PORT"}
"""What Kubernetes sets beside a Service named ``fashionnet`` or ``fashionnet-grpc``."""

Item = TypeVar("Item")
UserPath = Annotated[Path, AfterValidator(user_path)]
BodySize = Annotated[int, Field(ge=1, le=2**31 - 1)]
"""Bytes; gRPC has no larger messages."""


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def _network(text: str) -> str:
    if text != "*":
        ip_network(text)
    return text


Listed = Annotated[tuple[Item, ...], NoDecode, BeforeValidator(_split)]
"""Values separated by commas."""
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/]+)$")]


class SettingsError(Exception):
    """A setting has an invalid value; the message has one sentence for each."""


class Settings(BaseSettings):
    """The settings. A field ``max_pixels`` is the environment variable ``FASHIONNET_MAX_PIXELS``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, frozen=True, protected_namespaces=())

    host: str = Field("127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0 for every interface")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    grpc_port: int | None = Field(
        None, ge=1, le=65535, description="port to listen on for gRPC too (extra grpc); without one, HTTP alone"
    )
    uds: UserPath | None = Field(None, description="Unix socket to listen on instead of the port")
    root_path: str = Field(
        "", pattern=r"^(/[\w.~-]+)*$", description="what precedes every path behind a proxy, such as /fashion"
    )
    forwarded_allow_ips: Listed[Network] = Field(
        (), description="addresses and networks of proxies whose X-Forwarded-For and -Proto are believed; * for any"
    )
    api_keys_file: UserPath | None = Field(None, description="file of API keys; without one, no key is needed")
    cors_origins: Listed[Origin] = Field(
        (), description="origins whose pages may call the API, such as https://shop.example; * for any"
    )
    engine_threads: int = Field(1, ge=1, description="compute threads of each worker's engines")
    workers: int = Field(
        default_factory=lambda settings: max(usable_cores() // settings["engine_threads"], 1),
        ge=1,
        description="server processes",
    )
    engine: EngineName = Field(
        "auto",
        description="onnx-int8 (8 bits), onnx, torch (extra train), or auto: 8 bits if the CPU has AVX2, SDOT or I8MM",
    )
    model_dir: UserPath = Field(
        WEIGHTS, validate_default=True, description="folder of the models; the service has all of them"
    )
    default_model: str | None = Field(
        None,
        description="model for requests that name none",
    )
    photo_model: str = Field(
        "fashionnet-photo",
        description="model that answers a photo if the request names none; the default model if the folder lacks it",
    )
    shadow_model: str | None = Field(
        None, description="model that classifies a sample of the pictures too, in the background, for the metrics"
    )
    shadow_share: float = Field(0.1, gt=0, le=1, description="share of the pictures that the shadow model classifies")
    data_dir: UserPath = Field(DEFAULT_DATA_DIR, description="folder that holds FashionMNIST/raw")
    data_url: str = Field(DEFAULT_DATA_URL, description="mirror that the data set is downloaded from")
    max_upload_bytes: BodySize = Field(10_000_000, description="largest picture, in bytes")
    max_files: int = Field(256, ge=1, description="most pictures in one /predict/batch, /v2 or gRPC request")
    max_request_bytes: BodySize = Field(50_000_000, description="largest body of /predict/batch or /v2, in bytes")
    max_json_bytes: BodySize = Field(8_000_000, description="largest JSON of a /v2 request, or gRPC message, in bytes")
    max_pixels: int = Field(50_000_000, ge=1, description="largest picture, in pixels")
    decode_seconds: float = Field(
        0.8,
        gt=0,
        le=DAY,
        description="CPU seconds to decode one picture; the limit in elapsed time is ten times as long",
    )
    memory_bytes: int = Field(
        default_factory=lambda settings: MEMORY_PER_WORKER * settings["workers"],
        ge=1,
        le=2**50,
        description="memory that the service may take for requests, in bytes",
    )
    max_connections: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="most connections of a worker over HTTP, where more wait, and over gRPC, where more are closed",
    )
    keep_alive_seconds: int = Field(75, ge=1, le=DAY, description="seconds that an idle connection waits for a request")
    body_timeout_seconds: float = Field(30, gt=0, le=DAY, description="seconds in which a request body must arrive")
    queue_size: int = Field(96, ge=1, description="28x28 pictures pending in one worker; more get 429")
    max_wait_seconds: float = Field(1, gt=0, le=DAY, description="longest expected wait of a picture; past it, 429")
    max_batch_size: int = Field(
        32, ge=1, description="most 28x28 pictures that are computed together; photos are computed one by one"
    )
    inference: Literal["auto", "event-loop", "thread"] = Field(
        "auto", description="where single predictions run; auto: quick models on the event loop, others in a thread"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="lowest level that is logged")
    log_format: Literal["text", "json"] = Field("text", description="text, or json for machines")
    access_log: bool = Field(False, description="log each request")
    tracing: bool = Field(False, description="OpenTelemetry traces, configured by OTEL_* (extra otel)")
    drain_seconds: float = Field(
        0, ge=0, le=DAY, description="seconds between SIGTERM (not ready, still serving) and the stop"
    )
    worker_timeout_seconds: int = Field(
        30,
        ge=2,
        description="with several workers: seconds after which a worker that does not respond is replaced",
    )

    @property
    def processes(self) -> int:
        """The server processes: one if the system cannot fork (Windows)."""
        return self.workers if hasattr(os, "fork") else 1

    @property
    def url_host(self) -> str:
        """The host as it stands before a port: an IPv6 address in brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def picture_memory(self) -> int:
        """Bytes that decoding one picture may take. A worker decodes one at a time."""
        return self.memory_bytes // self.workers * 2 // 3

    @property
    def body_memory(self) -> int:
        """Bytes of request bodies that a worker may hold."""
        return self.memory_bytes // self.workers - self.picture_memory

    @model_validator(mode="after")
    def _memory_is_enough(self) -> Self:
        requests = ["max_request_bytes", "max_upload_bytes", *(["max_json_bytes"] if self.grpc_port else [])]
        largest = max(requests, key=lambda name: getattr(self, name))
        if self.body_memory < getattr(self, largest):
            least = 3 * getattr(self, largest) * self.workers
            raise ValueError(
                f"FASHIONNET_MEMORY_BYTES: a third of each worker's share must hold one request: set at least {least}, "
                f"or lower {PREFIX}{largest.upper()}"
            )
        return self

    @field_validator("model_dir")
    @classmethod
    def _folder_is_there(cls, folder: Path) -> Path:
        if not os.path.isdir(folder):  # noqa: PTH112 - Path.is_dir raises if a parent cannot be read
            raise ValueError("this is not a folder: name the one that holds the models")
        return folder

    @field_validator("port", "grpc_port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: object, info: ValidationInfo) -> object:
        """Kubernetes sets FASHIONNET_PORT=tcp://ADDRESS:PORT in pods next to a Service called fashionnet."""
        return cls.model_fields[str(info.field_name)].default if "://" in str(value) else value

    @field_validator("engine")
    @classmethod
    def _engine_is_installed(cls, engine: EngineName) -> EngineName:
        if engine == "torch" and find_spec("torch") is None:
            raise ValueError(f"torch is not installed; install it: {install_command('train')}")
        return engine

    @field_validator("grpc_port")
    @classmethod
    def _grpc_is_installed(cls, port: int | None) -> int | None:
        if port is not None and find_spec("grpc") is None:
            raise ValueError(f"grpcio is not installed; install it: {install_command('grpc')}")
        return port

    def models_among(self, names: Collection[str]) -> ModelPair[str]:
        """Returns the default model and the photo model, given the names of all models in the folder.

        Raises:
            ArtifactMissing: the default model is not among them, or several are there and none is the default.
        """
        default = self.default_model or (next(iter(names)) if len(names) == 1 else _FALLBACK_MODEL)
        if default not in names:
            there = f"it has {', '.join(names)}" if names else "it has no model, which is NAME.json and NAME.onnx"
            raise ArtifactMissing(
                f"The model folder {self.model_dir} has no {default} ({there}): "
                "set FASHIONNET_MODEL_DIR or FASHIONNET_DEFAULT_MODEL."
            )
        return ModelPair(default, self.photo_model if self.photo_model in names else default)


def inherited_descriptors() -> range:
    """Returns the descriptors of the sockets that systemd passes to this process, as sd_listen_fds(3) defines."""
    for_this = os.environ.get("LISTEN_PID") == str(os.getpid())
    return range(3, 3 + int(os.environ["LISTEN_FDS"])) if for_this else range(0)


def metrics_folder() -> Path | None:
    """Returns the folder in which workers share their metrics (prometheus_client's variable); None for one process."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(folder) if folder else None


def share_metrics(folder: Path) -> None:
    """Makes processes that start later share their metrics in ``folder``."""
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


def read_settings(flags: Mapping[str, Any] | None = None) -> Settings:
    """Returns the settings of the environment; ``flags``, those of a command line by field, take precedence.

    Raises:
        SettingsError: a value is invalid; the message names its variable or flag.
    """
    flags, renamed = dict(flags or {}), _renamed_variables()
    try:
        return Settings(**({field: os.environ[name] for field, name in renamed.items()} | flags))
    except ValidationError as error:
        names = renamed | {field: flag_of(field) for field in flags}
        problems = [problem for problem in error.errors() if problem["type"] != _CONSEQUENCE]
        sentences = [_sentence(".".join(map(str, p["loc"])), p["msg"], p["input"], names) for p in problems]
        raise SettingsError("\n".join(sentences)) from None


def _renamed_variables() -> dict[str, str]:
    """Returns the variables that have an old name, by field, unless the variable of the new name is set too."""
    names = {new: PREFIX + old.upper() for old, new in RENAMED.items()}
    return {
        new: name for new, name in names.items() if os.environ.get(name) and not os.environ.get(PREFIX + new.upper())
    }


def environment_warnings() -> list[str]:
    """Returns a sentence for each ``FASHIONNET_`` variable that is ignored or has an old name."""
    known = {PREFIX + field.upper() for field in Settings.model_fields}
    given = [name for name in os.environ if name.upper().startswith(PREFIX)]
    return [
        *(_link_warning(name) for name in given if name.upper() in LINKED and "://" in os.environ[name]),
        *(_unknown_warning(name) for name in given if name.upper() not in known and not _is_service_link(name)),
    ]


def _is_service_link(name: str) -> bool:
    return bool(_SERVICE_LINK.search(f"{name.upper()}={os.environ[name]}"))


def _link_warning(name: str) -> str:
    return f"{name}={os.environ[name]} is ignored: it describes a service of Kubernetes or Docker, not a port."


def _unknown_warning(name: str) -> str:
    if new := RENAMED.get(name[len(PREFIX) :].lower()):
        return f"{name} is now called {PREFIX}{new.upper()}; the old name will be ignored from 0.3 on."
    nearest = difflib.get_close_matches(name[len(PREFIX) :].lower(), Settings.model_fields, n=1)
    remedy = f"did you mean {PREFIX}{nearest[0].upper()}?" if nearest else "`python -m app --help` lists the settings."
    return f"{name} is ignored: there is no such setting; {remedy}"


_CONSEQUENCE = "default_factory_not_called"
"""The error type of pydantic for a default that depends on another, invalid setting."""


def _sentence(field: str, message: str, value: object, names: Mapping[str, str]) -> str:
    if not field:  # a validator of the whole class names the variable itself
        return plain_message(message) + "."
    return f"{names.get(field, PREFIX + field.upper())}={value!r}: {plain_message(message)}."


def flag_of(field: str) -> str:
    """Returns the command-line flag of a setting."""
    return "--" + field.replace("_", "-")
