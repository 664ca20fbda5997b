"""Hostile requests, of the kinds in tests/fuzz."""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.faults.figures import Figure
from tests.fuzz.campaign import Campaign, Findings
from tests.fuzz.inputs import bombs, mutated
from tests.fuzz.target import start

SECONDS = 1.0
"""In which every response has to be there."""
LIVE_SECONDS = 0.1
MORE_MEGABYTES = 20
FIRST = 0.1
"""Part of the mutated requests that is measured apart: in it, working memory is allocated for the first time."""


def measure_fuzz(count: int, seed: int, connections: int) -> Iterator[Figure]:
    """Sends the requests that are made by hand one by one, then so many mutated ones over several connections."""
    first = int(FIRST * count)
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=2) as target:
        campaign = Campaign(target, seconds=SECONDS)
        made = campaign.run(bombs(), connections=1)
        _print_faults(made)
        yield from _figures(made, f"{made.statuses.total()} requests made by hand")
        for name, part in (("the first", mutated(first, seed)), ("the next", mutated(count - first, seed + 1))):
            findings = campaign.run(part, connections)
            _print_faults(findings)
            yield from _figures(findings, f"{name} {findings.statuses.total():,} mutated, {connections} connections")


def _figures(findings: Findings, part: str) -> Iterator[Figure]:
    statuses = findings.statuses
    seconds = [took for took, _ in findings.seconds]
    late = sum(took > SECONDS for took in seconds)
    sentences = [fault.sentence for fault in findings.faults]
    others = [sentence for sentence in sentences if not sentence.startswith(("answered after", "/health/live took"))]
    yield Figure(part, "status 5xx", sum(count for (_, status), count in statuses.items() if status >= 500), most=0)
    yield Figure(part, "without a response", sum(sentence.startswith("no response") for sentence in others), most=0)
    yield Figure(part, "faults of any kind but time", len(others), most=0)
    yield Figure(part, f"responses after more than {SECONDS:g} s", late, most=0)
    yield Figure(part, "slowest response", max(seconds), "s", SECONDS)
    yield Figure(part, "p99 of the responses", float(np.quantile(seconds, 0.99)), "s")
    yield Figure(part, "longest /health/live", findings.worst_live, "s", LIVE_SECONDS)
    before, after = findings.megabytes
    yield Figure(part, "memory before", before, "MB")
    yield Figure(part, "more memory afterwards", after - before, "MB", MORE_MEGABYTES)
    yield Figure(part, "duration", findings.duration, "s")


def _print_faults(findings: Findings) -> None:
    """Prints how often each kind of request had each fault, with one example."""
    examples = {(fault.request.kind if fault.request else "", fault.sentence): fault for fault in findings.faults}
    for key, count in findings.counted().most_common():
        print(f"{count} x {examples.get(key, key)}", file=sys.stderr)
