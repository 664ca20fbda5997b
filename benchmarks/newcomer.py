r"""How long a newcomer waits: from the clone to a response, to a photo on the page, and to a trained model.

    PYTHONPATH=. FASHIONNET_DATA_DIR=... python benchmarks/newcomer.py --write benchmarks/results/newcomer

The commands are those of README, in a fresh clone of the last commit in a temporary folder. They need port 8000,
Chromium, 7 GB of disk and the network. If FASHIONNET_DATA_DIR is set, the training does not download the data set.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.report import add_write, machine, table, write
from model.artifact import read_card
from model.installation import ROOT
from tests.browser import Page, browser
from tests.journeys.walks import ADDRESS, Walk, blocks_of, port_8000
from tests.pictures import encode, scene

TRAIN = 'make train ARGS="--epochs 1"'
HEAD = ("from the clone to", "seconds", "of which installation", "the rest")


class Stage(NamedTuple):
    """What a newcomer waits for."""

    name: str
    seconds: float
    installation: float
    """The part of ``seconds`` in which pip runs."""

    def row(self) -> tuple[str, ...]:
        """Returns the cells of the table."""
        return (self.name, *(f"{value:.0f}" for value in (*self[1:], self.seconds - self.installation)))


def clone_into(folder: Path) -> tuple[Walk, float]:
    """Returns a newcomer in a fresh clone, and the seconds that it took."""
    start = time.time()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    seconds = time.time() - start
    data = {name: os.environ[name] for name in ("FASHIONNET_DATA_DIR",) if name in os.environ}
    return Walk(folder, folder.with_suffix(".log"), **data), seconds


def first_results(folder: Path, photo: Path) -> list[Stage]:
    """Serves, then sends a picture by README's curl, and a photo by the page."""
    walk, cloned = clone_into(folder)
    shell = (block for block in blocks_of("README.md") if block.language == "sh")
    serve, send, *_ = (command for block in shell for command in block.commands)
    with port_8000(), browser(folder.parent) as driver:  # a newcomer's browser runs already
        try:
            start = time.time()
            walk.run(serve)
            walk.run(send)
            answered = time.time()
            page = Page(driver, ADDRESS)
            page.drop(photo)
            page.wait_until_classified()
            shown = time.time()
            print("the page shows", page.one("#answers .answer").text, flush=True)
        finally:
            walk.stop()
    installation = (folder / ".venv" / "serve.stamp").stat().st_mtime - start
    waits = {"the first response of curl": answered, "the first photo classified on the page": shown}
    return [Stage(name, cloned + end - start, installation) for name, end in waits.items()]


def trained_model(folder: Path) -> Stage:
    """Trains one epoch, serves the model by the command that the training prints, and sends a picture."""
    walk, cloned = clone_into(folder)
    start = time.time()
    serve = walk.run(TRAIN).strip().splitlines()[-1].partition("Serve it:")[2].strip()
    with port_8000():
        try:
            walk.run(serve)
            answer = json.loads(walk.run(f"curl -s -F file=@examples/shirt.png {ADDRESS}/predict"))
        finally:
            walk.stop()
    seconds = time.time() - start
    if answer["model_version"] != read_card(folder / "runs" / "baseline-1", "fashionnet").version:
        raise RuntimeError(f"another model answered: {answer}")
    installation = (folder / ".venv" / "train.stamp").stat().st_mtime - start
    return Stage("the response of a model trained for one epoch", cloned + seconds, installation)


def report(result: dict[str, Any]) -> str:
    """Returns the result as Markdown."""
    rows = [Stage(**stage).row() for stage in result["stages"]]
    note = f" {result['note']}." if result["note"] else ""
    made = (
        f"{result['machine']}; load average before: {result['load']:.1f}; {result['date']}.{note} "
        "Made by `python benchmarks/newcomer.py`.\n"
    )
    return "\n\n".join(["# A newcomer's first steps", table(HEAD, rows), made])


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, help="photo to drop on the page (default: a generated one)")
    parser.add_argument("--note", default="", help="what is to be known about the run, such as a busy machine")
    add_write(parser)
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        drawn = Path(name, "photo.jpg")
        drawn.write_bytes(encode(scene("wood", size=1200)[0], "JPEG"))
        stages = first_results(Path(name, "serve"), arguments.photo or drawn)
        stages += [trained_model(Path(name, "train"))]
    result = {"date": str(datetime.now(UTC).date()), "machine": machine(), "load": load, "note": arguments.note}
    result["stages"] = [stage._asdict() for stage in stages]
    print(report(result))
    write(arguments.write, report(result), result)


if __name__ == "__main__":
    main()
