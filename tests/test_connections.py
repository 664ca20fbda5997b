"""Several workers share the connections, whatever becomes of them."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import time

import psutil
import pytest

from app.server.connections import EvenServer, OpenConnections
from tests.servers import run, service, wait_until

ASK = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def two_workers():
    with service(workers=2) as (server, client):
        client.close()  # so that no connection is open but the tests'
        wait_until(lambda: both_take_some(server, client.base_url.port))
        yield server, client.base_url.port


def both_take_some(server, port):
    """Whether neither worker is still busy with its start."""
    with connections(port, 8):
        return min(held(server, port).values()) > 2


@contextlib.contextmanager
def connections(port, count, *, seconds=60):
    """So many connections that stay open, each of which has had an answer."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=seconds))
            connection.sendall(ASK)
            assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        yield


def held(server, port):
    """How many connections each worker has open, by its process."""
    children = psutil.Process(server.pid).children()
    return {
        child.pid: sum(c.status == "ESTABLISHED" and c.laddr.port == port for c in child.net_connections("tcp"))
        for child in children
    }


def test_connections_that_stay_open_are_shared_evenly(two_workers):
    server, port = two_workers
    wait_until(lambda: sum(held(server, port).values()) == 0)
    for _ in range(2):
        with connections(port, 24):
            least, most = sorted(held(server, port).values())
        assert least + most == 24
        assert most - least <= 2
        wait_until(lambda: sum(held(server, port).values()) == 0)


def test_a_worker_that_stands_still_is_not_waited_for_long(two_workers):
    server, port = two_workers
    still, _ = held(server, port)
    os.kill(still, signal.SIGSTOP)
    try:
        start = time.monotonic()
        with connections(port, 10, seconds=3):
            assert held(server, port)[still] == 0
        assert time.monotonic() - start < 3
    finally:
        os.kill(still, signal.SIGCONT)


def test_a_new_worker_takes_the_place_of_one_that_was_killed(two_workers):
    server, port = two_workers
    victim, _ = held(server, port)

    def shared_with_the_new_one():
        with connections(port, 12):
            shares = held(server, port)
            return victim not in shares and len(shares) == 2 and min(shares.values()) >= 5

    with connections(port, 12):
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in held(server, port))
    wait_until(shared_with_the_new_one)


def test_what_a_worker_had_open_is_forgotten_with_it():
    code = """
import os, signal, sys
from app.server.connections import OpenConnections
shared = OpenConnections(2)
for died_with in (0, 5):
    if not (child := os.fork()):
        shared.join()
        for _ in range(died_with):
            shared.opened()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
shared.join()
for _ in range(3):
    shared.opened()
sys.exit(1 if shared.enough else 0)  # as would be if a dead one were waited for
"""
    assert run("-c", code).returncode == 0


def test_a_worker_has_enough_with_an_eighth_more_than_another():
    shared, other = OpenConnections(2), 1
    shared.join()
    shared._counts[other] = 0
    assert not shared.enough
    for opened, enough in ((1, True), (8, True), (9, True)):
        shared._counts[other] = opened - 1 - opened // 8
        shared._counts[shared._own] = opened
        assert shared.enough is enough
        shared._counts[other] += 1
        assert not shared.enough
    shared.leave()
    assert not shared.enough


def test_where_every_slot_is_taken_nothing_is_shared_and_nothing_breaks():
    shared = OpenConnections(1)
    shared.opened()
    shared.closed()
    shared.leave()
    assert not shared.enough


def test_a_refusal_of_the_system_is_told_and_tried_again(monkeypatch):
    monkeypatch.setattr("app.server.connections.RETRY", 0.01)

    class Listener:
        def __init__(self, real):
            self.real, self.refusals = real, 1

        def fileno(self):
            return self.real.fileno()

        def accept(self):
            if self.refusals:
                self.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return self.real.accept()

    async def scenario():
        loop, told, made = asyncio.get_running_loop(), [], asyncio.Event()
        loop.set_exception_handler(lambda _, context: told.append(context))

        class Protocol(asyncio.Protocol):
            def connection_made(self, transport):
                made.set()
                transport.close()

        with socket.create_server(("127.0.0.1", 0)) as real:
            real.setblocking(False)
            server = EvenServer(loop, Protocol, Listener(real), OpenConnections(1))
            with socket.create_connection(real.getsockname()):
                await asyncio.wait_for(made.wait(), 5)
            server.close()
            await server.wait_closed()
        assert [str(context["exception"]) for context in told] == ["[Errno 24] Too many open files"]

    asyncio.run(scenario())
