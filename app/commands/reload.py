"""``fashionnet reload``: makes the running service read its models anew."""

import os
import signal
import sys
from collections.abc import Sequence

from app.command_line import add_settings, command_parser, run, settings_of
from app.instance import find
from app.settings import Settings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = command_parser("reload", "Make the running service read its models anew.")
    add_settings(
        parser, "port", "uds", helps={"port": "port of the service", "uds": "Unix socket of the service, if it has one"}
    )
    arguments = parser.parse_args(argv)
    return run(lambda: reload(settings_of(arguments)))


def reload(settings: Settings) -> int:
    """Sends SIGHUP to the service with these settings; returns the exit status."""
    pid = find(settings)
    if pid is None:
        return _fail(
            f"No service was found on {settings.uds or f'port {settings.port}'}: name it by --port or --uds, or send "
            "SIGHUP to its first process."
        )
    try:
        os.kill(pid, signal.SIGHUP)
    except PermissionError:
        return _fail(f"Process {pid} belongs to another user: run the command as that user.")
    print(f"The service (process {pid}) reads its models anew; its log says what came of it.")
    return 0


def _fail(sentence: str) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return 1
