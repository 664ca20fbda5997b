"""How a command finds the running service.

The service listens on a second socket, whose name contains its port or a hash of the path of its Unix socket: a path
may be longer than the rest of a name. The name is in Linux's abstract namespace, so there is no file that could be left
behind, and the kernel says which process owns it.
"""

import hashlib
import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial

from app.hangup import current_hangup
from app.settings import Settings

_CREDENTIALS = struct.Struct("3i")
"""The process, the user and the group of a peer."""


@contextmanager
def advertised(settings: Settings) -> Iterator[None]:
    """Lets ``find`` find this process while the context lasts, where the system can do that (Linux)."""
    if sys.platform != "linux":
        yield
        return
    with socket.socket(socket.AF_UNIX) as advertising:
        with suppress(OSError):  # another service listens on the same port of another address
            advertising.bind(_name(settings))
            advertising.listen()
        advertising.setblocking(False)
        if hangup := current_hangup():
            hangup.received = partial(_forget_callers, advertising)
        yield


def _forget_callers(advertising: socket.socket) -> None:
    """Removes the connections of ``find`` from the queue. Once that is full, a further one would wait for ever."""
    with suppress(OSError):
        while True:
            advertising.accept()[0].close()


def find(settings: Settings) -> int | None:
    """Returns the identifier of the process that serves with these settings; None if there is none."""
    if sys.platform != "linux":
        return None
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(1)
        try:
            asking.connect(_name(settings))
        except OSError:
            return None
        pid: int = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))[0]
    return pid


def _name(settings: Settings) -> str:
    if not settings.uds:
        return f"\0fashionnet {settings.port}"
    return f"\0fashionnet {hashlib.sha256(os.fsencode(settings.uds.absolute())).hexdigest()}"
