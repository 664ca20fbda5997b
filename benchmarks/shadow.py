"""Does a shadow model delay responses?

One worker without a shadow model and two with one (a tenth of the pictures, and all) run side by side. They get the
same open loop of 28x28 pictures in turn, in another order each round; a worker that gets none is idle.

    python benchmarks/shadow.py --write benchmarks/results/shadow
"""

import argparse
import contextlib
import random
import re
import statistics
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.load import Outcome, Request, open_loop
from benchmarks.report import add_write, machine, table, write
from model.plots.style import encode_png
from tests.servers import port_of, service

SHADOW = "fashionnet-deep"
SHARES = (None, 0.1, 1.0)
RATES = (100, 400)
"""Requests a second; one core answers about 1,500."""
SECONDS, ROUNDS = 3, 12


def picture() -> Request:
    """A 28x28 PNG, which the default model classifies."""
    image = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)
    return Request("/predict", "image/png", encode_png(Image.fromarray(image)))


@contextlib.contextmanager
def services() -> Iterator[dict[float | None, int]]:
    """The ports of the workers by share."""
    with contextlib.ExitStack() as stack:
        ports = {}
        for share in SHARES:
            shadow = {} if share is None else {"shadow_model": SHADOW, "shadow_share": share}
            server, _ = stack.enter_context(service(workers=1, log_level="error", **shadow))
            ports[share] = port_of(server)
        yield ports


def measure() -> dict[str, Any]:
    """Returns the outcomes of every rate and share, and what the shadow model did."""
    found: dict[tuple[int, float | None], list[Outcome]] = {(rate, share): [] for rate in RATES for share in SHARES}
    with services() as ports:
        for number in range(ROUNDS):
            for rate, share in random.Random(number).sample(sorted(found, key=str), len(found)):  # noqa: S311
                found[rate, share].append(open_loop(picture(), ports[share], rate, SECONDS, 32))
                time.sleep(0.5)  # the shadow model ends what it has begun
        outcomes = {str(share): shadow_outcomes(port) for share, port in ports.items() if share}
    rows = [summary(rate, share, runs) for (rate, share), runs in found.items()]
    return {"rows": rows, "outcomes": outcomes, "machine": machine(), "rounds": ROUNDS,
            "seconds": SECONDS, "date": datetime.now(UTC).date().isoformat()}  # fmt: skip


def summary(rate: int, share: float | None, runs: list[Outcome]) -> dict[str, Any]:
    """Returns the medians over the rounds, and their quartiles; latencies in ms."""
    row: dict[str, Any] = {"rate": rate, "share": share, "errors": sum(run.errors + run.refused for run in runs)}
    for name in ("p50", "p95", "p99"):
        low, middle, high = statistics.quantiles([getattr(run, name) for run in runs], n=4)
        row[name] = {"median": middle, "quartiles": [low, high]}
    return row


def shadow_outcomes(port: int) -> dict[str, int]:
    """Returns how many pictures the shadow model classified, and how many were dropped."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60).read().decode()
    counts = {"classified": 0, "dropped": 0}
    for outcome, value in re.findall(r'fashionnet_shadow_predictions_total{.*outcome="(\w+)".*} (\S+)', text):
        counts["dropped" if outcome == "dropped" else "classified"] += int(float(value))
    return counts


def as_markdown(found: dict[str, Any]) -> str:
    """Returns the results as a page."""
    rows = []
    for row in found["rows"]:
        cells = [f"{row[n]['median']:.2f} ({row[n]['quartiles'][0]:.2f} to {row[n]['quartiles'][1]:.2f})" for n in
                 ("p50", "p95", "p99")]  # fmt: skip
        rows.append((str(row["rate"]), str(row["share"] or "none"), *cells, str(row["errors"])))
    head = ("requests per second", "share for the shadow model", "p50 ms", "p95 ms", "p99 ms", "errors")
    outcomes = [(share, f"{n['classified']:,}", f"{n['dropped']:,}") for share, n in found["outcomes"].items()]
    return (
        "# Does a shadow model delay responses?\n\n"
        "Written by `python benchmarks/shadow.py`. One worker, an open loop of 28x28 PNGs; medians with quartiles.\n"
        f"{found['rounds']} rounds of {found['seconds']} s, {found['machine']}; {found['date']}.\n\n"
        f"{table(head, rows)}\n\n{table(('share', 'classified by the shadow model', 'dropped'), outcomes)}\n"
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_write(parser)
    arguments = parser.parse_args()
    found = measure()
    print(as_markdown(found))
    write(arguments.write, as_markdown(found), found)


if __name__ == "__main__":
    main()
