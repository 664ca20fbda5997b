"""Many pictures at once beside the bare engine, and predictions while the test set is measured.

python benchmarks/bulk.py --write benchmarks/results/bulk
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from PIL import Image, ImageFilter

from app.settings import read_settings
from benchmarks.load import Request, closed_loop
from benchmarks.report import add_write, machine, table, write
from model import WEIGHTS, Engine, create_engine, load_artifact
from model.cpu import usable_cores
from tests.pictures import encode
from tests.servers import service

ROOT = Path(__file__).parent.parent
SIZES = (64, 256)
CALLERS = (1, 4)
TURNS = 12
SECONDS = 1
"""Of a way into the service in one turn; half of it of the bare engine before and after it."""
BARE = "the bare engine, batches of 64"
BESIDE = {"alone": None, "while /evaluate runs": "/evaluate", "while /gallery draws": "/gallery"}


def started(workers: int) -> AbstractContextManager[tuple[subprocess.Popen[str], httpx.Client]]:
    """Starts our service on the same data as this process; its log, which nobody reads, has errors alone."""
    return service(workers=workers, log_level="error", data_dir=read_settings().data_dir)


def png(pixels: np.ndarray) -> bytes:
    """Pixels uint8 ``[28, 28]`` as a PNG."""
    return encode(Image.fromarray(pixels))


def drawn(count: int) -> np.ndarray:
    """The drawn example shirt, shifted a little each time, uint8 ``[count, 28, 28]``."""
    from model import preprocess

    shirt = preprocess((ROOT / "examples" / "shirt.png").read_bytes()).image
    return np.stack([np.roll(shirt, number % 5 - 2, axis=1) for number in range(count)])


class Figures(NamedTuple):
    """Of one way, medians over the turns."""

    rate: float
    """Images a second."""
    share: float
    """Of what the bare engine does just before and after it: a machine with neighbours changes its pace in seconds."""
    quartiles: tuple[float, float]
    """Of the shares."""


def bulk() -> dict[str, Figures]:
    """Each way of many pictures into one worker, in turns, beside the bare engine on one thread."""
    images, engine = drawn(max(SIZES)), create_engine("auto", load_artifact(WEIGHTS, "fashionnet"))
    with started(1) as (_, client):
        ways: dict[str, Callable[[], float]] = {}
        for size in SIZES:
            requests = {
                f"/v2 binary, {size} images": tensor_request(images[:size]),
                f"/predict/batch, {size} PNGs": form_request(client, images[:size]),
            }
            for (name, request), callers in itertools.product(requests.items(), CALLERS):
                ways[f"{name}, {callers} at a time"] = answered(request, client.base_url.port, size, callers)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in [BARE, *ways]}
        for turn in range(TURNS + 1):  # the first one warms up
            before = bare(engine, images)
            for name, measure in ways.items():
                rate, after = measure(), bare(engine, images)
                if turn:
                    found[name].append((rate, 2 * rate / (before + after)))
                    found[BARE].append((after, 2 * after / (before + after)))
                before = after
    return {name: figures(some) for name, some in found.items()}


def figures(some: list[tuple[float, float]]) -> Figures:
    """What rates and shares come to."""
    rates, shares = zip(*some, strict=True)
    lower, share, upper = statistics.quantiles(shares, n=4)
    return Figures(statistics.median(rates), share, (lower, upper))


def bare(engine: Engine, images: np.ndarray) -> float:
    """Images a second of the engine that is served, on one thread, in batches of 64."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() < start + SECONDS / 2:
        for first in range(0, len(images), 64):
            engine.run(images[first : first + 64])
        count += len(images)
    return count / (time.perf_counter() - start)


def answered(request: Request, port: int, size: int, callers: int) -> Callable[[], float]:
    """Measures the images a second that come back from so many callers, each with ``size`` images at a time."""
    return lambda: closed_loop(request, port, callers, SECONDS).rate * size


def in_turns(ways: dict[str, tuple[int, Callable[[], object]]], rounds: int) -> dict[str, float]:
    """The median rate of each way, images a second; the first turn warms up."""
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (count, call) in ways.items():
            start = time.perf_counter()
            call()
            if turn:
                rates[name].append(count / (time.perf_counter() - start))
    return {name: statistics.median(found) for name, found in rates.items()}


def tensor_request(images: np.ndarray) -> Request:
    """One inference request with the images as a binary tensor, the labels asked for."""
    head = json.dumps(
        {
            "inputs": [
                {"name": "images", "shape": list(images.shape), "datatype": "UINT8",
                 "parameters": {"binary_data_size": images.nbytes}}
            ],
            "outputs": [{"name": "logits", "parameters": {"binary_data": True}}],
        }
    ).encode()  # fmt: skip
    headers = {"Inference-Header-Content-Length": str(len(head))}
    return Request("/v2/models/fashionnet/infer", "application/octet-stream", head + images.tobytes(), headers)


def form_request(client: httpx.Client, images: np.ndarray) -> Request:
    """One form with the images as PNG files."""
    request = client.build_request("POST", "/predict/batch", files=[("files", png(image)) for image in images])
    return Request("/predict/batch", request.headers["content-type"], request.read())


def beside_evaluation(rounds: int) -> dict[str, tuple[float, float]]:
    """Predictions a second and their p99 in ms at 16 connections: alone, and beside an evaluation or galleries."""
    picture = png(drawn(1)[0])
    request = Request("/predict", "image/png", picture)
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(rounds):
        with started(usable_cores()) as (_, client):
            closed_loop(request, client.base_url.port, 16, 2)
            for name, path in BESIDE.items():
                with asked_again_and_again(client, path):
                    outcome = closed_loop(request, client.base_url.port, 16, 3)
                found.setdefault(name, []).append((outcome.rate, outcome.p99))
    return {
        name: (statistics.median(rate for rate, _ in rows), statistics.median(p99 for _, p99 in rows))
        for name, rows in found.items()
    }


@contextlib.contextmanager
def asked_again_and_again(client: httpx.Client, path: str | None) -> Iterator[None]:
    """Ask for ``path`` on a thread until the block ends; a gallery with another seed each time."""
    ended = threading.Event()

    def ask() -> None:
        number = 0
        while path and not ended.is_set():
            number += 1
            client.get(path, params={"seed": number} if "gallery" in path else None)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def photo(number: int) -> bytes:
    """One of the examples on a wall, 800 by 800 pixels, as a JPEG."""
    examples = sorted((ROOT / "examples").glob("*.png"))
    noise = np.random.default_rng(number).normal(200, 6, (800, 800, 3)).clip(0, 255)
    wall = Image.fromarray(noise.astype(np.uint8)).filter(ImageFilter.GaussianBlur(2))
    article = Image.open(examples[number % len(examples)]).convert("RGB").resize((500, 500))
    wall.paste(article, (150 + number % 50, 150))
    return encode(wall, "JPEG", quality=90)


def folders(rounds: int) -> dict[str, float]:
    """Pictures a second of scripts/predict.py over folders, and of decoding alone."""
    small = [png(image) for image in drawn(20_000)]
    found = folder("20,000 PNGs of 28x28", small, rounds, threads=1)
    photos = [photo(number) for number in range(40)] * 50
    return found | folder("2,000 JPEGs of 800x800", photos, rounds, usable_cores())


def folder(name: str, pictures: list[bytes], rounds: int, threads: int) -> dict[str, float]:
    """Of one folder; decoding is what is done to a picture before a network sees it, in so many threads."""
    from model import preprocess

    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(threads) as pool:
        for number, content in enumerate(pictures):
            Path(place, f"{number:05}.png").write_bytes(content)  # a decoder goes by the content
        files = sorted(Path(place).iterdir())
        script = [sys.executable, "scripts/predict.py", place, "--out", str(Path(place, "found.csv"))]

        def decode(some: list[Path]) -> None:
            for file in some:
                preprocess(file.read_bytes())

        def classify() -> None:
            subprocess.run(
                script, cwd=ROOT, check=True, capture_output=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
            )

        count = len(files)
        ways = {
            f"{name}, decoding alone, threads: {threads}": (
                count, lambda: list(pool.map(decode, [files[start : start + 16] for start in range(0, count, 16)])),
            ),
            f"{name}, scripts/predict.py FOLDER --out found.csv, start included": (count, classify),
        }  # fmt: skip
        return in_turns(ways, rounds)


def report(
    ways: dict[str, Figures], beside: dict[str, tuple[float, float]], files: dict[str, float], rounds: int
) -> str:
    """Markdown."""
    alone = beside["alone"][0]
    of_one = [
        (name, f"{rate:,.0f}", f"{share:.0%} ({lower:.0%}, {upper:.0%})")
        for name, (rate, share, (lower, upper)) in ways.items()
    ]
    of_all = [(name, f"{rate:,.0f}", f"{rate / alone:.0%}", f"{p99:.1f}") for name, (rate, p99) in beside.items()]
    tables = [
        table(("one worker", "images/s", "of the bare engine (quartiles)"), of_one),
        table(("16 connections, a worker a core", "predictions/s", "of alone", "p99 ms"), of_all),
        table(("a folder", "pictures/s"), [(name, f"{rate:,.0f}") for name, rate in files.items()]),
    ]
    return "\n\n".join(tables) + (
        f"\n\n{machine()}; {datetime.now(UTC).date()}. "
        f"Medians, in turns: in the first table {TURNS} of {SECONDS} s a way, each beside the bare engine just before "
        f"and after it, in the others {rounds}; load by wrk on the same cores. Made by `python benchmarks/bulk.py`.\n"
    )


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    add_write(parser)
    arguments = parser.parse_args()
    found = bulk(), beside_evaluation(arguments.rounds), folders(arguments.rounds)
    print(report(*found, arguments.rounds))
    write(arguments.write, report(*found, arguments.rounds), found)


if __name__ == "__main__":
    main()
