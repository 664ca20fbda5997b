"""Requests to /health/live while something else goes on."""

import contextlib
import http.client
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

CONNECTIONS = 6
"""Kept open, so that hardly ever all of them are of one worker."""
PERIOD = 0.1


@dataclass
class Liveness:
    """The seconds that each response took, and the requests without one."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max(self.seconds, default=0.0)


@contextlib.contextmanager
def watch_liveness(port: int) -> Iterator[Liveness]:
    """Asks over every connection ten times a second while the context lasts."""
    liveness, ended = Liveness(), threading.Event()
    threads = [threading.Thread(target=_ask, args=(port, liveness, ended)) for _ in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    try:
        yield liveness
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def _ask(port: int, liveness: Liveness, ended: threading.Event) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        while not ended.wait(PERIOD):
            start = time.perf_counter()
            try:
                connection.request("GET", "/health/live")
                response = connection.getresponse()
                response.read()
            except (OSError, http.client.HTTPException) as error:
                liveness.failures.append(repr(error))
                connection.close()
                continue
            liveness.seconds.append(time.perf_counter() - start)
            if response.status != 200:
                liveness.failures.append(f"status {response.status}")
