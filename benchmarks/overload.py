"""The service in an open loop at parts and multiples of the rate that saturates it.

One worker is pinned to one core and the load to another. ``/health/live`` is requested meanwhile. The last load has
another process beside it that uses a fifth of the worker's core.

    apt install wrk && pip install psutil
    python benchmarks/overload.py --write benchmarks/results/overload
"""

import argparse
import contextlib
import http.client
import multiprocessing
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.load import Outcome, Request, closed_loop, open_loop
from benchmarks.report import add_write, machine, table, write
from benchmarks.serving import CONTENDERS, PORT, environment, family, picture, request_for, running

LOADS = ((0.5, False), (0.8, False), (1.5, False), (3.0, False), (0.8, True))
"""Rates as multiples of saturation, and whether another process takes part of the worker's core."""
BUSY, PERIOD = 0.002, 0.01
"""Seconds of every period in which the other process uses the core: a fifth."""
COLUMNS = ("offered, of saturation", "offered, req/s", "answered, of saturation", "rejected", "errors", "p50 ms",
           "p99 ms", "health p99 ms", "sent late, p99 ms")  # fmt: skip


@contextlib.contextmanager
def health_requests() -> Iterator[list[float]]:
    """Requests /health/live fifty times a second by the plainest client; yields the seconds that each took."""
    waits: list[float] = []
    ended = threading.Event()

    def ask() -> None:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", PORT)) as connection:
            while not ended.wait(0.02):
                start = time.perf_counter()
                connection.request("GET", "/health/live")
                response = connection.getresponse()
                response.read()
                waits.append(time.perf_counter() - start)
                if response.status != 200:
                    raise RuntimeError(f"/health/live responded {response.status}")

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits
    finally:
        ended.set()
        thread.join()


def use_a_fifth(core: int) -> None:
    """Uses a fifth of a core until the process is ended."""
    psutil.Process().cpu_affinity([core])
    while True:
        until = time.perf_counter() + BUSY
        while time.perf_counter() < until:
            pass
        time.sleep(PERIOD - BUSY)


@contextlib.contextmanager
def other_process(core: int, *, on: bool) -> Iterator[None]:
    """Runs another process on the core if ``on``."""
    process = multiprocessing.get_context("spawn").Process(target=use_a_fifth, args=(core,), daemon=True)
    if on:
        process.start()
        time.sleep(1)
    yield
    if on:
        process.terminate()
        process.join()


def loop_in_process(request: Request, rate: float, seconds: float) -> Outcome:
    """Runs the open loop in a process of its own, so that the requests for health do not slow it."""
    with ProcessPoolExecutor(1) as pool:
        return pool.submit(open_loop, request, PORT, rate, seconds).result()


def measure(python: Path, seconds: float) -> list[dict[str, Any]]:
    """One run of all loads."""
    worker_core, load_core = sorted(psutil.Process().cpu_affinity() or [])[:2]
    content = picture()
    contender = replace(CONTENDERS[0], variables={"FASHIONNET_PORT": "{port}", "FASHIONNET_WORKERS": "1"})
    request, rows = request_for(contender, content), []
    psutil.Process().cpu_affinity([load_core])
    with running(contender, python, content) as (server, _, _):
        for process in family(server):
            for thread in process.threads():
                psutil.Process(thread.id).cpu_affinity([worker_core])
        closed_loop(request, PORT, 64, 3)
        saturation = closed_loop(request, PORT, 64, seconds).rate
        for factor, beside in LOADS:
            with other_process(worker_core, on=beside), health_requests() as waits:
                outcome = loop_in_process(request, factor * saturation, seconds)
            rows.append(asdict(outcome) | {
                "factor": factor, "beside": beside, "saturation": saturation, "offered": factor * saturation,
                "goodput": outcome.rate / saturation, "health_p99": float(np.quantile(waits, 0.99)) * 1000,
            })  # fmt: skip
            print(" | ".join(cells(rows[-1])), flush=True)
    psutil.Process().cpu_affinity([worker_core, load_core])
    return rows


def medians(runs: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Returns the median of each figure over the runs, load by load."""
    return [
        {key: statistics.median(row[key] for row in rows) for key in rows[0] if key != "statuses"}
        for rows in zip(*runs, strict=True)
    ]


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """Returns one row of the table."""
    total = row["answered"] + row["refused"] + row["errors"]
    beside = " and another process" if row["beside"] else ""
    return (
        f"{row['factor']:g}{beside}",
        f"{row['offered']:,.0f}",
        f"{row['goodput']:.0%}",
        f"{row['refused'] / total:.1%}",
        f"{row['errors']:.0f}",
        *(f"{row[name]:.1f}" for name in ("p50", "p99", "health_p99", "late_p99")),
    )


def report(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    spread = [f"{min(run[0]['saturation'] for run in result['runs']):,.0f}",
              f"{max(run[0]['saturation'] for run in result['runs']):,.0f}"]  # fmt: skip
    rows = table(COLUMNS, [cells(row) for row in result["overload"]])
    return f"{rows}\n\nSaturation {' to '.join(spread)} requests/s. {result['method']}\n"


def method(arguments: argparse.Namespace) -> str:
    """Returns how and where it was measured."""
    return (
        f"{machine()}; {datetime.now(UTC).date()}. Medians of {arguments.runs} runs of {arguments.seconds:g} s a load. "
        "One worker on one core, the load on another; one 28x28 grey PNG as multipart over 256 connections. Latency "
        "counts from the time at which a request was due. Saturation: wrk with 64 connections. By "
        "`python benchmarks/overload.py`."
    )


def main() -> None:
    """Measures and reports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--runs", type=int, default=3)
    add("--seconds", type=float, default=10, help="of one load")
    add("--environments", type=Path, default=Path.home() / ".cache" / "fashionnet-serving", help="kept between runs")
    add_write(parser)
    arguments = parser.parse_args()
    python = environment(CONTENDERS[0], arguments.environments)
    runs = [measure(python, arguments.seconds) for _ in range(arguments.runs)]
    result = {"overload": medians(runs), "runs": runs, "method": method(arguments)}
    print(report(result))
    write(arguments.write, report(result), result)


if __name__ == "__main__":
    main()
