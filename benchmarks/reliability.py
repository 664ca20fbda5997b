r"""The service under hostile requests, faults and overload; each part starts services of its own.

    PYTHONPATH=. FASHIONNET_DATA_DIR=... python benchmarks/reliability.py --fuzz 300000 --kills 30 --stops 20 \
        --terms 50 --reloads 20 --connections 1000 --head --overload 30 --soak 30 --write benchmarks/results/reliability

Without --write nothing is kept. Only the parts that are named run. Everything goes over the loopback interface. The
first lines of what was wrong with hostile requests go to the standard error.
"""

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Any

from benchmarks.faults.figures import Figure
from benchmarks.faults.fuzz import measure_fuzz
from benchmarks.faults.overload import measure_overload
from benchmarks.faults.processes import measure_kills, measure_reloads, measure_stops, measure_terms
from benchmarks.faults.slow_clients import measure_connections, measure_head
from benchmarks.faults.soak import measure_soak
from benchmarks.report import add_write, machine, table, write

Part = Callable[[], Iterator[Figure]]
HEAD = ("what", "figure", "measured", "bar", "met")


def parse_arguments() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--fuzz", type=int, metavar="N", help="mutated requests, and those that are made by hand")
    add("--seed", type=int, default=0, help="of the mutated requests")
    add("--callers", type=int, default=8, help="connections that send mutated requests")
    add("--kills", type=int, metavar="N", help="workers to kill under load")
    add("--stops", type=int, metavar="N", help="workers to stop for some seconds under load")
    add("--terms", type=int, metavar="N", help="services to tell to stop under load")
    add("--reloads", type=int, metavar="N", help="reloads of the models under load")
    add("--connections", type=int, metavar="N", help="silent connections, and as many with half a head")
    add("--head", action="store_true", help="a head of 64 MB")
    add("--overload", type=float, metavar="SECONDS", help="of each kind of expensive request")
    add("--soak", type=float, metavar="MINUTES", help="of mixed traffic")
    add_write(parser)
    return parser.parse_args()


def chosen(arguments: argparse.Namespace) -> Iterator[Part]:
    """Yields the parts that the command line names."""
    if arguments.fuzz:
        yield partial(measure_fuzz, arguments.fuzz, arguments.seed, arguments.callers)
    if arguments.head:
        yield measure_head
    counted = {"connections": measure_connections, "kills": measure_kills, "stops": measure_stops,
               "terms": measure_terms, "reloads": measure_reloads, "overload": measure_overload,
               "soak": measure_soak}  # fmt: skip
    for name, measure in counted.items():
        if amount := getattr(arguments, name):
            yield partial(measure, amount)


def report(figures: list[Figure], load: float) -> str:
    """Returns the figures as Markdown."""
    bars = [figure for figure in figures if figure.most is not None]
    notes = (
        f"{sum(figure.is_met for figure in bars)} of {len(bars)} bars are met. Services with two workers (for the head "
        "one), the load on the same cores; memory is the proportional set size of all processes of a service. "
        f"{machine()}; load average before: {load:.1f}; {datetime.now(UTC).date()}. "
        "Made by `python benchmarks/reliability.py`.\n"
    )
    return "\n\n".join(["# Reliability", table(HEAD, [figure.row() for figure in figures]), notes])


def as_json(figures: list[Figure], load: float) -> dict[str, Any]:
    """Returns the figures for the JSON file."""
    rows = [asdict(figure) for figure in figures]
    return {"date": str(datetime.now(UTC).date()), "machine": machine(), "load": load, "figures": rows}


def main() -> None:
    """Measures and reports; writes after every part, because all of them take hours."""
    arguments = parse_arguments()
    figures: list[Figure] = []
    load = os.getloadavg()[0]
    for part in chosen(arguments):
        for figure in part():
            figures.append(figure)
            print(" | ".join(figure.row()), flush=True)
        write(arguments.write, report(figures, load), as_json(figures, load))
    print(report(figures, load))


if __name__ == "__main__":
    main()
