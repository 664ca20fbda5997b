"""Sockets that the service listens on: a Unix socket, those of systemd's socket activation, and how they close."""

import contextlib
import ctypes
import errno
import logging
import socket
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

from app.settings import Settings, inherited_descriptors

logger = logging.getLogger("fashionnet")

BACKLOG = 2048
"""Connections that may wait to be accepted; the default of uvicorn and gunicorn."""
_SO_ATTACH_FILTER = 26
_DROP_SYN = (
    (0x30, 0, 0, 13),  # load the byte of the TCP header that has the flags
    (0x45, 0, 1, 0x02),  # skip the next instruction unless SYN is set
    (0x06, 0, 0, 0),  # drop the packet
    (0x06, 0, 0, 0xFFFFFFFF),  # keep it
)
"""A program for the kernel's packet filter (classic BPF): code, jump if true, jump if false, operand."""


def open_sockets(settings: Settings) -> list[socket.socket] | None:
    """Returns the sockets for one process; None if it listens on a port.

    Exits with one sentence if it cannot listen on the Unix socket.
    """
    sockets = [socket.socket(fileno=descriptor) for descriptor in inherited_descriptors()]
    if settings.uds:
        sockets.append(bind(settings.uds))
    if sockets:
        logger.info("listening at: %s", ", ".join(str(one.getsockname()) for one in sockets))
    return sockets or None


def bind(path: Path) -> socket.socket:
    """Returns a listening socket at ``path``, in the place of an ended service's; exits as ``open_sockets``."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _is_served(path):
            path.unlink()
        opened.bind(str(path))
        opened.listen(BACKLOG)  # at once: a service that starts meanwhile takes a silent socket for an abandoned one
        path.chmod(0o666)  # as uvicorn does; the folder says who may connect
    except OSError as error:
        opened.close()
        sys.exit(
            f"fashionnet: The service cannot listen on the Unix socket {path} ({error.strerror or error}): stop the "
            "program that uses it, or set --uds or FASHIONNET_UDS to a path in a folder that this user may write to."
        )
    return opened


def _is_served(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        return probe.connect_ex(str(path)) != errno.ECONNREFUSED  # others: it is another user's, or very busy


def ignore_new_connections(listening: socket.socket) -> None:
    """Makes the kernel ignore the clients that begin to connect by TCP; the others still can (Linux).

    A connection that is established between the last ``accept`` and ``close`` is reset, and its request is lost. Who
    begins to connect tries again after a second, and is refused once the socket is closed.
    """
    if sys.platform != "linux" or listening.family == socket.AF_UNIX:
        return
    program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *instruction) for instruction in _DROP_SYN))
    with contextlib.suppress(OSError):  # a sandbox may not allow it
        listening.setsockopt(
            socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(_DROP_SYN), ctypes.addressof(program))
        )


def accept_all(listening: socket.socket) -> Iterable[socket.socket]:
    """Yields the connections in the queue of a listening socket, and closes it."""
    with listening:
        listening.setblocking(False)
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:  # there is none left
                return
            connection.setblocking(False)
            yield connection
