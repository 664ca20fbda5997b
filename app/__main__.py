"""``python -m app``, also called ``fashionnet``: starts the service, or downloads the data set."""

import argparse
import errno
import gc
import importlib
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from app.settings import Settings

LOCK_SECONDS = 1e-5
"""How long a thread keeps the interpreter's lock from another that waits for it. Python's 5 ms are as long as three
batches of the engine, which would wait for it between two of them while pictures are decoded."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the command; exits with one sentence if something prevents that."""
    gc.disable()  # nearly all that is made now is kept
    from app.command_line import flags_of, run, settings_of
    from app.settings import SettingsError

    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["download"]:
        sys.exit(run(partial(download, download_parser().parse_args(words[1:]))))
    arguments = serve_parser().parse_args(words)
    try:
        settings = settings_of(arguments)
    except SettingsError as error:
        sys.exit(f"fashionnet: {error}")
    start(settings, flags_of(arguments))


def serve_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command that serves."""
    from app import VERSION
    from app.command_line import add_settings
    from app.settings import PREFIX, Settings

    described = (f"  {PREFIX}{name.upper():18} {field.description}" for name, field in Settings.model_fields.items())
    parser = argparse.ArgumentParser(
        prog="fashionnet",
        description="Serves FashionNet over HTTP: the page at /, the documentation at /docs.\n"
        "`fashionnet download` downloads the data set, which /evaluate and /gallery need.",
        epilog="Settings are environment variables; a flag overrides its variable:\n" + "\n".join(described),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"FashionNet {VERSION}")
    add_settings(parser, "host", "port", "workers", "model_dir", "data_dir")
    return parser


def download_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command that downloads the data set."""
    from app.command_line import add_settings

    parser = argparse.ArgumentParser(
        prog="fashionnet download",
        description="Downloads Fashion-MNIST (30 MB); files that are there and right are kept.",
    )
    add_settings(parser, "data_dir", "data_url")
    parser.add_argument("--url", dest="data_url", help="the same as --data-url")
    parser.add_argument("--split", choices=["train", "test"], help="only this part (default: both)")
    return parser


def download(arguments: argparse.Namespace) -> int:
    """Downloads what is missing; returns the exit status."""
    from app.command_line import settings_of
    from model import FashionMnist

    settings = settings_of(arguments)
    data_set = FashionMnist(settings.data_dir)
    data_set.download(settings.data_url, splits=[arguments.split] if arguments.split else ["train", "test"])
    print(f"Fashion-MNIST{f' ({arguments.split})' if arguments.split else ''} is complete in {data_set.folder}.")
    return 0


def start(settings: "Settings", flags: Mapping[str, Any]) -> None:
    """Checks once what would stop every worker, then serves."""
    from app.logs import configure, log_ignored_variables
    from app.settings import share_metrics, share_settings

    require_free_port(settings.host, settings.port)
    share_settings(flags)
    configure(settings)
    log_ignored_variables()
    if settings.workers == 1:
        serve(settings)
        return
    with metrics_folder() as folder:
        share_metrics(folder)  # before anything imports prometheus_client
        serve(settings)


def require_free_port(host: str, port: int) -> None:
    """Exits with one sentence if the service cannot listen on this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except OSError as error:
        sys.exit(f"fashionnet: {_address_sentence(error, host, port)}")


def _address_sentence(error: OSError, host: str, port: int) -> str:
    other_port = "choose another port by --port or FASHIONNET_PORT"
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop the program that uses it, or {other_port}."
    if error.errno == errno.EACCES:
        return f"Port {port} on {host} needs more rights than this user has: {other_port}."
    return (
        f"The service cannot listen on {host} ({error.strerror}): set --host or FASHIONNET_HOST to an address of this "
        "machine, such as 127.0.0.1 or 0.0.0.0."
    )


def import_quickly() -> None:
    """Import FastAPI without what a start can do without.

    pydantic.v1 is blocked because FastAPI imports it only to tell that it takes none of its models. FastAPI's models of
    an OpenAPI document are built when somebody first asks for it.
    """
    sys.modules["pydantic.v1"] = None  # type: ignore[assignment]
    from pydantic import BaseModel

    BaseModel.model_config["defer_build"] = True  # inherited by what is defined meanwhile
    importlib.import_module("fastapi")
    del BaseModel.model_config["defer_build"]


def metrics_folder() -> "tempfile.TemporaryDirectory[str]":
    """Where the workers share their metrics; ends the process with one sentence where nothing can be written."""
    try:
        return tempfile.TemporaryDirectory(prefix="fashionnet-metrics-")
    except OSError as error:
        sys.exit(
            f"fashionnet: {error}: several workers share their metrics there; mount one, or set FASHIONNET_WORKERS=1"
        )


def serve(settings: "Settings") -> None:
    """Run the server until it is told to stop."""
    from app.inference.models import require_served

    sys.setswitchinterval(LOCK_SECONDS)
    with ThreadPoolExecutor(1) as beside:
        # ONNX Runtime makes its sessions without the interpreter's lock, which the imports keep.
        served = beside.submit(require_served, settings)
        import_quickly()
        import uvicorn

        from app.logs import log_config
        from app.main import handed_down
        from app.server.workers import fork_workers, sharing
    handed_down[settings] = served.result()
    fork_workers()
    gc.enable()
    uvicorn.run(
        "app.main:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.workers,
        **sharing(settings.workers),
        ws="none",  # there are none, and their ends would not be counted
        log_config=log_config(settings),
        access_log=False,  # the service has its own
        server_header=False,
        # Otherwise uvicorn wraps the application, whose ``state`` app/server/shedding.py needs.
        proxy_headers=False,
        timeout_graceful_shutdown=30,
    )


if __name__ == "__main__":
    main()
