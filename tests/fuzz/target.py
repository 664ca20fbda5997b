"""The service under attack: a process with a log and temporary files of its own."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.servers import ROOT, client_of, port_of


@dataclass(frozen=True)
class Target:
    """A running service.

    Attributes:
        client: for requests that are not hostile.
        temporary: the folder of its temporary files.
        log: what it has written to its standard error.
    """

    process: subprocess.Popen[str]
    port: int
    client: httpx.Client
    temporary: Path
    log: Path

    @property
    def family(self) -> psutil.Process:
        return psutil.Process(self.process.pid)


@contextlib.contextmanager
def start(folder: Path, control_group: Path | None = None, **settings: object) -> Iterator[Target]:
    """Runs ``python -m app`` on a free port until the context ends; ``folder`` is empty.

    ``control_group`` is the file ``cgroup.procs`` of the group that the service joins before it starts.

    The log goes to a file: nobody reads a pipe, which would block the service once it is full.
    """
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir()
    variables = {f"FASHIONNET_{name.upper()}": str(value) for name, value in {"port": 0, **settings}.items()}
    command = [sys.executable, "-m", "app"]
    if control_group is not None:
        command = ["sh", "-c", f'echo $$ > {control_group}; exec "$@"', "sh", *command]
    environment = os.environ | variables | {"TMPDIR": str(temporary)}
    with (
        log.open("w") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=output, stderr=output) as server,
    ):
        try:
            with client_of(server) as client:
                yield Target(server, port_of(server), client, temporary, log)
        finally:
            server.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(40)
            server.kill()
