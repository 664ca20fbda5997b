"""Real servers for the tests: ours in a thread or as a process."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import psutil
import pytest
import uvicorn
from PIL import Image

from app.main import create_app
from app.server.protocol import LoadSheddingProtocol
from app.server.server import Server
from app.settings import Settings
from tests.pictures import encode

ROOT = Path(__file__).parent.parent


@contextlib.contextmanager
def serve(settings: Settings, *, ready: bool = True) -> Iterator[httpx.Client]:
    """The service over ``settings`` on a free port, in a thread of this process; a client for it."""
    config = uvicorn.Config(
        create_app(settings),
        port=0,
        log_level="warning",
        http=LoadSheddingProtocol,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
    )
    server = Server(config, settings.max_connections)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_until(lambda: not ready or client.get("/health/ready").status_code == 200)
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextlib.contextmanager
def little_buffered(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[socket.socket, LoadSheddingProtocol]]:
    """Both ends of a connection to a server in this process, of which the kernel keeps few bytes."""
    served, made = [], LoadSheddingProtocol.connection_made

    def connection_made(connection: LoadSheddingProtocol, transport: asyncio.Transport) -> None:
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        made(connection, transport)
        served.append(connection)

    monkeypatch.setattr(LoadSheddingProtocol, "connection_made", connection_made)
    with socket.socket() as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        opened.connect((client.base_url.host, client.base_url.port))
        wait_until(lambda: bool(served))
        yield opened, served[0]


@contextlib.contextmanager
def process(*command: str, pass_fds: Sequence[int] = (), **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process of ours, killed at the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def service(**settings: object) -> Iterator[tuple[subprocess.Popen[str], httpx.Client]]:
    """``python -m app`` with ``settings`` on a free port, ready, with all its workers; and a client for it."""
    environment = {f"FASHIONNET_{name.upper()}": str(value) for name, value in settings.items()}
    with process("-m", "app", FASHIONNET_PORT="0", **environment) as server, client_of(server) as client:
        if (workers := settings.get("workers", 1)) != 1:
            wait_until(lambda: len(children_of(server)) == workers or server.poll() is not None)
        yield server, client


@contextlib.contextmanager
def client_of(server: subprocess.Popen[str], *, ready: bool = True) -> Iterator[httpx.Client]:
    """A client for a service that was started with port 0; waits until the service is ready."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port_of(server)}", timeout=60) as client:
        wait_until(lambda: not ready or is_ready(client) or server.poll() is not None)
        yield client


def port_of(server: subprocess.Popen[str]) -> int:
    """The port on which a process listens, as the system knows it; waits until there is one."""

    def listening() -> list[int]:
        connections = psutil.Process(server.pid).net_connections("tcp")
        return [one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN]

    wait_until(lambda: server.poll() is not None or bool(listening()))
    assert server.poll() is None, "the server has ended"
    return listening()[0]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def children_of(server: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes that a process has started. The first of several workers answers before the others start."""
    return psutil.Process(server.pid).children()


def is_ready(client: httpx.Client) -> bool:
    """Whether the service behind ``client`` says that it is."""
    with contextlib.suppress(httpx.HTTPError):
        return client.get("/health/ready").status_code == 200
    return False


def wait_for_queue(client: httpx.Client, depth: int) -> None:
    """Wait until so many pictures wait for the engine."""
    line = f'fashionnet_queue_depth{{model="fashionnet"}} {float(depth)}'
    wait_until(lambda: line in client.get("/metrics").text)


def run(*command: str, timeout: float = 600, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """A Python command of ours to its end."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        text=True,
        capture_output=True,
        timeout=timeout,
        check=False,
    )


def classify_images(client: httpx.Client, images: list[Image.Image]) -> None:
    """Have the default model classify images: a hundred in a request, each on a connection of its own."""
    for start in range(0, len(images), 100):
        files = [("files", encode(image)) for image in images[start : start + 100]]
        with httpx.Client(base_url=client.base_url, timeout=60) as other:
            assert other.post("/predict/batch?model=fashionnet", files=files).status_code == 200


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for ``condition()`` to be true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
