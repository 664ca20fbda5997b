"""Sockets that the service listens on instead of a port: a Unix socket, and those of systemd's socket activation."""

import logging
import socket
import sys
from pathlib import Path

from app.settings import Settings, inherited_descriptors

logger = logging.getLogger("fashionnet")


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
    """Returns a socket at ``path``, in the place of one that an ended service has left; exits as ``open_sockets``."""
    opened = socket.socket(socket.AF_UNIX)
    try:
        if path.is_socket() and not _is_served(path):
            path.unlink()
        opened.bind(str(path))
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
        return probe.connect_ex(str(path)) == 0
