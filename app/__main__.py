"""``python -m app``, also called ``fashionnet``: serves, or runs one of ``app.commands``."""

import argparse
import errno
import logging
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from app.commands import COMMANDS
from app.hangup import handle_hangup

if TYPE_CHECKING:
    from app.settings import Settings

METRICS_BYTES = 1_000_000
"""Space for the metrics of one worker; it needs about half of that."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the command line and runs the command; exits with one sentence if something prevents that."""
    words = sys.argv[1:] if argv is None else argv
    name, rest = (words[0], words[1:]) if words and not words[0].startswith("-") else ("serve", words)
    if name != "serve" and name in COMMANDS:
        sys.exit(import_module(f"app.commands.{name}").main(rest))
    on_stop_signal(lambda: os._exit(0))
    from app.command_line import settings_of
    from app.settings import SettingsError

    parser = serve_parser()
    if name != "serve":
        parser.error(f"there is no command {name!r}; there are {', '.join(COMMANDS)}")
    arguments = parser.parse_args(rest)
    try:
        settings = settings_of(arguments)
    except SettingsError as error:
        sys.exit(f"fashionnet: {error}")
    start(settings)


def serve_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command that serves."""
    from app import VERSION
    from app.command_line import add_settings
    from app.settings import PREFIX, Settings

    width = max(map(len, Settings.model_fields))
    described = (
        f"  {PREFIX}{name.upper():{width}} {field.description}" for name, field in Settings.model_fields.items()
    )
    parser = argparse.ArgumentParser(
        prog="fashionnet",
        usage="%(prog)s [COMMAND] [FLAGS]",
        description="Serves FashionNet over HTTP: the page at /, the documentation at /docs.\n\n"
        "Commands; each has --help:\n" + "\n".join(f"  {name:10} {does}" for name, does in COMMANDS.items()),
        epilog="Settings are environment variables; a flag overrides its variable:\n" + "\n".join(described),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"FashionNet {VERSION}")
    add_settings(parser, "host", "port", "grpc_port", "uds", "workers", "model_dir", "data_dir")
    return parser


def on_stop_signal(handler: Callable[[], object]) -> None:
    """Calls ``handler`` on SIGTERM and SIGINT, until the server has handlers of its own, and handles SIGHUP.

    The first process of a container has to: the kernel ignores what it has no handler for.
    """
    handle_hangup()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: handler())


def start(settings: "Settings") -> None:
    """Checks what would stop the service, then serves."""
    from app.connections import require_files
    from app.settings import metrics_folder, share_metrics

    if listens_on_port(settings):
        require_free_port(settings.host, settings.port, "port")
        if settings.grpc_port and settings.grpc_port == settings.port:
            sys.exit(
                f"fashionnet: HTTP and gRPC both have port {settings.port}: choose another one by --grpc-port or "
                "FASHIONNET_GRPC_PORT."
            )
    if settings.grpc_port:
        require_free_port(settings.host, settings.grpc_port, "grpc_port")
    require_files()
    if settings.processes == 1 and not metrics_folder():
        serve(settings)
        return
    folder, owner = create_metrics_folder(metrics_folder(), settings.workers), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a worker that ends comes by here too
            shutil.rmtree(folder, ignore_errors=True)

    def end() -> None:
        remove()
        os._exit(0)

    on_stop_signal(end)
    share_metrics(folder)  # before anything imports prometheus_client
    try:
        serve(settings)
    finally:
        remove()


def listens_on_port(settings: "Settings") -> bool:
    """Returns whether the service opens a port: not if it listens on a Unix socket, or on sockets of systemd."""
    from app.settings import inherited_descriptors

    return not (settings.uds or inherited_descriptors())


def require_free_port(host: str, port: int, setting: str) -> None:
    """Exits with one sentence, which names the setting of the port, if the service cannot listen on this address."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except (OSError, UnicodeError) as error:  # the latter for a name such as a..b, which has no encoding
        sys.exit(f"fashionnet: {_address_sentence(error, host, port, setting)}")


def _address_sentence(error: OSError | UnicodeError, host: str, port: int, setting: str) -> str:
    from app.settings import PREFIX, flag_of

    other_port = f"choose another port by {flag_of(setting)} or {PREFIX}{setting.upper()}"
    number, reason = getattr(error, "errno", None), getattr(error, "strerror", "no host has such a name")
    if number == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use: stop the program that uses it, or {other_port}."
    if number == errno.EACCES:
        return f"Port {port} on {host} needs more rights than this user has: {other_port}."
    return (
        f"The service cannot listen on {host} ({reason}): set --host or FASHIONNET_HOST to an address of this "
        "machine, such as 127.0.0.1 or 0.0.0.0."
    )


def create_metrics_folder(parent: Path | None, workers: int) -> Path:
    """Returns a new folder in which workers share their metrics; exits with one sentence if it cannot be written."""
    from app.metrics_files import create_folder

    variable, otherwise = ("PROMETHEUS_MULTIPROC_DIR", "") if parent else ("TMPDIR", ", or set FASHIONNET_WORKERS=1")
    try:
        folder = create_folder(parent)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        sys.exit(
            f"fashionnet: The metrics folder cannot be created ({error}): set {variable} to a folder that this user "
            f"may write to{otherwise}."
        )
    if free < workers * METRICS_BYTES:
        folder.rmdir()
        sys.exit(
            f"fashionnet: {folder.parent} has {free:,} bytes left, and the metrics need {workers * METRICS_BYTES:,}: "
            f"free space there, or set {variable} to another folder{otherwise}."
        )
    return folder


def address_of(settings: "Settings") -> str:
    """Returns the address that a browser on this machine opens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.url_host)  # noqa: S104 - nothing is bound
    return f"http://{host}:{settings.port}/"


def serve(settings: "Settings") -> None:
    """Runs the server until it is told to stop."""
    from app import server
    from app.main import create_app

    application = create_app(settings)
    if settings.port and listens_on_port(settings):  # else the server alone knows the address, and names it
        address = address_of(settings)
        logging.getLogger("fashionnet").info("page %s, documentation %sdocs", address, address)
    if settings.grpc_port:
        logging.getLogger("fashionnet").info("gRPC on %s, port %d", settings.host, settings.grpc_port)
    on_stop_signal(sys.exit)  # uvicorn stops, and then raises the signal again
    server.serve(application, settings)


if __name__ == "__main__":
    main()
