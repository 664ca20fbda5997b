"""Sends hostile requests over several connections, and collects what was wrong."""

import http.client
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.fuzz.checks import Checks
from tests.fuzz.connections import Connection, Response
from tests.fuzz.liveness import watch_liveness
from tests.fuzz.requests import Request
from tests.fuzz.target import Target
from tests.fuzz.vitals import measure
from tests.pictures import encode, trousers

SHOWN = 400
"""Bytes of a request that a report shows."""
PATIENCE = 60


@dataclass(frozen=True)
class Fault:
    """Something that is wrong, and the request that shows it; None where it is the service as a whole."""

    sentence: str
    request: Request | None = None

    def __str__(self) -> str:
        if self.request is None:
            return self.sentence
        content = self.request.content
        shown = f"{content[:SHOWN]!r}{f'... {len(content):,} bytes' if len(content) > SHOWN else ''}"
        return f"{self.request.kind}: {self.sentence}: {shown}"


@dataclass
class Findings:
    """What came of a campaign."""

    faults: list[Fault] = field(default_factory=list)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Responses by path and status; status 0 is none."""
    seconds: list[tuple[float, str]] = field(default_factory=list)
    """The seconds that each response took, and the kind of its request."""
    worst_live: float = 0
    duration: float = 0
    megabytes: tuple[float, float] = (0, 0)

    def counted(self) -> Counter[tuple[str, str]]:
        """Returns how often each kind of request had each fault."""
        return Counter((fault.request.kind if fault.request else "service", fault.sentence) for fault in self.faults)


class Campaign:
    """Hostile requests against one target.

    Args:
        target: the service.
        seconds: in which every response must be there.
        live_seconds: in which every response of /health/live must be there meanwhile.
        more_megabytes: by which the service may have grown afterwards.
    """

    def __init__(
        self, target: Target, *, seconds: float = 1, live_seconds: float = 1, more_megabytes: float = 150
    ) -> None:
        self.target = target
        self.checks = Checks(target.client.get("/openapi.json").json(), seconds)
        self.live_seconds = live_seconds
        self.more_megabytes = more_megabytes
        self._lock = threading.Lock()

    def run(self, requests: Iterable[Request], connections: int = 8) -> Findings:
        """Sends all requests over so many connections; returns what was wrong with them, and with the service then."""
        findings, shared = Findings(), iter(requests)
        known = self._known()
        before = measure(self.target.family, self.target.temporary)
        start = time.perf_counter()
        with watch_liveness(self.target.port) as liveness, ThreadPoolExecutor(connections) as pool:
            senders = [pool.submit(self._send, shared, findings) for _ in range(connections)]
        for sender in senders:
            sender.result()
        findings.duration = time.perf_counter() - start
        findings.worst_live = liveness.worst
        after = measure(self.target.family, self.target.temporary)
        findings.megabytes = before.megabytes, after.megabytes
        findings.faults += map(Fault, [*before.faults(after, self.more_megabytes), *liveness.failures])
        findings.faults += map(Fault, self._service_faults(known, liveness.worst))
        return findings

    def _known(self) -> object:
        """Returns what the service says of a known picture."""
        return self.target.client.post("/predict", files={"file": encode(trousers())}).json()

    def _service_faults(self, known: object, worst: float) -> Iterator[str]:
        if self._known() != known:
            yield "a known picture has another prediction"
        if worst > self.live_seconds:
            yield f"/health/live took {worst:.2f} s"
        if "Traceback" in self.target.log.read_text(errors="replace"):
            yield "the log has a traceback"

    def _send(self, requests: Iterator[Request], findings: Findings) -> None:
        connection = Connection(self.target.port, PATIENCE)
        while request := self._next(requests):
            try:
                response = connection.exchange(request)
            except (OSError, http.client.HTTPException) as error:
                findings.faults.append(Fault(f"no response: {error!r}", request))
                continue
            self._take(request, response, findings)
        connection.close()

    def _next(self, requests: Iterator[Request]) -> Request | None:
        with self._lock:
            return next(requests, None)

    def _take(self, request: Request, response: Response | None, findings: Findings) -> None:
        status = response.status if response else 0
        with self._lock:
            findings.statuses[request.path or "raw", status] += 1
        if response:
            findings.seconds.append((response.seconds, request.kind))
            findings.faults += (Fault(sentence, request) for sentence in self.checks.faults(request, response))
