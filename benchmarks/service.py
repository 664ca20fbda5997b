"""How soon is the service ready, how large is it, how long does /evaluate take?

Starts `python -m app` with one worker on the real data, asks until it is ready, sends 1,000 predictions one after the
other, then asks for the evaluation of the 10,000 test images. Five starts; the figures of every start are shown.

    FASHIONNET_DATA_DIR=... python benchmarks/service.py --write benchmarks/results/service
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.report import add_write, machine, table, write

PORT = "8765"
BASE = f"http://127.0.0.1:{PORT}"
STARTS = 5
PREDICTIONS = 1000
FIGURES = {
    "ready_s": "ready after, s",
    "predict_ms": "one prediction, one after the other, ms (median)",
    "resident_mb": "resident after 1,000 predictions, MB",
    "evaluate_s": "/evaluate over 10,000 images, s",
    "accuracy": "test accuracy it answers",
}


def get(path: str, body: bytes | None = None) -> Any:
    """The JSON answer of the service."""
    request = urllib.request.Request(BASE + path, body, {"Content-Type": "image/png"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def measure() -> dict[str, float]:
    """One start of the service."""
    environment = os.environ | {"FASHIONNET_PORT": PORT, "FASHIONNET_WORKERS": "1", "FASHIONNET_LOG_LEVEL": "warning"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # a start with byte code, as on any other machine
    start = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "app"], env=environment) as server:
        try:
            wait_for_ready()
            ready = time.perf_counter() - start
            predict = [timed("/predict", Path("examples/shirt.png").read_bytes())[0] for _ in range(PREDICTIONS)]
            status = Path(f"/proc/{server.pid}/status").read_text()
            resident = int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1000
            evaluate, answer = timed("/evaluate")
        finally:
            server.terminate()
    return {
        "ready_s": ready,
        "predict_ms": statistics.median(predict) * 1000,
        "resident_mb": resident,
        "evaluate_s": evaluate,
        "accuracy": answer["accuracy"],
    }


def wait_for_ready() -> None:
    """Ask until the service is ready."""
    while True:
        with contextlib.suppress(urllib.error.URLError):
            get("/health/ready")
            return
        time.sleep(0.01)


def timed(path: str, body: bytes | None = None) -> tuple[float, Any]:
    """Seconds of one call, and its answer."""
    start = time.perf_counter()
    answer = get(path, body)
    return time.perf_counter() - start, answer


def summary(starts: list[dict[str, float]]) -> str:
    """The results as Markdown."""
    rows = []
    for name, words in FIGURES.items():
        values = [start[name] for start in starts]
        rows.append((words, *(f"{value:.4g}" for value in (statistics.median(values), min(values), max(values)))))
    return (
        f"{table(('figure', 'median', 'least', 'most'), rows)}\n\n{machine()}, one worker of one thread; {len(starts)} "
        f"starts; {datetime.now(UTC).date()}. Made by `python benchmarks/service.py`."
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description="Start-up, memory and the time of /evaluate.")
    add_write(parser)
    arguments = parser.parse_args()
    starts = [measure() for _ in range(STARTS)]
    print(summary(starts))
    write(arguments.write, summary(starts) + "\n", starts)


if __name__ == "__main__":
    main()
