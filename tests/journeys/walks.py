"""What readers of the documents do: the shell blocks in their order, in a fresh copy of the repository."""

import contextlib
import fcntl
import functools
import http.server
import json
import os
import re
import shlex
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from model import FashionMnist
from tests.servers import ROOT, is_ready, wait_until

ADDRESS = "http://127.0.0.1:8000"
"""The one that the documents name."""
SERVES = re.compile(r"make serve$|-m app$|^docker run ")
STARTS_JUPYTER = re.compile(r"-m jupyterlab ")


class Block(NamedTuple):
    """A fenced block of a document."""

    language: str
    text: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block."""
        return [line for line in self.text.splitlines() if line and not line.startswith("#")]


def blocks_of(document: str) -> list[Block]:
    """The fenced blocks of a document, in order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def copy_repository(folder: Path) -> Path:
    """The files that a clone of the working tree would have."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@contextlib.contextmanager
def mirror(data_set: FashionMnist) -> Iterator[str]:
    """A mirror of the data set's files on this machine; its address."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(data_set.folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


class Walk:
    """A reader with a terminal in a fresh copy, and another in which one server runs."""

    def __init__(self, folder: Path, log: Path | None = None, **environment: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("FASHIONNET_", "COV_"))}
        own = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if not Path(p).is_relative_to(ROOT))
        for name in ("PYTHONPATH", "VIRTUAL_ENV", "MAKEFLAGS"):
            kept.pop(name, None)
        self.environment = kept | {"PATH": own} | environment
        self.server: subprocess.Popen[bytes] | None = None
        self.log = log or folder / "server.log"

    def run(self, command: str) -> str:
        """Type a command. One that serves stays and replaces the server before it; any other prints this."""
        if SERVES.search(command) or STARTS_JUPYTER.search(command):
            self.start(command)
            return ""
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"
        return done.stdout

    def start(self, command: str) -> None:
        """Start a server and wait until it answers."""
        self.stop()
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                ["bash", "-c", command], cwd=self.folder, env=self.environment, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        answers = jupyter_answers if STARTS_JUPYTER.search(command) else service_answers
        wait_until(lambda: answers() or self.server.poll() is not None, 600)
        assert self.server.poll() is None, self.log.read_text()

    def stop(self) -> None:
        """Press Ctrl-C."""
        if self.server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGTERM)
            self.server.wait(60)
            self.server = None
            wait_until(lambda: not service_answers())

    def use_packages_of_the_tests(self, folder: Path) -> None:
        """Let pip find everything installed in new environments: it is 6 GB, and the tests have it already.

        ``folder`` gets a ``python3`` that makes such environments.
        """
        shim = folder / "python3"
        shim.write_text(
            f"""#!/bin/sh
{sys.executable} "$@" || exit
[ "$1 $2" = "-m venv" ] || exit 0
printf '%s\\n' {shlex.join(site.getsitepackages())} > "$(echo "$3"/lib/python*/site-packages)/installed-elsewhere.pth"
printf '#!/bin/sh\\nexec "$(dirname "$0")/python" -m torch.distributed.run "$@"\\n' > "$3/bin/torchrun"
chmod +x "$3/bin/torchrun"
"""
        )
        shim.chmod(0o755)
        self.environment["PATH"] = f"{folder}{os.pathsep}{self.environment['PATH']}"


def service_answers() -> bool:
    with httpx.Client(base_url=ADDRESS, timeout=5) as client:
        return is_ready(client)


def jupyter_answers() -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get("http://127.0.0.1:8888/api", timeout=5).status_code == 200
    return False


@contextlib.contextmanager
def port_8000() -> Iterator[None]:
    """The documents' port, for one test at a time."""
    with Path(tempfile.gettempdir(), "fashionnet-port-8000").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not service_answers(), f"something else serves {ADDRESS}: stop it"
        yield


def shape(value: Any) -> Any:
    """Of a JSON value: its keys and types; of a list, those of its first item."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def parse_shown(text: str) -> Any:
    """A JSON block of a document, in which ``...`` stands for what is left out."""
    return json.loads(re.sub(r"(, )?\.\.\.(, )?", lambda m: ", " if m[1] and m[2] else "", text))
