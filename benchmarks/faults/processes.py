"""Workers that are killed or stopped, and services that are told to stop, at half the load they can take."""

import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.faults.callers import Call, Callers, saturation
from benchmarks.faults.figures import Figure
from tests.fuzz.target import Target, start
from tests.fuzz.vitals import measure
from tests.pictures import grey_png
from tests.servers import wait_until

WORKERS = 2
STOPPED = 3.0
"""Seconds that a worker does not run after SIGSTOP."""
DRAIN = 1.0
STARTED = "Application startup complete"
RELOADED = "the models were reloaded"


def workers(target: Target) -> list[psutil.Process]:
    """Returns the processes that answer requests."""
    return target.family.children()


def ports_of(worker: psutil.Process) -> set[int]:
    """Returns the callers' ports of the connections that a worker has."""
    return {one.raddr.port for one in worker.net_connections("tcp") if one.raddr}


def started(target: Target) -> int:
    """Returns how many workers have started so far."""
    return target.log.read_text(errors="replace").count(STARTED)


def measure_kills(count: int) -> Iterator[Figure]:
    """Kills one worker after the other; only what it was handling may be lost."""
    body, lost, beyond, recoveries = grey_png(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=WORKERS) as target:
        callers = Callers(target.port, body, saturation(target.port, body) / 2)
        before = counted(target)
        with callers.running():
            time.sleep(1)
            for _ in range(count):
                victim, known = workers(target)[0], started(target)
                handled, killed = ports_of(victim), time.perf_counter()
                victim.kill()
                wait_until(lambda known=known: started(target) > known)
                recoveries.append(time.perf_counter() - killed)
                time.sleep(1)
                gone = [call for call in callers.with_status(0) if call.answered >= killed]
                lost += len(gone)
                beyond += sum(not (call.port in handled and call.sent <= killed + 0.05) for call in gone)
        time.sleep(0.5)
        difference = abs(counted(target) - before - len(callers.with_status(200)))
    yield Figure(f"{count} kills", "lost requests beyond those that the worker was handling", beyond, most=0)
    yield Figure(f"{count} kills", "lost requests", lost)
    yield Figure(f"{count} kills", "requests answered", len(callers.with_status(200)))
    yield Figure(f"{count} kills", "slowest recovery", max(recoveries), "s", 2)
    yield Figure(f"{count} kills", "difference of the metrics and what callers saw", difference, "requests", lost)


def counted(target: Target) -> int:
    """Returns the predictions that the service has counted, those of dead workers included."""
    text = target.client.get("/metrics").text
    pattern = r'fashionnet_request_duration_seconds_count{route="/predict",status="200"} (\S+)'
    return int(sum(map(float, re.findall(pattern, text))))


def measure_stops(count: int) -> Iterator[Figure]:
    """Stops one worker after the other with SIGSTOP, and lets it continue."""
    body = grey_png()
    with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=WORKERS) as target:
        before = {worker.pid for worker in workers(target)}
        callers = Callers(target.port, body, saturation(target.port, body) / 2)
        recoveries = []
        with callers.running():
            time.sleep(1)
            for number in range(count):
                pid = workers(target)[number % WORKERS].pid
                os.kill(pid, signal.SIGSTOP)
                time.sleep(STOPPED)
                os.kill(pid, signal.SIGCONT)
                continued = time.perf_counter()
                time.sleep(1.5)
                late = [call for call in callers.calls if call.sent > continued and call.seconds > 0.5]
                recoveries.append(max((call.answered - continued for call in late), default=0.0))
        after = {worker.pid for worker in workers(target)}
    part = f"{count} stops of {STOPPED:g} s"
    yield Figure(part, "lost requests", len(callers.with_status(0, -1)), most=0)
    yield Figure(part, "requests answered", len(callers.with_status(200)))
    yield Figure(part, "workers replaced", len(before - after), most=0)
    yield Figure(part, "slowest answer", max(call.seconds for call in callers.calls), "s", STOPPED + 1)
    yield Figure(part, "until the last slow answer after a stop", max(recoveries), "s", 2)


def measure_reloads(count: int) -> Iterator[Figure]:
    """Reloads the models again and again."""
    body = grey_png()
    for number in (1, WORKERS):
        with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=number) as target:
            callers = Callers(target.port, body, saturation(target.port, body) / 2)
            seconds, megabytes = [], []
            with callers.running():
                time.sleep(1)
                for done in range(count):
                    told = time.perf_counter()
                    target.process.send_signal(signal.SIGHUP)
                    wait_until(lambda done=done: target.log.read_text().count(RELOADED) > done, 60)
                    seconds.append(time.perf_counter() - told)
                    time.sleep(1)
                    megabytes.append(measure(target.family, target.temporary).megabytes)
        part = f"{count} reloads, {number} worker{'s' * (number > 1)}"
        yield Figure(part, "lost requests", len(callers.with_status(0, -1)), most=0)
        yield Figure(part, "requests rejected (429)", len(callers.with_status(429)), most=0)
        yield Figure(part, "requests answered", len(callers.with_status(200)))
        yield Figure(part, "slowest reload", max(seconds), "s")
        yield Figure(part, "more memory after the second half", megabytes[-1] - megabytes[count // 2], "MB", 20)
        yield Figure(part, "slowest answer", max(call.seconds for call in callers.calls), "s", 1)


def measure_terms(count: int) -> Iterator[Figure]:
    """Tells services to stop, whose callers keep their connections or make new ones."""
    lost: list[Call] = []
    seconds, statuses, total, rate = [], [], 0, 0.0
    for number in range(count):
        with tempfile.TemporaryDirectory() as folder, start(Path(folder), workers=WORKERS, drain_seconds=DRAIN) as one:
            body = grey_png()
            rate = rate or saturation(one.port, body) / 2
            callers = Callers(one.port, body, rate, reconnecting=number % 2 == 1)
            with callers.running():
                time.sleep(1)
                told = time.perf_counter()
                one.process.send_signal(signal.SIGTERM)
                statuses.append(one.process.wait(60))
                seconds.append(time.perf_counter() - told)
            lost += callers.with_status(0)
            total += len(callers.with_status(200))
    part = f"{count} SIGTERMs, drain {DRAIN:g} s"
    yield Figure(part, "lost requests", len(lost), most=0)
    yield Figure(part, "requests answered", total)
    yield Figure(part, "exit statuses other than 0", sum(status != 0 for status in statuses), most=0)
    yield Figure(part, "slowest end", max(seconds), "s", DRAIN + 2)
