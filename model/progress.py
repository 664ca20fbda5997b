"""Shows how far long work is: a bar on a terminal, lines in a log file."""

import sys
import time
from collections.abc import Iterable
from typing import Any, TextIO

from tqdm import tqdm

FIRST_SECONDS = 2
"""Work that takes less writes no line."""
LINE_SECONDS = 10
"""Between two lines."""
_LINE = "{desc}: {n:,} of {total:,}{unit}, {remaining} left{postfix}"


class _Lines:
    """Takes what a bar draws, as a file, and writes it as lines from time to time."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.due = time.monotonic() + FIRST_SECONDS

    def write(self, text: str) -> None:
        if text.strip() and time.monotonic() >= self.due:
            print(text.strip(), file=self.stream)
            self.due = time.monotonic() + LINE_SECONDS

    def flush(self) -> None:
        self.stream.flush()


def progress_bar(
    description: str, total: int, unit: str, items: Iterable[Any] | None = None, *, shown: bool = True
) -> "tqdm[Any]":
    """Returns a bar on the standard error stream, which vanishes at its end.

    Where that stream is no terminal, the bar is a line after two seconds, and another one every ten seconds.

    Args:
        description: what is done.
        total: the units of work.
        unit: the name of the units, in the plural.
        items: what the bar iterates over; without them, its method ``update`` counts.
        shown: whether anything is shown.
    """
    look: dict[str, Any] = {"unit_scale": True}
    if not sys.stderr.isatty():
        look = {"file": _Lines(sys.stderr), "mininterval": 1, "bar_format": _LINE}
    return tqdm(items, desc=description, total=total, unit=f" {unit}", leave=False, disable=not shown, **look)
