"""How many connections a process may have."""

import logging
from functools import cache
from typing import Any

from app.settings import Settings

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

RESERVED_FILES = 48
"""Open files of a process that are no connections: libraries, models, metrics, pipes."""
logger = logging.getLogger("fashionnet")


@cache  # the warning comes once
def affordable_connections(settings: Settings) -> int:
    """Returns how many connections a process may have over HTTP, and as many again over gRPC if that is served.

    These are fewer than ``settings.max_connections`` if it may not open so many files.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else -1
    protocols = 2 if settings.grpc_port else 1
    if files < 0 or files - RESERVED_FILES >= protocols * settings.max_connections:  # -1: there is no limit
        return settings.max_connections
    count: int = max((files - RESERVED_FILES) // protocols, 1)
    logger.warning(
        "A process may open %d files here, which allows %d connections instead of %d%s: raise the limit by ulimit -n, "
        "or set FASHIONNET_MAX_CONNECTIONS.", files, count, settings.max_connections,
        " over HTTP and gRPC each" if settings.grpc_port else "",
    )  # fmt: skip
    return count
