"""How many files a process may have open, and so how many connections."""

import logging
import math
import sys
from functools import cache
from typing import Any

from app.settings import Settings

resource: Any
try:
    import resource
except ImportError:  # Windows
    resource = None

MIN_FILES = 64
RESERVED_FILES = 48
"""Open files of a process that are no connections: libraries, models, metrics, pipes."""
logger = logging.getLogger("fashionnet")


def max_files() -> float:
    """Returns how many files the process may have open."""
    limit: int = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if resource else -1
    return math.inf if limit < 0 else limit


def require_files() -> None:
    """Exits with one sentence if the process may not open enough files."""
    if max_files() < MIN_FILES:
        sys.exit(
            f"fashionnet: Only {max_files()} files may be open at once, and the service needs {MIN_FILES}: raise the "
            "limit, such as by `ulimit -n 1024`."
        )


@cache  # the warning comes once
def affordable_connections(settings: Settings) -> int:
    """Returns how many connections a process may have over HTTP, and as many again over gRPC if that is served.

    These are fewer than ``settings.max_connections`` if it may not open so many files.
    """
    files = max_files()
    protocols = 2 if settings.grpc_port else 1
    if files - RESERVED_FILES >= protocols * settings.max_connections:
        return settings.max_connections
    count = int(max((files - RESERVED_FILES) // protocols, 1))
    logger.warning(
        "A process may open %d files here, which allows %d connections instead of %d%s: raise the limit by ulimit -n, "
        "or set FASHIONNET_MAX_CONNECTIONS.", files, count, settings.max_connections,
        " over HTTP and gRPC each" if settings.grpc_port else "",
    )  # fmt: skip
    return count
